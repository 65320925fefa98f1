"""Plain HTTP clients in general: what identifies a request, what passes as it is, what a response keeps of the live one."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.shapes import chat, chat_chunks, frames, json_reply, stream_reply

import cachekit
from cachekit.plan.retrying import Cooldowns
from cachekit_adapters import opea, tei, tgi, wrap

ASKED = {"inputs": "Say something.", "parameters": {"details": True}}
COLD = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Every client of a test, closed after it."""
    yield
    while OPENED:
        OPENED.pop().close()


def client(library: Any, url: str, adapter: cachekit.Adapter, **said: Any) -> Any:
    OPENED.append(library.Client(base_url=url, trust_env=False))
    return wrap(OPENED[-1], adapter=adapter, **said)


def test_a_wrapped_client_is_one_of_its_class_and_the_other_stays(library: Any, tgi_peer: Scripted) -> None:
    """isinstance holds, and the client that was passed in asks the server each time as before."""
    with relay(tgi_peer.url) as server, library.Client(base_url=server.url, trust_env=False) as bare:
        wrapped = wrap(bare, adapter=tgi.GENERATE)
        assert type(wrapped) is library.Client
        assert "send" not in vars(bare)
        for _ in range(2):
            wrapped.post("/generate", json=ASKED)
        assert server.count == 1
        for _ in range(2):
            bare.post("/generate", json=ASKED)
        assert server.count == 3


def test_a_hit_is_the_live_response_again_without_network(library: Any, tgi_peer: Scripted) -> None:
    """Class, status, content, content type and the server's own counts are the live ones; nothing is sent."""
    with relay(tgi_peer.url) as server:
        wrapped = client(library, server.url, tgi.GENERATE)
        live, stored = (wrapped.post("/generate", json=ASKED) for _ in range(2))
        assert server.count == 1
    assert type(stored) is type(live) is library.Response
    assert (stored.status_code, stored.content, stored.json()) == (200, live.content, live.json())
    for name in ("content-type", "x-generated-tokens", "x-prompt-tokens", "content-length"):
        assert stored.headers[name] == live.headers[name]
    assert stored.request.url == live.request.url
    assert stored.raise_for_status() is stored
    assert stored.elapsed is not None


def test_another_process_s_hit_comes_from_disk(library: Any, tgi_peer: Scripted) -> None:
    """What memory lost is read from disk, whole."""
    with relay(tgi_peer.url) as server:
        live = client(library, server.url, tgi.GENERATE).post("/generate", json=ASKED)
        cachekit.configure(memory_limit=0)
        stored = client(library, server.url, tgi.GENERATE).post("/generate", json=ASKED)
        assert (server.count, stored.json()) == (1, live.json())
    assert cachekit.stats().as_dict()["hits"]["disk"] == 1


def test_requests_go_out_as_the_client_sends_them(library: Any, tgi_peer: Scripted) -> None:
    """Bytes, path, query and headers at the server are those of the bare client."""
    with relay(tgi_peer.url) as server:
        bare = library.Client(base_url=server.url, trust_env=False, headers={"x-team": "blue"}, auth=("me", "pw"))
        OPENED.append(bare)
        how: dict[str, Any] = {"json": ASKED, "params": {"a": "b"}, "headers": {"Accept": "application/json"}}
        bare.post("/generate", **how)
        wrap(bare, adapter=tgi.GENERATE).post("/generate", **how)
        first, second = server.requests
        assert first == second


def test_sync_and_async_are_one_key(library: Any, tgi_peer: Scripted) -> None:
    """What the sync client asked, the async one gets."""

    async def ask(url: str) -> Any:
        async with wrap(library.AsyncClient(base_url=url, trust_env=False), adapter=tgi.GENERATE) as wrapped:
            assert isinstance(wrapped, library.AsyncClient)
            first = await wrapped.post("/generate", json=ASKED)
            other = await wrapped.post("/generate", json={"inputs": "another"})
            again = await wrapped.post("/generate", json={"inputs": "another"})
            assert other.content == again.content
            return first

    with relay(tgi_peer.url) as server:
        live = client(library, server.url, tgi.GENERATE).post("/generate", json=ASKED)
        assert asyncio.run(ask(server.url)).content == live.content
        assert server.count == 2


