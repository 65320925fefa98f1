"""OPEA's shapes, against its own MicroService runtime around models of ours."""

from __future__ import annotations

import json
import secrets
from typing import Any

import pytest
from peers.fixtures import opea_peer  # noqa: F401 - a fixture, found by its name
from peers.servers import Server

from cachekit_adapters._wire import items, openai
from cachekit_adapters.opea import wire

CHAT, EMBEDDINGS, RERANKING = "/v1/chat/completions", "/v1/embeddings", "/v1/reranking"
TEXTS = ["blue sea", "a red fox", "a red lamp"]


@pytest.fixture
def client(opea_peer: Server) -> Any:  # noqa: F811
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=opea_peer.url, trust_env=False) as client:
        yield client


def searched(**more: Any) -> dict[str, Any]:
    """A SearchedDoc as docarray makes it: a random id on it, and on each of its documents."""
    documents = [{"id": secrets.token_hex(16), "text": text} for text in TEXTS]
    return {"id": secrets.token_hex(16), "retrieved_docs": documents, "initial_query": "red fox", "top_n": 2, **more}


def test_random_ids_are_no_part_of_a_request() -> None:
    """Two SearchedDocs that differ in nothing else are one request; another text is another."""
    assert wire.identity(RERANKING, searched()) == wire.identity(RERANKING, searched())
    assert wire.identity(RERANKING, searched()) != wire.identity(RERANKING, searched(top_n=1))
    assert wire.identity(RERANKING, searched()) != wire.identity(RERANKING, searched(initial_query="sea"))
    one, other = ({"doc": [{"id": at, "inner": {"id": at, "text": "x"}}]} for at in (1, 2))
    assert wire.identity("/v1/docsum", one) == wire.identity("/v1/docsum", other)


def test_the_caller_s_own_ids_are_part_of_it() -> None:
    """A tool call's id pairs it with its result, a document's metadata is content: they stay."""
    call = [{"role": "assistant", "tool_calls": [{"id": "a"}, {"id": "b"}]}]
    other = [{"role": "assistant", "tool_calls": [{"id": "b"}, {"id": "a"}]}]
    assert wire.identity(CHAT, {"messages": call}) != wire.identity(CHAT, {"messages": other})
    documents = [[{"text": "x", "metadata": {"id": at}}] for at in (1, 2)]
    one, two = (wire.identity(RERANKING, {"input": "q", "retrieved_docs": each}) for each in documents)
    assert one != two


def test_what_does_not_change_the_answer_is_left_out() -> None:
    """User, tier, timeout and streaming; temperature stays. The request itself is not changed."""
    request = {"messages": "hi", "temperature": 0, "stream": True, "user": "u", "service_tier": "x", "timeout": 3}
    before = json.dumps(request)
    assert wire.identity(CHAT, request) == {"messages": "hi", "temperature": 0}
    assert json.dumps(request) == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CHAT, True),
        (EMBEDDINGS, True),
        (RERANKING + "/?x=1", True),
        ("/v1/guardrails", True),
        ("/v1/docsum", True),
        ("/v1/retrieval", False),
        ("/v1/multimodal_retrieval", False),
        ("/v1/dataprep/ingest", False),
        ("/v1/dataprep/delete", False),
        ("/v1/dataprep/get", False),
        ("/v1/chatqna", False),
        ("/v1/health_check", False),
        ("/v1/statistics", False),
        ("/v1/feedback/create", False),
        ("/", False),
    ],
)
def test_which_routes_are_cacheable(path: str, expected: bool) -> None:
    """What writes, observes, retrieves or is not known never is."""
    assert wire.cacheable(path) is expected


def test_a_file_of_the_server_s_is_not_cacheable() -> None:
    """A path is not the content that lies there."""
    assert wire.cacheable(CHAT, {"messages": "hi", "image_path": None})
    assert not wire.cacheable(CHAT, {"messages": "hi", "image_path": "/data/x.png"})


def test_chat_plain_and_streamed(client: Any) -> None:
    """Complete both ways, and a stream assembled says what the plain reply does; a short one is truncated."""
    request = {"messages": [{"role": "user", "content": "hello there"}], "temperature": 0}
    plain = client.post(CHAT, json=request).json()
    stream = client.post(CHAT, json={**request, "stream": True}).content
    assert wire.judge(CHAT, request, plain) == wire.judge_stream(stream) == ""
    assembled: Any = openai.assemble(stream)
    assert assembled["choices"][0]["message"]["content"] == plain["choices"][0]["message"]["content"]
    assert wire.judge_stream(b"".join(openai.synthesise(plain))) == ""
    assert openai.usage(plain).input == 2
    assert openai.about(plain)["model"] == "peer-model"
    assert openai.about_stream(stream)["model"] == "peer-model"
    short = {**request, "max_tokens": 1}
    assert wire.judge(CHAT, short, client.post(CHAT, json=short).json()) == "truncated"
    assert wire.judge_stream(client.post(CHAT, json={**short, "stream": True}).content) == "truncated"
    assert {wire.judge_stream(stream[:end]) for end in range(len(stream) - 1)} == {"incomplete"}


