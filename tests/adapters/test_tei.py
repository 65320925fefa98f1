"""TEI over plain HTTP: texts are kept one by one. The stand-in has a real embedding model; reranks also by llama-server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from peers.relay import relay
from peers.scripted import Reply, Scripted, scripted_server
from peers.servers import Server
from peers.shapes import json_reply
from peers.tei import tei_server

import cachekit
from cachekit_adapters import openai, tei, wrap
from cachekit_adapters._wire import batches, items

httpx = pytest.importorskip("httpx")


@pytest.fixture
def server(tei_peer: Scripted) -> Iterator[Scripted]:
    with relay(tei_peer.url) as found:
        yield found


@pytest.fixture
def open_client() -> Iterator[Any]:
    """Makes wrapped clients, and closes them."""
    opened: list[Any] = []

    def make(url: str, adapter: Any = tei.EMBED, **said: Any) -> Any:
        opened.append(httpx.Client(base_url=url, trust_env=False))
        return wrap(opened[-1], adapter=adapter, **said)

    yield make
    for each in opened:
        each.close()


def sent(server: Scripted) -> list[Any]:
    return [request.json() for request in server.requests]


def bare(url: str, path: str, body: Any) -> Any:
    with httpx.Client(base_url=url, trust_env=False) as client:
        return client.post(path, json=body)


def test_only_what_is_missing_is_sent_and_duplicates_once(server: Scripted, open_client: Any) -> None:
    """A batch with known, new and repeated texts asks for the new ones, each once, and comes back in its own order."""
    client = open_client(server.url)
    client.post("/embed", json={"inputs": ["a", "b"]})
    asked = {"inputs": ["c", "a", "d", "c", "b"]}
    found = client.post("/embed", json=asked)
    assert sent(server) == [{"inputs": ["a", "b"]}, {"inputs": ["c", "d"]}]
    again = client.post("/embed", json={"inputs": ["b", "a", "d"]})
    assert server.count == 2
    assert found.json() == bare(server.url, "/embed", asked).json()
    assert again.json() == [found.json()[at] for at in (4, 1, 2)]
    assert type(found) is httpx.Response and found.headers["content-type"] == "application/json"


def test_a_batch_and_single_calls_know_each_other(server: Scripted, open_client: Any) -> None:
    """A text asked for alone serves a batch, and one of a batch serves a call for it alone."""
    client = open_client(server.url)
    one = client.post("/embed", json={"inputs": "a"}).json()
    assert client.post("/embed", json={"inputs": ["a", "b"]}).json()[:1] == one
    assert client.post("/embed", json={"inputs": "b"}).json() == bare(server.url, "/embed", {"inputs": "b"}).json()
    assert sent(server)[:2] == [{"inputs": "a"}, {"inputs": ["b"]}]
    assert server.count == 3


def test_a_new_batch_is_the_server_s_own_response(server: Scripted, open_client: Any) -> None:
    """Where everything is asked for, request and response are what they would be without a cache."""
    asked = {"inputs": ["a", "b"]}
    live, plain = open_client(server.url).post("/embed", json=asked), bare(server.url, "/embed", asked)
    first, second = server.requests
    assert (first.body, first.path, first.headers) == (second.body, second.path, second.headers)
    assert live.content == plain.content
    assert dict(live.headers) == dict(plain.headers)


def test_parameters_are_part_of_an_item(server: Scripted, open_client: Any) -> None:
    """Another normalisation, another dimension, another route, another server: another answer."""
    client = open_client(server.url)
    for body in ({"inputs": ["a"]}, {"inputs": ["a"], "normalize": False}, {"inputs": ["a"], "dimensions": 8}):
        assert client.post("/embed", json=body).json() == bare(server.url, "/embed", body).json()
    client.post("/v1/embeddings", json={"input": ["a"]})
    assert server.count == 7


def test_the_base_url_itself_is_the_operation(server: Scripted, open_client: Any) -> None:
    """A POST to the base URL is what the adapter says the client is used for."""
    client = open_client(server.url)
    first = client.post("/", json={"inputs": ["a", "b"]}).json()
    assert client.post("/embed", json={"inputs": ["b"]}).json() == first[1:]
    assert server.count == 1


def test_each_item_counts(server: Scripted, open_client: Any) -> None:
    """Items are hits and misses one by one; saved is what each had cost; the merged count is their sum."""
    client = open_client(server.url)
    first = client.post("/embed", json={"inputs": ["one text", "another longer text"]})
    second = client.post("/embed", json={"inputs": ["one text", "another longer text", "new"]})
    total = cachekit.stats().as_dict()
    assert (sum(total["hits"].values()), total["misses"], total["stores"]) == (2, 3, 3)
    assert total["tokens_saved"]["input"] == int(first.headers["x-compute-tokens"])
    new = bare(server.url, "/embed", {"inputs": ["new"]}).headers["x-compute-tokens"]
    assert int(second.headers["x-compute-tokens"]) == int(first.headers["x-compute-tokens"]) + int(new)


def test_openai_shape(server: Scripted, open_client: Any) -> None:
    """`/v1/embeddings`: indexes anew, usage the sum of the shares."""
    client = open_client(server.url)
    first = client.post("/v1/embeddings", json={"input": ["a", "bb"], "user": "me"}).json()["usage"]
    merged = client.post("/v1/embeddings", json={"input": ["c", "bb"], "user": "you"}).json()
    alone = bare(server.url, "/v1/embeddings", {"input": ["c", "bb"]}).json()
    assert [entry["index"] for entry in merged["data"]] == [0, 1]
    new = bare(server.url, "/v1/embeddings", {"input": ["c"]}).json()["usage"]["prompt_tokens"]
    assert {**merged, "usage": None} == {**alone, "usage": None}
    assert new < merged["usage"]["prompt_tokens"] < new + first["prompt_tokens"]
    assert sent(server)[1]["input"] == ["c"]


@pytest.mark.parametrize("raw", [False, True])
def test_predict(server: Scripted, open_client: Any, raw: bool) -> None:
    """A single text, a pair and batches of both share their items."""
    client = open_client(server.url, tei.PREDICT)
    rest = {"raw_scores": raw}
    client.post("/predict", json={"inputs": "good", **rest})
    batch = {"inputs": [["good"], ["a", "pair"]], **rest}
    found = client.post("/predict", json=batch).json()
    assert sent(server)[1]["inputs"] == [["a", "pair"]]
    assert client.post("/predict", json={"inputs": ["a", "pair"], **rest}).json() == found[1]
    assert server.count == 2
    assert found == bare(server.url, "/predict", batch).json()


def test_rerank(server: Scripted, open_client: Any) -> None:
    """Known texts are not sent again; ranks come back sorted, with the indexes of the request."""
    client = open_client(server.url, tei.RERANK)
    asked = {"query": "animals", "texts": ["a red fox", "the sea", "a dog"], "return_text": True}
    client.post("/rerank", json={**asked, "texts": ["the sea"]})
    found = client.post("/rerank", json=asked).json()
    assert sent(server)[1]["texts"] == ["a red fox", "a dog"]
    assert found == bare(server.url, "/rerank", asked).json()


def test_rerank_of_llama_server(llama_rerank_peer: Server, open_client: Any) -> None:
    """A real reranker: a hit without network, the second batch's missing text alone sent, its answer the live one."""
    with relay(llama_rerank_peer.url) as server:
        client = open_client(server.url, tei.RERANK)
        asked = {"query": "cache", "texts": ["a fox", "a house"]}
        live = client.post("/rerank", json=asked)
        assert live.status_code == 200
        assert client.post("/rerank", json=asked).json() == live.json()
        assert server.count == 1
        more = client.post("/rerank", json={**asked, "texts": ["a fox", "a house", "a river"]}).json()
        assert sent(server)[1]["texts"] == ["a river"]
        assert {rank["index"]: rank["score"] for rank in more} == pytest.approx(
            {
                rank["index"]: rank["score"]
                for rank in bare(server.url, "/rerank", {**asked, "texts": ["a fox", "a house", "a river"]}).json()
            }
        )
        assert [rank["score"] for rank in more] == sorted((rank["score"] for rank in more), reverse=True)


