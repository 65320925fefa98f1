"""`wrap` around the vendors' own SDKs, in front of a real server: a hit is the SDK's own value, and makes no request."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import groq
import openai
import pytest
from peers import shapes
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.servers import Server

import cachekit
from cachekit_adapters import claude, wrap
from cachekit_adapters import groq as groq_adapter

ASK: list[Any] = [{"role": "user", "content": "What is a cache good for?"}]
OTHER: list[Any] = [{"role": "user", "content": "Who paints the red house?"}]


@pytest.fixture
def groq_server(groq_peer: Server) -> Iterator[Scripted]:
    with relay(groq_peer.url) as server:
        yield server


@pytest.fixture
def server(llama_peer: Server) -> Iterator[Scripted]:
    with relay(llama_peer.url) as found:
        yield found


@contextlib.contextmanager
def groq_client(url: str, **said: Any) -> Iterator[Any]:
    with groq.Groq(api_key="k", base_url=url, max_retries=0) as client:
        yield wrap(client, **said)


@contextlib.contextmanager
def openai_client(url: str, **said: Any) -> Iterator[Any]:
    with openai.OpenAI(api_key="k", base_url=f"{url}/v1", max_retries=0) as client:
        yield wrap(client, **said)


@contextlib.contextmanager
def claude_client(url: str, **said: Any) -> Iterator[Any]:
    with anthropic.Anthropic(api_key="k", base_url=url, max_retries=0) as client:
        yield wrap(client, **{"cache_sampled": True, **said})


def chat(client: Any, messages: Any = ASK, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=messages, temperature=0, **more)


def text(chunks: Any) -> str:
    return "".join(part.choices[0].delta.content or "" for part in chunks if part.choices)


# -- the three SDKs -----------------------------------------------------------------------------------------------------


def test_a_groq_hit_is_the_same_value_without_a_request(groq_server: Scripted) -> None:
    """The second call is equal to the first, of the SDK's class, the caller's own, and makes no request."""
    with groq_client(groq_server.url) as client:
        first, second = chat(client), chat(client)
        assert isinstance(client, groq.Groq)
        assert type(second) is type(first) is groq.types.chat.ChatCompletion
        assert second == first
        assert second.model_fields_set == first.model_fields_set
        second.choices[0].message.content = "changed"
        assert chat(client) == first
        assert groq_server.count == 1


def test_the_client_passed_in_stays_as_it_was(groq_server: Scripted) -> None:
    """Calls of the original go to the server, before and after."""
    with groq.Groq(api_key="k", base_url=groq_server.url) as client:
        wrapped = wrap(client)
        for _ in range(2):
            chat(client)
            chat(wrapped)
        assert groq_server.count == 3
        assert chat(wrapped.with_options(max_retries=1)).choices
        assert groq_server.count == 3


@pytest.mark.parametrize("opened", [groq_client, openai_client])
def test_streams_are_replayed_chunk_for_chunk(
    opened: Callable[..., Any], groq_server: Scripted, server: Scripted
) -> None:
    """A stream's hit has the same chunks; a plain call, whose usage they do not tell, is asked for itself."""
    found = groq_server if opened is groq_client else server
    with opened(found.url) as client:
        first = list(chat(client, stream=True))
        assert len(first) > 2
        assert list(chat(client, stream=True)) == first
        plain = chat(client)
        assert plain.choices[0].message.content == text(first)
        assert plain.usage is not None
        assert found.count == 2


def test_a_plain_answer_serves_a_stream_and_says_so(groq_server: Scripted) -> None:
    """Chunks made of a plain answer carry its text, and the hit's event is synthetic."""
    events: list[cachekit.Event] = []
    with groq_client(groq_server.url) as client:
        plain = chat(client)
        remove = cachekit.add_listener(events.append)
        chunks = list(chat(client, stream=True))
        remove()
    assert text(chunks) == plain.choices[0].message.content
    assert [event.synthetic for event in events if event.what == "hit"] == [True]
    assert groq_server.count == 1


def test_claude_messages_and_its_stream_helper(server: Scripted) -> None:
    """`messages.create`, `create(stream=True)` and `messages.stream()` share one entry."""
    with claude_client(server.url) as client:
        said: Any = {"model": "m", "max_tokens": 60, "messages": ASK}
        first = client.messages.create(**said)
        assert client.messages.create(**said) == first
        assert isinstance(first, anthropic.types.Message)
        with client.messages.stream(**said) as stream:
            assert stream.get_final_message().content[0].text == first.content[0].text
        events = [event.type for event in client.messages.create(stream=True, **said)]
        assert events[0] == "message_start"
        assert events[-1] == "message_stop"
        assert server.count == 1


