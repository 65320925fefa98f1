"""TEI's native shapes, against the stand-in around a real embedding model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from peers.fixtures import started, tei_peer  # noqa: F401 - a fixture, found by its name
from peers.scripted import Scripted
from peers.servers import Server, llama_server

from cachekit_adapters._wire import items
from cachekit_adapters.tei import wire

TEXTS = ["a red fox", "the blue sea", "a red fox", "quiet lamp"]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/embed", {"inputs": TEXTS}),
    ("/embed", {"inputs": TEXTS, "normalize": False, "truncate": True}),
    ("/predict", {"inputs": [[text] for text in TEXTS]}),
    ("/predict", {"inputs": [["a", "pair"], ["alone"], ["a", "pair"]], "raw_scores": True}),
    ("/rerank", {"query": "animals", "texts": TEXTS}),
    ("/rerank", {"query": "animals", "texts": TEXTS, "raw_scores": True, "return_text": True}),
    ("/v1/embeddings", {"input": TEXTS, "encoding_format": "base64"}),
]


@pytest.fixture
def client(tei_peer: Scripted) -> Any:  # noqa: F811
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=tei_peer.url, trust_env=False) as client:
        yield client


@pytest.mark.parametrize(("path", "request_"), REQUESTS)
@pytest.mark.parametrize("known", [[], [0], [1, 3], [2], [0, 1, 2, 3]])
def test_a_partly_known_batch_is_answered_like_a_whole_one(
    client: Any, path: str, request_: dict[str, Any], known: list[int]
) -> None:
    """What was known from single calls, and what was asked for now, are together what the server says to the whole."""
    batch = wire.split(path, request_)
    assert batch is not None
    every = range(len(batch))
    alone = {at: client.post(path, json=batch[at]).json() for at in every if at in known}
    answers = {at: wire.take(path, batch[at], [0], body)[0] for at, body in alone.items()}
    wanted = [at for at in every if at not in known]
    if wanted:
        reply = client.post(path, json=wire.ask(path, request_, wanted)).json()
        answers |= dict(zip(wanted, wire.take(path, request_, wanted, reply), strict=True))
    whole = client.post(path, json=request_).json()
    assert wire.judge(path, request_, whole) == ""
    assert without_usage(wire.merge(path, request_, [answers[at] for at in every])) == without_usage(whole)


@pytest.fixture(scope="module")
def reranker() -> Iterator[Server]:
    """llama-server, one pair at a time: of two that it computes together, one's score depends on the other."""
    yield from started(llama_server(reranking=True, arguments=("--parallel", "1")))


def test_a_real_reranker_s_batches_are_divided(reranker: Server) -> None:
    """llama-server speaks TEI's `/rerank`: two answers to parts of a batch, merged, are its answer to the whole."""
    httpx = pytest.importorskip("httpx")
    request = {"query": "animals", "texts": TEXTS[1:], "return_text": True}
    with httpx.Client(base_url=reranker.url, trust_env=False) as client:
        whole = client.post("/rerank", json=request).json()
        answers: dict[int, object] = {}
        for wanted in ([1], [0, 2]):
            reply = client.post("/rerank", json=wire.ask("/rerank", request, wanted)).json()
            answers |= dict(zip(wanted, wire.take("/rerank", request, wanted, reply), strict=True))
    merged: Any = wire.merge("/rerank", request, [answers[at] for at in range(3)])
    assert wire.judge("/rerank", request, whole) == ""
    assert merged == whole


def without_usage(body: Any) -> Any:
    """Which tokens are whose is an estimate; `test_items` says what holds of it."""
    return {**body, "usage": None} if isinstance(body, dict) else body


