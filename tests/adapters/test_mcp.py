"""MCP: a real FastMCP server, its own client and the protocol's, with the answers kept in cachekit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import UsageError, configure
from cachekit_adapters import mcp as cached
from cachekit_adapters.mcp import responses

fastmcp = pytest.importorskip("fastmcp")

from fastmcp import Client, FastMCP  # noqa: E402
from fastmcp.exceptions import ToolError  # noqa: E402
from fastmcp.server.middleware import Middleware  # noqa: E402
from mcp.client.client import Client as PlainClient  # noqa: E402
from mcp.shared.exceptions import MCPError  # noqa: E402
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult  # noqa: E402
from pydantic import ValidationError  # noqa: E402

TARGET = "https://weather.example/mcp"


class Weather:
    """A server, and how often each of its parts was asked."""

    def __init__(self, *, ttl: int | None = 60, scope: str = "private") -> None:
        self.asked: list[str] = []
        self.server = FastMCP("weather", version="1.0", **({"cache_ttl": ttl, "cache_scope": scope} if ttl else {}))
        self.tool("forecast", readOnlyHint=True)
        self.tool("book", idempotentHint=True)
        self.tool("guess")

        @self.server.tool(annotations={"readOnlyHint": True})
        def failing(city: str) -> str:
            """Always fails."""
            self.asked.append("failing")
            raise ToolError("no such city")

        @self.server.resource("weather://cities")
        def cities() -> str:
            """Which there are."""
            self.asked.append("cities")
            return "Bern"

    def tool(self, name: str, **hints: bool) -> None:
        def answer(city: str) -> str:
            """Says something of a city."""
            self.asked.append(name)
            return f"{name} {city} {len(self.asked)}"

        answer.__name__ = name
        self.server.tool(answer, annotations=hints or None)


@asynccontextmanager
async def connected(weather: Weather, principal: str = "alice", **options: Any) -> AsyncIterator[Any]:
    """FastMCP's client with tools and responses cached, as one program of a principal has it."""
    cache = cached.response_cache(principal=principal, target=TARGET, share_public=options.pop("share_public", False))
    async with Client(weather.server, mode="auto", cache=cache) as client:
        cached.cache_tools(client, principal=principal, target=TARGET, **options)
        yield client


async def said(client: Any, tool: str = "forecast", city: str = "Bern") -> str:
    return str((await client.call_tool(tool, {"city": city})).data)


def test_a_tool_that_only_reads_is_asked_once() -> None:
    """By two connections; the second one gets the same parsed result."""
    weather = Weather()

    async def work() -> None:
        texts = []
        for _ in range(2):
            async with connected(weather) as client:
                texts.append(await said(client))
        assert texts == ["forecast Bern 1"] * 2

    asyncio.run(work())
    assert weather.asked == ["forecast"]


def test_other_arguments_are_another_call() -> None:
    """Of arguments, and of the tool's name."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather) as client:
            assert await said(client, city="Bern") != await said(client, city="Basel")

    asyncio.run(work())


@pytest.mark.parametrize("tool", ["book", "guess"])
def test_other_tools_pass_by(tool: str) -> None:
    """One that writes, though idempotently, and one that says nothing of itself are called each time, and counted."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather) as client:
            for _ in range(2):
                await said(client, tool)

    asyncio.run(work())
    assert weather.asked == [tool, tool]
    assert cachekit.stats().as_dict()["bypasses"]["not_read_only"] == 2


def test_an_idempotent_tool_is_kept_where_that_is_asked_for() -> None:
    """`idempotent=True` is the caller's word that nothing undoes the call in between."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather, idempotent=True) as client:
            assert await said(client, "book") == await said(client, "book")

    asyncio.run(work())


def test_a_failure_is_not_kept() -> None:
    """The error reaches the caller as without us, each time."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather) as client:
            for _ in range(2):
                with pytest.raises(ToolError, match="no such city"):
                    await said(client, "failing")

    asyncio.run(work())
    assert weather.asked == ["failing", "failing"]