@pytest.mark.parametrize(
    ("change", "hits"),
    [
        ({"headers": {"Authorization": "Bearer other", "X-Api-Key": "k"}}, True),
        ({"headers": {"User-Agent": "other", "traceparent": "00-1"}}, True),
        ({"headers": {"x-tenant": "other"}}, False),
        ({"params": {"adapter": "other"}}, False),
        ({"params": {"api_key": "other"}}, True),
        ({"json": {"parameters": {"details": True}, "inputs": "Say something."}}, True),
        ({"json": {**ASKED, "unknown": None}}, False),
        ({"json": {"inputs": "Say something.", "parameters": {"details": 1}}}, False),
    ],
)
def test_what_identifies_a_request(tgi_peer: Scripted, change: dict[str, Any], hits: bool) -> None:
    """Bodies without their order, headers and query that may matter; no secret, no tracing."""
    httpx = pytest.importorskip("httpx")
    with relay(tgi_peer.url) as server:
        wrapped = client(httpx, server.url, tgi.GENERATE)
        wrapped.post("/generate", json=ASKED)
        wrapped.post("/generate", **{"json": ASKED, **change})
        assert server.count == (1 if hits else 2)


def test_two_servers_are_two_keys(library: Any) -> None:
    """Another endpoint with the same request never answers for the first."""
    one = json_reply({"generated_text": "one"})
    two = json_reply({"generated_text": "two"})
    with scripted_server(one) as first, scripted_server(two) as second:
        said = [
            client(library, each.url, tgi.GENERATE).post("/generate", json=ASKED).json() for each in (first, second)
        ]
    assert said == [{"generated_text": "one"}, {"generated_text": "two"}]


def test_other_requests_pass(library: Any, tgi_peer: Scripted) -> None:
    """Other methods, other routes, a body that is no JSON and one that can be read only once are not taken part in."""
    with relay(tgi_peer.url) as server:
        wrapped = client(library, server.url, tgi.GENERATE)
        for _ in range(2):
            assert wrapped.get("/info").status_code == 200
            assert wrapped.post("/elsewhere", json=ASKED).status_code == 404
            assert (
                wrapped.post("/generate", content=b"{", headers={"content-type": "application/json"}).status_code == 422
            )
            once = iter([json.dumps(ASKED).encode()])
            assert wrapped.post("/generate", content=once, headers={"content-type": "application/json"}).is_success
        assert server.count == 8
    assert cachekit.stats().as_dict()["stores"] == 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (json_reply({"error": "boom", "error_type": "generation"}), "error_in_200"),
        (json_reply({"other": 1}), "incomplete"),
        (Reply(200, b"<html>", {}, "text/html"), "wrong_content_type"),
        (Reply(200, b'{"generated_text": "cut', {}, "application/json"), "not_json"),
        (json_reply({"generated_text": "x", "details": {"finish_reason": "length"}}), "truncated"),
    ],
)
def test_what_is_no_whole_answer_is_passed_and_not_stored(reply: Reply, reason: str) -> None:
    """The caller sees the server's bytes each time, and the reason is counted."""
    httpx = pytest.importorskip("httpx")
    with scripted_server(reply) as server:
        wrapped = client(httpx, server.url, tgi.GENERATE)
        assert {wrapped.post("/generate", json=ASKED).content for _ in range(2)} == {reply.body}
        assert server.count == 2
    assert cachekit.stats().as_dict()["skipped"] == {reason: 2}


def test_truncated_answers_are_kept_where_that_is_asked_for() -> None:
    """`cache_truncated=True` keeps what stopped at the limit."""
    httpx = pytest.importorskip("httpx")
    with scripted_server(json_reply({"generated_text": "x", "details": {"finish_reason": "length"}})) as server:
        wrapped = client(httpx, server.url, tgi.GENERATE, cache_truncated=True)
        assert wrapped.post("/generate", json=ASKED).json() == wrapped.post("/generate", json=ASKED).json()
        assert server.count == 1


