"""TGI's native API over plain HTTP, against the stand-in scripted from its schema: three routes, one answer; streams."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.shapes import stream_reply
from peers.tgi import tgi_server

import cachekit
from cachekit_adapters import tgi, wrap

httpx = pytest.importorskip("httpx")

ASKED = {"inputs": "Say something.", "parameters": {"details": True}}


@pytest.fixture
def server(tgi_peer: Scripted) -> Iterator[Scripted]:
    with relay(tgi_peer.url) as found:
        yield found


@pytest.fixture
def open_client() -> Iterator[Any]:
    """Makes wrapped clients, and closes them."""
    opened: list[Any] = []

    def make(url: str, **said: Any) -> Any:
        opened.append(httpx.Client(base_url=url, trust_env=False))
        return wrap(opened[-1], adapter=tgi.GENERATE, **said)

    yield make
    for each in opened:
        each.close()


def halves(go: threading.Event) -> Iterator[bytes]:
    """A stream whose second half waits for `go`."""
    yield b'data:{"index":1,"token":{"id":1,"text":"a","logprob":0,"special":false},"generated_text":null}\n\n'
    assert go.wait(30)
    yield b'data:{"index":2,"token":{"id":2,"text":"b","logprob":0,"special":false},"generated_text":"ab"}\n\n'


def streamed(client: Any, path: str = "/generate_stream", body: Any = ASKED) -> list[bytes]:
    with client.stream("POST", path, json=body) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        return list(response.iter_bytes())


def synthetic() -> list[bool]:
    found: list[bool] = []
    cachekit.add_listener(lambda event: found.append(event.synthetic) if event.what == "hit" else None)
    return found


def test_a_stream_comes_back_chunk_for_chunk(server: Scripted, open_client: Any) -> None:
    """The second stream has the first one's chunks, lines and content, and makes no request."""
    client = open_client(server.url)
    live = streamed(client)
    assert streamed(client) == live and len(live) > 1
    with client.stream("POST", "/generate_stream", json=ASKED) as response:
        lines = list(response.iter_lines())
    assert "\n".join(lines).encode() == b"".join(live).removesuffix(b"\n")
    assert client.post("/generate_stream", json=ASKED).content == b"".join(live)
    assert server.count == 1


def test_the_first_chunk_is_not_held_back(open_client: Any) -> None:
    """The first event reaches the reader while the server still waits to send the others."""
    go = threading.Event()

    with scripted_server(lambda _: Reply(200, halves(go), {}, "text/event-stream", "chunked")) as server:
        client = open_client(server.url)
        with client.stream("POST", "/generate_stream", json=ASKED) as response:
            chunks = response.iter_bytes()
            assert b'"text":"a"' in next(chunks)
            go.set()
            assert b'"generated_text":"ab"' in b"".join(chunks)
        streamed(client)
        assert server.count == 1


@pytest.mark.parametrize("path", ["/generate_stream", "/"])
def test_a_stored_stream_serves_a_plain_call(server: Scripted, open_client: Any, path: str) -> None:
    """What was streamed is what `/generate` and the base URL would have said."""
    client = open_client(server.url)
    streamed(client, path, {**ASKED, "stream": True})
    marks = synthetic()
    plain, compat = client.post("/generate", json=ASKED), client.post("/", json=ASKED)
    assert server.count == 1 and marks == [False, False]
    with httpx.Client(base_url=server.url, trust_env=False) as bare:
        assert plain.json() == bare.post("/generate", json=ASKED).json()
        assert compat.json() == bare.post("/", json=ASKED).json()
    assert plain.headers["content-type"] == "application/json"


def test_a_stored_plain_answer_serves_a_stream_as_synthetic(server: Scripted, open_client: Any) -> None:
    """The chunks are made, say what the live stream says, and the hit's event says so."""
    client = open_client(server.url)
    client.post("/", json=ASKED)
    marks = synthetic()
    made = b"".join(streamed(client))
    assert server.count == 1 and marks == [True]
    with httpx.Client(base_url=server.url, trust_env=False) as bare:
        live = bare.post("/generate_stream", json=ASKED).content
    texts = [[json.loads(line[5:])["token"]["text"] for line in each.split(b"\n") if line] for each in (made, live)]
    assert texts[0] == texts[1]


def test_the_routes_share_one_answer(server: Scripted, open_client: Any) -> None:
    """`/generate` answers for the base URL, which gives a list of one, and the reverse."""
    client = open_client(server.url)
    one = client.post("/generate", json=ASKED).json()
    assert client.post("/", json=ASKED).json() == [one]
    assert server.count == 1