def test_principals_never_share_a_tools_answer() -> None:
    """What alice was told is asked again for bob."""
    weather = Weather()

    async def work() -> None:
        for principal in ("alice", "bob"):
            async with connected(weather, principal) as client:
                await said(client)

    asyncio.run(work())
    assert weather.asked == ["forecast", "forecast"]


def test_an_edited_tool_is_asked_again() -> None:
    """Its description or schema is part of what identifies a call."""

    async def work(weather: Weather, text: str) -> None:
        weather.server = FastMCP("weather", version="1.0")

        @weather.server.tool(description=text, annotations={"readOnlyHint": True})
        def forecast(city: str) -> str:
            weather.asked.append(text)
            return text

        async with connected(weather) as client:
            assert await said(client) == text

    weather = Weather()
    asyncio.run(work(weather, "old"))
    asyncio.run(work(weather, "new"))
    assert weather.asked == ["old", "new"]


def test_an_answer_after_a_question_is_not_kept() -> None:
    """A tool that asks its caller something back is asked each time, and the answer is the one to this exchange."""
    server, calls = FastMCP("asking", version="1.0"), list[int]()

    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    question = ElicitRequest(params=ElicitRequestFormParams(message="Who are you?", requested_schema=schema))

    async def greet(ctx: fastmcp.Context) -> Any:
        calls.append(1)
        if not ctx.input_responses:
            return InputRequiredResult(input_requests={"who": question})
        return f"hello {ctx.input_responses['who'].content['name']}"

    greet.__annotations__["ctx"] = fastmcp.Context
    server.tool(greet, annotations={"readOnlyHint": True})
    names = iter(["Ada", "Grace"])

    async def answer(message: str, response_type: Any, params: Any, context: Any) -> Any:
        return {"name": next(names)}

    async def work() -> None:
        async with Client(server, mode="auto", elicitation_handler=answer) as client:
            cached.cache_tools(client, principal="alice", target=TARGET)
            results = [await client.call_tool("greet", {}) for _ in range(2)]
            assert [result.content[0].text for result in results] == ["hello Ada", "hello Grace"]

    asyncio.run(work())
    assert len(calls) == 4


def test_the_protocols_own_client_is_served_too() -> None:
    """`mcp.client.Client` has the same session, and the same hits."""
    weather = Weather()

    async def work() -> None:
        async with PlainClient(weather.server._mcp_server) as client:
            cached.cache_tools(client, principal="alice", target=TARGET)
            results = [await client.call_tool("forecast", {"city": "Bern"}) for _ in range(2)]
        assert results[0] == results[1]

    asyncio.run(work())
    assert weather.asked == ["forecast"]


class Listed(Middleware):
    """Counts how often a server is asked for its tools."""

    def __init__(self) -> None:
        self.times = 0

    async def on_list_tools(self, context: Any, call_next: Any) -> Any:
        self.times += 1
        return await call_next(context)


@pytest.mark.parametrize("ttl", [None, 60])
def test_a_name_that_no_list_has_is_looked_for_once(ttl: int | None) -> None:
    """A model that makes a tool's name up does not have the tools listed at each of its calls."""
    weather, listing = Weather(ttl=ttl), Listed()
    weather.server.add_middleware(listing)

    async def work() -> None:
        async with connected(weather) as client:
            for _ in range(5):
                with pytest.raises(ToolError):
                    await client.call_tool("made_up", {})

    asyncio.run(work())
    assert listing.times == 1
    assert cachekit.stats().as_dict()["bypasses"]["unknown_tool"] == 5


