"""Calls of tools that only read: kept for as long as a client is connected."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import cachekit
from cachekit import Event, UsageError, distributed_cache
from cachekit_adapters.mcp.named import digest, named

_RELISTED: Final = 60.0
"""Seconds for which a list of tools is believed that says no `ttlMs`, or 0 or more: a tool may begin to write."""
_ASKED_AGAIN: Final = 5.0
"""Seconds for which a tool that no list named, or a list that could not be had, is not asked for again."""
_LISTING: Final = 10.0
"""Seconds that the lists may take before a call is made without them."""
_NEUTRAL_META: Final = frozenset({"progressToken", "traceparent", "tracestate", "baggage"})
"""Of a request's `_meta`: how it is watched and traced, never what it answers."""


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
    (`input_required`). Errors are not kept, and each caller gets their own. The hints are the server's own word, asked for
    every minute or oftener: cache the tools of servers that you trust. Said again of one client, the last word counts.
    Raises UsageError for a client that is not connected.
    """
    named(principal=principal, target=target)
    try:
        session = client.session
    except RuntimeError as error:
        raise UsageError(
            "cache_tools() takes a connected client: inside of `async with Client(…) as client:`"
        ) from error
    _Tools(session, digest(principal), target, idempotent=idempotent).install(ttl, share=share)


class _Tools:
    """The tools of one connection: what the server says of them, and its calls through the cache."""

    def __init__(self, session: Any, principal: str, target: str, *, idempotent: bool) -> None:
        import anyio

        self._session = session
        self._principal = principal
        self._target = target
        self._idempotent = idempotent
        self._known: dict[str, Any] = {}
        self._listed = self._until = float("-inf")
        self._listing = anyio.Lock()
        before = getattr(session.call_tool, "__self__", None)
        self._bare: Any = before._bare if isinstance(before, _Tools) else session.call_tool

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
        if not isinstance(arguments or {}, Mapping):  # the session will say what is wrong with them
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
        failures: list[Exception] = []

        async def ask() -> str:
            try:
                own.append(await bare())
            except Exception as error:  # raised below: who waits for this call may have a connection that holds
                failures.append(error)
                raise _NotKept from error
            result = own[0]
            if type(result) is not CallToolResult or result.is_error:
                raise _NotKept
            return str(result.model_dump_json(by_alias=True, exclude_unset=True))

        version = self._session.protocol_version
        where = [self._target, self._principal, version, digest(tool.model_dump_json(by_alias=True))]
        text = ""
        with contextlib.suppress(_NotKept):
            text = await self._kept(where, name, arguments, meta, ask=ask)
        if failures:
            raise failures[0]
        if own:
            return own[0]
        return CallToolResult.model_validate_json(text) if text else await bare()

    def _refusal(self, tool: Any) -> str:
        hints = tool.annotations
        reads = hints is not None and hints.read_only_hint is True
        repeats = self._idempotent and hints is not None and hints.idempotent_hint is True
        return "" if reads or repeats else "not_read_only"

    async def _tool(self, name: str) -> Any:
        if self._is_stale(name):
            async with self._listing:
                if self._is_stale(name):  # nobody listed them meanwhile
                    await self._list()
        return self._known.get(name)

    def _is_stale(self, name: str) -> bool:
        now = time.monotonic()
        return now >= self._until or (name not in self._known and now >= self._listed + _ASKED_AGAIN)

    async def _list(self) -> None:
        import anyio

        try:
            with anyio.fail_after(_LISTING):
                known, seconds = await self._tools()
        except (
            Exception
        ) as error:  # the caller asked for no list: what is wrong with the server, the call itself will say
            cachekit.tell(Event("error", "mcp.call_tool", reason="tools_unlisted", error=error))
            known, seconds = {}, _ASKED_AGAIN
        self._known, self._listed = known, time.monotonic()
        self._until = self._listed + seconds

    async def _tools(self) -> tuple[dict[str, Any], float]:
        """What the server lists, and for how many seconds that is good."""
        from mcp_types import PaginatedRequestParams

        known, cursor, milliseconds = dict[str, Any](), None, _RELISTED * 1000
        for _ in range(_MOST_PAGES):
            page = await self._session.list_tools(params=PaginatedRequestParams(cursor=cursor) if cursor else None)
            known.update((tool.name, tool) for tool in page.tools)
            milliseconds = min(milliseconds, getattr(page, "ttl_ms", 0) or milliseconds)
            cursor = page.next_cursor
            if not cursor:
                break
        return known, milliseconds / 1000


_MOST_PAGES: Final = 250


class _NotKept(Exception):
    """The server asked something back, or the tool failed: this caller has the result, and nobody else."""


async def _answered(where: Any, name: str, arguments: Any, meta: Any, *, ask: Any) -> str:
    return str(await ask())


_answered.__module__, _answered.__qualname__ = "cachekit_adapters", "mcp.call_tool"