def test_a_request_that_cannot_stream_is_refused_as_ever(open_client: Any) -> None:
    """With `best_of` the plain answer does not serve a stream, which the server refuses."""
    asked = {"inputs": "x", "parameters": {"best_of": 2}}

    def answer(request: Any) -> Reply:
        streams = request.path == "/generate_stream"
        return Reply(422, b'{"error": "no"}') if streams else Reply(200, b'{"generated_text": "x"}')

    with scripted_server(answer) as server:
        client = open_client(server.url, cache_sampled=True)
        for _ in range(2):
            assert client.post("/generate", json=asked).status_code == 200
            assert client.post("/generate_stream", json=asked).status_code == 422
        assert server.count == 3


def frames_of(server: Scripted) -> list[bytes]:
    with httpx.Client(base_url=server.url, trust_env=False) as bare:
        whole = bare.post("/generate_stream", json=ASKED).content
    return [frame + b"\n\n" for frame in whole.split(b"\n\n") if frame]


def test_a_cut_stream_is_never_stored(tgi_peer: Scripted, open_client: Any) -> None:
    """Broken off at any of many places: the client's own error, and the next call asks again."""
    whole = frames_of(tgi_peer)
    size = sum(map(len, whole))
    cuts = [1, 7, *range(20, size, size // 40), size - 1]
    with scripted_server([stream_reply(whole, cut=cut) for cut in cuts]) as server:
        client = open_client(server.url)
        for _ in cuts:
            with pytest.raises(httpx.RemoteProtocolError):
                streamed(client)
        assert server.count == len(cuts)
    assert cachekit.stats().as_dict()["stores"] == 0


def test_a_shortened_stream_is_never_stored(tgi_peer: Scripted, open_client: Any) -> None:
    """Ended in good order before its last byte: the reader gets what came, the next call asks again."""
    whole = b"".join(frames_of(tgi_peer))
    places = range(0, len(whole) - 1, 11)
    replies = [Reply(200, [whole[:place]] if place else [], {}, "text/event-stream", "chunked") for place in places]
    with scripted_server(replies) as server:
        client = open_client(server.url)
        for place in places:
            assert b"".join(streamed(client)) == whole[:place]
        assert server.count == len(places)
    assert cachekit.stats().as_dict()["stores"] == 0


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b"data:{not json}\n\n", "text/event-stream", "incomplete"),
        (b'data:{"error":"overloaded","error_type":"overloaded"}\n\n', "text/event-stream", "error_in_200"),
        (b'{"generated_text": "whole"}', "application/json", "wrong_content_type"),
    ],
)
def test_what_is_no_whole_stream_is_passed(open_client: Any, body: bytes, kind: str, reason: str) -> None:
    """Malformed events, an error among them, another content type: the server's bytes each time, nothing stored."""
    with scripted_server(Reply(200, body, {}, kind)) as server:
        client = open_client(server.url)
        for _ in range(2):
            with client.stream("POST", "/generate_stream", json=ASKED) as response:
                assert response.read() == body
        assert server.count == 2
    assert cachekit.stats().as_dict()["skipped"] == {reason: 2}


def test_a_truncated_stream_tells_by_its_request(server: Scripted, open_client: Any) -> None:
    """Without details only max_new_tokens says that a stream stopped at its limit."""
    client = open_client(server.url)
    limited = {"inputs": "Say something.", "parameters": {"max_new_tokens": 2}}
    for _ in range(2):
        client.post("/generate", json=limited)
        streamed(client, body=limited)
    assert server.count == 4


def test_a_stream_left_early_is_not_stored(server: Scripted, open_client: Any) -> None:
    """Who leaves before the end, or reads nothing at all, gets it from the server the next time."""
    client = open_client(server.url)
    with client.stream("POST", "/generate_stream", json=ASKED):
        pass
    with client.stream("POST", "/generate_stream", json=ASKED) as response:
        next(response.iter_bytes())
    assert cachekit.stats().as_dict()["stores"] == 0
    streamed(client)
    streamed(client)
    assert server.count == 3
    assert not client._transport._pool.connections or all(
        each.is_idle() for each in client._transport._pool.connections
    )


def test_followers_share_the_leader_s_stream(open_client: Any) -> None:
    """Who asks while it streams gets it from its start, with no request of its own."""
    go = threading.Event()

    with scripted_server(lambda _: Reply(200, halves(go), {}, "text/event-stream", "chunked")) as server:
        client = open_client(server.url)
        with client.stream("POST", "/generate_stream", json=ASKED) as leader:
            chunks = leader.iter_bytes()
            first = next(chunks)
            with client.stream("POST", "/generate_stream", json=ASKED) as follower:
                others = follower.iter_bytes()
                assert next(others) == first
                go.set()
                assert b"".join(others) == b"".join(chunks) != b""
        assert server.count == 1


