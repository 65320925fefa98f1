"""The commands that speak to the IPFS daemon, or start one."""

from __future__ import annotations

import argparse
import base64
import os
import sys
from pathlib import Path

from cachekit.cache import by_cid, operations
from cachekit.cache.default import default
from cachekit.cli.report import NO, YES, Nothing, Report, find_key, plain, printable, say, table, unanswered
from cachekit.config.resolve import data_dir, resolve
from cachekit.errors import UsageError


def flush(options: argparse.Namespace) -> Report:
    operations.flush(options.timeout)
    team = default().team
    if team is None:
        return Report({"pending": 0, "ipfs": False}, "nothing to upload: IPFS is off")
    left = team.tier.pending()
    text = f"{left} wait: this machine may only read" if left else "everything queued stands in the daemon"
    return Report({"pending": left, "ipfs": True}, text, NO if left else YES)


def sync(_options: argparse.Namespace) -> Report:
    by_cid.ipfs()  # there is nobody to hear from where it is off
    new = operations.sync()
    return Report({"entries": new}, f"{new} new entries of namespace {printable(default().settings.namespace)}")


def pins(_options: argparse.Namespace) -> Report:
    known = [{**pin, "key": pin["key"].hex()} for pin in operations.pins()]
    rows = [(pin["cid"], pin["namespace"] or "-", pin["key"]) for pin in known]
    text = table(("CID", "NAMESPACE", "REFERENCE"), rows) if rows else "nothing is pinned"
    state = by_cid.ipfs().state()
    if state.on:
        return Report(known, text)
    print(f"cachekit: only what is known here: {unanswered(state.reason)}", file=sys.stderr)
    return Report(known, text, NO)


def unpin(options: argparse.Namespace) -> Report:
    text = options.subject
    if not operations.unpin(find_key(text) if "/" in text else text):
        why = f"no pin of {printable(text)} is known here; `cachekit pins` lists them"
        raise Nothing({"removed": False}, why)
    return Report({"removed": True}, "unpinned; the daemon follows at the next flush")


def store(options: argparse.Namespace) -> Report:
    data = _standard_input() if options.path == "-" else _read(Path(options.path))
    cid = by_cid.store(data, pin=options.pin, encrypt=options.encrypt)
    return Report({"cid": cid, "size": len(data), "pinned": options.pin}, cid)


def _standard_input() -> bytes:
    return b"".join(iter(lambda: os.read(sys.stdin.fileno(), 1 << 20), b""))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}; `store` takes one file") from error


def fetch(options: argparse.Namespace) -> Report:
    data = by_cid.fetch(options.cid, peers=options.peers, gateways=options.gateway or None)
    about = {"cid": options.cid, "size": len(data)}
    if options.output is None:
        return Report({**about, "data": base64.b64encode(data).decode("ascii")}, "", raw=data)
    try:
        Path(options.output).write_bytes(data)
    except OSError as error:
        raise UsageError(f"{options.output} cannot be written: {error.strerror or error}") from error
    return Report({**about, "path": options.output}, f"{len(data)} bytes in {options.output}")


def install(_options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import install as node

    kubo = node.install(data_dir(), report=say)
    return Report(plain(kubo), f"Kubo {kubo.version} ({kubo.how}): {kubo.path}")


def start(options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import daemon
    from cachekit.ipfs.node import install as node

    binary = node.install(data_dir(), report=say).path
    now = daemon.start(data_dir(), binary=binary, socket=options.socket)
    return Report(plain(now), f"Kubo {now.version} {now.reason} (pid {now.pid})")


def stop(_options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import daemon

    now = daemon.stop(data_dir())
    text = f"the node runs on: {now.reason}" if now.running else "stopped"
    return Report(plain(now), text, NO if now.running else YES)


def serve(options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import daemon
    from cachekit.ipfs.node import install as node
    from cachekit.ipfs.node.endpoint import place
    from cachekit.ipfs.node.metrics import Place
    from cachekit.ipfs.node.serve import Keeper, Pace
    from cachekit.ipfs.node.serve import serve as kept

    settings, home = resolve(os.environ).settings, data_dir()
    watched = None if options.metrics is None else place(options.metrics)
    binary = node.install(home, report=say).path

    def launch() -> daemon.NodeStatus:
        return daemon.start(home, binary=binary, socket=options.socket or False, storage_max=options.storage_max)

    keeper = Keeper(home, launch, say, Pace())
    kept(keeper, Place(settings.dir, settings.size_limit), say, watched)
    return Report({"restarts": keeper.restarts}, "ended")
