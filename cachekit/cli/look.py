"""The commands that only look: at totals, entries, settings and the machine's health."""

from __future__ import annotations

import argparse
import os
import string
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.cache.counters import TIERS, Snapshot, add
from cachekit.cache.default import default, disk
from cachekit.calls.answers.replies import NAME as REPLY
from cachekit.calls.answers.replies import unpack_reply
from cachekit.cli import artifacts
from cachekit.cli.doctor import examine
from cachekit.cli.explain import compare
from cachekit.cli.report import NO, YES, Nothing, Report, find_key, instant, no_such, printable, table
from cachekit.commands.notes import fold
from cachekit.config import resolve
from cachekit.errors import UsageError
from cachekit.model import FOREVER, Key

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.ipfs.index.segments import Line
    from cachekit.tiers.records import Header

_PREVIEW: Final = 400
"""Characters of a payload that `show` prints."""


def stats(options: argparse.Namespace) -> Report:
    disk()  # where the totals lie
    cache = default()
    cache.save_totals()
    fold(cache)
    functions = cache.ledger.totals()
    if options.function is not None:
        functions = {name: c for name, c in functions.items() if name == options.function}
        if not functions:
            why = f"nothing was counted for {printable(options.function)}; `cachekit stats` lists the functions"
            raise Nothing({"total": None, "functions": {}}, why)
    total = Snapshot(add(functions.values())).as_dict()
    plain = {name: Snapshot(counters).as_dict() for name, counters in sorted(functions.items())}
    return Report({"total": total, "functions": plain}, _stats_text(total, plain))


def _stats_text(total: dict[str, Any], functions: dict[str, Any]) -> str:
    head = ("FUNCTION", "CALLS", "MEMORY", "DISK", "IPFS", "MISSES", "HIT RATE", "SAVED S")
    rows = [_stats_row(name or "(none)", counted) for name, counted in [*functions.items(), ("total", total)]]
    lines = [table(head, rows, right=7)]
    for group in ("bypasses", "skipped"):
        lines += [f"{group}: {printable(reason)}  {amount}" for reason, amount in sorted(total[group].items())]
    for tier, reasons in sorted(total["errors"].items()):
        lines += [f"errors: {tier}: {printable(reason)}  {amount}" for reason, amount in sorted(reasons.items())]
    return "\n".join(lines)


def _stats_row(name: str, counted: dict[str, Any]) -> tuple[object, ...]:
    hits = [counted["hits"][tier] for tier in TIERS]
    return (name, counted["calls"], *hits, counted["misses"], f"{counted['hit_rate']:.1%}",
            f"{counted['seconds']['saved']:.1f}")  # fmt: skip


def ls(options: argparse.Namespace) -> Report:
    if options.artifacts:
        return artifacts.ls()
    entries = [_entry(digest, header) for digest, header in disk().entries()]
    rows = [(e["key"], e["function"], e["codec"], e["created"], e["expires"] or "never", e["size"]) for e in entries]
    text = table(("KEY", "FUNCTION", "CODEC", "CREATED", "EXPIRES", "BYTES"), rows, right=1) if rows else "no entries"
    return Report(entries, text)


def _entry(digest: bytes, header: Header) -> dict[str, Any]:
    return {
        **header._asdict(),
        "pin": bool(header.pin),
        "key": str(Key(header.namespace, digest)),
        "created": instant(header.created),
        "expires": None if header.expires == FOREVER else instant(header.expires),
    }


def show(options: argparse.Namespace) -> Report:
    tier = disk()
    artifact = artifacts.show(options.key)
    if artifact is not None:
        return artifact
    if options.key and "/" not in options.key and not set(options.key) <= set(string.hexdigits):
        raise artifacts.absent(options.key)
    key = find_key(options.key)
    record = tier.get(key)
    header = next((header for digest, header in tier.entries() if digest == key.digest), None)
    if record is None or header is None:
        raise no_such(options.key)
    reply = unpack_reply(record.payload) if record.codec == REPLY else None
    content, about = (record.payload, {}) if reply is None else (reply.body, reply.about)
    text = content[: 4 * _PREVIEW].decode("utf-8", "backslashreplace")
    shown = {**_entry(key.digest, header), **about, "preview": text[:_PREVIEW]}
    return Report(shown, "\n".join(f"{name:<10} {printable(str(value))}" for name, value in shown.items()))