def test_a_tool_that_came_since_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a few seconds the tools are listed again for a name that was not among them."""
    weather = Weather()
    monkeypatch.setattr("cachekit_adapters.mcp.tools._ASKED_AGAIN", 0.0)

    async def work() -> None:
        async with connected(weather) as client:
            await said(client)
            weather.tool("later", readOnlyHint=True)
            assert await said(client, "later") == await said(client, "later")

    asyncio.run(work())
    assert weather.asked == ["forecast", "later"]


def test_calls_at_once_list_the_tools_once() -> None:
    """Twenty first calls of one connection wait for one list."""
    weather, listing = Weather(), Listed()
    weather.server.add_middleware(listing)

    async def work() -> None:
        async with connected(weather) as client:
            await asyncio.gather(*(said(client, city=str(number)) for number in range(20)))

    asyncio.run(work())
    assert (listing.times, len(weather.asked)) == (1, 20)


@pytest.mark.parametrize("failure", ["raises", "hangs"])
def test_a_list_that_cannot_be_had_fails_no_call(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call was all that was asked for: it is made, uncached, and the list counted as an error."""
    weather = Weather()
    monkeypatch.setattr("cachekit_adapters.mcp.tools._LISTING", 0.1)

    async def work() -> None:
        async with connected(weather) as client:
            real = client.session.list_tools

            async def unlisted(**_: Any) -> Any:
                client.session.list_tools = real  # the session itself lists them after a call, for their schemas
                if failure == "hangs":
                    await asyncio.Event().wait()
                raise MCPError(-32601, "no lists here")

            monkeypatch.setattr(client.session, "list_tools", unlisted)
            results = [await client.session.call_tool("forecast", {"city": "Bern"}) for _ in range(2)]
            assert [result.content[0].text for result in results] == ["forecast Bern 1", "forecast Bern 2"]

    asyncio.run(work())
    assert "tools_unlisted" in str(cachekit.stats().as_dict()["errors"])


def test_said_again_the_last_principal_counts() -> None:
    """A second `cache_tools` of one client takes the first one's place: bob is not given what alice was."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather, "alice") as client:
            before = await said(client)
            cached.cache_tools(client, principal="bob", target=TARGET)
            assert await said(client) != before

    asyncio.run(work())


def test_a_failure_is_its_callers_alone() -> None:
    """Who waited for the same call of a connection that gave up asks by his own, and gets an answer."""
    weather, started = Weather(), asyncio.Event()

    @weather.server.tool(annotations={"readOnlyHint": True})
    async def slow(city: str) -> str:
        weather.asked.append("slow")
        started.set()
        while len(weather.asked) < 2:
            await asyncio.sleep(0.01)
        return city

    async def impatient() -> None:
        async with connected(weather) as client:
            with pytest.raises(MCPError, match="timed out"):
                await client.call_tool("slow", {"city": "Bern"}, timeout=1)

    async def patient() -> None:
        async with connected(weather) as client:
            await asyncio.wait_for(started.wait(), 10)
            assert (await client.call_tool("slow", {"city": "Bern"})).data == "Bern"

    async def work() -> None:
        await asyncio.wait_for(asyncio.gather(impatient(), patient()), 30)

    asyncio.run(work())


@pytest.mark.parametrize("said_ms", [1, 10**400])
def test_any_ttl_of_a_list_is_taken(said_ms: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """An absurdly long one is a minute, and one of a millisecond has passed at the next call."""
    weather, asked = Weather(), list[int]()

    async def work() -> None:
        async with connected(weather) as client:
            real = client.session.list_tools

            async def listed(**options: Any) -> Any:
                asked.append(1)
                return (await real(**options)).model_copy(update={"ttl_ms": said_ms})

            monkeypatch.setattr(client.session, "list_tools", listed)
            await said(client)
            await asyncio.sleep(0.01)
            await said(client)

    asyncio.run(work())
    assert len(asked) == (2 if said_ms == 1 else 1)
    assert weather.asked == ["forecast"]


@pytest.mark.parametrize("arguments", ["city", [1], 5])
def test_arguments_that_are_none_are_refused_as_without_us(arguments: Any) -> None:
    """The session's own error reaches the caller."""
    weather = Weather()

    async def work() -> None:
        async with connected(weather) as client:
            with pytest.raises(ValidationError):
                await client.session.call_tool("forecast", arguments)

    asyncio.run(work())


@pytest.mark.parametrize("wrong", [-1, 1.5, "60", None, True])
def test_what_is_no_time_is_refused(wrong: Any) -> None:
    """Before a client is made of it, with the remedy."""
    with pytest.raises(UsageError, match="milliseconds"):
        cached.response_cache(principal="a", target=TARGET, default_ttl_ms=wrong)


