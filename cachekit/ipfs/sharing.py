"""Puts the IPFS tier together: where the daemon is, which credential, and what state it all is in.

The door for sharing between daemons: whatever finds other writers' roots will feed the same index.
"""

from __future__ import annotations

import functools
import platform
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cachekit.artifacts.store import ArtifactStore
from cachekit.config.resolve import Resolved, config_dir, data_dir
from cachekit.config.settings import Settings
from cachekit.errors import TierError, UsageError
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.artifacts import SharedFiles
from cachekit.ipfs.index.index import Index
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.network import Network
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.node.process import listens, own_pid
from cachekit.ipfs.node.repo import recorded_api
from cachekit.ipfs.node.team import read_team
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.ipfs.swarm.announcing import Announcer
from cachekit.ipfs.swarm.book import Book
from cachekit.ipfs.swarm.following import Follower
from cachekit.ipfs.swarm.swarm import Swarm
from cachekit.ipfs.tier import IpfsTier
from cachekit.ipfs.trust.credential import Credential, WriterKey, load_credential
from cachekit.model import Key, Mark, Record, TierState
from cachekit.tiers.ledger import Ledger, veiled

DEFAULT_API: Final = "/ip4/127.0.0.1/tcp/5001"


class Team:
    """The IPFS tier of one cache directory with what belongs to it. Raises UsageError for a bad credential or address.

    What other machines invalidate goes into `ledger`, so that it ends hits in the local tiers too.
    """

    def __init__(
        self,
        resolved: Resolved,
        environ: Mapping[str, str],
        report: Callable[[str], None],
        ledger: Ledger,
        artifacts: ArtifactStore,
    ) -> None:
        settings = resolved.settings
        self._resolved = resolved
        self.credential = load_credential(settings.secret, settings.secret_file or credential_file())
        find = None if settings.ipfs_api else functools.partial(discovered, environ)
        self.transport = KuboTransport(settings.ipfs_api or discovered(environ), auth=settings.ipfs_auth, find=find)
        self._node = read_team(data_dir())
        self.transport.peers = bool(settings.peers or self._node)
        self.breaker = Breaker(self.transport.version)
        self.table = Table(settings.dir / "index.db", self.credential, report, _heeding(ledger))
        self.outbox = Outbox(settings.dir / "outbox.db", report)
        self.files = SharedFiles(self.transport, self.credential, artifacts, self.breaker)
        self.tier = IpfsTier(
            self.transport,
            self.table,
            self.outbox,
            self.breaker,
            writable=settings.ipfs != "ro" and self.credential.writes,
            timeout=settings.ipfs_timeout,
            writer=self._writer,
            report=report,
            files=self.files.send,
            swarm=self._swarm(settings, report) if settings.peers or self._node is not None else None,
        )
        ledger.veil = _veiling(self.credential)
        self.tier.listen(settings.namespace)

    def _swarm(self, settings: Settings, report: Callable[[str], None]) -> Callable[[Index], Swarm]:
        network, book = Network(self.transport), Book(settings.dir / "swarm.db", report)
        writable = settings.ipfs != "ro" and self.credential.writes
        node = self._node
        peers = (*settings.peers, *(node.peers if node is not None else ()))

        def announcer(topics: Callable[[], bool]) -> Announcer:
            return Announcer(network, self.table, book, self._writer, topics, report)

        def me() -> tuple[str, str, str]:
            name = node.name if node is not None and node.name else platform.node()
            return (self._writer().id if writable else "", name, "writer" if writable else "reader")

        return lambda index: Swarm(
            network,
            Follower(network, index, self.table, book, report),
            announcer if writable else None,
            book,
            self.credential,
            self.breaker,
            settings.dir / "swarm.lock",
            me=me,
            peers=peers,
            reachable=functools.partial(reachable, peers, () if node is None else node.dialled),
            report=report,
        )

    def _writer(self) -> WriterKey:
        return WriterKey.load(config_dir(), self.credential)

    @property
    def api(self) -> str:
        """The multiaddr of the daemon's RPC."""
        return self.transport.api

    def state(self) -> TierState:
        """Asks the daemon for its version once; the reason names the deciding variable, or the error."""
        try:
            version = self.transport.version()
        except TierError as error:
            return TierState(False, f"{self.api}: {error}")
        return TierState(True, f"{self._resolved.reason('ipfs')}; Kubo {version} at {self.api}")

    def close(self, bound: float) -> None:
        deadline = Deadline(bound)
        self.tier.close(bound)
        self.breaker.close()
        if deadline.rest:
            self.transport.close()


def reachable(peers: Sequence[str], dialled: Sequence[str], listens: Sequence[str]) -> list[str]:
    """The addresses that others may dial: those that were said, else those of `listens` beyond this machine.

    Its own loopback is offered only where the team is on it, as its `peers` are.
    """
    identity = listens[0].rpartition("/p2p/")[2] if listens else ""
    if dialled and identity:
        return [address if "/p2p/" in address else f"{address}/p2p/{identity}" for address in dialled]
    return [one for one in listens if not _is_loopback(one) or any(map(_is_loopback, peers))]


def _is_loopback(address: str) -> bool:
    return address.startswith(("/ip4/127.", "/ip6/::1/"))


def _heeding(ledger: Ledger) -> Callable[[Sequence[Mark]], None]:
    def heed(marks: Sequence[Mark]) -> None:
        try:
            ledger.mark(marks)
        except (sqlite3.Error, OSError) as error:
            raise TierError(f"the invalidations of others could not be written: {error}", reason="ledger") from error

    return heed


def veiling(resolved: Resolved) -> Callable[[Key, Record], Sequence[tuple[str, str]]]:
    """What `Ledger.veil` is where IPFS is off: with the credential if there is one, for none is made. Raises TierError."""
    settings = resolved.settings
    file = settings.secret_file or credential_file()
    if not (settings.secret or file.exists()):
        return lambda _key, _record: ()
    try:
        return _veiling(load_credential(settings.secret, file))
    except UsageError as error:
        # Where IPFS is off nobody should have to repair it.
        raise TierError(f"{error}", reason="credential") from error


def _veiling(credential: Credential) -> Callable[[Key, Record], list[tuple[str, str]]]:
    def veils(key: Key, record: Record) -> list[tuple[str, str]]:
        tags = [("tag", veiled(credential.tag_code(tag))) for tag in record.tags]
        return [("key", veiled(credential.index_key(key.namespace, key.digest))), *tags]

    return veils


def credential_file() -> Path:
    """Outside the cache directory, so that emptying the cache keeps the credential."""
    return config_dir() / "credential"


def discovered(environ: Mapping[str, str]) -> str:
    """The multiaddr of the node that `cachekit node start` runs; else of the user's own; else Kubo's default.

    A killed daemon leaves its address behind: of several, the first at which somebody listens is meant.
    """
    node, home = data_dir() / "node", Path(environ.get("HOME") or Path.home())
    recorded = [recorded_api(repo) for repo in (node / "repo", Path(environ.get("IPFS_PATH") or home / ".ipfs"))]
    if recorded[0] and not own_pid(node):  # its port may be another program's by now
        recorded[0] = ""
    known = [api for api in recorded if api]
    return next(filter(listens, known), DEFAULT_API if not known or listens(DEFAULT_API) else known[0])
