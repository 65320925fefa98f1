"""The commands of a team: inviting a machine, joining with a token, and who is in it."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from cachekit.cache import by_cid, operations
from cachekit.cache.default import default
from cachekit.cli.report import NO, YES, Report, instant, printable, table
from cachekit.config.resolve import data_dir, resolve
from cachekit.errors import TierError, UsageError

FIRST_ENTRY_SECONDS: Final = 10.0


def invite(options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import install as node
    from cachekit.ipfs.node.joining import founded, place_of
    from cachekit.ipfs.sharing import credential_file
    from cachekit.ipfs.trust.credential import load_credential
    from cachekit.ipfs.trust.tokens import Token

    settings, place = resolve(os.environ).settings, place_of(data_dir(), options.address)
    credential = load_credential(settings.secret, settings.secret_file or credential_file())
    binary = node.install(data_dir(), report=_say).path
    team, address = founded(data_dir(), binary, place, platform.node())
    given = credential.reader() if options.read_only else credential
    known = tuple(peer for peer in team.peers if peer != address)
    token = Token(given, team.swarm_key, (address, *known), settings.namespace, options.name or "")
    _say(f"others dial this machine at {address}; on the other one: cachekit node join TOKEN")
    return Report({"token": token.to_text()}, token.to_text())


def join(options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import install as node
    from cachekit.ipfs.node.joining import entered, keep_credential, listening
    from cachekit.ipfs.node.team import NodeTeam, read_team
    from cachekit.ipfs.sharing import credential_file
    from cachekit.ipfs.trust.tokens import Token

    token = Token.parse(options.token)
    settings = resolve(os.environ).settings
    if settings.secret:
        raise UsageError("CACHEKIT_SECRET is set and would win over the token; unset it and join again")
    aside = keep_credential(settings.secret_file or credential_file(), token.credential.to_text())
    if aside is not None:
        _say(f"the credential that stood there is in {aside} now")
    known = read_team(data_dir())
    name = options.name or token.name or platform.node()
    team = NodeTeam(token.swarm_key, listening(token.peers), (), token.peers, name)
    if known is not None and known.swarm_key == team.swarm_key:
        team = replace(known, peers=tuple(dict.fromkeys((*token.peers, *known.peers))), name=name)
    running = entered(data_dir(), node.install(data_dir(), report=_say).path, team)
    return _first_entry(running.api, token.namespace)


def _first_entry(api: str, namespace: str) -> Report:
    """Waits for it, as a process of this machine that shares."""
    began, entries = time.monotonic(), 0
    from cachekit.cache.default import configure

    configure(ipfs="rw", namespace=namespace)
    while not entries and time.monotonic() - began < FIRST_ENTRY_SECONDS:
        try:
            entries = operations.sync()
        except TierError as error:
            _say(f"not yet: {error}")
        time.sleep(0.1)
    online = [one.name for one in _members() if one.online]
    seconds = round(time.monotonic() - began, 1)
    seen = f"{entries} entries after {seconds} s" if entries else "no entry yet: the team has none, or nobody is there"
    where = ", ".join(map(printable, online)) or "nobody"
    data = {"api": api, "entries": entries, "seconds": seconds, "online": online, "namespace": namespace}
    return Report(data, f"joined; online: {where}; {seen}")


def status(_options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import daemon

    now = daemon.status(data_dir())
    text = f"Kubo {now.version} {now.reason} (pid {now.pid})" if now.running else now.reason
    data = {name: str(item) if isinstance(item, Path) else item for name, item in asdict(now).items()}
    team = _team()
    lines = [text, *_shown(team)] if team else [text]
    return Report({**data, **team}, "\n".join(lines), YES if now.running else NO)


def _team() -> dict[str, Any]:
    """What is known of the team; nothing where this machine is in none."""
    cache = default().ready()
    swarm = None if cache.team is None else cache.team.tier.swarm
    if cache.team is None or swarm is None:
        return {}
    heads, table_ = swarm.book.heads(), cache.team.table
    newest = {head.writer: head for head in heads}
    merged = table_.counts()
    names = {one.id: one.name for one in _members() if one.id} | {one.peer: one.name for one in _members()}
    members = [
        {
            "name": one.name, "role": one.role, "online": one.online, "writer": one.id,
            "head": newest[one.id].sequence if one.id in newest else 0, "entries": merged.get(one.id, 0),
            "lag": sum(head.writer == one.id for head in swarm.book.lacking("taken")),
            "seen": instant(one.seen) if one.seen else None,
        }
        for one in _members() if one.said
    ]  # fmt: skip
    offences = [
        {"who": names.get(one.who, one.who), "reason": one.reason, "times": one.times, "last": instant(one.last)}
        for one in swarm.book.offences()
    ]
    return {"members": members, "refused": offences, "entries": sum(merged.values())}


def _shown(team: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            one["name"],
            one["role"],
            "online" if one["online"] else f"offline since {one['seen']}",
            one["entries"],
            one["lag"],
        )
        for one in team["members"]
    ]
    lines = (
        ["", table(("MEMBER", "ROLE", "STATE", "ENTRIES", "LAG"), rows, right=2)]
        if rows
        else ["", "no member was heard yet"]
    )
    refused = [(one["who"], one["reason"], one["last"], one["times"]) for one in team["refused"]]
    return [*lines, "", table(("REFUSED FROM", "REASON", "LAST", "TIMES"), refused, right=1)] if refused else lines


def _members() -> list[Any]:
    team = by_cid.ipfs()
    return [] if team.tier.swarm is None else team.tier.swarm.book.members()


def _say(line: str) -> None:
    print(line, file=sys.stderr)
