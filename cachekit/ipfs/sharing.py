"""Puts the IPFS tier together: where the daemon is, which credential, and what state it all is in.

The door for sharing between daemons: whatever finds other writers' roots will feed the same index.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cachekit.artifacts.store import ArtifactStore
from cachekit.config.resolve import Resolved, config_dir, data_dir
from cachekit.errors import TierError, UsageError
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.artifacts import SharedFiles
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.node.process import listens, own_pid
from cachekit.ipfs.node.repo import recorded_api
from cachekit.ipfs.outbox.queue import Outbox
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
        self.credential = credential_of(resolved)
        find = None if settings.ipfs_api else functools.partial(discovered, environ)
        self.transport = KuboTransport(settings.ipfs_api or discovered(environ), auth=settings.ipfs_auth, find=find)
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
            writer=lambda: writer_of(self.credential),
            report=report,
            files=self.files.send,
        )
        ledger.veil = _veiling(self.credential)
        self.tier.listen(settings.namespace)

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
