"""Hugging Face's client: chat against llama-server, text generation and embeddings against the stand-ins for TGI and TEI."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.servers import Server
from peers.shapes import chat, chat_chunks, frames, json_reply, stream_reply

import cachekit
from cachekit_adapters import wrap

hub = pytest.importorskip("huggingface_hub")

MESSAGES: Any = [{"role": "user", "content": "What is a cache good for?"}]
COLD: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 8, "temperature": 0}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No look-ups in the Hub; the session of each test is closed after it."""
    agents = pytest.importorskip("huggingface_hub.utils._detect_agent")
    monkeypatch.setattr(agents, "_registry", {"standardEnvVars": [], "harnesses": {}})
    yield
    hub.close_session()


@pytest.fixture
def llama(llama_peer: Server) -> Iterator[Scripted]:
    with relay(llama_peer.url) as found:
        yield found


@pytest.fixture
def tgi(tgi_peer: Scripted) -> Iterator[Scripted]:
    with relay(tgi_peer.url) as found:
        yield found


def client(url: str, **said: Any) -> Any:
    return wrap(hub.InferenceClient(base_url=url), **said)


def test_chat_of_a_real_server(llama: Scripted) -> None:
    """A hit is the client's own type, equal to the live answer, without network; the other client stays as it was."""
    bare = hub.InferenceClient(base_url=llama.url)
    wrapped = wrap(bare, cache_truncated=True)
    assert type(wrapped) is hub.InferenceClient and "_inner_post" not in vars(bare)
    live, stored = (wrapped.chat_completion(**COLD) for _ in range(2))
    assert type(stored) is type(live) is hub.ChatCompletionOutput
    assert stored == live
    assert wrapped.chat.completions.create(**COLD) == live
    assert llama.count == 1
    bare.chat_completion(**COLD)
    assert llama.count == 2


def test_streamed_chat_of_a_real_server(llama: Scripted) -> None:
    """Chunks of the client's own type come back as they were; a stream with its usage serves the plain call."""
    wrapped = client(llama.url, cache_truncated=True)
    asked: Any = {**COLD, "stream": True, "stream_options": {"include_usage": True}}
    live, stored = (list(wrapped.chat_completion(**asked)) for _ in range(2))
    assert live == stored and type(live[0]) is hub.ChatCompletionStreamOutput and len(live) > 1
    plain = wrapped.chat_completion(**COLD)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in live if chunk.choices)
    assert plain.choices[0].message.content == said
    assert llama.count == 1


def test_async_chat_of_a_real_server(llama: Scripted) -> None:
    """The async client shares the key with the sync one, plain and streamed."""
    live = client(llama.url, cache_truncated=True).chat_completion(**COLD)

    async def ask() -> None:
        async with wrap(hub.AsyncInferenceClient(base_url=llama.url), cache_truncated=True) as wrapped:
            assert await wrapped.chat_completion(**COLD) == live
            other = {**COLD, "max_tokens": 9}
            told = []
            for _ in range(2):
                told.append([chunk async for chunk in await wrapped.chat_completion(**other, stream=True)])
            assert told[0] == told[1] and len(told[0]) > 1

    asyncio.run(ask())
    assert llama.count == 2


def test_a_sampled_chat_needs_a_word(llama: Scripted) -> None:
    """TGI's chat samples unless the temperature is 0."""
    wrapped = client(llama.url, cache_truncated=True)
    with pytest.warns(UserWarning, match="sampled"):
        wrapped.chat_completion(MESSAGES, max_tokens=4)
    wrapped.chat_completion(MESSAGES, max_tokens=4)
    assert llama.count == 2


def test_the_endpoint_is_the_model() -> None:
    """Two servers answer the same "dummy" model each for itself; a named model is part of the key."""
    with scripted_server(json_reply(chat("one"))) as first, scripted_server(json_reply(chat("two"))) as second:
        said = [client(each.url).chat_completion(**COLD).choices[0].message.content for each in (first, second)]
        assert said == ["one", "two"]
        assert first.requests[0].json()["model"] == "dummy"
        client(first.url).chat_completion(**COLD, model="other")
        assert first.count == 2