def test_a_claude_stream_is_recorded_and_replayed(server: Scripted) -> None:
    """The helper's stream is stored when its end came, and serves the helper and a plain call."""
    with claude_client(server.url) as client:
        said: Any = {"model": "m", "max_tokens": 60, "messages": OTHER}
        texts = []
        for _ in range(2):
            with client.messages.stream(**said) as stream:
                texts.append("".join(stream.text_stream))
        assert texts[0] == texts[1] != ""
        assert client.messages.create(**said).content[0].text == texts[0]
        assert server.count == 1


def test_raw_responses_are_cached_under_the_plain_key(groq_server: Scripted) -> None:
    """`with_raw_response` gives the SDK's raw response, whose `parse()` is the plain answer."""
    with groq_client(groq_server.url) as client:
        raw = client.chat.completions.with_raw_response.create(model="m", messages=ASK, temperature=0)
        again = client.chat.completions.with_raw_response.create(model="m", messages=ASK, temperature=0)
        assert type(again) is type(raw)
        assert again.parse() == raw.parse() == chat(client)
        assert groq_server.count == 1
        with client.chat.completions.with_streaming_response.create(model="m", messages=ASK, temperature=0) as passed:
            assert passed.parse().choices


def test_sync_and_async_clients_share_a_key(groq_server: Scripted) -> None:
    """What an async client stored, a sync client finds; streams as well."""

    async def ask() -> tuple[Any, list[Any], list[Any]]:
        async with groq.AsyncGroq(api_key="another", base_url=groq_server.url) as client:
            wrapped = wrap(client)
            assert isinstance(wrapped, groq.AsyncGroq)
            plain = await chat(wrapped)
            assert await chat(wrapped) == plain
            live = [chunk async for chunk in await chat(wrapped, OTHER, stream=True)]
            replayed = [chunk async for chunk in await chat(wrapped, OTHER, stream=True)]
            return plain, live, replayed

    plain, live, replayed = asyncio.run(ask())
    assert live == replayed
    with groq_client(groq_server.url) as client:
        assert chat(client) == plain
        assert list(chat(client, OTHER, stream=True)) == live
    assert groq_server.count == 2


def test_async_openai_and_claude(server: Scripted) -> None:
    """The async clients of the other two, plain and streamed."""

    async def ask() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1") as plain:
            client = wrap(plain)
            assert await chat(client) == await chat(client)
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as bare:
            claude_ = wrap(bare, cache_sampled=True)
            said: Any = {"model": "m", "max_tokens": 60, "messages": ASK}
            texts = []
            for _ in range(2):
                async with claude_.messages.stream(**said) as stream:
                    texts.append(await stream.get_final_text())
            assert texts[0] == texts[1]

    asyncio.run(ask())
    assert server.count == 2


# -- keys ---------------------------------------------------------------------------------------------------------------


def test_endpoint_and_tenant_are_part_of_the_key(groq_peer: Server, llama_peer: Server) -> None:
    """Two servers of one model name never answer for each other; nor do two organisations. The API key does not count."""
    with relay(llama_peer.url) as one, relay(llama_peer.url) as two:
        for server in (one, two):
            with openai_client(server.url) as client:
                chat(client)
        with openai.OpenAI(api_key="rotated", base_url=f"{one.url}/v1") as client:
            chat(wrap(client))
            assert one.count == 1
            chat(wrap(client.with_options(organization="theirs")))
        assert (one.count, two.count) == (2, 1)


def test_unknown_parameters_count_and_neutral_ones_do_not(groq_server: Scripted) -> None:
    """`extra_body` and `seed` are another call; `user`, `timeout` and the order of dicts are not."""
    with groq_client(groq_server.url) as client:
        chat(client)
        chat(client, user="somebody", timeout=30)
        client.chat.completions.create(
            temperature=0, messages=[{"content": ASK[0]["content"], "role": "user"}], model="m"
        )
        assert groq_server.count == 1
        chat(client, seed=7)
        chat(client, extra_body={"min_p": 0.1})
        chat(client, [*OTHER, *ASK])
        chat(client, [*ASK, *OTHER])
        assert groq_server.count == 5


