"""Puts the IPFS tier together: where the daemon is, which credential, and what state it all is in.

The door for sharing between daemons: whatever finds other writers' roots will feed the same index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from cachekit.breaker import Breaker
from cachekit.config import Resolved, config_dir, data_dir
from cachekit.errors import TierError
from cachekit.index import Index
from cachekit.kubo import KuboTransport
from cachekit.model import TierState
from cachekit.outbox import Outbox
from cachekit.sealing import Credential, WriterKey, load_credential
from cachekit.tiers.ipfs import IpfsTier

DEFAULT_API: Final = "/ip4/127.0.0.1/tcp/5001"


class Shared:
    """The IPFS tier of one cache directory with what belongs to it. Raises UsageError for a bad credential or address."""

    def __init__(self, resolved: Resolved, environ: Mapping[str, str], report: Callable[[str], None]) -> None:
        settings = resolved.settings
        self._resolved = resolved
        self.api = settings.ipfs_api or discovered(environ)
        self.credential = load_credential(settings.secret, settings.secret_file or credential_file(environ))
        self.transport = KuboTransport(self.api, auth=settings.ipfs_auth)
        self.breaker = Breaker(self.transport.version)
        self.index = Index(settings.dir / "index.db", self.credential, report)
        self.outbox = Outbox(settings.dir / "outbox.db", report)
        self.tier = IpfsTier(
            self.transport,
            self.index,
            self.outbox,
            self.credential,
            self.breaker,
            writable=settings.ipfs != "ro" and can_certify(self.credential),
            timeout=settings.ipfs_timeout,
            writer=lambda: WriterKey.load(config_dir(environ), self.credential),
            report=report,
        )
        self._timeout = settings.ipfs_timeout

    def state(self) -> TierState:
        """Asks the daemon for its version once; the reason names the deciding variable, or the error."""
        try:
            version = self.transport.version()
        except TierError as error:
            return TierState(False, f"{self.api}: {error}")
        return TierState(True, f"{self._resolved.reason('ipfs')}; Kubo {version} at {self.api}")

    def pull(self, namespace: str, timeout: float = 10.0) -> int:
        """Reads segments that were published since; returns the number of new entries. Raises TierError."""
        return self.index.refresh(self.transport, namespace, timeout)

    def close(self, bound: float) -> None:
        end = time.monotonic() + bound
        self.tier.close(bound)
        self.breaker.close()
        if end > time.monotonic():
            self.transport.close()


def can_certify(credential: Credential) -> bool:
    """Whether the holder can make others accept what it writes; else it only reads."""
    return credential.seed is not None


def credential_file(environ: Mapping[str, str]) -> Path:
    """Outside the cache directory, so that emptying the cache keeps the credential."""
    return config_dir(environ) / "credential"


def discovered(environ: Mapping[str, str]) -> str:
    """The multiaddr of the node that `cachekit node start` runs; else of the user's own; else Kubo's default."""
    home = Path(environ.get("HOME") or Path.home())
    repositories = [data_dir(environ) / "node" / "repo", Path(environ.get("IPFS_PATH") or home / ".ipfs")]
    for repository in repositories:
        try:
            found = (repository / "api").read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if found:
            return found
    return DEFAULT_API