def blame(options: argparse.Namespace) -> Report:
    key, cache = find_key(options.key), default()
    entry = None if cache.team is None else cache.team.table.find(key.namespace, key.digest)
    header = next((header for digest, header in disk().entries() if digest == key.digest), None)
    if entry is None and header is None:
        raise no_such(options.key)
    created = header.created if header is not None else entry.created if entry is not None else 0
    data = {"key": str(key), "stored": instant(created), **_writer(cache, key, entry, header)}
    if header is not None:
        record = disk().get(key)
        about = unpack_reply(record.payload).about if record is not None and record.codec == REPLY else {}
        code = cache.notes.of(header.function, cache.noted).code_of(key)
        data |= {"function": header.function, "code": code or "not known here", **about}
    return Report(data, "\n".join(f"{name:<10} {printable(str(value))}" for name, value in data.items()))


def _writer(cache: Cache, key: Key, entry: Line | None, header: Header | None) -> dict[str, str]:
    """Who stored it: of a copy from another machine that machine, as far as the index still names it."""
    if cache.team is None or entry is None:
        return {"by": "this machine"}
    members, team = cache.team.table.members, cache.team.tier.swarm
    writer = members.writer(members.wrote(cache.team.credential.namespace_id(key.namespace), entry.key))
    if header is not None and not set(members.tags(writer.id, header.created)) & set(header.tags):
        return {"by": "this machine"}
    seen = {one.id: one.name for one in (team.book.members() if team is not None else ())}
    name = writer.name or seen.get(writer.id, "")
    return {"by": name or "a machine of the owner's", "writer": writer.id}


def env(options: argparse.Namespace) -> Report:
    resolved = resolve.resolve(os.environ)
    if options.write is not None:
        return _written(Path(options.write), resolved)
    rows = resolve.explain(resolved)
    columns = ("variable", "value", "source", "reason") if options.explain else ("variable", "value")
    text = table([name.upper() for name in columns], [[_shown(row[name]) for name in columns] for row in rows])
    file = None if resolved.file is None else str(resolved.file)
    lines = [text, *([f"file: {file}"] if file else []), *(f"warning: {warning}" for warning in resolved.warnings)]
    data = {"settings": rows, "file": file, "warnings": list(resolved.warnings)}
    return Report(data, "\n".join(lines))


def _written(path: Path, resolved: resolve.Resolved) -> Report:
    """The settings that somebody said, in a new file; secrets are left where they are."""
    names, left = resolve.render(resolved)
    if path.name == "pyproject.toml":
        raise UsageError("env --write makes a file of its own, such as cachekit.toml; pyproject.toml has other tables")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in names.values()))
    except OSError as error:
        why = "stands there already; name another file" if path.exists() else error.strerror or str(error)
        raise UsageError(f"{path} {why}") from error
    notes = [f"{name} is a secret and was left out" for name in left]
    data = {"file": str(path), "settings": list(names), "left_out": left}
    return Report(data, "\n".join([f"wrote {len(names)} settings to {path}", *notes]))


def _shown(value: object) -> object:
    return "-" if value is None else value


def doctor(options: argparse.Namespace) -> Report:
    if options.compare is not None:
        return compare(options.compare)
    findings = examine(os.environ, default)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<6}  {finding.check}: {printable(finding.text)}")
        lines += [f"        -> {printable(finding.remedy)}"] if finding.remedy else []
    failed = any(finding.state == "failed" for finding in findings)
    return Report({"ok": not failed, "checks": [asdict(f) for f in findings]}, "\n".join(lines), NO if failed else YES)
