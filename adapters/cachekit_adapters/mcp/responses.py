"""What a server calls cacheable, its lists and resources: a store in cachekit for the client's own cache."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

import cachekit
from cachekit import MISS, UsageError, distributed_cache
from cachekit_adapters.mcp.named import digest, named

_TAG: Final = "mcp:responses"
_LONGEST: Final = 24 * 3600.0
"""Seconds: the client cuts every `ttlMs` down to this."""


def response_cache(*, principal: str, target: str, share_public: bool = False, default_ttl_ms: int = 0) -> Any:
    """The `CacheConfig` for a client, with a store in cachekit: `Client(url, cache=response_cache(…))`.

    Args:
        principal: who asks, derived from a verified credential. What a server calls private is never given to another one,
            and never leaves this machine.
        target: which server: its URL, without a password.
        share_public: what the server calls public is given to all principals, and to the team. That trusts its word.
        default_ttl_ms: for results without `ttlMs`; 0 leaves them uncached, as the protocol has it.

    Raises UsageError for an empty principal or target, and for another `default_ttl_ms`.
    """
    from mcp.client.caching import CacheConfig

    named(principal=principal, target=target)
    if type(default_ttl_ms) is not int or default_ttl_ms < 0:
        raise UsageError(
            f"default_ttl_ms={default_ttl_ms!r}: say whole milliseconds, or 0 to keep nothing without `ttlMs`"
        )
    return CacheConfig(
        store=Responses(),
        partition=digest(principal),
        target_id=target,
        share_public=share_public,
        default_ttl_ms=default_ttl_ms,
    )


class Responses:
    """A `ResponseCacheStore`: public entries are for the team, private ones stay on this machine.

    The client decides about freshness, scope and eviction; this only keeps, and gives back the model that was kept.
    """

    async def get(self, key: Any) -> Any:
        """The entry, or None; never one whose scope is another than that of the place it stands in."""
        for scope, kept in _PLACES.items():
            text = await kept.peek(*_parts(key))
            if text is not MISS:
                entry = _entry(text)
                return entry if entry is not None and entry.scope == scope else None
        return None

    async def set(self, key: Any, entry: Any) -> None:
        """Keeps an entry under `key`, in the place of what was there."""
        if entry.expires_at is None or type(entry.value).__name__ not in _models():
            return
        document = {
            "model": type(entry.value).__name__,
            "value": entry.value.model_dump_json(by_alias=True, exclude_unset=True),
            "scope": entry.scope,
            "expires_at": entry.expires_at,
        }
        await _PLACES[entry.scope].put(json.dumps(document), *_parts(key))

    async def delete(self, key: Any) -> None:
        """Forgets an entry, here and on the other machines that have it."""
        for kept in _PLACES.values():
            await kept.invalidate(*_parts(key))

    async def clear(self) -> None:
        """Forgets every response of every server."""
        cachekit.invalidate(tag=_TAG)


@distributed_cache(ttl=_LONGEST, version="1", share=False, tags=(_TAG,))
async def _private(method: str, parameters: str, partition: str) -> str:
    """Told by `put`, read by `peek`, and never computed."""
    raise LookupError(method)


@distributed_cache(ttl=_LONGEST, version="1", tags=(_TAG,))
async def _public(method: str, parameters: str, partition: str) -> str:
    """The same for what all may see."""
    raise LookupError(method)


_PLACES: Final[Mapping[str, Any]] = {"private": _private, "public": _public}


def _parts(key: Any) -> tuple[str, str, str]:
    # A partition may be made of a credential: no key text shall have it.
    return key.method, key.params_key, digest(key.partition)


def _entry(text: str) -> Any:
    from mcp.client.caching import CacheEntry

    try:
        document = json.loads(text)
        value = _models()[document["model"]].model_validate_json(document["value"])
        return CacheEntry(value=value, scope=document["scope"], expires_at=float(document["expires_at"]))
    except (ValueError, LookupError, TypeError):  # of another version of the SDK: a miss
        return None


@functools.cache
def _models() -> Mapping[str, Any]:
    """The results that the protocol calls cacheable, by the name of their class."""
    import mcp_types

    classes = [one for one in vars(mcp_types).values() if isinstance(one, type)]
    return {one.__name__: one for one in classes if issubclass(one, mcp_types.CacheableResult)}