def test_messages_from_a_generator_are_read_once(groq_server: Scripted) -> None:
    """A generator of messages reaches key and server alike."""
    with groq_client(groq_server.url) as client:
        first = chat(client, (message for message in ASK))
        assert chat(client, (message for message in ASK)) == first == chat(client)
        assert groq_server.count == 1


# -- what is stored -----------------------------------------------------------------------------------------------------


def test_sampled_answers_are_not_cached_and_it_is_said_once(groq_server: Scripted) -> None:
    """Without temperature=0 each call asks the server; one warning; `sample(n)` and cache_sampled cache them."""
    with groq_client(groq_server.url) as client:

        def sampled(client: Any = client) -> Any:
            return client.chat.completions.create(model="m", messages=ASK)

        with pytest.warns(UserWarning, match="sampled"):
            sampled()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sampled()
        assert groq_server.count == 2
        with cachekit.sample(0):
            assert sampled() == sampled()
        with cachekit.sample(1):
            sampled()
        assert groq_server.count == 4
    with groq_client(groq_server.url, cache_sampled=True) as client:
        assert sampled(client) == sampled(client)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (shapes.chat("cut", finish="length"), "truncated"),
        (shapes.chat("no", finish="content_filter"), "content_filtered"),
        ({"error": {"message": "overloaded"}}, "error_in_200"),
    ],
)
def test_incomplete_answers_are_returned_and_not_stored(body: Any, reason: str) -> None:
    """Truncated, filtered, failed in a 200: the caller gets what the SDK gives; nothing is stored; the reason is counted."""
    with scripted_server(shapes.json_reply(body)) as server, groq_client(server.url) as client:
        for _ in range(2):
            chat(client)
        assert server.count == 2
        assert cachekit.stats().as_dict()["skipped"] == {reason: 2}


def test_truncated_answers_on_request() -> None:
    """`cache_truncated=True` keeps them."""
    body = shapes.chat("cut", finish="length")
    with scripted_server(shapes.json_reply(body)) as server, groq_client(server.url, cache_truncated=True) as client:
        assert chat(client) == chat(client)
        assert server.count == 1


def test_tool_calls_are_complete(server: Scripted) -> None:
    """An answer with tool calls is stored, and comes back with them, from a stream too."""
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    tools: Any = [{"type": "function", "function": function}]
    with openai_client(server.url) as client:
        first = chat(client, tools=tools, tool_choice="required")
        assert first.choices[0].message.tool_calls
        assert chat(client, tools=tools, tool_choice="required") == first
        assert server.count == 1


# -- faults -------------------------------------------------------------------------------------------------------------


def test_an_aborted_stream_is_not_stored(groq_server: Scripted) -> None:
    """Leaving a stream stores nothing; the next call asks again."""
    with groq_client(groq_server.url) as client:
        stream = chat(client, stream=True)
        next(iter(stream))
        stream.close()
        assert len(list(chat(client, stream=True))) > 2
        assert groq_server.count == 2


def test_a_stream_cut_anywhere_shows_what_the_sdk_alone_shows() -> None:
    """Cut at many offsets: the wrapped client gives chunk for chunk what the bare SDK gives; only a whole one is stored."""
    data = b"".join(shapes.frames(shapes.chat_chunks(["Hello there, you."])))
    asked: list[int] = []

    def script(request: Any) -> Reply:
        asked.append(int(request.json()["messages"][0]["content"]))
        return Reply(200, data, kind="text/event-stream", framing="close", cut=asked[-1])

    with scripted_server(script) as server, groq.Groq(api_key="k", base_url=server.url, max_retries=0) as bare:
        client = wrap(bare)
        for cut in range(0, len(data) + 1, 5):
            messages = [{"role": "user", "content": str(cut)}]
            outcomes = [_outcome(each, messages) for each in (bare, client, client)]
            assert outcomes[0] == outcomes[1] == outcomes[2]
            assert asked.count(cut) == (2 if b"[DONE]\n\n" in data[:cut] else 3), f"cut at {cut}"


def _outcome(client: Any, messages: Any) -> Any:
    try:
        return [chunk.to_dict() for chunk in chat(client, messages, stream=True)]
    except Exception as error:  # compared with the bare SDK's own
        return type(error)


def test_an_error_of_the_server_is_the_sdks_own(groq_server: Scripted) -> None:
    """A 500 raises what the SDK raises; nothing is stored."""
    with scripted_server(shapes.error_reply(500, "broken")) as server, groq_client(server.url) as client:
        for _ in range(2):
            with pytest.raises(groq.InternalServerError):
                chat(client)
        assert server.count == 2


