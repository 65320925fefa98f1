"""Entries in a CAR: signed as in the shared index, sealed as in IPFS, and what each is called, for who has the secret.

    root / 00000000 / segment    lines as in the index, signed by whoever exported them
                      names      namespace, and per entry its key's digest, function and tags; sealed
                      payloads   what the lines name, in their order
                      files      the files of artifacts
           00000001 / …

Whoever has no secret sees codes, sizes and times; `ipfs dag import` takes it, and its pin keeps all of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from cachekit.errors import UNREADABLE, IntegrityError, TierError, UsageError
from cachekit.ipfs.content.car import FAN_OUT, CarFile, CarWriter, Link
from cachekit.ipfs.content.cids import CHUNK_BYTES
from cachekit.ipfs.content.unixfs import directory, read_file
from cachekit.ipfs.index.rows import codes_of, pin_end
from cachekit.ipfs.index.segments import ENTRY, MAX_BYTES, PIN_END, Line, decode, encode
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.model import EVERYWHERE

_SEQUENCE: Final = 0
"""No segment of the shared index has it: one out of a CAR that is put there counts for nothing."""
_MOST_BUNDLES: Final = 4096
_NAMES_BYTES: Final = 1 << 20
_MOST_NAMES_BYTES: Final = 16 << 20


class Entry(NamedTuple):
    """A line, and what it is called; `digest` is the key's, b"" where nobody said it. `until` is when its pin ends, or 0."""

    line: Line
    digest: bytes = b""
    function: str = ""
    tags: tuple[str, ...] = ()
    until: int = 0


class Bundler:
    """Writes entries into `car`, for who trusts `credential`, signed by `writer`. Raises OSError."""

    def __init__(self, car: CarWriter, credential: Credential, writer: WriterKey) -> None:
        self._car = car
        self._credential = credential
        self._writer = writer
        self._namespace = ""
        self._entries: list[tuple[Entry, Link]] = []
        self._files: list[Link] = []
        self._named = 0
        self._bundles: list[tuple[str, Link]] = []

    def add(self, namespace: str, entry: Entry, payload: Link, files: Sequence[Link] = ()) -> None:
        """An entry whose blocks are written already. UsageError where there are more than one file may have."""
        full = len(self._entries) == FAN_OUT or self._named > _NAMES_BYTES
        if self._entries and (full or namespace != self._namespace):
            self._close()
        self._namespace = namespace
        self._entries.append((entry, payload))
        self._files += files
        self._named += sum(map(len, (entry.function, *entry.tags)))

    def end(self) -> str:
        """The CID of the CAR's root, which is complete then."""
        if self._entries:
            self._close()
        root, _ = self._car.directory(self._bundles)
        self._car.end(root)
        return root

    def _close(self) -> None:
        if len(self._bundles) == _MOST_BUNDLES:
            raise UsageError("there are too many entries for one file: choose by --since, --function or --namespace")
        entries = [entry for entry, _ in self._entries]
        lines = [line for entry in entries for line in (entry.line, *pin_end(entry.line, entry.until))]
        trust = {"credential": self._credential, "namespace": self._namespace, "writer": self._writer}
        segment = encode(lines, sequence=_SEQUENCE, **trust)  # type: ignore[arg-type]
        parts = {
            "segment": self._car.file([segment]),
            "names": self._car.file(cut(self._sealed_names(entries))),
            "payloads": self._car.shelves([payload for _, payload in self._entries]),
            **({"files": self._car.shelves(self._files)} if self._files else {}),
        }
        self._bundles.append((f"{len(self._bundles):08d}", self._car.directory(parts.items())))
        self._entries, self._files, self._named = [], [], 0

    def _sealed_names(self, entries: list[Entry]) -> bytes:
        names = [(entry.digest.hex(), entry.function, entry.tags) for entry in entries]
        text = json.dumps({"namespace": self._namespace, "names": names}, separators=(",", ":"))
        return self._credential.seal(EVERYWHERE, text.encode())


def bundles(
    car: CarFile, credential: Credential, refuse: Callable[[IntegrityError], object]
) -> Iterator[tuple[str, list[Entry]]]:
    """Namespace and entries of each bundle that a writer of this credential signed; `refuse` is told of the others.

    Nothing is said of the payloads. Raises IntegrityError for a CAR that holds no bundles.
    """
    places = directory(car.root, car.block)
    if places is None or len(places) > _MOST_BUNDLES:
        raise IntegrityError("this CAR holds something else than a cache's entries", reason="not_an_export")
    # Whoever can sign nothing can still name what somebody signed a thousand times.
    seen = set[str]()
    for _, place in places:
        try:
            parts = dict(directory(place, car.block) or ())
            if parts.get("segment", "") in seen:
                continue
            bundle = _bundle(parts, car, credential)
            seen.add(parts["segment"])
        except TierError as error:
            refuse(error if isinstance(error, IntegrityError) else IntegrityError(f"{error}", reason="truncated"))
            continue
        yield bundle


def cut(data: bytes) -> Iterator[bytes]:
    """As the pieces of a file."""
    return (data[at : at + CHUNK_BYTES] for at in range(0, max(len(data), 1), CHUNK_BYTES))


def _bundle(parts: dict[str, str], car: CarFile, credential: Credential) -> tuple[str, list[Entry]]:
    try:
        signed = read_file(parts["segment"], car.block, limit=MAX_BYTES)
        sealed = read_file(parts["names"], car.block, limit=_MOST_NAMES_BYTES)
    except LookupError:
        raise IntegrityError("this CAR holds something else than a cache's entries", reason="not_an_export") from None
    try:
        namespace, names = _opened(credential, sealed)
    except IntegrityError as error:
        if error.reason == "unsealable":
            decode(signed, credential, "")  # who signed it says more
        raise
    segment = decode(signed, credential, namespace)
    lines = [line for line in segment.lines if line.kind == ENTRY]
    if segment.sequence != _SEQUENCE or len(lines) != len(names):
        raise _misnamed()
    ends = {(line.key, line.created): line.expires for line in segment.lines if line.kind == PIN_END}
    return namespace, [
        _entry(credential, namespace, line, name, ends.get((line.key, line.created), 0))
        for line, name in zip(lines, names, strict=True)
    ]


def _opened(credential: Credential, sealed: bytes) -> tuple[str, list[Any]]:
    try:
        found = json.loads(credential.unseal(EVERYWHERE, sealed))
        namespace, names = found["namespace"], found["names"]
    except UNREADABLE as error:
        raise _misnamed() from error
    if type(namespace) is not str or type(names) is not list:
        raise _misnamed()
    return namespace, names


def _entry(credential: Credential, namespace: str, line: Line, name: Any, until: int) -> Entry:
    try:
        digest, function, tags = bytes.fromhex(name[0]), name[1], tuple(name[2])
        texts = all(type(text) is str for text in (function, *tags))
    except UNREADABLE as error:
        raise _misnamed() from error
    # The names are anybody's who has the secret; the line, which is a writer's, says whether they are its own.
    codes = codes_of(credential, tags) if texts else ()
    named = len(digest) == 32 and credential.index_key(namespace, digest) == line.key and codes == line.tags
    if not texts or not (named or not digest):
        raise _misnamed()
    return Entry(line, digest, function, tags, until)


def _misnamed() -> IntegrityError:
    return IntegrityError("names and lines in this CAR do not belong together", reason="misnamed")
