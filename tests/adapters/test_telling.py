"""A stored chat is told as it was asked for: plain or as a stream, with its usage or without, and so that the SDK reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import groq
import openai
import pytest
from peers import shapes
from peers.scripted import Reply, Request, Scripted, scripted_server

import cachekit
from cachekit_adapters import wrap
from cachekit_adapters._wire.sse import blocks, tellable

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}], "temperature": 0}
STREAM: dict[str, Any] = {**ASK, "stream": True}
WITH_USAGE: dict[str, Any] = {**STREAM, "stream_options": {"include_usage": True}}


def openais(request: Request) -> Reply:
    """What OpenAI's own server says: a chunk of usage to whom asks for it, and to nobody else."""
    said = request.json()
    if not said.get("stream"):
        return shapes.json_reply(shapes.chat())
    usage = bool((said.get("stream_options") or {}).get("include_usage"))
    return shapes.stream_reply(shapes.frames(shapes.chat_chunks(usage=usage)))


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(openais) as found:
        yield found


@pytest.fixture
def client(server: Scripted) -> Iterator[Any]:
    with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as bare:
        yield wrap(bare)


def ask(client: Any, **said: Any) -> Any:
    return client.chat.completions.create(**said)


def test_a_plain_call_gets_usage_though_a_stream_had_none(client: Any, server: Scripted) -> None:
    """It is asked for itself, once; from then on its answer serves the stream too."""
    live = list(ask(client, **STREAM))
    for _ in range(2):
        assert ask(client, **ASK).usage.total_tokens > 0
    again = list(ask(client, **STREAM))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in again) == "Hello there."
    assert len(live) > 1
    assert server.count == 2


def test_who_asks_for_usage_gets_it_though_a_stream_had_none(client: Any, server: Scripted) -> None:
    """The stream with usage takes the place of the one without, and serves all three."""
    list(ask(client, **STREAM))
    for _ in range(2):
        assert list(ask(client, **WITH_USAGE))[-1].usage.total_tokens > 0
    assert ask(client, **ASK).usage is not None
    assert all(chunk.choices for chunk in ask(client, **STREAM))
    assert server.count == 2


def test_who_does_not_ask_for_usage_gets_no_chunk_of_it(client: Any, server: Scripted) -> None:
    """Every chunk of the replay has choices, and all of the text is in them."""
    list(ask(client, **WITH_USAGE))
    told = [chunk.choices[0].delta.content or "" for chunk in ask(client, **STREAM)]
    assert "".join(told) == "Hello there."
    assert server.count == 1


def test_a_misfit_is_no_error(client: Any) -> None:
    """What is asked again because it lacks usage counts as a miss, not as an adapter that failed."""
    events: list[cachekit.Event] = []
    list(ask(client, **STREAM))
    remove = cachekit.add_listener(events.append)
    ask(client, **ASK)
    remove()
    assert "error" not in {event.what for event in events}


def test_async_streams_are_told_alike(server: Scripted) -> None:
    """The async client's replay leaves usage out, too, where it was not asked for."""

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url) as bare:
            client = wrap(bare)
            async for _ in await ask(client, **WITH_USAGE):
                pass
            assert [chunk async for chunk in await ask(client, **STREAM) if not chunk.choices] == []
            assert (await ask(client, **ASK)).usage is not None

    asyncio.run(main())
    assert server.count == 1


def test_a_server_that_ignores_include_usage_is_asked_once() -> None:
    """What it said to that very question is its answer, usage or not."""
    reply = shapes.stream_reply(shapes.frames(shapes.chat_chunks()))
    with scripted_server(reply) as server, openai.OpenAI(api_key="k", base_url=server.url) as bare:
        for _ in range(2):
            list(ask(wrap(bare), **WITH_USAGE))
        assert server.count == 1


def test_usage_that_nobody_asked_for_comes_back_as_it_came() -> None:
    """Some servers always tell it: a replay has the chunks of the live stream, all of them."""
    reply = shapes.stream_reply(shapes.frames(shapes.chat_chunks(usage=True)))
    with scripted_server(reply) as server, openai.OpenAI(api_key="k", base_url=server.url) as bare:
        first, second = (list(ask(wrap(bare), **STREAM)) for _ in range(2))
        assert first == second
        assert first[-1].usage is not None
        assert server.count == 1


def test_inference_clients_are_told_alike(server: Scripted) -> None:
    """Hugging Face's client: usage for the plain call, none for a stream that did not ask."""
    hub = pytest.importorskip("huggingface_hub")
    client = wrap(hub.InferenceClient(base_url=server.url))
    said: dict[str, Any] = {"messages": ASK["messages"], "temperature": 0}
    list(client.chat_completion(**said, stream=True))
    assert client.chat_completion(**said).usage is not None
    list(client.chat_completion(**said, stream=True, stream_options={"include_usage": True}))
    assert all(chunk.choices for chunk in client.chat_completion(**said, stream=True))
    hub.close_session()
    assert server.count == 2


# -- blocks of events without data ---------------------------------------------------------------


@pytest.mark.parametrize("sdk", [openai.OpenAI, groq.Groq])
@pytest.mark.parametrize("block", [b"retry: 3000\n\n", b"id: 7\n\n", b"event: ping\n\n", b"retry: 1\r\n\r\n"])
@pytest.mark.parametrize("at", [0, 2])
def test_a_stream_that_the_sdk_could_not_read_does_not_fail_for_its_whole_ttl(sdk: Any, block: bytes, at: int) -> None:
    """Whatever the live call did, the next one gives all chunks."""
    sent = shapes.frames(shapes.chat_chunks())
    sent.insert(at, block)
    with scripted_server(Reply(200, b"".join(sent), {}, "text/event-stream")) as server:
        with sdk(api_key="k", base_url=server.url, max_retries=0) as bare:
            client = wrap(bare)
            try:
                list(ask(client, **STREAM))
            except ValueError:  # as the bare client does
                pass
            told = list(ask(client, **STREAM))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == "Hello there."


def test_a_stream_without_such_blocks_stays_as_it_is() -> None:
    """Comments and names beside data are no reason to touch a byte."""
    plain = b": hello\n\ndata: 1\n\n\ndata: 2\n\n"
    assert tellable(plain) is plain
    assert tellable(b"id: 7\ndata: 1\n\nid: 8\n\n: x\n\ndata: 2\n\n") == b"id: 7\ndata: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_blocks_say_the_same_together(end: bytes) -> None:
    """Whatever ends the lines; what has no end yet is the last."""
    data = end.join([b"data: 1", b"", b"id: 2", b"data: 2", b"", b"data: 3"])
    assert blocks(data) == [b"data: 1\n\n", b"id: 2\ndata: 2\n\n", b"data: 3"]
