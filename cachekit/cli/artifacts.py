"""The commands about artifacts: what there is, what one is made of, and having it here."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachekit.cache import default as library
from cachekit.cache import operations
from cachekit.cli.answer import NO, Answer, instant, printable, table
from cachekit.keys.keyer import ARGUMENT

if TYPE_CHECKING:
    from cachekit.cache.registry import Artifact


def ls() -> Answer:
    found = [_row(one) for one in operations.registry().all()]
    rows = [
        (a["name"], a["made"] or "-", "yes" if a["pinned"] else "no", a["key"] or "-", a["files"], a["size"])
        for a in found
    ]
    text = table(("NAME", "MADE", "PINNED", "KEY", "FILES", "BYTES"), rows, right=2) if rows else "no artifacts"
    return Answer(found, text)


def show(text: str) -> Answer | None:
    """The artifact that `text` names on this machine, None where there is none."""
    if library.default().disk is None:
        return None
    found = operations.registry().find(text) if text else None
    return None if found is None else _shown(found)


def _shown(found: Artifact) -> Answer:
    manifest = found.manifest
    files = [file._asdict() for file in manifest.files]
    # What it was built with is said last, and never replaces what is known here.
    data = {**_row(found), "sealed": manifest.sealed, "built": dict(manifest.about), "contents": files}
    facts = {**_row(found), "sealed": manifest.sealed, **{_label(k): v for k, v in manifest.about.items()}}
    facts["used"] = facts["used"] or "not here"
    lines = [f"{printable(name):<14} {printable(str(value))}" for name, value in facts.items()]
    rows = [(f.path or manifest.name, f"-> {f.link}" if f.link else f.cid or "-", f.size) for f in manifest.files]
    return Answer(data, "\n".join([*lines, "", table(("FILE", "CID", "BYTES"), rows, right=1)]))


def _label(name: str) -> str:
    return f"from {name.removeprefix(ARGUMENT)}" if name.startswith(ARGUMENT) else f"built {name}"


def _row(found: Artifact) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "name": manifest.name,
        "kind": manifest.kind,
        "size": manifest.size,
        "files": len(manifest.files),
        "made": manifest.about.get("made", ""),
        "key": None if found.key is None else str(found.key),
        "digest": manifest.digest,
        "cid": found.cid or None,
        "pinned": found.pinned,
        "used": instant(found.used) if found.used else None,
    }


def restore(options: argparse.Namespace) -> Answer:
    # The shell's directory, not a relative path that a program in another one would misread.
    output = None if options.output is None else Path(options.output).absolute()
    with _lines():
        path = operations.restore(options.name, output)
    return Answer({"path": str(path)}, printable(str(path)))


def warm(options: argparse.Namespace) -> Answer:
    with _lines():
        path = operations.restore(options.artifact)
    return Answer({"path": str(path)}, f"here: {printable(str(path))}")


def absent(text: str) -> Answer:
    said = (
        f"cachekit: neither an entry on disk nor an artifact is called {printable(text)}; `cachekit ls` lists entries"
    )
    return Answer({"key": None}, f"{said}, `cachekit ls --artifacts` artifacts", NO, aside=True)


@contextlib.contextmanager
def _lines() -> Iterator[None]:
    """Progress as plain lines, where standard error is no terminal and would get bars."""
    if sys.stderr is None or sys.stderr.isatty():
        yield
        return
    log, handler = logging.getLogger("cachekit"), logging.StreamHandler(sys.stderr)
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
