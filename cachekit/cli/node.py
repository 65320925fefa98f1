"""The commands that speak to the IPFS daemon, or start one."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cachekit.cache import default as library
from cachekit.cache import operations
from cachekit.cli.answer import NO, YES, Answer, find_key, no_such, printable, table
from cachekit.config.resolve import data_dir
from cachekit.errors import TierUnavailable, UsageError


def flush(options: argparse.Namespace) -> Answer:
    operations.flush(options.timeout)
    shared = library.default().shared
    if shared is None:
        return Answer({"pending": 0, "ipfs": False}, "nothing to upload: IPFS is off")
    left = shared.tier.pending()
    text = f"{left} wait: this machine may only read" if left else "everything queued stands in the daemon"
    return Answer({"pending": left, "ipfs": True}, text, NO if left else YES)


def sync(_options: argparse.Namespace) -> Answer:
    cache = library.default()
    if cache.shared is None:
        raise TierUnavailable(f"IPFS is off: {cache.status()['ipfs'].reason}", reason="off")
    taken = operations.sync()
    return Answer({"entries": taken}, f"{taken} new entries of namespace {printable(cache.settings.namespace)}")


def pins(_options: argparse.Namespace) -> Answer:
    found = [{**pin, "key": pin["key"].hex()} for pin in operations.pins()]
    rows = [(pin["cid"], pin["namespace"] or "-", pin["key"]) for pin in found]
    return Answer(found, table(("CID", "NAMESPACE", "REFERENCE"), rows) if rows else "nothing is pinned")


def unpin(options: argparse.Namespace) -> Answer:
    subject: Any = options.subject
    if "/" in subject:
        subject = find_key(library.default(), subject)
        if subject is None:
            return no_such(options.subject)
    removed = operations.unpin(subject)
    if not removed:
        text = f"cachekit: no pin of {printable(options.subject)} is known here; `cachekit pins` lists them"
        return Answer({"removed": False}, text, NO, aside=True)
    return Answer({"removed": True}, "unpinned; the daemon follows at the next flush")


def store(options: argparse.Namespace) -> Answer:
    data = (
        b"".join(iter(lambda: os.read(sys.stdin.fileno(), 1 << 20), b""))
        if options.path == "-"
        else _read(Path(options.path))
    )
    cid = operations.store(data, pin=options.pin)
    return Answer({"cid": cid, "size": len(data), "pinned": options.pin}, cid)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; `store` takes one file") from error


def fetch(options: argparse.Namespace) -> Answer:
    data = operations.fetch(options.cid)
    answer = {"cid": options.cid, "size": len(data)}
    if options.output is None:
        return Answer({**answer, "data": base64.b64encode(data).decode("ascii")}, "", raw=data)
    try:
        Path(options.output).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{options.output} cannot be written: {error.strerror or error}") from error
    return Answer({**answer, "path": options.output}, f"{len(data)} bytes in {options.output}")


def install(_options: argparse.Namespace) -> Answer:
    from cachekit.ipfs.node import install as node

    found = node.install(data_dir(), report=_report)
    return Answer(_plain(found), f"Kubo {found.version} ({found.how}): {found.path}")


def start(options: argparse.Namespace) -> Answer:
    from cachekit.ipfs.node import daemon
    from cachekit.ipfs.node import install as node

    binary = node.install(data_dir(), report=_report).path
    now = daemon.start(data_dir(), binary=binary, socket=options.socket)
    return Answer(_plain(now), f"Kubo {now.version} {now.reason} (pid {now.pid})")


def stop(_options: argparse.Namespace) -> Answer:
    from cachekit.ipfs.node import daemon

    now = daemon.stop(data_dir())
    return Answer(
        _plain(now), "the node runs on: " + now.reason if now.running else "stopped", NO if now.running else YES
    )


def status(_options: argparse.Namespace) -> Answer:
    from cachekit.ipfs.node import daemon

    now = daemon.status(data_dir())
    text = f"Kubo {now.version} {now.reason} (pid {now.pid})" if now.running else now.reason
    return Answer(_plain(now), text, YES if now.running else NO)


def _plain(value: Any) -> dict[str, object]:
    return {name: str(item) if isinstance(item, Path) else item for name, item in asdict(value).items()}


def _report(line: str) -> None:
    print(line, file=sys.stderr)