@pytest.mark.parametrize("status", [201, 307, 404, 422, 500])
def test_other_statuses_come_as_they_are(library: Any, status: int) -> None:
    """Body and headers of any other status reach the caller each time, `raise_for_status` raising what it raises."""
    with scripted_server(Reply(status, b'{"error": "no"}', {"x-why": "because", "location": "/other"})) as server:
        wrapped = client(library, server.url, tgi.GENERATE)
        for _ in range(2):
            response = wrapped.post("/generate", json=ASKED)
            assert (response.status_code, response.content) == (status, b'{"error": "no"}')
            assert response.headers["x-why"] == "because"
        if status >= 400:
            with pytest.raises(library.HTTPStatusError):
                response.raise_for_status()
        with wrapped.stream("POST", "/generate_stream", json=ASKED) as response:
            assert (response.status_code, response.read()) == (status, b'{"error": "no"}')
        assert server.count == 3


def test_retry_after_holds_for_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a 429 the next call of the endpoint waits as long as the server asked for; the 429 itself is passed."""
    httpx = pytest.importorskip("httpx")
    waits: list[float] = []
    left = Cooldowns.left
    monkeypatch.setattr(Cooldowns, "left", lambda self, scope: waits.append(left(self, scope)) or 0.0)
    replies = [json_reply({"error": "slow down"}, 429, {"retry-after": "20"}), json_reply({"generated_text": "x"})]
    with scripted_server(replies) as server:
        wrapped = client(httpx, server.url, tgi.GENERATE)
        refused = wrapped.post("/generate", json=ASKED)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
        assert wrapped.post("/generate", json={"inputs": "another"}).json() == {"generated_text": "x"}
    assert waits[0] == 0 and 10 < waits[1] <= 20


def test_an_old_answer_may_stand_in_for_an_error() -> None:
    """With `stale_if_error` a 503 is answered by what is past its TTL; without, it is passed."""
    httpx = pytest.importorskip("httpx")
    with scripted_server([json_reply({"generated_text": "old"}), json_reply({"error": "busy"}, 503)]) as server:
        kept = client(httpx, server.url, tgi.GENERATE, ttl=0.01, stale_if_error="1h")
        assert kept.post("/generate", json=ASKED).json() == {"generated_text": "old"}
        strict = client(httpx, server.url, tgi.GENERATE, ttl=0.01)
        while strict.post("/generate", json=ASKED).status_code == 200:
            pass
        assert kept.post("/generate", json=ASKED).json() == {"generated_text": "old"}


def test_connection_errors_are_the_client_s_own(library: Any) -> None:
    """Nobody listens: the client's own ConnectError, the engine adds nothing."""
    with scripted_server(Reply()) as server:
        url = server.url
    with pytest.raises(library.ConnectError):
        client(library, url, tgi.GENERATE).post("/generate", json=ASKED)


def test_sampled_answers_need_a_word(library: Any, tgi_peer: Scripted) -> None:
    """do_sample: asked each time, with one warning; with `cache_sampled=True` or a sample index, kept."""
    sampled = {"inputs": "Say something.", "parameters": {"do_sample": True}}
    with relay(tgi_peer.url) as server:
        wrapped = client(library, server.url, tgi.GENERATE)
        with pytest.warns(UserWarning, match="sampled"):
            wrapped.post("/generate", json=sampled)
        wrapped.post("/generate", json=sampled)
        assert server.count == 2
        with cachekit.sample(0):
            one = wrapped.post("/generate", json=sampled)
            assert wrapped.post("/generate", json=sampled).content == one.content
        assert server.count == 3
        kept = client(library, server.url, tgi.GENERATE, cache_sampled=True)
        assert kept.post("/generate", json=sampled).content == kept.post("/generate", json=sampled).content
        assert server.count == 3


def test_openai_shaped_chat_of_any_server() -> None:
    """`opea.CHAT` serves every server with OpenAI's chat route: plain, streamed, and the one from the other."""
    httpx = pytest.importorskip("httpx")
    replies = [json_reply(chat("Hello there.")), stream_reply(frames(chat_chunks(usage=True)))]
    with scripted_server(replies) as server:
        wrapped = client(httpx, server.url + "/v1", opea.CHAT)
        plain = wrapped.post("/chat/completions", json=COLD)
        assert plain.json()["choices"][0]["message"]["content"] == "Hello there."
        made = wrapped.post("/chat/completions", json={**COLD, "stream": True})
        assert made.headers["content-type"] == "text/event-stream"
        assert made.content.endswith(b"data: [DONE]\n\n")
        other = {**COLD, "model": "other"}
        live = wrapped.post("/chat/completions", json={**other, "stream": True})
        assert wrapped.post("/chat/completions", json={**other, "stream": True}).content == live.content
        whole = wrapped.post("/chat/completions", json=other)
        assert whole.json()["choices"][0]["message"]["content"] == "Hello there."
        assert server.count == 2