def test_similarity_is_kept_whole(server: Scripted, open_client: Any) -> None:
    """One answer for one request, repeated without network."""
    client = open_client(server.url, tei.SIMILARITY)
    asked = {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}
    assert client.post("/similarity", json=asked).content == client.post("/similarity", json=asked).content
    assert server.count == 1


def test_async_batches(server: Scripted) -> None:
    """The async client sends what is missing, too."""

    async def ask() -> None:
        async with wrap(httpx.AsyncClient(base_url=server.url, trust_env=False), adapter=tei.EMBED) as client:
            first = (await client.post("/embed", json={"inputs": ["a", "b"]})).json()
            found = (await client.post("/embed", json={"inputs": ["b", "c", "c"]})).json()
            assert found[0] == first[1] and found[1] == found[2]

    asyncio.run(ask())
    assert sent(server) == [{"inputs": ["a", "b"]}, {"inputs": ["c"]}]


def test_refusals_of_a_batch_pass(server: Scripted, open_client: Any) -> None:
    """413 and 422 come as the server says them; nothing is stored."""
    client = open_client(server.url)
    too_many = client.post("/embed", json={"inputs": [str(at) for at in range(33)]})
    assert (too_many.status_code, too_many.json()["error_type"]) == (413, "Validation")
    assert client.post("/embed", json={"inputs": [1, 2, "x"]}).status_code == 422
    assert cachekit.stats().as_dict()["stores"] == 0


