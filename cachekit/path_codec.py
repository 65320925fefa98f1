"""The codec called `path`: a Manifest to a payload and back. The files themselves are the artifact store's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from cachekit.errors import CannotEncode, IntegrityError
from cachekit.manifest import Manifest
from cachekit.model import ARTIFACT


@functools.lru_cache(maxsize=16)
def _decoded(payload: bytes) -> Manifest:
    # A warm hit decodes one manifest again and again, and checking each name in it costs more than all the rest.
    return Manifest.decode(payload)


class PathCodec:
    """What a decorated function built, as its Manifest."""

    def dump(self, value: Any) -> tuple[str, bytes]:
        if not isinstance(value, Manifest):
            raise CannotEncode(f"{type(value).__name__} is no artifact", reason="type")
        return ARTIFACT, value.encode()

    def load(self, name: str, payload: bytes) -> Manifest:
        return self.loader(name)(payload)  # type: ignore[no-any-return]

    def loader(self, name: str) -> Callable[[bytes], Any]:
        if name != ARTIFACT:
            raise IntegrityError(f"the payload is in {name!r}, and an artifact was expected")
        return _decoded
