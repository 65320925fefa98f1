"""Puts the IPFS tier together: where the engine is, which credential, which team, and what state it all is in."""

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
from cachekit.ipfs.content.engine import Engine
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
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.ipfs.trust.tokens import load_credential
from cachekit.model import Key, Mark, Record, TierState
from cachekit.tiers.ledger import Ledger, veiled

DEFAULT_API: Final = "/ip4/127.0.0.1/tcp/5001"
_COLLECTING_SECONDS: Final = 60.0


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
        self.credential = credential_of(resolved)
        # Read from its file, and certified, once: each publication asks for it several times.
        self._writer = functools.cache(lambda: writer_of(self.credential))
        kubo = None if settings.store else kubo_of(settings, environ)
        self.transport: Engine = kubo or directory_of(settings)
        self._node = read_team(data_dir()) if kubo is not None else None
        self.breaker = Breaker(self.transport.version)
        self.table = Table(settings.dir / "index.db", self.credential, report, _heeding(ledger))
        self.outbox = Outbox(settings.dir / "outbox.db", report)
        self.files = SharedFiles(self.transport, self.credential, artifacts, self.breaker)
        self.tier = IpfsTier(
            self.transport,
            self.table,
            self.outbox,
            self.breaker,
            writable=settings.ipfs != "ro" and self.credential.writes and self.transport.writable,
            timeout=settings.ipfs_timeout,
            writer=self._writer,
            report=report,
            files=self.files.send,
            swarm=None if kubo is None else self._swarm(kubo, settings, report),
        )
        ledger.veil = _veiling(self.credential)
        self.tier.listen(settings.namespace)

    def _swarm(
        self, kubo: KuboTransport, settings: Settings, report: Callable[[str], None]
    ) -> Callable[[Index], Swarm] | None:
        node = self._node
        if node is None and not settings.peers:
            return None
        kubo.peers = True
        network, book = Network(kubo), Book(settings.dir / "swarm.db", report)
        writable = settings.ipfs != "ro" and self.credential.writes
        peers = (*settings.peers, *(node.peers if node is not None else ()))

        def announcer(swarm: Swarm) -> Announcer:
            return Announcer(network, self.table, book, self._writer, swarm, report)

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

    @property
    def api(self) -> str:
        """Where the engine is: the multiaddr of the daemon's RPC, or the URL of a directory."""
        return self.transport.api

    def state(self) -> TierState:
        """Asks the engine for its version once; the reason names the deciding variable, or the error."""
        try:
            version = self.transport.version()
        except TierError as error:
            return TierState(False, f"{self.api}: {error}")
        return TierState(True, f"{self._resolved.reason('ipfs')}; {self.transport.kind} {version} at {self.api}")

    def collect(self) -> int:
        """Has the engine drop the blocks that nobody needs; how many, 0 where this machine may not write. TierError."""
        if not (self.tier.writable and self.breaker.allows()):
            return 0
        return self.breaker.call(lambda: self.transport.collect(timeout=_COLLECTING_SECONDS))

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


def kubo_of(settings: Settings, environ: Mapping[str, str]) -> KuboTransport:
    """The Kubo that the settings name, else the one that is found. Raises UsageError; asks nobody yet."""
    find = None if settings.ipfs_api else functools.partial(discovered, environ)
    return KuboTransport(settings.ipfs_api or discovered(environ), auth=settings.ipfs_auth, find=find)


def directory_of(settings: Settings) -> Engine:
    """The directory that `CACHEKIT_STORE` names. Raises UsageError; asks nobody yet."""
    assert settings.store is not None
    if settings.store.startswith("file:"):
        from cachekit.ipfs.directory.mounted import Mounted

        return Mounted(settings.store, founding=settings.ipfs != "ro")
    from cachekit.ipfs.directory.web import Web

    return Web(settings.store, auth=settings.ipfs_auth)


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
        function = ("function", veiled(credential.function_code(key.function)))
        return [("key", veiled(credential.index_key(key.namespace, key.digest))), function, *tags]

    return veils


def credential_of(resolved: Resolved) -> Credential:
    """The credential that the settings name; made where there is none. Raises UsageError."""
    return load_credential(resolved.settings.secret, resolved.settings.secret_file or credential_file())


def writer_of(credential: Credential) -> WriterKey:
    """This machine's key for it. Raises UsageError where the credential only reads."""
    return WriterKey.load(config_dir(), credential)


def files_alone(credential: Credential, artifacts: ArtifactStore) -> SharedFiles:
    """The files of artifacts where IPFS is off: named, cut and sealed as ever, and nobody is asked."""
    transport = KuboTransport(DEFAULT_API)
    return SharedFiles(transport, credential, artifacts, Breaker(transport.version))


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