def test_a_reply_that_does_not_fit_is_passed(open_client: Any) -> None:
    """Fewer vectors than texts: the caller sees the server's reply, and nothing is stored."""
    with scripted_server(json_reply([[0.1]])) as server:
        client = open_client(server.url)
        for _ in range(2):
            assert client.post("/embed", json={"inputs": ["a", "b"]}).json() == [[0.1]]
        assert server.count == 2
    assert cachekit.stats().as_dict()["stores"] == 0


def test_a_part_s_reply_that_does_not_fit_has_the_whole_asked_for(open_client: Any) -> None:
    """A server that answers the part oddly is asked for the whole, and says what it says."""
    replies = [json_reply([[0.1], [0.2]]), Reply(200, b"<html>", {}, "text/html"), json_reply([[0.1], [0.2], [0.3]])]
    with scripted_server(replies) as server:
        client = open_client(server.url)
        client.post("/embed", json={"inputs": ["a", "b"]})
        assert client.post("/embed", json={"inputs": ["a", "b", "c"]}).json() == [[0.1], [0.2], [0.3]]
        assert [each["inputs"] for each in sent(server)] == [["a", "b"], ["c"], ["a", "b", "c"]]
        assert client.post("/embed", json={"inputs": ["c"]}).json() == [[0.3]]
        assert server.count == 3


def test_a_null_spoils_its_own_item_only(open_client: Any) -> None:
    """A vector with a null, a server's NaN, is passed and not stored; its neighbours are."""
    with scripted_server(json_reply([[0.1], [None], [0.3]])) as server:
        client = open_client(server.url)
        assert client.post("/embed", json={"inputs": ["a", "b", "c"]}).json() == [[0.1], [None], [0.3]]
        client.post("/embed", json={"inputs": ["a", "b", "c"]})
        assert [each["inputs"] for each in sent(server)][1] == ["b"]