def test_a_client_without_an_adapter_is_refused() -> None:
    """The message names what may be passed; another operation's adapter is refused alike."""
    httpx = pytest.importorskip("httpx")
    with pytest.raises(cachekit.UsageError, match="tei.EMBED"):
        wrap(httpx.Client())
    groq = pytest.importorskip("cachekit_adapters.groq")
    with pytest.raises(cachekit.UsageError, match="tei.EMBED"):
        wrap(httpx.Client(), adapter=groq.CHAT)
    with pytest.raises(cachekit.UsageError, match="version"):
        wrap(httpx.Client(), adapter=opea.CHAT, version="server")


def test_a_function_of_ones_own(tei_peer: Scripted) -> None:
    """`@distributed_cache(adapter=…)`: responses, and parsed answers, come back as what the function returned."""
    httpx = pytest.importorskip("httpx")
    with relay(tei_peer.url) as server:
        url = f"{server.url}/embed"

        @cachekit.distributed_cache(adapter=tei.EMBED)
        def vectors(texts: list[str]) -> Any:
            return httpx.post(url, json={"inputs": texts}, trust_env=False).json()

        @cachekit.distributed_cache(adapter=tei.EMBED)
        def response(texts: list[str]) -> Any:
            return httpx.post(url, json={"inputs": texts}, trust_env=False)

        assert vectors(["a", "b"]) == vectors(["a", "b"])
        live, stored = response(["a", "b"]), response(["a", "b"])
        assert (type(stored), stored.json()) == (httpx.Response, live.json())
        assert server.count == 2


def test_compressed_answers(library: Any) -> None:
    """What came compressed is kept and given decoded, whole and streamed."""
    whole = json.dumps({"generated_text": "x" * 100}).encode()
    event = b'data:{"index":1,"token":{"id":1,"text":"a"},"generated_text":"a"}\n\n'
    packed = {"content-encoding": "gzip"}
    replies = [Reply(200, gzip.compress(whole), packed), Reply(200, gzip.compress(event), packed, "text/event-stream")]
    with scripted_server(replies) as server:
        wrapped = client(library, server.url, tgi.GENERATE)
        assert [wrapped.post("/generate", json=ASKED).content for _ in range(2)] == [whole, whole]
        for _ in range(2):
            with wrapped.stream("POST", "/generate_stream", json={"inputs": "other"}) as response:
                assert response.read() == event
        assert server.count == 2


def test_an_entry_that_no_response_can_be_made_of_is_a_miss(
    tgi_peer: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was kept in another form is asked for again, and told as an error."""
    httpx = pytest.importorskip("httpx")
    heard: list[str] = []
    remove = cachekit.add_listener(lambda event: heard.append(event.what))
    with relay(tgi_peer.url) as server, contextlib.ExitStack() as ending:
        ending.callback(remove)
        wrapped = client(httpx, server.url, tgi.GENERATE)
        with monkeypatch.context() as before:
            before.setattr("cachekit_adapters._wire.exchange.Head.packed", lambda _self: b'{"other": "form"}\n')
            with pytest.MonkeyPatch.context() as lenient:
                lenient.setattr(
                    "cachekit_adapters._wire.operation.opened", lambda data: (Kept(), data.partition(b"\n")[2])
                )
                live = wrapped.post("/generate", json=ASKED)
        assert cachekit.stats().as_dict()["stores"] == 1
        assert wrapped.post("/generate", json=ASKED).json() == live.json()
        assert wrapped.post("/generate", json=ASKED).json() == live.json()
        assert server.count == 2
    assert cachekit.stats().as_dict()["errors"]["adapter"]
    # The team, whose libraries may read it, is not told to drop it.
    assert "invalidated" not in heard


class Kept:
    """A head as another version might have had it: only what judging an answer looks at."""

    verdict = ""
