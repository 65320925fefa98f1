"""The commands that speak to the IPFS daemon, or start one."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cachekit import default as library
from cachekit.cli_answer import NO, YES, Answer, find_key, no_such, printable, table
from cachekit.config import data_dir
from cachekit.errors import TierUnavailable, UsageError


def flush(options: argparse.Namespace) -> Answer:
    library.flush(options.timeout)
    shared = library.default().shared
    if shared is None:
        return Answer({"pending": 0, "ipfs": False}, "nothing to upload: IPFS is off")
    return Answer({"pending": shared.tier.pending(), "ipfs": True}, "everything queued stands in the daemon")


def sync(_options: argparse.Namespace) -> Answer:
    cache = library.default()
    if cache.shared is None:
        raise TierUnavailable(f"IPFS is off: {cache.status()['ipfs'].reason}", reason="off")
    taken = library.sync()
    return Answer({"entries": taken}, f"{taken} new entries of namespace {printable(cache.settings.namespace)}")


def pins(_options: argparse.Namespace) -> Answer:
    found = [{**pin, "key": pin["key"].hex()} for pin in library.pins()]
    rows = [(pin["cid"], pin["namespace"] or "-", pin["key"]) for pin in found]
    return Answer(found, table(("CID", "NAMESPACE", "REFERENCE"), rows) if rows else "nothing is pinned")


def unpin(options: argparse.Namespace) -> Answer:
    subject: Any = options.subject
    if "/" in subject:
        subject = find_key(library.default(), subject)
        if subject is None:
            return no_such(options.subject)
    removed = library.unpin(subject)
    text = "unpinned; the daemon follows at the next flush" if removed else "no pin of it is known here"
    return Answer({"removed": removed}, text, YES if removed else NO)


def store(options: argparse.Namespace) -> Answer:
    path = Path(options.path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    cid = library.store(data, pin=options.pin)
    return Answer({"cid": cid, "size": len(data), "pinned": options.pin}, cid)


def fetch(options: argparse.Namespace) -> Answer:
    data = library.fetch(options.cid)
    answer = {"cid": options.cid, "size": len(data)}
    if options.output is None:
        return Answer({**answer, "data": base64.b64encode(data).decode("ascii")}, "", raw=data)
    try:
        Path(options.output).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{options.output} cannot be written: {error.strerror or error}") from error
    return Answer({**answer, "path": options.output}, f"{len(data)} bytes in {options.output}")


def install(_options: argparse.Namespace) -> Answer:
    from cachekit import node

    found = node.install(data_dir(os.environ), report=_report)
    return Answer(_plain(found), f"Kubo {found.version} ({found.how}): {found.path}")


def start(options: argparse.Namespace) -> Answer:
    from cachekit import daemon, node

    binary = node.install(data_dir(os.environ), report=_report).path
    now = daemon.start(data_dir(os.environ), binary=binary, socket=options.socket)
    return Answer(_plain(now), f"Kubo {now.version} {now.reason} (pid {now.pid})")


def stop(_options: argparse.Namespace) -> Answer:
    from cachekit import daemon

    now = daemon.stop(data_dir(os.environ))
    return Answer(
        _plain(now), "the node runs on: " + now.reason if now.running else "stopped", NO if now.running else YES
    )


def status(_options: argparse.Namespace) -> Answer:
    from cachekit import daemon

    now = daemon.status(data_dir(os.environ))
    text = f"Kubo {now.version} {now.reason} (pid {now.pid})" if now.running else now.reason
    return Answer(_plain(now), text, YES if now.running else NO)


def _plain(value: Any) -> dict[str, object]:
    return {name: str(item) if isinstance(item, Path) else item for name, item in asdict(value).items()}


def _report(line: str) -> None:
    print(line, file=sys.stderr)