def test_a_rate_limit_holds_for_every_caller_of_the_endpoint() -> None:
    """After a 429 with Retry-After the next call of the same client waits it out."""
    replies = [shapes.error_reply(429, "slow down", {"retry-after": "0.3"}), shapes.json_reply(shapes.chat("hello"))]
    with scripted_server(replies) as server, groq_client(server.url) as client:
        with pytest.raises(groq.RateLimitError):
            chat(client)
        import time

        begin = time.monotonic()
        assert chat(client).choices[0].message.content == "hello"
        assert time.monotonic() - begin > 0.2


def test_stale_if_error_serves_the_old_answer() -> None:
    """An expired answer is served again while the server is down."""
    replies = [shapes.json_reply(shapes.chat("old")), *[shapes.error_reply(500, "broken")] * 3]
    with scripted_server(replies) as server, groq_client(server.url, ttl=0.001, stale_if_error="1h") as client:
        first = chat(client)
        assert chat(client) == first
        assert cachekit.stats().as_dict()["stale"] == 1


# -- functions of one's own -----------------------------------------------------------------------------------------------


def test_a_function_with_an_adapter(groq_server: Scripted) -> None:
    """`@distributed_cache(adapter=groq.CHAT)` on a function of one's own: SDK values back, sampled ones too."""
    with groq.Groq(api_key="k", base_url=groq_server.url) as client:

        @cachekit.distributed_cache(adapter=groq_adapter.CHAT, ignore=("client",))
        def ask(question: str, stream: bool = False) -> Any:
            return client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": question}], stream=stream
            )

        first = ask("Is it cold?")
        assert ask("Is it cold?") == first
        assert isinstance(first, groq.types.chat.ChatCompletion)
        live = list(ask("Is it warm?", stream=True))
        assert list(ask("Is it warm?", stream=True)) == live
        assert ask("Is it warm?").usage is not None
    assert groq_server.count == 3  # the stream had told no usage


def test_an_async_function_with_an_adapter(server: Scripted) -> None:
    """The same for a coroutine function and Claude."""

    async def main() -> None:
        async with anthropic.AsyncAnthropic(api_key="k", base_url=server.url) as client:

            @cachekit.distributed_cache(adapter=claude.MESSAGES, ignore=("client",))
            async def ask(question: str) -> Any:
                return await client.messages.create(
                    model="m", max_tokens=60, messages=[{"role": "user", "content": question}]
                )

            assert await ask("Why?") == await ask("Why?")

    asyncio.run(main())
    assert server.count == 1


# -- savings ------------------------------------------------------------------------------------------------------------


def test_tokens_and_money_saved(groq_server: Scripted, tmp_path: Any) -> None:
    """A hit saves the answer's recorded usage, priced by the table named; the answer's own usage is untouched."""
    table = tmp_path / "prices.json"
    table.write_text('{"cachekit-tiny": {"input_cost_per_token": 0.5, "output_cost_per_token": 2.0}}')
    with groq_client(groq_server.url, prices=table) as client:
        first = chat(client)
        assert cachekit.stats().as_dict()["tokens_saved"] == {"input": 0, "output": 0}
        assert chat(client).usage == first.usage
        saved = cachekit.stats().as_dict()
    assert saved["tokens_saved"] == {"input": first.usage.prompt_tokens, "output": first.usage.completion_tokens}
    assert saved["cost_saved"] == first.usage.prompt_tokens * 0.5 + first.usage.completion_tokens * 2.0


def test_replay_never_asks_the_server(groq_server: Scripted) -> None:
    """In replay mode a miss raises CacheMiss, above the SDK's retries."""
    with groq_client(groq_server.url) as client, cachekit.mode("replay"), pytest.raises(cachekit.CacheMiss):
        chat(client)
    assert groq_server.count == 0


def test_bypass_and_unknown_clients(groq_server: Scripted) -> None:
    """`bypass()` goes to the server; a client no adapter knows is refused with the remedy."""
    with groq_client(groq_server.url) as client:
        chat(client)
        with cachekit.bypass():
            chat(client)
    assert groq_server.count == 2
    with pytest.raises(cachekit.UsageError, match="wrap"):
        wrap(object())


