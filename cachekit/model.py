"""The words that all rooms share (Key, Record, Policy, Event, Reply, …), and the seams Tier, Codec and Listener.

Frozen data, without behaviour beyond what keeps a value well formed.
Wall-clock instants (`created`, `expires`, `at`) are integer nanoseconds since the epoch, because they are compared
between machines and with each other; durations are float seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Protocol


class Tier(Protocol):
    """One place. Knows nothing of its neighbours.

    Every method may raise TierError; `get` returns None for a miss and never a record that does not verify. `put` is
    complete when it returns, unless the tier says otherwise (IPFS queues durably). Safe from any thread and after fork.
    """

    @property
    def name(self) -> str: ...
    @property
    def blocking(self) -> bool: ...
    def get(self, key: Key) -> Record | None: ...
    def put(self, key: Key, record: Record) -> None: ...
    def drop(self, key: Key) -> bool: ...
    def close(self) -> None: ...


class Codec(Protocol):
    """Value to payload and back. `dump` raises CannotEncode for what would not come back the same."""

    def dump(self, value: Any) -> tuple[str, bytes]: ...
    def load(self, name: str, payload: bytes) -> Any: ...


class ArtifactCodec(Protocol):
    """An object as files, for `persist_artifact`. `save` writes a file or a directory at `path`, where nothing stands yet.

    `load` gives a new object out of a read-only copy of that; nothing of it may execute code that it finds there.
    """

    def save(self, value: Any, path: Path, /) -> None: ...
    def load(self, path: Path, /) -> Any: ...


class Listener(Protocol):
    """Told of every event, on the caller's thread: be quick, and do not raise."""

    def __call__(self, event: Event, /) -> None: ...


NANOSECONDS: Final = 1_000_000_000
SKEW: Final = 300 * NANOSECONDS
"""How far a clock, another machine's or an earlier one of this, may have run ahead of ours and still be believed."""
FOREVER: Final = 0
"""`Record.expires` of an entry that never expires."""

EVERYWHERE: Final = "*"
"""The namespace of a mark that covers a tag in all namespaces."""

ARTIFACT: Final = "path"
"""The codec of a function whose result is a file or a directory: what is stored is its manifest."""

Mode = Literal["on", "off", "refresh", "read-only", "replay"]
Coalesce = Literal["auto", "machine", "team"]
"""Who computes a key once: those of one machine, all of the team, or the team where the origin is slow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What cachekit knows about one operation of an SDK. Only when they are called may these functions import the SDK.

    Args:
        name: the operation's name in keys and statistics, such as "groq.chat".
        ttl: seconds, None for ever, "default" for the setting.
        neutral: names of arguments that do not change the answer; they are left out of the key.
        capture: takes the SDK's answer; the Reply to store, or None for what is no answer.
        restore: takes a Reply, whether a stream is wanted, and `Wanted.context`; the SDK's own value.
        judge: takes a Reply; in one word why it is not worth keeping, "" if it is.
        sampled: takes the arguments by name; whether asking again may give another answer.
        streams: takes the SDK's answer; whether it is a stream. What follows is for streams only.
        source: takes the stream; an iterator of the bytes that came over the wire.
        retold: takes the stream and such an iterator; a stream of the same kind that reads from it.
        head: takes the stream when it has ended; bytes to keep before its own, such as headers.
        finish: takes these and all bytes of a stream; the Reply to store.
    """

    name: str
    ttl: float | Literal["default"] | None = "default"
    neutral: frozenset[str] = frozenset()
    capture: Callable[[Any], Reply | None]
    restore: Callable[[Reply, bool, Any], Any]
    judge: Callable[[Reply], str]
    sampled: Callable[[Mapping[str, Any]], bool] = lambda _arguments: False
    streams: Callable[[Any], bool] = lambda _answer: False
    source: Callable[[Any], Any] = iter
    retold: Callable[[Any, Any], Any] = lambda _answer, pieces: pieces
    head: Callable[[Any], bytes] = lambda _answer: b""
    finish: Callable[[bytes], Reply] | None = None


class Missing(Enum):
    """The type of `MISS`: falsy, and never a value that a function could return."""

    MISS = "MISS"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "cachekit.MISS"


MISS: Final = Missing.MISS


@dataclass(frozen=True, slots=True)
class Key:
    """Identifies one call: `digest` is 32 bytes of SHA-256 over everything that decides the answer.

    `str(key)` is `<namespace>/<hex digest>`. `function` is the function's dotted name. `shareable` is False where the
    source cannot be had: other machines could not compute the same digest, so the entry stays here. `parts` are
    (name, readable text) pairs, filled by `key_for` only. `inputs` are paths among the arguments, with their content's
    digests.
    """

    namespace: str
    digest: bytes
    function: str = field(default="", compare=False)
    shareable: bool = field(default=True, compare=False)
    parts: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)
    inputs: tuple[tuple[Path, bytes], ...] = field(default=(), compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.digest.hex()}"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What a notebook shows."""
        printer.text("\n".join([str(self), *(f"  {name:<14} {text}" for name, text in self.parts)]))


