"""Vectors that are answers: finite numbers, whatever the route and the form; anything else is given and not kept."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import httpx
import numpy
import openai
import pytest
from peers import shapes
from peers.scripted import Reply, scripted_server

from cachekit_adapters import opea, tei, vectors, wrap
from cachekit_adapters._wire.openai.vectors import sound

BAD: list[Any] = [[None, 1.0], [math.nan, 1.0], [math.inf, -math.inf], [], None]


def in_base64(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


@pytest.mark.parametrize("vector", [[1.0, 2], [[1.0], [2.0]], in_base64(1.0, -2.5), [0.0, 0.0]])
def test_numbers_are_a_vector(vector: Any) -> None:
    """A list of them, rows of them, or base64."""
    assert sound(vector)


@pytest.mark.parametrize(
    "vector", [*BAD, [[1.0], []], ["a"], "", "?", in_base64(math.nan, 1.0), in_base64(math.inf), [10**400]]
)
def test_anything_else_is_none(vector: Any) -> None:
    """Nothing at all, null, NaN, infinity, and what is no number."""
    assert not sound(vector)


@pytest.mark.parametrize("bad", [*BAD[:4], in_base64(math.nan)])
def test_openais_embeddings(bad: Any) -> None:
    """Through the SDK: a failed vector is asked for again, and its neighbour is kept."""
    told = shapes.embeddings([[1.0], [2.0]])
    broken = json.loads(json.dumps(told))
    broken["data"][1]["embedding"] = bad
    well = shapes.json_reply(shapes.embeddings([[2.0]]))
    with scripted_server([shapes.json_reply(broken), well]) as server:
        with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as bare:
            client = wrap(bare)
            for _ in range(3):
                answer = client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
            assert [each.embedding for each in answer.data] == [[1.0], [2.0]]
        assert [request.json()["input"] for request in server.requests] == [["a", "b"], ["b"]]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(("adapter", "route"), [(tei.EMBED, "/embed"), (opea.EMBEDDINGS, "/v1/embeddings")])
def test_embeddings_over_plain_http(adapter: Any, route: str, bad: Any) -> None:
    """TEI's and OPEA's routes likewise."""

    def reply(vector: Any) -> Reply:
        body = [vector] if route == "/embed" else shapes.embeddings([[1.0]])
        if isinstance(body, dict):
            body["data"][0]["embedding"] = vector
        return Reply(200, json.dumps(body).encode())

    asked = {"inputs": "a"} if route == "/embed" else {"input": "a", "model": "m"}
    with scripted_server([reply(bad), reply([1.0, 2.0])]) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as bare:
            client = wrap(bare, adapter=adapter)
            for _ in range(3):
                client.post(route, json=asked)
        assert server.count == 2


def test_vectors_of_a_function() -> None:
    """A row with a NaN is given to the caller, and its text asked for again."""
    asked: list[list[str]] = []

    @vectors.embed(version="1")
    def embed(texts: list[str]) -> Any:
        asked.append(texts)
        first = math.nan if len(asked) == 1 else 1.0
        return numpy.array([[first, 2.0] if text == "b" else [3.0, 4.0] for text in texts])

    assert numpy.isnan(embed(["a", "b"])).any()
    for _ in range(2):
        assert numpy.isfinite(embed(["a", "b"])).all()
    assert asked == [["a", "b"], ["b"]]