# -- lists and resources ---------------------------------------------------------------------------------------


async def read(weather: Weather, principal: str = "alice", *, share: bool = False, target: str = TARGET) -> str:
    """A resource, by a connection of its own. FastMCP's client keeps lists only, the protocol's own one resources too."""
    cache = cached.response_cache(principal=principal, target=target, share_public=share)
    async with PlainClient(weather.server._mcp_server, cache=cache) as client:
        return str((await client.read_resource("weather://cities")).contents[0].text)


async def listed(weather: Weather) -> list[str]:
    async with connected(weather) as client:
        return [tool.name for tool in await client.list_tools()]


def test_what_the_server_calls_fresh_is_served_to_the_next_connection() -> None:
    """A resource with a `ttlMs` is read once by two connections of one principal."""
    weather = Weather()
    assert [asyncio.run(read(weather)) for _ in range(2)] == ["Bern", "Bern"]
    assert weather.asked == ["cities"]


def test_fastmcps_client_has_its_lists_from_there() -> None:
    """A tool that came since is not in a list that is still fresh."""
    weather = Weather()
    before = asyncio.run(listed(weather))
    weather.tool("later")
    assert asyncio.run(listed(weather)) == before


def test_without_a_ttl_nothing_is_kept() -> None:
    """A server that says no `ttlMs` is asked each time, as the protocol has it."""
    weather = Weather(ttl=None)
    for _ in range(2):
        asyncio.run(read(weather))
    assert weather.asked == ["cities", "cities"]


@pytest.mark.parametrize(("scope", "share", "reads"), [("private", True, 2), ("public", False, 2), ("public", True, 1)])
def test_private_never_crosses_principals(scope: str, share: bool, reads: int) -> None:
    """Only what the server calls public, where the caller lets it be shared, is given to another principal."""
    weather = Weather(scope=scope)
    for principal in ("alice", "bob"):
        asyncio.run(read(weather, principal, share=share))
    assert len(weather.asked) == reads


def test_private_answers_stay_on_this_machine(kubo_api: str, tmp_path: Path) -> None:
    """With a daemon at hand a team-mate gets the public ones, and of the private ones nothing."""
    servers = {scope: Weather(scope=scope) for scope in ("private", "public")}
    with configure(ipfs="rw", ipfs_api=kubo_api, ipfs_timeout=10):
        for scope, weather in servers.items():
            asyncio.run(read(weather, share=True, target=scope))
        cachekit.flush()
        for scope, weather in servers.items():
            with configure(dir=tmp_path / scope):
                asyncio.run(read(weather, share=True, target=scope))
    assert {scope: len(weather.asked) for scope, weather in servers.items()} == {"private": 2, "public": 1}


def test_clear_forgets_every_response() -> None:
    """`clear()` of the store ends hits of all connections."""
    weather = Weather()
    asyncio.run(read(weather))
    asyncio.run(cached.Responses().clear())
    asyncio.run(read(weather))
    assert weather.asked == ["cities", "cities"]


def test_an_entry_of_another_version_is_a_miss() -> None:
    """What cannot be rebuilt by this SDK is read again, and nothing is raised."""
    from mcp.client.caching import CacheKey

    async def work() -> None:
        key = CacheKey("resources/read", "weather://cities", "p")
        await responses._private.put('{"model": "NoSuchResult"}', *responses._parts(key))
        assert await cached.Responses().get(key) is None

    asyncio.run(work())


@pytest.mark.parametrize("wrong", [{"principal": "", "target": TARGET}, {"principal": "a", "target": ""}])
def test_principal_and_target_must_be_said(wrong: dict[str, str]) -> None:
    """Without them answers could not be kept apart."""
    with pytest.raises(UsageError, match="not empty"):
        cached.response_cache(**wrong)


def test_a_client_that_is_not_connected_is_refused() -> None:
    """The error says where to call it."""
    with pytest.raises(UsageError, match="async with"):
        cached.cache_tools(Client(Weather().server), principal="alice", target=TARGET)
