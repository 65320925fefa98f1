"""What a pinned artifact keeps in the daemon besides its own entry: the files of its manifest, shared with others."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from cachekit.artifacts.manifest import Manifest
from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.unixfs import read_file
from cachekit.ipfs.credential import Credential
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.model import ARTIFACT

_CODEC: Final = bytes([len(ARTIFACT)]) + ARTIFACT.encode()


def opened(credential: Credential, namespace: str, stored: bytes) -> Manifest | None:
    """The manifest in an entry's payload as it is stored, sealed or not; None for everything else."""
    try:
        plain = stored if stored.startswith(_CODEC) else credential.unseal(namespace, stored)
        return Manifest.decode(plain[len(_CODEC) :]) if plain.startswith(_CODEC) else None
    except IntegrityError:
        return None


@dataclass(frozen=True)
class Holdings:
    """The manifests of pinned entries, of all machines whose segments were read. Every method may raise TierError."""

    transport: KuboTransport
    table: Table

    def manifest(self, namespace: str, cid: str, deadline: Deadline) -> Manifest | None:
        """What an entry's payload says; None where that is no artifact, where it does not open, or is gone."""
        try:
            stored = read_file(cid, lambda block: self.transport.block_get(block, timeout=deadline.left()))
        except IntegrityError:
            return None
        except TierError as error:
            if error.reason == "not_found":
                return None
            raise
        return opened(self.table.credential, namespace, stored)

    def pinned(self, deadline: Deadline) -> dict[str, tuple[str, Manifest]]:
        """CID of the entry's payload → namespace and manifest, of every artifact that is still referred to."""
        found = dict[str, tuple[str, Manifest]]()
        for pin in self.table.pins():
            # Bytes stored by hand have no namespace: whatever they look like, they are nobody's artifact.
            manifest = self.manifest(pin.namespace, pin.cid, deadline) if pin.namespace else None
            if manifest is not None:
                found[pin.cid] = (pin.namespace, manifest)
        return found

    def needless(self, gone: Collection[tuple[str, str]], deadline: Deadline) -> list[str]:
        """CIDs of files that only these entries, (namespace, CID of the payload), kept pinned."""
        released = [manifest for one in gone if (manifest := self.manifest(*one, deadline)) is not None]
        files = {file.cid for manifest in released for file in manifest.files if file.cid}
        if files:
            files -= {file.cid for _, manifest in self.pinned(deadline).values() for file in manifest.files}
        return [cid for cid in sorted(files) if not self.table.references(cid)]
