"""Opens the tiers of a cache: what the settings ask for and this machine can give, each with its one reason."""

from __future__ import annotations

import functools
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cachekit.errors import TierError, UsageError
from cachekit.files.places import prepare
from cachekit.model import Event, Mode, TierState
from cachekit.plan.gate import current, decide
from cachekit.tiers.memory import MemoryTier

if TYPE_CHECKING:
    from cachekit.artifacts.store import ArtifactStore
    from cachekit.config.resolve import Resolved
    from cachekit.files.digest_cache import Digests
    from cachekit.ipfs.sharing import Team
    from cachekit.ipfs.swarm.claiming import Claims
    from cachekit.model import Key, Record, Tier
    from cachekit.tiers.disk import DiskTier
    from cachekit.tiers.ledger import Ledger


REMEMBERED: Final = 16 << 20
"""Bytes that the arguments remembered by all lanes of a cache may take at most."""


def remembered(limit: int) -> int:
    """How many bytes they may take of the memory limit; the memory tier has the rest."""
    return min(REMEMBERED, limit // 8)


@dataclass(eq=False)
class Opened:
    """The tiers by name, fastest first; what each of them is; what failed on the way, to be told."""

    tiers: dict[str, Tier] = field(default_factory=dict)
    states: dict[str, TierState] = field(default_factory=dict)
    memory: MemoryTier | None = None
    disk: DiskTier | None = None
    team: Team | None = None
    artifacts: ArtifactStore | None = None
    digests: Digests | None = None
    noted: Digests | None = None
    near_tiers: tuple[tuple[str, Tier], ...] = ()
    failures: list[Event] = field(default_factory=list)

    @property
    def claims(self) -> Claims | None:
        """Who of the team computes what; None where there is no team."""
        return None if self.team is None else self.team.tier.claims

    @property
    def near(self) -> tuple[str, ...]:
        """The names of the tiers on this machine, fastest first."""
        return tuple(name for name, _ in self.near_tiers)

    def failed(self, tier: str, reason: str, error: Exception) -> None:
        """Turns `tier` off for `error`, counted under its own reason, else under `reason`."""
        self.states[tier] = TierState(False, f"{error}")
        reason = error.reason if isinstance(error, TierError) else reason
        self.failures.append(Event("error", "", tier, reason, error=error))


def open_tiers(
    made: Opened,
    resolved: Resolved,
    environ: Mapping[str, str],
    ledger: Ledger,
    tell: Callable[[Event], None],
    log: logging.Logger,
    regain: Callable[[], None],
) -> None:
    """Memory, disk and IPFS, into `made`. Raises UsageError for a credential that only the user can repair.

    `tell` hears what the IPFS tier refuses later on; `regain` is called where the directory was taken away.
    """
    # The ledger first: memory watches its generation, which is mapped when it opens.
    _open_disk(made, resolved, ledger, log, regain)
    _open_memory(made, resolved, ledger)
    _open_team(made, resolved, environ, ledger, tell)
    made.near_tiers = tuple((name, made.tiers[name]) for name in ("memory", "disk") if name in made.tiers)


def _open_memory(made: Opened, resolved: Resolved, ledger: Ledger) -> None:
    limit = resolved.settings.memory_limit
    if limit:
        made.memory = MemoryTier(limit - remembered(limit), ledger.generation)
        made.tiers = {"memory": made.memory, **made.tiers}
    made.states["memory"] = TierState(bool(limit), resolved.reason("memory_limit"))


def _open_disk(
    made: Opened, resolved: Resolved, ledger: Ledger, log: logging.Logger, regain: Callable[[], None]
) -> None:
    settings = resolved.settings
    try:
        prepare(settings.dir)
        ledger.open()
    except (TierError, UsageError, OSError) as error:
        made.failed("disk", "directory", error)
        return
    # Not at import: diskcache brings pickle and SQLite along, a quarter of what `import cachekit` would take.
    from cachekit.artifacts import progress
    from cachekit.artifacts.store import ArtifactStore
    from cachekit.files.digest_cache import Digests
    from cachekit.tiers.disk import DiskTier

    made.disk = DiskTier(settings.dir, settings.size_limit, report=log.warning, regain=regain, stored=ledger.stored)
    made.tiers["disk"] = made.disk
    made.artifacts = ArtifactStore(settings.dir / "artifacts", told=progress.tell)
    mode = functools.partial(_mode_of, settings.mode)
    made.digests = Digests(settings.dir / "digests", mode).open()
    made.noted = Digests(settings.dir / "notes", mode)
    made.states["disk"] = TierState(True, resolved.reason("dir"))


def _mode_of(mode: Mode) -> Mode:
    return decide(mode, current())


def _open_team(
    made: Opened, resolved: Resolved, environ: Mapping[str, str], ledger: Ledger, tell: Callable[[Event], None]
) -> None:
    if resolved.settings.ipfs == "off" or made.artifacts is None:
        reason = resolved.reason("ipfs") if resolved.settings.ipfs == "off" else "there is no cache directory"
        made.states["ipfs"] = TierState(False, reason)
        ledger.veil = _veiling(resolved)
        return
    from cachekit.ipfs.sharing import Team

    try:
        made.team = Team(
            resolved, environ, lambda reason: tell(Event("error", "", "ipfs", reason)), ledger, made.artifacts
        )
    except (TierError, OSError, sqlite3.Error) as error:
        made.failed("ipfs", "init_failed", error)
        return
    made.tiers["ipfs"] = made.team.tier


def _veiling(resolved: Resolved) -> Callable[[Key, Record], Sequence[tuple[str, str]]]:
    # Invalidations that came from other machines while IPFS was on hold on; what reads them is imported when there are any.
    @functools.cache
    def reader() -> Callable[[Key, Record], Sequence[tuple[str, str]]]:
        from cachekit.ipfs.sharing import veiling

        return veiling(resolved)

    return lambda key, record: reader()(key, record)