def test_async_streams(server: Scripted) -> None:
    """The async client streams, keeps and replays alike, and serves a plain call."""

    async def ask() -> None:
        async with wrap(httpx.AsyncClient(base_url=server.url, trust_env=False), adapter=tgi.GENERATE) as client:
            told = []
            for _ in range(2):
                async with client.stream("POST", "/generate_stream", json=ASKED) as response:
                    told.append([chunk async for chunk in response.aiter_bytes()])
            assert told[0] == told[1] and len(told[0]) > 1
            plain = await client.post("/generate", json=ASKED)
            assert plain.json()["details"]["finish_reason"] == "eos_token"
            async with client.stream("POST", "/generate", json=ASKED) as response:
                assert [chunk async for chunk in response.aiter_raw()] == [plain.content]

    asyncio.run(ask())
    assert server.count == 1


def test_a_redeployed_model_misses(monkeypatch: pytest.MonkeyPatch, open_client: Any) -> None:
    """version="server": another sha at /info is another key; within the minute /info is asked once."""
    with tgi_server(model_sha="a" * 40) as old, tgi_server(model_sha="b" * 40) as new:
        current = [old]

        def pass_on(request: Any) -> Reply:
            with httpx.Client(base_url=current[0].url, trust_env=False) as bare:
                came = bare.request(
                    request.method, request.path, content=request.body, headers={"content-type": "application/json"}
                )
            return Reply(came.status_code, came.content, {}, came.headers["content-type"])

        with scripted_server(pass_on) as server:
            client = open_client(server.url, version="server")
            for _ in range(3):
                client.post("/generate", json=ASKED)
            assert [request.path for request in server.requests] == ["/info", "/generate"]
            current[0] = new
            monkeypatch.setattr("cachekit_adapters._wire.versions.LASTS", 0.0)
            client.post("/generate", json=ASKED)
            assert [request.path for request in server.requests[2:]] == ["/info", "/generate"]


def test_async_versions(server: Scripted) -> None:
    """The async client asks /info once, tasks at the same time included, and shares the key with the sync one."""

    async def ask() -> list[Any]:
        bare = httpx.AsyncClient(base_url=server.url, trust_env=False)
        async with wrap(bare, adapter=tgi.GENERATE, version="server") as client:
            asked = [client.post("/generate", json={**ASKED, "inputs": text}) for text in ("a", "b", "a")]
            return [response.json() for response in await asyncio.gather(*asked)]

    told = asyncio.run(ask())
    assert told[0] == told[2] != told[1]
    assert sorted(request.path for request in server.requests) == ["/generate", "/generate", "/info"]


def test_an_unknown_version_is_not_cached(open_client: Any) -> None:
    """Where /info fails the call goes to the server, and that is counted."""

    def answer(request: Any) -> Reply:
        return Reply(500) if request.path == "/info" else Reply(200, b'{"generated_text": "x"}')

    with scripted_server(answer) as server:
        client = open_client(server.url, version="server")
        for _ in range(2):
            assert client.post("/generate", json=ASKED).json() == {"generated_text": "x"}
        assert [request.path for request in server.requests] == ["/info", "/generate", "/generate"]
    assert cachekit.stats().as_dict()["bypasses"] == {"unknown_version": 2}


def test_tokens_saved_are_the_server_s_counts(server: Scripted, open_client: Any) -> None:
    """A hit saves what the headers, or the stream's last event, said it took."""
    client = open_client(server.url)
    live = client.post("/generate", json=ASKED)
    client.post("/generate", json=ASKED)
    saved = cachekit.stats().as_dict()["tokens_saved"]
    assert saved == {"input": int(live.headers["x-prompt-tokens"]), "output": int(live.headers["x-generated-tokens"])}
    other = {**ASKED, "inputs": "Something else."}
    streamed(client, body=other)
    streamed(client, body=other)
    assert cachekit.stats().as_dict()["tokens_saved"]["output"] > saved["output"]


def test_async_streams_left_early_let_go_of_their_connection(server: Scripted) -> None:
    """Nothing is stored, and the connection is free or closed again, whether something was read or not."""

    async def ask() -> None:
        async with wrap(httpx.AsyncClient(base_url=server.url, trust_env=False), adapter=tgi.GENERATE) as client:
            async with client.stream("POST", "/generate_stream", json=ASKED):
                pass
            async with client.stream("POST", "/generate_stream", json=ASKED) as response:
                await anext(response.aiter_bytes())
            for _ in range(100):
                busy = [each for each in client._transport._pool.connections if not each.is_idle()]
                if not busy:
                    break
                await asyncio.sleep(0.01)
            assert not busy

    asyncio.run(ask())
    assert (server.count, cachekit.stats().as_dict()["stores"]) == (2, 0)