# -- versions -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("groq_peer")  # what it starts is that peer again: where there is none, it is skipped or fails
def test_a_redeployed_model_misses_with_the_servers_version() -> None:
    """`version="server"`: the same request to a server that lists another model asks again."""
    from peers import servers

    counts = []
    with relay_that_changes() as (server, choose):
        for alias in ("first", "first", "second"):
            with servers.llama_server(api_prefix="/openai", alias=alias) as real:
                choose(real.url)
                with groq_client(server.url, version="server") as client:
                    chat(client)
                    chat(client)
            counts.append(sum(request.path.endswith("completions") for request in server.requests))
    assert counts == [1, 1, 2]


@contextlib.contextmanager
def relay_that_changes() -> Iterator[tuple[Scripted, Callable[[str], None]]]:
    """One address, and behind it whichever server was chosen last."""
    from peers.relay import _passed_on

    chosen: list[str] = []
    with scripted_server(lambda request: _passed_on(chosen[-1], request)) as server:
        yield server, chosen.append


def test_show_tells_which_model_answered(groq_server: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    """`cachekit show KEY --json` has the answer's model and fingerprint."""
    import json

    from cachekit.cli.parser import main

    with groq_client(groq_server.url) as client:
        first = chat(client)
    assert main(["ls", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert main(["show", entry["key"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["model"], shown["system_fingerprint"]) == (first.model, first.system_fingerprint)


def test_no_thread_is_left_behind(groq_server: Scripted) -> None:
    """Streams read, left and replayed leave no thread of ours."""
    import threading

    with groq_client(groq_server.url) as client:
        before = {thread.name for thread in threading.enumerate()}
        list(chat(client, stream=True))
        next(iter(chat(client, OTHER, stream=True)))
        after = {thread.name for thread in threading.enumerate()}
    assert {name for name in after - before if name.startswith("cachekit")} <= {"cachekit-keeper"}


# -- batches ------------------------------------------------------------------------------------------------------------


def test_only_the_missing_texts_of_a_batch_are_sent(server: Scripted) -> None:
    """Each text is an entry; a batch asks for what is missing, duplicates once; order, indexes and usage are rebuilt."""
    import json

    with openai_client(server.url) as client:

        def embed(texts: Any) -> Any:
            return client.embeddings.create(model="m", input=texts, encoding_format="float")

        first = embed(["red", "green"])
        merged = embed(["blue", "red", "blue", "green"])
        assert json.loads(server.requests[-1].body)["input"] == ["blue"]
        assert server.count == 2
        assert [item.index for item in merged.data] == [0, 1, 2, 3]
        assert merged.data[1].embedding == first.data[0].embedding
        assert merged.data[3].embedding == first.data[1].embedding
        assert merged.data[0].embedding == merged.data[2].embedding
        assert embed("green").data[0].embedding == first.data[1].embedding
        assert embed(["blue", "red", "blue", "green"]) == merged
        assert server.count == 2


def test_an_async_batch(server: Scripted) -> None:
    """The same through the async client, whose entries the sync one shares."""

    async def embed() -> Any:
        async with openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1") as client:
            return await wrap(client).embeddings.create(model="m", input=["one", "two"], encoding_format="float")

    found = asyncio.run(embed())
    with openai_client(server.url) as client:
        assert client.embeddings.create(model="m", input=["two", "one"], encoding_format="float").data[0].embedding == (
            found.data[1].embedding
        )
    assert server.count == 1


def test_a_stream_nobody_reads_is_closed(groq_server: Scripted) -> None:
    """Opening a stream and closing it at once gives the connection back, and stores nothing."""
    with groq_client(groq_server.url) as client:
        stream = chat(client, stream=True)
        response = stream.response
        stream.close()
        assert response.is_closed
        assert list(chat(client, stream=True))
        assert groq_server.count == 2


def test_a_stale_stream_is_refreshed_whole(groq_server: Scripted) -> None:
    """Under stale_while_revalidate an expired stream is replayed, and a new one stored that nobody reads."""
    import time

    with groq_client(groq_server.url, ttl=0.05, stale_while_revalidate="1h") as client:
        first = list(chat(client, stream=True))
        time.sleep(0.1)
        assert [chunk.id for chunk in chat(client, stream=True)] == [chunk.id for chunk in first]
        deadline = time.monotonic() + 20
        while cachekit.stats().as_dict()["stores"] < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert groq_server.count == 2
        assert cachekit.stats().as_dict()["stores"] == 2