def test_embeddings_in_both_protocols(client: Any) -> None:
    """OpenAI's and EmbedDoc's replies are whole with a vector for each text; only the first are divided."""
    texts, document = {"input": ["x", "y"]}, {"text": ["x", "y"]}
    whole = client.post(EMBEDDINGS, json=texts).json()
    embedded = client.post(EMBEDDINGS, json=document).json()
    assert wire.judge(EMBEDDINGS, texts, whole) == wire.judge(EMBEDDINGS, document, embedded) == ""
    assert wire.judge(EMBEDDINGS, document, {**embedded, "embedding": embedded["embedding"][:1]}) == "incomplete"
    assert wire.judge(EMBEDDINGS, {"text": "x"}, client.post(EMBEDDINGS, json={"text": "x"}).json()) == ""
    assert items.split(EMBEDDINGS, document) is None
    sent = items.ask(EMBEDDINGS, texts, [1])
    (answer,) = items.take(EMBEDDINGS, texts, [1], client.post(EMBEDDINGS, json=sent).json())
    merged: Any = items.merge(EMBEDDINGS, texts, [items.take(EMBEDDINGS, texts, [0, 1], whole)[0], answer])
    assert merged["data"] == whole["data"]


def test_a_stored_reranking_names_the_caller_s_documents(client: Any) -> None:
    """The ids of a hit are those of the documents asked about, matched by text, equal texts in their order."""
    first, second = searched(), searched()
    stored = client.post(RERANKING, json=first).json()
    assert wire.judge(RERANKING, first, stored) == ""
    told: Any = wire.relabel(RERANKING, second, stored)
    ids = {document["text"]: document["id"] for document in second["retrieved_docs"]}
    assert [document["text"] for document in told["reranked_docs"]] == ["a red fox", "a red lamp"]
    assert [document["id"] for document in told["reranked_docs"]] == [ids["a red fox"], ids["a red lamp"]]
    twins = {"retrieved_docs": [{"id": "1", "text": "x"}, {"id": "2", "text": "x"}]}
    body: Any = wire.relabel(RERANKING, twins, {"reranked_docs": [{"id": "a", "text": "x"}] * 2})
    assert [document["id"] for document in body["reranked_docs"]] == ["1", "2"]


def test_a_reranking_request_is_answered_in_full(client: Any) -> None:
    """As many documents as were asked for; its reply has no ids to change."""
    request = {"input": "red fox", "retrieved_docs": TEXTS, "top_n": 2}
    reply = client.post(RERANKING, json=request).json()
    assert wire.judge(RERANKING, request, reply) == ""
    assert wire.relabel(RERANKING, request, reply) == reply
    assert wire.judge(RERANKING, request, {"reranked_docs": reply["reranked_docs"][:1]}) == "incomplete"


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (CHAT, {"detail": "no"}, "error_in_200"),
        (CHAT, {"error": {"message": "no"}}, "error_in_200"),
        (CHAT, {}, "incomplete"),
        (CHAT, None, "incomplete"),
        (CHAT, {"text": "An answer.", "prompt": "hi"}, ""),
        (CHAT, {"id": "x"}, "incomplete"),
        ("/v1/docsum", {"text": "A summary."}, ""),
        ("/v1/guardrails", {}, "incomplete"),
        (RERANKING, {"results": []}, "incomplete"),
        (EMBEDDINGS, {"text": "x", "embedding": [None]}, "incomplete"),
        (EMBEDDINGS, {"text": "x", "embedding": []}, "incomplete"),
    ],
)
def test_which_replies_are_stored(path: str, body: object, reason: str) -> None:
    """Errors in a 200, and what is no answer to the route, are not."""
    assert wire.judge(path, {}, body) == reason


def test_a_stream_of_other_chunks_is_whole_with_its_done() -> None:
    """A summary's chunks are no chat's; an error among them is one."""
    stream = b'data: {"ops": []}\n\ndata: [DONE]\n\n'
    assert wire.judge_stream(stream) == ""
    assert {wire.judge_stream(stream[:end]) for end in range(len(stream))} == {"incomplete"}
    assert wire.judge_stream(b'data: {"error": "no"}\n\n' + stream) == "error_in_200"


@pytest.mark.parametrize(
    ("path", "request_", "expected"),
    [
        (CHAT, {"messages": "hi"}, True),
        (CHAT, {"messages": "hi", "temperature": 0.01}, True),
        (CHAT, {"messages": "hi", "temperature": 0}, False),
        (CHAT, {"messages": "hi", "temperature": 0.0, "seed": 1}, False),
        (CHAT, {"messages": "hi", "temperature": None, "seed": 1}, True),
        ("/v1/docsum", {"text": "hi"}, True),
        (EMBEDDINGS, {"input": "hi"}, False),
        (RERANKING, {}, False),
        ("/v1/audio/transcriptions", None, False),
        ("/v1/text2image", {"prompt": "hi"}, True),
    ],
)
def test_which_answers_are_sampled(path: str, request_: object, expected: bool) -> None:
    """The default temperature is not 0: text is sampled unless the request says 0."""
    assert wire.sampled(path, request_) is expected