@dataclass(frozen=True, slots=True)
class Record:
    """One stored thing.

    `created` is when the origin was *called*, so that whatever is invalidated during the call stays invalid.
    `expires` is `FOREVER` or the end of the TTL; `grace` is how many seconds longer it is kept, for the stale windows.
    `seconds` is what the origin took: what a hit saves. `pin` is whether it is kept: until unpinned (True), or, as any
    other number, until that instant.
    """

    codec: str
    payload: bytes
    created: int
    expires: int = FOREVER
    grace: float = 0.0
    seconds: float = 0.0
    tags: tuple[str, ...] = ()
    pin: int = False

    def fresh(self, now: int) -> bool:
        return self.expires == FOREVER or now < self.expires

    def kept(self, now: int) -> bool:
        """Whether it is pinned."""
        return self.pin == 1 or self.pin > now

    def usable(self, now: int, window: float) -> bool:
        """Whether the record is at most `window` seconds past its TTL."""
        return self.expires == FOREVER or now - self.expires < window * NANOSECONDS


@dataclass(frozen=True, slots=True)
class Retry:
    """When the decorated function is called again: after the exceptions in `on`, until there were `attempts` calls.

    The pause between two is at random and grows, or is what a Retry-After says; at most `max_wait` seconds.
    """

    on: tuple[type[BaseException], ...] | type[BaseException]
    attempts: int = 3
    max_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the decorator said, units normalised once. None means: whatever the settings say at the call.

    `pin` is True (until unpinned), or for how many seconds.
    """

    pin: float = False
    ttl: float | Literal["default"] | None = "default"
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    namespace: str | None = None
    version: str | None = None
    depends: tuple[Any, ...] = ()
    ignore: frozenset[str] = frozenset()
    key: Callable[[Mapping[str, Any]], Any] | None = None
    tags: tuple[str, ...] = ()
    cacheable: Callable[[Any], bool] | None = None
    retry: Retry | None = None
    codec: Any = "auto"
    sample: int = 0
    share: bool = True
    encrypt: bool = True
    pace: Literal["immediate", "recorded"] = "immediate"
    adapter: Adapter | None = None
    cache_truncated: bool = False
    cache_sampled: bool = True
    output: str | None = None
    scratch: str | None = None
    previous: str | None = None
    coalesce: Coalesce = "auto"


class Saving(NamedTuple):
    """What one answer of a model cost: `input` and `output` in tokens, `cost` in the price table's currency."""

    input: int = 0
    output: int = 0
    cost: float = 0.0


NOTHING_SAVED: Final = Saving()


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer as it was on the wire: `body` is the response's body, or all bytes of a stream.

    `about` is for people (model, model_version, system_fingerprint, …); `saving` is what each hit saves. `pieces` are a
    stream's chunks in order: (nanoseconds from the request to the chunk, its length in bytes).
    """

    kind: Literal["plain", "stream"]
    body: bytes
    about: Mapping[str, str] = field(default_factory=dict)
    saving: Saving = NOTHING_SAVED
    pieces: tuple[tuple[int, int], ...] = ()

    def told(self) -> Iterator[bytes]:
        """The body's chunks as they came; one chunk for an answer that was no stream."""
        place = 0
        for _, size in self.pieces or ((0, len(self.body)),):
            yield self.body[place : place + size]
            place += size


class Event(NamedTuple):
    """Something that happened, for listeners. A field that means nothing for an event is empty.

    `what`: hit, miss, coalesced (shares the value of a call under way; with
    tier `ipfs` another machine's), stale (served past its TTL), origin (returned),
    write (to one tier), store (to all), skipped (not stored), bypass (not cached) or error. `function` is a dotted name,
    `reason` the word that `stats()` counts it under, `size` the payload's bytes, `seconds` how long a hit or the origin
    took, `saved` how long the origin once took for the value now served, `saving` what it cost. `synthetic`: a stream
    whose chunks were made of an answer that was none.
    """

    what: str
    function: str = ""
    tier: str = ""
    reason: str = ""
    seconds: float = 0.0
    size: int = 0
    saved: float = 0.0
    error: BaseException | None = None
    saving: Saving = NOTHING_SAVED
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class TierState:
    """What a tier is right now, and the one reason for it."""

    on: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Mark:
    """An invalidation: entries of `namespace` that it covers and that were created at or before `at` are dead.

    kind: `namespace` (everything), `tag` (value: the tag), `key` (value: hex digest), `function` (value: its dotted name).
    A tag's and a function's namespace may be `EVERYWHERE`.
    """

    namespace: str
    kind: Literal["namespace", "tag", "key", "function"]
    value: str
    at: int
