"""The files of artifacts in the daemon: named by CIDs that are computed here, sent behind the call, fetched when wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cachekit.artifacts.manifest import File, Manifest
from cachekit.artifacts.progress import Progress, counter, tell
from cachekit.artifacts.store import ArtifactStore
from cachekit.errors import IntegrityError, TierError, TierUnavailable
from cachekit.files.parallel import at_once
from cachekit.ipfs.breaker import Breaker, Deadline
from cachekit.ipfs.content.chunks import ChunkCipher
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.pins import Pins
from cachekit.ipfs.content.transfer import IDLE_SECONDS, Remote, Transfer
from cachekit.ipfs.content.unixfs import BlockOf, read_file
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.outbox.queue import Item
from cachekit.ipfs.trust.credential import Credential
from cachekit.model import ARTIFACT

_MANIFEST_BYTES: Final = 128 << 20
"""What a million files come to."""
_CODEC: Final = bytes([len(ARTIFACT)]) + ARTIFACT.encode()


@dataclass(frozen=True)
class SharedFiles:
    """What `Team` needs for artifacts. Everything may raise TierError."""

    transport: Engine
    credential: Credential
    store: ArtifactStore
    breaker: Breaker

    def named(self, namespace: str, manifest: Manifest, *, sealed: bool) -> Manifest:
        """The manifest with the CID that each file will have in the daemon; one pass over the files."""
        transfer = self._transfer(namespace, sealed=sealed)

        def named(file: File, go_on: Callable[[], None]) -> File:
            if file.link:
                return file
            cid = transfer.cid_of(self.store.blob(file.sha256), progress=lambda _done: go_on())
            tell(Progress("hashing", file.path or manifest.name, file.size, file.size))
            return file._replace(cid=cid)

        return replace(manifest, files=tuple(at_once(named, manifest.files, name="cachekit-cid")), sealed=sealed)

    def fetch(self, namespace: str, manifest: Manifest, missing: Sequence[File]) -> None:
        """Brings `missing` files here, several at a time; each is verified before it counts."""
        if not all(file.cid for file in missing):
            raise TierError("the artifact was built where IPFS was off: its files stayed there", reason="not_shared")
        remotes = [Remote(file.path or manifest.name, file.cid, file.size, file.sha256) for file in missing]
        counters = {remote.sha256: counter("fetching", remote.name, remote.size) for remote in remotes}
        if not self.breaker.allows():
            raise TierUnavailable("the daemon did not answer a moment ago", reason="unreachable")
        self.breaker.call(
            lambda: self._transfer(namespace, sealed=manifest.sealed).fetch_all(
                remotes,
                lambda remote: self.store.partial(remote.sha256),
                lambda remote, partial, known: self.store.publish(remote.sha256, partial, known),
                have=lambda remote: self.store.has(remote.sha256),
                progress=lambda remote, done: counters[remote.sha256](done),
            )
        )

    def pieces(self, namespace: str, file: File, *, sealed: bool, name: str) -> Iterator[bytes]:
        """A file that is here, as it is stored in the daemon, leaf by leaf."""
        progress = counter("exporting", file.path or name, file.size)
        return self._transfer(namespace, sealed=sealed).pieces(self.store.blob(file.sha256), progress=progress)

    def bring(self, namespace: str, manifest: Manifest, missing: Sequence[File], block_of: BlockOf, work: Path) -> None:
        """Takes `missing` files into the store out of blocks that are at hand; each is verified before it counts.

        `work` is a directory for them meanwhile.
        """
        transfer = self._transfer(namespace, sealed=manifest.sealed)
        for file in missing:
            remote = Remote(file.path or manifest.name, file.cid, file.size, file.sha256)
            progress = counter("importing", remote.name, remote.size)
            transfer.bring(remote, work / file.sha256, block_of, progress=progress)
            self.store.publish(file.sha256, work / file.sha256)

    def send(self, item: Item, deadline: Deadline) -> bool:
        """Stores the files of a queued artifact in the daemon; False where they are no longer here to be sent.

        TierUnavailable `unfinished` at the deadline: the item stays queued, and begins anew.
        """
        manifest = Manifest.decode(item.payload)
        transfer = self._transfer(item.namespace, sealed=manifest.sealed)
        for number, file in enumerate(manifest.files):
            if file.link or not file.cid:
                continue
            path = self.store.blob(file.sha256)
            if not path.exists():
                return False
            name = f"cachekit/{self.credential.namespace_id(item.namespace)}/{self._label(item, manifest, number)}"
            progress = _until(deadline, counter("adding", file.path or manifest.name, file.size))
            # Pinned as it is stored: what would be pinned afterwards may have been collected meanwhile.
            with _within(deadline):
                seconds = min(IDLE_SECONDS, deadline.left())
                pin = bool(item.pin) and Pins(self.transport).is_free(file.cid, Deadline(seconds))
                if transfer.add(path, name, pin=pin, progress=progress, until=deadline.at) != file.cid:
                    return False
        return True

    def _label(self, item: Item, manifest: Manifest, number: int) -> str:
        if not manifest.sealed:
            return f"{manifest.digest[:16]}/{manifest.files[number].path or manifest.name}"
        # Whoever runs the daemon reads the names of its pins, and is to learn nothing from those of sealed files.
        return f"{self.credential.tag(item.namespace, manifest.digest).hex()}/{number}"

    def _transfer(self, namespace: str, *, sealed: bool) -> Transfer:
        return Transfer(self.transport, ChunkCipher.of(self.credential, namespace) if sealed else None)


@dataclass(frozen=True)
class Holdings:
    """What pinned artifacts keep in the daemon besides their own entries: the files of their manifests.

    Of all machines whose segments were read. Every method may raise TierError.
    """

    transport: Engine
    table: Table

    def manifest(self, namespace: str, cid: str, deadline: Deadline) -> Manifest | None:
        """What an entry's payload says; None where that is no artifact, where it does not open, or is gone."""
        try:
            stored = read_file(
                cid, lambda block: self.transport.block_get(block, timeout=deadline.left()), limit=_MANIFEST_BYTES
            )
            plain = stored if stored.startswith(_CODEC) else self.table.credential.unseal(namespace, stored)
            return Manifest.decode(plain[len(_CODEC) :]) if plain.startswith(_CODEC) else None
        except TierError as error:
            if isinstance(error, IntegrityError) or error.reason in ("not_found", "oversized"):
                return None
            raise

    def pinned(self, deadline: Deadline) -> dict[str, tuple[str, Manifest]]:
        """CID of the entry's payload → namespace and manifest, of every artifact that is still referred to."""
        manifests = dict[str, tuple[str, Manifest]]()
        for pin in self.table.pins():
            # Bytes stored by hand have no namespace: whatever they look like, they are nobody's artifact.
            manifest = self.manifest(pin.namespace, pin.cid, deadline) if pin.namespace else None
            if manifest is not None:
                manifests[pin.cid] = (pin.namespace, manifest)
        return manifests


@contextlib.contextmanager
def _within(deadline: Deadline) -> Iterator[None]:
    """What times out because the deadline has come says nothing about the daemon: it is `unfinished`."""
    try:
        yield
    except TierUnavailable as error:
        if error.reason == "timeout":
            deadline.left()
        raise


def _until(deadline: Deadline, progress: Callable[[int], None]) -> Callable[[int], None]:
    def passed(count: int) -> None:
        deadline.left()
        progress(count)

    return passed
