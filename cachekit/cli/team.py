"""The commands of a team: inviting a machine, joining with a token, and who is in it."""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from cachekit.cache import by_cid, operations
from cachekit.cache.default import configure, default
from cachekit.cli.report import NO, YES, Report, instant, plain, printable, say, table
from cachekit.config.durations import duration
from cachekit.config.resolve import data_dir, resolve
from cachekit.errors import TierError, UsageError
from cachekit.model import FOREVER, NANOSECONDS

if TYPE_CHECKING:
    from cachekit.ipfs.index.members import Members
    from cachekit.ipfs.trust.credential import Credential
    from cachekit.ipfs.trust.roster import Roster

FIRST_ENTRY_SECONDS: Final = 10.0
SECRET_BYTES: Final = 32


def invite(options: argparse.Namespace) -> Report:
    from cachekit.ipfs.node import install as node
    from cachekit.ipfs.node.joining import founded, place_of
    from cachekit.ipfs.sharing import credential_of
    from cachekit.ipfs.trust.tokens import Token

    resolved, place = resolve(os.environ), place_of(data_dir(), options.address)
    credential = credential_of(resolved)
    if credential.seed is None:
        raise UsageError("only the owner's machine can invite: the one whose credential began the team")
    binary = node.install(data_dir(), report=say).path
    team, address = founded(data_dir(), binary, place, platform.node())
    given = credential.invited(options.name or "", writes=not options.read_only, expires=_expiry(options.expires))
    known = tuple(peer for peer in team.peers if peer != address)
    configure(ipfs="rw")  # also where a build machine would not
    invitation = given.invitation
    assert invitation is not None
    _change(credential, lambda roster: roster.inviting(invitation.certificate, credential.later))
    token = Token(given, team.swarm_key, (address, *known), resolved.settings.namespace, options.name or "")
    say(f"others dial this machine at {address}; on the other one: cachekit node join TOKEN")
    return Report({"token": token.to_text()}, token.to_text())


def revoke(options: argparse.Namespace) -> Report:
    ids, credential, members = _meant(options.name)

    def without(roster: Roster) -> Roster:
        for who in ids:
            roster = roster.revoking(who, members.seen(who))
        return roster

    _change(credential, without)
    text = f"{printable(options.name)} writes no more; `cachekit node rotate` keeps it from reading what comes"
    return Report({"revoked": ids}, text)


def rotate(_options: argparse.Namespace) -> Report:
    credential = by_cid.ipfs().credential
    roster = _change(credential, lambda roster: roster.rotating(credential, secrets.token_bytes(SECRET_BYTES)))
    text = "what is stored from now on opens with a new secret, which all who are not revoked have as they hear of it"
    return Report({"generation": len(roster.generations)}, text)


def distrust(options: argparse.Namespace) -> Report:
    ids, credential, _ = _meant(options.name)
    since = 0 if options.since is None else max(0, time.time_ns() - _nanoseconds(options.since))

    def without(roster: Roster) -> Roster:
        for who in ids:
            roster = roster.distrusting(who, since)
        return roster

    _change(credential, without)
    when = "" if options.since is None else f" in the last {options.since}"
    return Report(
        {"distrusted": ids, "since": since}, f"what {printable(options.name)} stored{when} counts no more, anywhere"
    )


def _meant(name: str) -> tuple[list[str], Credential, Members]:
    team = by_cid.ipfs()
    members = team.table.members
    ids = members.named(name)
    if not ids:
        known = ", ".join(sorted({one["name"] for one in members.roster().invited.values()})) or "nobody"
        raise UsageError(
            f"{printable(name)} is neither a member nor a writer that is known here; invited: {printable(known)}"
        )
    return ids, team.credential, members


def _change(credential: Credential, change: Callable[[Roster], Roster]) -> Roster:
    """Publishes the roster as `change` makes it; UsageError where this is not the owner's machine."""
    team = by_cid.ipfs()
    roster = change(team.table.members.roster()).signed(credential)
    team.tier.publish_roster(roster)
    return roster


def _nanoseconds(text: str) -> int:
    seconds = duration(text)
    if seconds is None:
        raise UsageError(f"{text!r} is no time; write it like 90d, 12h or 30m")
    return int(seconds * NANOSECONDS)


def _expiry(text: str | None) -> int:
    return FOREVER if text is None else time.time_ns() + _nanoseconds(text)


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
    aside = keep_credential(settings.secret_file or credential_file(), options.token.strip())
    if aside is not None:
        say(f"the credential that stood there is in {aside} now")
    known = read_team(data_dir())
    name = options.name or token.name or platform.node()
    team = NodeTeam(token.swarm_key, listening(token.peers), (), token.peers, name)
    if known is not None and known.swarm_key == team.swarm_key:
        team = replace(known, peers=tuple(dict.fromkeys((*token.peers, *known.peers))), name=name)
    running = entered(data_dir(), node.install(data_dir(), report=say).path, team)
    return _first_entry(running.api, token.namespace)


def _first_entry(api: str, namespace: str) -> Report:
    """Waits for it, as a process of this machine that shares."""
    began, entries = time.monotonic(), 0
    configure(ipfs="rw", namespace=namespace)
    while not entries and time.monotonic() - began < FIRST_ENTRY_SECONDS:
        try:
            entries = operations.sync()
        except TierError as error:
            say(f"not yet: {error}")
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
    team = _team()
    lines = [text, *_shown(team)] if team else [text]
    return Report({**plain(now), **team}, "\n".join(lines), YES if now.running else NO)


def _team() -> dict[str, Any]:
    """What is known of the team; nothing where this machine is in none."""
    cache = default().ready()
    swarm = None if cache.team is None else cache.team.tier.swarm
    if cache.team is None or swarm is None:
        return {}
    book, merged = swarm.book, cache.team.table.members.counts()
    heard, lacking = book.members(), [head.writer for head in book.lacking("taken")]
    newest = {head.writer: head.sequence for head in book.heads()}
    names = {one.id: one.name for one in heard if one.id} | {one.peer: one.name for one in heard}
    members = [
        {
            "name": one.name, "role": one.role, "online": one.online, "writer": one.id,
            "head": newest.get(one.id, 0), "entries": merged.get(one.id, 0),
            "lag": lacking.count(one.id),
            "seen": instant(one.seen) if one.seen else None,
        }
        for one in heard if one.said
    ]  # fmt: skip
    offences = [
        {"who": names.get(one.who, one.who), "reason": one.reason, "times": one.times, "last": instant(one.last)}
        for one in book.offences()
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
