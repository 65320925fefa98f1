"""What may be wrong on this machine, and what to do about each."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from cachekit.cli.directory import examined
from cachekit.cli.report import Finding
from cachekit.config import resolve
from cachekit.errors import CachekitError, TierError, UsageError
from cachekit.files.locks import NO_LOCKS, has_locks
from cachekit.model import NANOSECONDS

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.config.resolve import Resolved
    from cachekit.ipfs.sharing import Team

_RECOMMENDED: Final = (0, 43)
_FEWEST: Final = 128
"""Descriptors that a process should have: threads that call at once take a few each."""
_LONG: Final = 600.0
"""Seconds after which what waits for the daemon has waited too long."""
_EPOCH: Final = 1_704_067_200
"""2024-01-01: no clock that is right shows less, and entries made by one that does expire at once elsewhere."""
_SECONDS: Final = 5.0
_AS_IT_SAYS: Final = "do as it says"


def examine(environ: Mapping[str, str], opened: Callable[[], Cache]) -> list[Finding]:
    """Every check that can be made; `opened` gives the cache. The directory and the credential are made if missing."""
    try:
        resolved = resolve.resolve(environ)
    except UsageError as error:
        return [Finding("settings", "failed", str(error), "correct the setting that it names")]
    findings = [*_settings(resolved), *_adapters(), _clock(), *_descriptors(), *_locks(), *examined(resolved.settings)]
    if (findings[-1].check, findings[-1].state) == ("directory", "failed"):
        return findings
    try:
        cache = opened()
    except CachekitError as error:
        check = "credential" if "SECRET" in str(error) else "cache"
        return [*findings, Finding(check, "failed", str(error), _AS_IT_SAYS)]
    return [*findings, *_team(cache, resolved, environ)]


def _settings(resolved: Resolved) -> Iterator[Finding]:
    for warning in resolved.warnings:
        yield Finding("settings", "failed", warning, "`cachekit env --explain` shows which value holds")
    if not resolved.warnings:
        yield Finding("settings", "ok", "no conflicts")


def _adapters() -> Iterator[Finding]:
    """Those that other distributions bring; none is imported."""
    from importlib.metadata import entry_points

    for entry in sorted(entry_points(group="cachekit.adapters"), key=lambda entry: entry.name):
        source = f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unknown distribution"
        yield Finding("adapter", "ok", f"{entry.name}: {entry.value}, of {source}")


def _clock() -> Finding:
    if time.time() >= _EPOCH:
        return Finding("clock", "ok", "plausible")
    return Finding("clock", "failed", "the clock shows a time before 2024", "set the clock: a TTL depends on it")


def _descriptors() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < _FEWEST:
        text = f"a process here may open {allowed} files: where none is left, calls pass by the cache"
        yield Finding("descriptors", "failed", text, "ulimit -n 1024")


def _locks() -> Iterator[Finding]:
    if not has_locks():
        yield Finding(
            "locks", "note", NO_LOCKS, "processes do not wait for each other's origin; nothing is wrong by it"
        )


def _team(cache: Cache, resolved: Resolved, environ: Mapping[str, str]) -> Iterator[Finding]:
    if resolved.settings.ipfs == "off":
        yield _credential_alone(resolved)
        yield Finding("daemon", "ok", f"not asked, IPFS is off: {resolved.reason('ipfs')}")
    elif cache.team is None:
        yield Finding("daemon", "failed", cache.status()["ipfs"].reason, "repair what the reason names")
    else:
        yield _credential(cache.team)
        engine = _store(cache.team) if resolved.settings.store else _daemon(cache.team, resolved, environ)
        yield engine
        if engine.text.startswith(cache.team.transport.kind):
            yield _namespaces(cache.team, resolved.settings.namespace)
            yield from _swarm(cache.team)
            if resolved.settings.ipfs != "ro" and cache.team.credential.writes:
                yield from _waiting(cache.team)


def _credential(team: Team) -> Finding:
    if team.credential.writes:
        return Finding("credential", "ok", "reads and writes")
    remedy = "for writing, use the owner's credential in CACHEKIT_SECRET"
    return Finding("credential", "note", "only reads: what this machine stores stays here", remedy)


def _credential_alone(resolved: Resolved) -> Finding:
    from cachekit.ipfs.sharing import credential_file
    from cachekit.ipfs.trust.tokens import load_credential

    settings = resolved.settings
    try:
        path = settings.secret_file or credential_file()
        if not settings.secret and not path.exists():
            return Finding("credential", "ok", "none yet; made when IPFS is first used")
        load_credential(settings.secret, path)
    except (CachekitError, OSError) as error:
        return Finding("credential", "failed", str(error), _AS_IT_SAYS)
    return Finding("credential", "ok", "can be read")


def _daemon(team: Team, resolved: Resolved, environ: Mapping[str, str]) -> Finding:
    from cachekit.ipfs.kubo.answers import numbers

    try:
        version = team.transport.version()
    except TierError as error:
        return _silent(team, resolved, environ, error)
    text = f"Kubo {version} at {team.api}"
    if numbers(version) < _RECOMMENDED:
        return Finding("daemon", "note", text, "0.43 is recommended; `cachekit node install` gets one")
    return Finding("daemon", "ok", text)


def _store(team: Team) -> Finding:
    engine = team.transport
    try:
        version = engine.version()
    except TierError as error:
        remedy = _STORE_REMEDIES.get(error.reason, "compare CACHEKIT_STORE; CACHEKIT_IPFS=off does without")
        return Finding("store", "failed", f"{team.api}: {error}", remedy)
    return Finding("store", "ok", f"{engine.kind} {version} at {team.api}{'' if engine.writable else ', only read'}")


_STORE_REMEDIES: Final = {
    "no_store": "mount it, or make the directory; CACHEKIT_STORE names it; CACHEKIT_IPFS=off does without",
    "timeout": "it hangs: look at the mount or the server; CACHEKIT_IPFS=off does without",
    "forbidden": "CACHEKIT_IPFS_AUTH is what the web server asks for, such as user:password",
    "tls": "the server's certificate must be one that this machine trusts",
}
_REMEDIES: Final = {
    "refused": "`cachekit node start` starts one; CACHEKIT_IPFS_API names another; CACHEKIT_IPFS=off does without",
    "timeout": "it hangs: end it and start it again; CACHEKIT_IPFS=off does without",
    "forbidden": "CACHEKIT_IPFS_AUTH is what the daemon's API.Authorizations say, such as bearer:TOKEN",
    "too_old": "`cachekit node install` and `cachekit node start`, or a newer daemon",
    "not_kubo": "another program answers there: CACHEKIT_IPFS_API names the daemon's RPC",
}


def _silent(team: Team, resolved: Resolved, environ: Mapping[str, str], error: TierError) -> Finding:
    from cachekit.ipfs.node.process import listens
    from cachekit.ipfs.sharing import discovered

    text, remedy = f"{team.api}: {error}", _REMEDIES.get(error.reason, _REMEDIES["refused"])
    if error.reason == "refused" and resolved.settings.ipfs_api and listens(other := discovered(environ)):
        return Finding("daemon", "failed", text, f"it may have moved: CACHEKIT_IPFS_API={other}, or do without it")
    # Nobody there is how most machines are, and no trouble unless one was asked for.
    absent = error.reason == "refused" and resolved.settings.ipfs == "auto"
    return Finding("daemon", "note" if absent else "failed", text, remedy)


def _waiting(team: Team) -> Iterator[Finding]:
    oldest = team.outbox.oldest()
    waited = time.time() - oldest / NANOSECONDS
    if oldest and waited > _LONG:
        text = f"{team.outbox.pending()} items wait to be sent, the oldest for {waited / 60:.0f} minutes"
        yield Finding("outbox", "failed", text, "`cachekit flush` sends them, or says what hinders it")


def _swarm(team: Team) -> Iterator[Finding]:
    from cachekit.ipfs.kubo.network import too_old

    swarm = team.tier.swarm
    if swarm is None:
        return
    try:
        if not swarm.network.has_topics(_SECONDS):
            old = too_old(swarm.network.transport.known_version())
            text = f"{old or 'the daemon has no pubsub'}: entries of other machines come by name, within half a minute"
            remedy = "`cachekit node install` gets a newer one" if old else "`ipfs config --json Pubsub.Enabled true`"
            yield Finding("topics", "note", text, remedy)
        connected = len(swarm.network.peers(_SECONDS))
    except TierError as error:
        yield Finding("team", "failed", f"the daemon does not say who is connected: {error}", "restart the daemon")
        return
    if connected:
        yield Finding("team", "ok", f"{connected} daemons of the team are connected; `cachekit node status` names them")
    else:
        text = "no daemon of the team is connected"
        yield Finding(
            "team", "failed", text, "see that one of CACHEKIT_PEERS, or who invited you, runs and can be dialled"
        )


def _namespaces(team: Team, namespace: str) -> Finding:
    from cachekit.ipfs.index.shelves import ROOT

    try:
        listed = team.transport.list(ROOT, timeout=_SECONDS) or []
    except TierError as error:
        remedy = "ask again; restart the daemon, if it is one"
        return Finding("namespaces", "failed", f"the index cannot be listed: {error}", remedy)
    spaces = {name for name, _, _ in listed if re.fullmatch(r"[0-9a-f]{32}", name)}
    swarm = team.tier.swarm
    spaces |= {head.space for head in swarm.book.heads()} if swarm is not None else set()
    if not spaces:
        return Finding("namespaces", "ok", "no entries there yet")
    if team.credential.namespace_id(namespace) in spaces:
        return Finding("namespaces", "ok", f"there are entries of {namespace!r} under this secret")
    text = f"other namespaces are there ({len(spaces)}), none under this secret and the name {namespace!r}"
    return Finding(
        "namespaces", "note", text, "where you expected hits, compare CACHEKIT_SECRET and CACHEKIT_NAMESPACE"
    )
