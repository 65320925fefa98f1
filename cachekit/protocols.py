"""The seams, on one screen: what may be replaced, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from cachekit.model import Event, Key, Record


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
