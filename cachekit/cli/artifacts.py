"""The commands about artifacts: what there is, what one is made of, and having it here."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachekit.cache import operations
from cachekit.cache.default import registry
from cachekit.cli.report import Nothing, Report, instant, printable, table
from cachekit.keys.keyer import ARGUMENT

if TYPE_CHECKING:
    from cachekit.cache.registry import Artifact


def ls() -> Report:
    known = [_row(artifact) for artifact in registry().all()]
    rows = [
        (a["name"], a["made"] or "-", "yes" if a["pinned"] else "no", a["key"] or "-", a["files"], a["size"])
        for a in known
    ]
    text = table(("NAME", "MADE", "PINNED", "KEY", "FILES", "BYTES"), rows, right=2) if rows else "no artifacts"
    return Report(known, text)


def show(text: str) -> Report | None:
    """The artifact that `text` names on this machine, None where there is none."""
    artifact = registry().find(text) if text else None
    return None if artifact is None else _shown(artifact)


def _shown(artifact: Artifact) -> Report:
    manifest = artifact.manifest
    files = [file._asdict() for file in manifest.files]
    # What it was built with is said last, and never replaces what is known here.
    known = {**_row(artifact), "sealed": manifest.sealed}
    data = {**known, "built": dict(manifest.about), "contents": files}
    facts = {**known, **{_label(name): text for name, text in manifest.about.items()}}
    facts["used"] = facts["used"] or "not here"
    lines = [f"{printable(name):<14} {printable(str(value))}" for name, value in facts.items()]
    rows = [(f.path or manifest.name, f"-> {f.link}" if f.link else f.cid or "-", f.size) for f in manifest.files]
    return Report(data, "\n".join([*lines, "", table(("FILE", "CID", "BYTES"), rows, right=1)]))


def _label(name: str) -> str:
    return f"from {name.removeprefix(ARGUMENT)}" if name.startswith(ARGUMENT) else f"built {name}"


def _row(artifact: Artifact) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "size": manifest.size,
        "files": len(manifest.files),
        "made": manifest.about.get("made", ""),
        "key": None if artifact.key is None else str(artifact.key),
        "digest": manifest.digest,
        "cid": artifact.cid or None,
        "pinned": artifact.pinned,
        "used": instant(artifact.used) if artifact.used else None,
    }


def restore(options: argparse.Namespace) -> Report:
    # The shell's directory, not a relative path that a program in another one would misread.
    output = None if options.output is None else Path(options.output).absolute()
    with _lines():
        path = operations.restore(options.name, output)
    return Report({"path": str(path)}, printable(str(path)))


def warm(options: argparse.Namespace) -> Report:
    with _lines():
        path = operations.restore(options.artifact)
    return Report({"path": str(path)}, f"here: {printable(str(path))}")


def export(options: argparse.Namespace) -> Report:
    from cachekit.cache.exporting import export_car

    chosen = {name: getattr(options, name) for name in ("tag", "function", "since", "namespace")}
    with _lines():
        data = export_car(options.file, **chosen)
    left = _left_out(data)
    if not data["entries"]:
        raise Nothing(data, f"nothing to export{left}")
    text = f"{data['entries']} entries, {data['artifacts']} of them artifacts, in {data['bytes']} bytes{left}"
    return Report(data, f"{text}\n{data['root']}")


def take(options: argparse.Namespace) -> Report:
    from cachekit.cache.importing import import_car

    with _lines():
        data = import_car(options.file)
    where = "into IPFS" if data["to"] == "ipfs" else "onto this disk"
    return Report(data, f"{data['entries']} entries, {data['artifacts']} of them artifacts, {where}{_left_out(data)}")


def _left_out(data: dict[str, Any]) -> str:
    skipped = ", ".join(f"{count} {printable(reason)}" for reason, count in sorted(data["skipped"].items()))
    return f"; left out: {skipped}" if skipped else ""


def absent(text: str) -> Nothing:
    why = f"neither an entry on disk nor an artifact is called {printable(text)}"
    return Nothing({"key": None}, f"{why}; `cachekit ls` lists entries, `cachekit ls --artifacts` artifacts")


@contextlib.contextmanager
def _lines() -> Iterator[None]:
    """Progress as plain lines, where standard error is no terminal and would get bars."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    log, handler = logging.getLogger("cachekit"), logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.name == log.name)  # what is logged of misses is no progress
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
