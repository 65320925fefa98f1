"""OPEA over plain HTTP, against its own MicroService runtime: chat, embeddings, rerankings with their random ids."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from peers.relay import relay
from peers.scripted import Scripted
from peers.servers import Server

import cachekit
from cachekit_adapters import opea, wrap

httpx = pytest.importorskip("httpx")

ASK = {"messages": [{"role": "user", "content": "say three words"}], "temperature": 0}


@pytest.fixture
def server(opea_peer: Server) -> Iterator[Scripted]:
    with relay(opea_peer.url) as found:
        yield found


@pytest.fixture
def open_client(server: Scripted) -> Iterator[Any]:
    """Makes wrapped clients of the relay, and closes them."""
    opened: list[Any] = []

    def make(adapter: Any, **said: Any) -> Any:
        opened.append(httpx.Client(base_url=server.url, trust_env=False))
        return wrap(opened[-1], adapter=adapter, **said)

    yield make
    for each in opened:
        each.close()


def test_chat(server: Scripted, open_client: Any) -> None:
    """An answer is kept with its random id; the model that the service set is told of it."""
    client = open_client(opea.CHAT)
    live = client.post("/v1/chat/completions", json=ASK)
    assert client.post("/v1/chat/completions", json=ASK).json() == live.json()
    assert server.count == 1


def test_chat_streams(server: Scripted, open_client: Any) -> None:
    """A stream is kept as it came; a plain call, whose usage it does not tell, is asked for itself."""
    client = open_client(opea.CHAT)
    asked = {**ASK, "stream": True}
    told = []
    for _ in range(2):
        with client.stream("POST", "/v1/chat/completions", json=asked) as response:
            told.append(list(response.iter_lines()))
    assert told[0] == told[1] and told[0][-2] == "data: [DONE]"
    plain = client.post("/v1/chat/completions", json=ASK).json()
    assert plain["choices"][0]["message"]["content"]
    assert server.count == 2


def test_a_chat_reader_that_stops_at_done_has_it_kept(server: Scripted, open_client: Any) -> None:
    """Who leaves after `[DONE]`, as readers of such streams do, has seen all of it."""
    client = open_client(opea.CHAT)
    for _ in range(2):
        with client.stream("POST", "/v1/chat/completions", json={**ASK, "stream": True}) as response:
            for line in response.iter_lines():
                if line == "data: [DONE]":
                    break
    assert server.count == 1


def test_sampled_chat_is_not_kept(server: Scripted, open_client: Any) -> None:
    """OPEA's default temperature is not 0."""
    client = open_client(opea.CHAT)
    asked = {"messages": ASK["messages"]}
    with pytest.warns(UserWarning, match="sampled"):
        client.post("/v1/chat/completions", json=asked)
    client.post("/v1/chat/completions", json=asked)
    assert server.count == 2


def test_embeddings_item_by_item(server: Scripted, open_client: Any) -> None:
    """OpenAI-shaped: only the missing text is sent. OPEA's own shape: kept whole, its random id not in the key."""
    client = open_client(opea.EMBEDDINGS)
    client.post("/v1/embeddings", json={"input": ["a", "b"]})
    found = client.post("/v1/embeddings", json={"input": ["c", "b"]}).json()
    assert [request.json()["input"] for request in server.requests] == [["a", "b"], ["c"]]
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    first = client.post("/v1/embeddings", json={"id": "one", "text": "a"})
    assert client.post("/v1/embeddings", json={"id": "two", "text": "a"}).json() == first.json()
    assert server.count == 3


def test_a_reranking_has_the_ids_of_its_request(server: Scripted, open_client: Any) -> None:
    """The same documents under other ids hit, and come back under the ids of this request."""
    client = open_client(opea.RERANKING)

    def asked(*ids: str) -> Any:
        texts = ["a red fox", "the blue sea"]
        docs = [{"id": name, "text": text} for name, text in zip(ids, texts, strict=True)]
        return {"initial_query": "red fox", "retrieved_docs": docs, "top_n": 2}

    client.post("/v1/reranking", json=asked("1", "2"))
    second = client.post("/v1/reranking", json=asked("3", "4")).json()
    assert server.count == 1
    ids = {doc["text"]: doc["id"] for doc in second["reranked_docs"] if "id" in doc}
    assert all(ids[text] == name for text, name in {"a red fox": "3", "the blue sea": "4"}.items() if text in ids)
    assert [doc["text"] for doc in second["reranked_docs"]][0] == "a red fox"


def test_what_depends_on_an_index_passes(server: Scripted, open_client: Any) -> None:
    """Routes of no operation, such as retrieval, go to the server each time."""
    client = open_client(opea.RERANKING)
    for _ in range(2):
        client.post("/v1/retrieval", json={"text": "x"})
    assert server.count == 2
    assert cachekit.stats().as_dict()["calls"] == 0


def test_async_chat(server: Scripted) -> None:
    """A plain chat of the async client serves a streamed one."""

    async def ask() -> None:
        async with wrap(httpx.AsyncClient(base_url=server.url, trust_env=False), adapter=opea.CHAT) as client:
            assert (await client.post("/v1/chat/completions", json=ASK)).json()["choices"]
            asked = {**ASK, "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=asked) as response:
                lines = [line async for line in response.aiter_lines()]
            assert "data: [DONE]" in lines

    asyncio.run(ask())
    assert server.count == 1