def test_the_token_is_no_part_of_a_key() -> None:
    """Another token hits; another account that pays does not."""
    with scripted_server(json_reply(chat())) as server:
        for given in ({"token": "hf_one"}, {"token": "hf_two"}, {"token": "hf_one", "bill_to": "us"}):
            wrap(hub.InferenceClient(base_url=server.url, **given)).chat_completion(**COLD)
        assert server.count == 2


@pytest.mark.parametrize("details", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_text_generation_in_all_its_shapes(tgi: Scripted, details: bool, stream: bool) -> None:
    """str, TextGenerationOutput, and streams of both: equal to the live ones, without network."""
    wrapped = client(tgi.url)

    def ask(of: Any) -> Any:
        found = of.text_generation("Say something.", details=details, stream=stream)
        return list(found) if stream else found

    live, stored = ask(wrapped), ask(wrapped)
    assert tgi.count == 1
    assert stored == live == ask(hub.InferenceClient(base_url=tgi.url))
    one = live[0] if stream else live
    kinds = (hub.TextGenerationStreamOutput if stream else hub.TextGenerationOutput) if details else str
    assert type(one) is type(stored[0] if stream else stored) is kinds


def test_text_generation_of_one_key(tgi: Scripted) -> None:
    """A stream serves the plain call and the reverse."""
    wrapped = client(tgi.url)
    pieces = list(wrapped.text_generation("one", stream=True, details=True))
    assert wrapped.text_generation("one", details=True).generated_text == pieces[-1].generated_text
    text = wrapped.text_generation("two", details=True).generated_text
    assert "".join(piece.token.text for piece in wrapped.text_generation("two", details=True, stream=True)) == text
    assert tgi.count == 2


def test_async_text_generation(tgi: Scripted) -> None:
    """The async client's shapes."""

    async def ask() -> None:
        async with wrap(hub.AsyncInferenceClient(base_url=tgi.url)) as wrapped:
            assert await wrapped.text_generation("x") == await wrapped.text_generation("x")
            told = []
            for _ in range(2):
                told.append([piece async for piece in await wrapped.text_generation("y", stream=True)])
            assert told[0] == told[1] and len(told[0]) > 1

    asyncio.run(ask())
    assert tgi.count == 2


def test_feature_extraction(tei_peer: Scripted) -> None:
    """A float32 array with the live one's bytes; another normalisation is another answer."""
    numpy = pytest.importorskip("numpy")
    with relay(tei_peer.url) as server:
        wrapped = client(server.url)
        live, stored = (wrapped.feature_extraction(["a", "b"]) for _ in range(2))
        assert server.count == 1
        assert stored.dtype == live.dtype == numpy.float32 and numpy.array_equal(stored, live)
        assert not numpy.array_equal(wrapped.feature_extraction(["a", "b"], normalize=False), live)
        assert server.count == 2


def test_the_first_chunk_is_not_held_back() -> None:
    """A chunk is there while the server still waits to send the others."""
    go = threading.Event()
    sent = frames(chat_chunks())

    def told() -> Iterator[bytes]:
        yield sent[0] + sent[1]
        assert go.wait(30)
        yield from sent[2:]

    with scripted_server(lambda _: Reply(200, told(), {}, "text/event-stream", "chunked")) as server:
        wrapped = client(server.url)
        stream = iter(wrapped.chat_completion(**COLD, stream=True))
        first = [next(stream), next(stream)]
        assert first[1].choices[0].delta.content == "Hello"
        go.set()
        live = first + list(stream)
        assert list(wrapped.chat_completion(**COLD, stream=True)) == live
        assert server.count == 1


@pytest.mark.parametrize(
    "body",
    [
        b"".join(frames(chat_chunks(), done=False)[:-1]),
        b"".join(frames(chat_chunks(finish=None))),
        b'data: {"error": "overloaded", "error_type": "overloaded"}\n\n',
        b"data: {not json}\n\n",
    ],
)
def test_a_stream_that_is_not_whole_is_not_kept(body: bytes) -> None:
    """What the client makes of it, it makes each time; nothing is stored."""
    with scripted_server(Reply(200, [body], {}, "text/event-stream", "chunked")) as server:
        wrapped, bare = client(server.url), hub.InferenceClient(base_url=server.url)
        assert outcome(wrapped) == outcome(wrapped) == outcome(bare)
        assert server.count == 3
    assert cachekit.stats().as_dict()["stores"] == 0


def outcome(of: Any) -> Any:
    found: list[Any] = []
    try:
        for chunk in of.chat_completion(**COLD, stream=True):
            found.append(chunk)
    except Exception as error:
        found.append((type(error), str(error)))
    return found


def test_a_cut_stream_is_the_client_s_own_error() -> None:
    """Broken off: the client's exception, and the next call asks again."""
    whole = frames(chat_chunks())
    httpx2 = pytest.importorskip("httpx2")
    with scripted_server(stream_reply(whole, cut=len(whole[0]) + 20)) as server:
        wrapped = client(server.url)
        for _ in range(2):
            with pytest.raises(httpx2.RemoteProtocolError):
                list(wrapped.chat_completion(**COLD, stream=True))
        assert server.count == 2


def test_errors_are_the_client_s_own() -> None:
    """A 422 raises HfHubHTTPError with the server's text, each time."""
    with scripted_server(json_reply({"error": "bad input"}, 422)) as server:
        for _ in range(2):
            with pytest.raises(hub.errors.HfHubHTTPError, match="bad input"):
                client(server.url).chat_completion(**COLD)
        assert server.count == 2


def test_an_answer_that_is_no_json_is_passed() -> None:
    """The client raises what it raises, and nothing is stored."""
    with scripted_server(Reply(200, b"<html>", {}, "text/html")) as server:
        for _ in range(2):
            with pytest.raises(json.JSONDecodeError):
                client(server.url).chat_completion(**COLD)
        assert server.count == 2
    assert cachekit.stats().as_dict()["stores"] == 0


def test_the_server_s_version_in_the_key(tgi: Scripted) -> None:
    """version="server" asks /info once; a server without one is not cached."""
    wrapped = client(tgi.url, version="server")
    assert wrapped.text_generation("x") == wrapped.text_generation("x")
    assert [request.path for request in tgi.requests] == ["/info", "/"]

    async def ask() -> None:
        async with wrap(hub.AsyncInferenceClient(base_url=tgi.url), version="server") as other:
            assert await other.text_generation("x") == wrapped.text_generation("x")

    asyncio.run(ask())
    assert [request.path for request in tgi.requests[2:]] == ["/info"]
    with scripted_server(lambda request: Reply(404) if request.path == "/info" else json_reply(chat())) as server:
        wrapped = client(server.url, version="server")
        for _ in range(2):
            wrapped.chat_completion(**COLD)
        assert [request.path for request in server.requests] == ["/info", *["/v1/chat/completions"] * 2]


def test_other_tasks_pass(tei_peer: Scripted) -> None:
    """What is not one of the three goes to the server each time."""
    with scripted_server(json_reply([{"label": "x", "score": 0.5}])) as server:
        wrapped = client(server.url)
        for _ in range(2):
            wrapped.text_classification("good")
        assert server.count == 2


@pytest.mark.parametrize("is_async", [False, True])
def test_what_a_test_puts_in_the_place_of_the_class_s_method_is_asked(
    monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """A class patched after `wrap`, by a function or by a mock, which gets no client: nothing goes out."""
    kind = hub.AsyncInferenceClient if is_async else hub.InferenceClient
    wrapped, body = wrap(kind(base_url="http://127.0.0.1:9"), cache_truncated=True), json.dumps(chat()).encode()

    async def awaited(_client: Any, _parameters: Any, stream: bool = False) -> bytes:
        return body

    def ask(text: str) -> Any:
        asked = wrapped.chat_completion(**{**COLD, "messages": [{"role": "user", "content": text}]})
        return asyncio.run(asked) if is_async else asked

    monkeypatch.setattr(kind, "_inner_post", awaited if is_async else lambda _client, _parameters, stream=False: body)
    assert ask("one").choices[0].message.content == "Hello there."
    mocked = (AsyncMock if is_async else Mock)(return_value=body)
    monkeypatch.setattr(kind, "_inner_post", mocked)
    assert ask("two") == ask("two")
    assert mocked.call_args[0][0].url == "http://127.0.0.1:9/v1/chat/completions"
    assert mocked.call_count == 1