@pytest.mark.parametrize(("path", "request_"), REQUESTS)
def test_an_item_s_answer_is_the_reply_to_it_alone(client: Any, path: str, request_: dict[str, Any]) -> None:
    """What is recorded for an item of a batch is what the server says when it is asked for alone."""
    batch = wire.split(path, request_)
    assert batch is not None
    every = list(range(len(batch)))
    reply = client.post(path, json=wire.ask(path, request_, every)).json()
    for item, answer in zip(batch, wire.take(path, request_, every, reply), strict=True):
        assert without_usage(client.post(path, json=item).json()) == without_usage(answer)


@pytest.mark.parametrize(("path", "request_"), REQUESTS)
def test_equal_items_are_sent_once(path: str, request_: dict[str, Any]) -> None:
    """What remains to be asked has no item twice, in the order of the request."""
    field = {"/rerank": "texts", "/v1/embeddings": "input"}.get(path, "inputs")
    given = request_[field]
    sent: Any = wire.ask(path, request_, list(range(len(given))))
    assert sent == {**request_, field: [each for at, each in enumerate(given) if each not in given[:at]]}


def test_tokens_are_shared_by_the_header(client: Any) -> None:
    """A native reply's tokens are in a header; what the items bear is together what it says."""
    reply = client.post("/embed", json={"inputs": ["short", "a much longer text than the other one"]})
    tokens = wire.usage(reply.json(), reply.headers).input
    assert tokens == int(reply.headers["x-compute-tokens"]) > 0
    short, long = items.share(tokens, ["short", "a much longer text than the other one"])
    assert short < long
    assert wire.usage([], {"X-Compute-Tokens": "7"}).input == 7
    assert wire.usage([], {}).input == wire.usage([], {"x-compute-tokens": "-"}).input == 0
    openai = client.post("/v1/embeddings", json={"input": "short"}).json()
    assert wire.usage(openai, {}).input == openai["usage"]["prompt_tokens"]
    assert wire.about(openai, {}) == {"model": openai["model"]}


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}),
        ("/", {"inputs": ["a", "b"]}),
        ("/tokenize", {"inputs": ["a", "b"]}),
        ("/embed", {"inputs": []}),
        ("/embed", {"inputs": ["a", None]}),
        ("/embed", {"inputs": ["a", "b"], "window": 2}),
        ("/predict", {"inputs": ["a", ["b", "c"]]}),
        ("/predict", {"inputs": [["a", "b", "c"]]}),
        ("/rerank", {"query": "q", "texts": ["a", "b"], "top_n": 1}),
        ("/rerank", {"query": "q", "documents": ["a", "b"]}),
        ("/rerank", {"query": ["q"], "texts": ["a"]}),
        ("/embed", ["a"]),
        ("/embed", None),
    ],
)
def test_what_is_not_divisible(path: str, request_: object) -> None:
    """Derived, ambiguous, refused or unknown requests stay whole."""
    assert wire.split(path, request_) is None


def test_predict_tells_a_pair_from_two_texts() -> None:
    """A bare list of two texts is one item; a list of one text is the text; lists of these are several items."""
    pair, single, batch = (
        wire.split("/predict", {"inputs": given}) for given in (["a", "b"], ["a"], [["a"], ["a", "b"]])
    )
    assert pair and single and batch
    assert single == [{"inputs": "a"}]
    assert batch == [*single, *pair]


@pytest.mark.parametrize("path", ["/rerank", "/", "", "/prefix/rerank", "/rerank?x=1", "/rerank/"])
def test_a_rerank_is_known_wherever_it_is_mounted(path: str) -> None:
    """Its query is in every item, so that a text's score for one query is never another's."""
    one, other = (wire.split(path, {"query": query, "texts": ["a", "b"]}) for query in ("q", "p"))
    assert one and other
    assert one == [{"query": "q", "texts": ["a"]}, {"query": "q", "texts": ["b"]}]
    assert not [item for item in one if item in other]