def test_modes(server: Scripted, open_client: Any) -> None:
    """Off sends all, refresh sends all and keeps, replay never asks and says what is missing."""
    client = open_client(server.url)
    asked = {"inputs": ["a", "b"]}
    with cachekit.mode("off"):
        client.post("/embed", json=asked)
    client.post("/embed", json=asked)
    with cachekit.mode("refresh"):
        client.post("/embed", json=asked)
    assert server.count == 3
    with cachekit.mode("replay"):
        assert len(client.post("/embed", json=asked).json()) == 2
        with pytest.raises(cachekit.CacheMiss):
            client.post("/embed", json={"inputs": ["a", "new"]})
    assert server.count == 3


def test_a_redeployed_model_misses(monkeypatch: pytest.MonkeyPatch, open_client: Any) -> None:
    """version="server": items of another sha are not mixed in, and the record says which model it was."""
    kept: list[cachekit.Reply] = []
    learn = batches._Division.learn

    def learned(self: Any, *given: Any) -> Any:
        replies = learn(self, *given)
        kept.extend(replies.values())
        return replies

    monkeypatch.setattr(batches._Division, "learn", learned)
    with tei_server(model_sha="a" * 40) as old, tei_server(model_sha="b" * 40) as new:
        for peer in (old, new):
            with scripted_server(lambda request, url=peer.url: passed(url, request)) as server:
                client = open_client(server.url, version="server")
                client.post("/embed", json={"inputs": ["a", "b"]})
                client.post("/embed", json={"inputs": ["a", "c"]})
                assert [request.path for request in server.requests] == ["/info", "/embed", "/embed"]
    assert {reply.about["model_version"] for reply in kept} == {"a" * 40, "b" * 40}


def passed(url: str, request: Any) -> Reply:
    with httpx.Client(base_url=url, trust_env=False) as client:
        headers = {"content-type": "application/json"}
        came = client.request(request.method, request.path, content=request.body, headers=headers)
    return Reply(came.status_code, came.content, {}, came.headers["content-type"])


def test_answer_for_any_wire() -> None:
    """`batches.divided` with OpenAI's items: one send of what is missing, shares of the usage summed again."""
    asked: list[Any] = []
    answers = cachekit.Answers(openai.EMBEDDING)

    def send(body: Any) -> Any:
        asked.append(body["input"])
        data = [{"object": "embedding", "index": at, "embedding": [len(text)]} for at, text in enumerate(body["input"])]
        usage = {"prompt_tokens": sum(map(len, body["input"])), "total_tokens": sum(map(len, body["input"]))}
        return {"object": "list", "model": "m", "data": data, "usage": usage}

    def ask(*texts: str) -> Any:
        body = {"model": "m", "input": list(texts)}
        flow = batches.divided(answers, {"base": "b"}, items, "/embeddings", body, send)
        return cachekit.driven(flow, is_async=False).body

    async def aask(*texts: str) -> Any:
        async def asend(body: Any) -> Any:
            return send(body)

        body = {"model": "m", "input": list(texts)}
        flow = batches.divided(answers, {"base": "b"}, items, "/embeddings", body, asend, is_async=True)
        return (await cachekit.driven(flow, is_async=True)).body

    ask("a", "bbb")
    found = ask("cc", "bbb", "cc", "a")
    assert asked == [["a", "bbb"], ["cc"]]
    assert [entry["embedding"] for entry in found["data"]] == [[2], [3], [2], [1]]
    assert found["usage"]["prompt_tokens"] == 8
    assert asyncio.run(aask("bbb", "dddd"))["usage"]["prompt_tokens"] == 7
    assert asked[2:] == [["dddd"]]
    assert cachekit.stats().as_dict()["tokens_saved"]["input"] == 4 + 3


def test_a_stale_item_is_asked_for_with_the_missing_ones(server: Scripted, open_client: Any) -> None:
    """No refresh in the background can ask for one item of a batch; so it is not served past its time."""
    client = open_client(server.url, ttl="1ms", stale_while_revalidate="1h")
    for _ in range(2):
        client.post("/embed", json={"inputs": ["a", "b"]})
    assert [each["inputs"] for each in sent(server)] == [["a", "b"]] * 2
    cachekit.flush(5)
    assert cachekit.stats().as_dict()["errors"] == {}
