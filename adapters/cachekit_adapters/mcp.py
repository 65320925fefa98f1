"""MCP servers: what they call cacheable is kept across processes, and calls of tools that only read.

from cachekit_adapters import mcp

config = mcp.response_cache(principal="alice@example.org", target="https://weather.example/mcp")
async with Client("https://weather.example/mcp", cache=config) as client:        # lists and resources, as the server says
    mcp.cache_tools(client, principal="alice@example.org", target="https://weather.example/mcp", ttl="5m")
    await client.call_tool("forecast", {"city": "Bern"})

Rules and names are those of the protocol's revision 2026-07-28 (SEP-2549: `ttlMs`, `cacheScope`; tool annotations). The
client of the `mcp` package and FastMCP's are both served.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import cachekit
from cachekit import MISS, Event, UsageError, distributed_cache

_TAG: Final = "mcp:responses"
_LONGEST: Final = 24 * 3600.0
"""Seconds: the client cuts every `ttlMs` down to this."""
_RELISTED: Final = 60.0
"""Seconds for which a list of tools that says no `ttlMs` is believed: a tool may begin to write."""
_NEUTRAL_META: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
"""Of a request's `_meta`: how it is watched and traced, never what it answers."""


# -- lists and resources -------------------------------------------------------------------------------------------


def response_cache(*, principal: str, target: str, share_public: bool = False, default_ttl_ms: int = 0) -> Any:
    """The `CacheConfig` for a client, with a store in cachekit: `Client(url, cache=response_cache(…))`.

    Args:
        principal: who asks, derived from a verified credential. What a server calls private is never given to another one,
            and never leaves this machine.
        target: which server: its URL, without a password.
        share_public: what the server calls public is given to all principals, and to the team. That trusts its word.
        default_ttl_ms: for results without `ttlMs`; 0 leaves them uncached, as the protocol has it.

    Raises UsageError for an empty principal or target.
    """
    from mcp.client.caching import CacheConfig

    _named(principal=principal, target=target)
    return CacheConfig(
        store=Responses(),
        partition=_digest(principal),
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
    return key.method, key.params_key, _digest(key.partition)


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


# -- tools ---------------------------------------------------------------------------------------------------------


def cache_tools(
    client: Any,
    *,
    principal: str,
    target: str,
    ttl: str | float | timedelta = "5m",
    share: bool = False,
    idempotent: bool = False,
) -> None:
    """From now on a connected client's calls of tools that only read are kept, for as long as it is connected.

    Args:
        principal, target: as in `response_cache`. Other principals have answers of their own.
        ttl: how long an answer is good.
        share: team-mates who name the same principal get the answers too.
        idempotent: also tools with `idempotentHint` that write: a call that was made is then not made again, although
            another one may have undone it.

    Tools without `readOnlyHint` pass by, counted as `not_read_only`; so does a call that answers a server's questions
    (`input_required`). Errors are not kept. The hints are the server's own word: cache the tools of servers that you
    trust. Raises UsageError for a client that is not connected.
    """
    _named(principal=principal, target=target)
    try:
        session = client.session
    except RuntimeError as error:
        raise UsageError(
            "cache_tools() takes a connected client: inside of `async with Client(…) as client:`"
        ) from error
    _Tools(session, _digest(principal), target, idempotent=idempotent).install(ttl, share=share)


class _Tools:
    """The tools of one connection: what the server says of them, and its calls through the cache."""

    def __init__(self, session: Any, principal: str, target: str, *, idempotent: bool) -> None:
        self._session = session
        self._principal = principal
        self._target = target
        self._idempotent = idempotent
        self._known: dict[str, Any] = {}
        self._until = 0.0
        self._bare = session.call_tool

    def install(self, ttl: Any, *, share: bool) -> None:
        self._kept = distributed_cache(ttl=ttl, version="1", share=share, ignore=("ask",))(_answered)
        self._session.call_tool = self.call_tool

    async def call_tool(self, name: str, arguments: Any = None, *rest: Any, **options: Any) -> Any:
        """What the session's own method gives: from the cache where that may be."""

        async def bare() -> Any:
            return await self._bare(name, arguments, *rest, **options)

        # A call that carries answers to the server's questions belongs to one exchange.
        if options.get("input_responses") is not None or options.get("request_state") is not None:
            return await bare()
        tool = await self._tool(name)
        reason = "unknown_tool" if tool is None else self._refusal(tool)
        if reason:
            cachekit.tell(Event("bypass", "mcp.call_tool", reason=reason))
            return await bare()
        meta = {key: value for key, value in (options.get("meta") or {}).items() if key not in _NEUTRAL_META}
        return await self._cached(name, dict(arguments or {}), meta, tool, bare)

    async def _cached(self, name: str, arguments: Any, meta: Any, tool: Any, bare: Any) -> Any:
        from mcp_types import CallToolResult

        own: list[Any] = []

        async def ask() -> str:
            own.append(await bare())
            result = own[0]
            if type(result) is not CallToolResult or result.is_error:
                raise _NotKept
            return str(result.model_dump_json(by_alias=True, exclude_unset=True))

        version = self._session.protocol_version
        where = [self._target, self._principal, version, _digest(tool.model_dump_json(by_alias=True))]
        try:
            text = await self._kept(where, name, arguments, meta, ask=ask)
        except _NotKept:
            return own[0] if own else await bare()
        return own[0] if own else CallToolResult.model_validate_json(text)

    def _refusal(self, tool: Any) -> str:
        hints = tool.annotations
        reads = hints is not None and hints.read_only_hint is True
        repeats = self._idempotent and hints is not None and hints.idempotent_hint is True
        return "" if reads or repeats else "not_read_only"

    async def _tool(self, name: str) -> Any:
        if time.monotonic() >= self._until or name not in self._known:
            await self._list()
        return self._known.get(name)

    async def _list(self) -> None:
        from mcp_types import PaginatedRequestParams

        known, cursor, seconds = dict[str, Any](), None, _RELISTED
        for _ in range(_MOST_PAGES):
            page = await self._session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            known.update((tool.name, tool) for tool in page.tools)
            said = getattr(page, "ttl_ms", None)
            seconds = min(seconds, said / 1000) if said else seconds
            cursor = page.next_cursor
            if not cursor:
                break
        self._known, self._until = known, time.monotonic() + seconds


_MOST_PAGES: Final = 250


class _NotKept(Exception):
    """The server asked something back, or the tool failed: this caller has the result, and nobody else."""


async def _answered(where: Any, name: str, arguments: Any, meta: Any, *, ask: Any) -> str:
    return str(await ask())


_answered.__module__, _answered.__qualname__ = "cachekit_adapters", "mcp.call_tool"


def _named(**given: str) -> None:
    for name, value in given.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f"{name}={value!r}: say it as a text that is not empty; answers are kept apart by it")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