@pytest.mark.parametrize(
    ("path", "request_", "body", "reason"),
    [
        ("/embed", {"inputs": "a"}, [[0.5]], ""),
        ("/embed", {"inputs": ["a", "b"]}, [[0.5], [0.25]], ""),
        ("/embed", {"inputs": ["a", "b"]}, [[0.5]], "incomplete"),
        ("/embed", {"inputs": ["a"]}, [[0.5, None]], "incomplete"),
        ("/embed", {"inputs": ["a"]}, [None], "incomplete"),
        ("/embed", {"inputs": ["a"]}, {"error": "no", "error_type": "Backend"}, "error_in_200"),
        ("/embed", {"inputs": ["a"]}, {}, "incomplete"),
        ("/embed_all", {"inputs": "a"}, [[[0.5], [0.25]]], ""),
        ("/embed_all", {"inputs": "a"}, [[[0.5], [None]]], "incomplete"),
        ("/embed_sparse", {"inputs": "a"}, [[{"index": 3, "value": 0.5}]], ""),
        ("/embed_sparse", {"inputs": "a"}, [[{"index": 3, "value": None}]], "incomplete"),
        ("/predict", {"inputs": "a"}, [{"score": 0.5, "label": "x"}, {"score": 0.5, "label": "y"}], ""),
        ("/predict", {"inputs": [["a"], ["b"]]}, [[{"score": 0.5, "label": "x"}]], "incomplete"),
        ("/predict", {"inputs": "a"}, [{"score": None, "label": "x"}], "incomplete"),
        ("/rerank", {"query": "q", "texts": ["a", "b"]}, [{"index": 1, "score": 2}, {"index": 0, "score": 1}], ""),
        ("/rerank", {"query": "q", "texts": ["a", "b"]}, [{"index": 1, "score": 2}], "incomplete"),
        ("/rerank", {"query": "q", "texts": ["a"]}, [{"index": 0, "score": None}], "incomplete"),
        ("/rerank", {"query": "q", "texts": ["a"]}, [{"index": 0, "score": 1, "text": None}], ""),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}, [0.5, 0.25], ""),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}}, [0.5], "incomplete"),
        ("/", {"inputs": ["a", "b"]}, [[0.5], [0.25]], ""),
        ("/v1/embeddings", {"input": "a"}, {"data": [{"embedding": [0.5]}]}, ""),
        ("/v1/embeddings", {"input": "a"}, [[0.5]], "incomplete"),
        ("/embed", None, None, "incomplete"),
    ],
)
def test_which_replies_are_stored(path: str, request_: object, body: object, reason: str) -> None:
    """One entry per question, no null (how the server writes a NaN), no error."""
    assert wire.judge(path, request_, body) == reason


@pytest.mark.parametrize(
    ("path", "request_", "body"),
    [
        ("/embed", {"inputs": ["a", "b"]}, [[0.5]]),
        ("/embed", {"inputs": ["a", "b"]}, {"error": "no"}),
        ("/rerank", {"query": "q", "texts": ["a", "b"]}, [{"index": 1, "score": 2}, {"index": 1, "score": 1}]),
        ("/rerank", {"query": "q", "texts": ["a", "b"]}, [{"score": 2}, {"score": 1}]),
        ("/predict", {"inputs": [["a"], ["b"]]}, [[]]),
    ],
)
def test_a_reply_that_does_not_fit_is_not_taken_apart(path: str, request_: object, body: object) -> None:
    """No answer is given to the wrong item."""
    with pytest.raises(ValueError):
        wire.take(path, request_, [0, 1], body)


def test_the_server_tells_its_version(client: Any) -> None:
    """`/info` names the model and its revision; another revision, or another way of serving it, is another version."""
    info = client.get(wire.INFO).json()
    assert wire.about_server(info) == {"model": info["model_id"], "model_version": "1" * 40}
    versions = {wire.version({**info, **changed}) for changed in ({}, {"model_sha": "2" * 40}, {"auto_truncate": True})}
    assert len(versions) == 3
    assert wire.version({**info, "max_concurrent_requests": 1}) in versions
    assert wire.version({}) == wire.version(None) == ""
    assert not wire.sampled("/embed", {})
