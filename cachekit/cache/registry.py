"""Artifacts as people know them, of this machine and of the team: found by what names them, restored, and dropped.

An artifact is named by its own name, its key, the CID of its manifest, or the beginning of its digest. Its entry (its
record on disk, or in IPFS) is its manifest, which says its files' CIDs; the store has the content of those that are here.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cachekit.artifacts.manifest import Manifest
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.artifacts import Holdings
from cachekit.ipfs.index.rows import cid_of
from cachekit.ipfs.index.segments import PINNED
from cachekit.keys.keyer import parse_key
from cachekit.model import ARTIFACT as PATH
from cachekit.model import Key, Record
from cachekit.tiers import records

if TYPE_CHECKING:
    from cachekit.artifacts.store import ArtifactStore
    from cachekit.ipfs.sharing import Team
    from cachekit.tiers.disk import DiskTier


CID: Final = re.compile(r"baf[ky][a-z2-7]{55}")
SECONDS: Final = 60.0
"""How long the daemon may take for manifests; files take as long as they do."""
_SHOWN: Final = 20
_FEWEST: Final = 4
"""Digits of a digest that may stand for it."""


class Artifact(NamedTuple):
    """An artifact and its `key`, None where nothing says it; `cid` is its manifest's, "" where it is in no IPFS.

    `used` is when it was last used here (ns since the epoch, to the hour), 0 where its content is elsewhere. Its files
    are sealed for `namespace`; `entry` says whether its record is on this machine's disk, and good.
    """

    manifest: Manifest
    namespace: str
    key: Key | None
    cid: str
    pinned: bool
    used: int = 0
    entry: bool = False

    def fits(self, text: str) -> bool:
        """Whether `text` names it: all of its name, key or CID, or the beginning of its digest."""
        begins = len(text) >= _FEWEST and self.manifest.digest.startswith(text)
        return begins or text in (self.manifest.name, self.cid) or (self.key is not None and text == str(self.key))


def key_of(manifest: Manifest, namespace: str = "") -> Key | None:
    """The key that the manifest says it was built for; None for one of another namespace than `namespace`."""
    try:
        key = parse_key(manifest.about.get("key", ""))
    except UsageError:
        return None
    return _named(key, manifest) if namespace in ("", key.namespace) else None


def _named(key: Key, manifest: Manifest) -> Key:
    return replace(key, function=manifest.about.get("function", ""))


def only(text: str, fitting: list[Artifact]) -> Artifact | None:
    """The one of `fitting` to take; None where there is none, UsageError where their contents differ."""
    fitting = preferred(fitting)
    if len({artifact.manifest.digest for artifact in fitting}) > 1:
        raise several(text, fitting)
    return max(fitting, key=lambda artifact: (artifact.entry, artifact.used), default=None)


def preferred(fitting: list[Artifact]) -> list[Artifact]:
    """What a call would be answered with goes before what merely lies in the store."""
    return [artifact for artifact in fitting if artifact.entry] or fitting


def several(text: str, fitting: list[Artifact]) -> UsageError:
    """What is said where `text` is not enough: a line for each, with its key and when it was made."""
    lines = [f"  {one.key or one.manifest.digest}  made {_made(one.manifest)}" for one in fitting[:_SHOWN]]
    more = [f"  and {len(fitting) - _SHOWN} more"] if len(fitting) > _SHOWN else []
    refusal = f"{text!r} fits {len(fitting)} artifacts; give one's key or the beginning of its digest:"
    return UsageError("\n".join([refusal, *lines, *more]))


def _made(manifest: Manifest) -> str:
    made = manifest.about.get("made", "")
    return made if made and made.isprintable() else "at an unknown time"


class Registry:
    """What `store`, `disk` and `team` know together. Everything may raise TierError.

    `ended` tells a record that was invalidated. What the team has is looked for in `namespace`, and where else this
    machine asked before.
    """

    def __init__(
        self,
        store: ArtifactStore,
        disk: DiskTier,
        team: Team | None,
        ended: Callable[[Key, Record], bool],
        namespace: str,
    ) -> None:
        self._store = store
        self._disk = disk
        self._team = team
        self._ended = ended
        self._namespace = namespace

    # -- what there is --------------------------------------------------------------------------------------

    def all(self) -> list[Artifact]:
        """Every artifact of this machine: those with an entry, newest first, then what only the store has."""
        stored = {(manifest.digest, manifest.name): (manifest, used) for manifest, used in self._store.entries()}
        referred = self._referred()
        artifacts, now = list[Artifact](), time.time_ns()
        for key, record, manifest in self._records():
            _, used = stored.get((manifest.digest, manifest.name), (manifest, 0))
            pinned = record.kept(now) or referred(key)
            artifacts.append(Artifact(manifest, key.namespace, key, self._cid(key), pinned, used, True))
        for artifact in artifacts:
            stored.pop((artifact.manifest.digest, artifact.manifest.name), None)
        answered = {artifact.key for artifact in artifacts}
        for manifest, used in stored.values():
            # A key that another content answers by now says nothing of this one any more.
            built_for = key_of(manifest)
            built_for = None if built_for in answered else built_for
            namespace = self._namespace if built_for is None else built_for.namespace
            artifacts.append(Artifact(manifest, namespace, built_for, self._cid(built_for), referred(built_for), used))
        return artifacts

    def find(self, text: str) -> Artifact | None:
        """The artifact of this machine with this name, key, CID, or beginning of a digest.

        Raises UsageError where that fits several contents.
        """
        return only(text, [artifact for artifact in self.all() if artifact.fits(text)])

    def key(self, text: str) -> Key | None:
        """The key of this machine's artifact with this name, or beginning of a digest. UsageError for several keys."""
        fitting = preferred([artifact for artifact in self.all() if artifact.fits(text) and text != artifact.cid])
        if len({artifact.key for artifact in fitting}) > 1:
            raise several(text, fitting)
        return fitting[0].key if fitting else None

    def find_far(self, text: str) -> Artifact | None:
        """The same among what the team shares: by key, by the CID of a manifest, or by name among what is pinned."""
        if self._team is None:
            return None
        if "/" in text:
            return self._by_key(self._team, parse_key(text))
        if CID.fullmatch(text):
            return self._by_cid(self._team, text)
        return only(text, [artifact for artifact in self._pinned(self._team) if artifact.fits(text)])

    # -- having it ------------------------------------------------------------------------------------------

    def path(self, artifact: Artifact, *, remember: bool, limit: float = math.inf) -> Path:
        """The artifact's read-only path; with `remember` calls hit it then.

        Files that are not here are fetched: TierError `oversized` where the whole is more than `limit` bytes.
        """
        store, team, manifest = self._store, self._team, artifact.manifest
        fetch = None if team is None else functools.partial(team.files.fetch, artifact.namespace, manifest)
        if store.have(manifest) is not None:
            path = store.assemble(manifest)
        elif manifest.size > limit:
            message = (
                f"{manifest.name!r} has {manifest.size} bytes; limit= or CACHEKIT_SIZE_LIMIT allows to fetch {limit}"
            )
            raise TierError(message, reason="oversized")
        else:
            path = store.complete(manifest, fetch)
        if remember and not artifact.entry and artifact.key is not None:
            # The files are here, which is what was asked for.
            with contextlib.suppress(TierError):
                self._remember(artifact.key, manifest)
        return path

    # -- keeping it, or not ---------------------------------------------------------------------------------

    def unpin(self, key: Key) -> bool:
        """Ends the exemption of a key's record on this disk; whether there was one."""
        record = self._disk.get(key)
        if record is None or not record.pin:
            return False
        header = records.peek(self._disk.raw(key.digest) or b"")
        # What stays on this machine goes on to.
        self._disk.put(replace(key, function=header.function, shareable=header.shared), replace(record, pin=False))
        return True

    def trim(self, limit: int) -> int:
        """Drops artifacts until the store has at most `limit` bytes: first those without an entry, then the longest
        unused ones; never a pinned one. Gives how many contents those were.
        """
        if self._store.volume() <= limit:
            return 0
        artifacts = self.all()
        pinned = {artifact.manifest.digest for artifact in artifacts if artifact.pinned}
        ranks = dict[str, tuple[bool, int]]()
        for artifact in artifacts:
            digest = artifact.manifest.digest
            if artifact.used:
                ranks[digest] = max(ranks.get(digest, (False, 0)), (artifact.entry, artifact.used))
        gone = 0
        for digest in sorted(ranks.keys() - pinned, key=ranks.__getitem__):
            if self._store.volume() <= limit:
                break
            self._store.remove(digest)
            for artifact in artifacts:
                if artifact.entry and artifact.key is not None and artifact.manifest.digest == digest:
                    self._disk.drop(artifact.key)
            gone += 1
        return gone

    # -- the parts ------------------------------------------------------------------------------------------

    def _records(self) -> Iterator[tuple[Key, Record, Manifest]]:
        for digest, header in list(self._disk.entries()):
            if header.codec != PATH:
                continue
            key = Key(header.namespace, digest, header.function, header.shared)
            try:
                record = self._disk.get(key)
                if record is None or not record.fresh(time.time_ns()) or self._ended(key, record):
                    continue
                manifest = Manifest.decode(record.payload)
            except IntegrityError:
                continue  # dropped by the tier, or nothing that could ever be a hit
            yield key, record, manifest

    def _remember(self, key: Key, manifest: Manifest) -> None:
        record = self._team.tier.get(key) if self._team is not None else None
        # Only what the team's index vouches for: a manifest alone may say anything about its key.
        if record is not None and record.payload == manifest.encode():
            self._disk.put(key, record)

    def _referred(self) -> Callable[[Key | None], bool]:
        """Tells whether the daemon keeps the artifact of a key for somebody."""
        if self._team is None or not (pins := self._team.table.pins()):
            return lambda _key: False
        references, index_key = {(pin.namespace, pin.key) for pin in pins}, self._team.credential.index_key
        return lambda key: key is not None and (key.namespace, index_key(key.namespace, key.digest)) in references

    def _cid(self, key: Key | None) -> str:
        entry = self._team.table.living(key.namespace, key.digest) if self._team is not None and key else None
        return "" if entry is None else cid_of(entry)

    def _by_key(self, team: Team, key: Key) -> Artifact | None:
        team.tier.pull(key.namespace)
        entry = team.table.living(key.namespace, key.digest)
        if entry is None:
            return None
        manifest = _holdings(team).manifest(key.namespace, cid_of(entry), Deadline(SECONDS))
        if manifest is None:
            return None
        return Artifact(manifest, key.namespace, _named(key, manifest), cid_of(entry), bool(entry.flags & PINNED))

    def _by_cid(self, team: Team, cid: str) -> Artifact | None:
        pins = team.table.references(cid)
        for namespace in dict.fromkeys([*(pin.namespace for pin in pins), self._namespace, *team.table.namespaces()]):
            manifest = _holdings(team).manifest(namespace, cid, Deadline(SECONDS))
            if manifest is not None:
                return Artifact(manifest, namespace, key_of(manifest, namespace), cid, bool(pins))
        return None

    def _pinned(self, team: Team) -> Iterator[Artifact]:
        team.tier.pull(self._namespace)
        for cid, (namespace, manifest) in _holdings(team).pinned(Deadline(SECONDS)).items():
            yield Artifact(manifest, namespace, key_of(manifest, namespace), cid, True)


def _holdings(team: Team) -> Holdings:
    return Holdings(team.transport, team.table)
