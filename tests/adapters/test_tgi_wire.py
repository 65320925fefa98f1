"""TGI's native shapes, against the stand-in scripted from its published schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from peers.fixtures import tgi_peer  # noqa: F401 - a fixture, found by its name
from peers.scripted import Scripted

from cachekit_adapters._wire.prices import Usage
from cachekit_adapters.tgi import wire

ASK: dict[str, Any] = {"inputs": "What is a cache good for?", "parameters": {"details": True}}
PLAIN: dict[str, Any] = {"inputs": ASK["inputs"]}
SHORT: dict[str, Any] = {"inputs": ASK["inputs"], "parameters": {"details": True, "max_new_tokens": 2}}


@pytest.fixture
def client(tgi_peer: Scripted) -> Any:  # noqa: F811
    httpx = pytest.importorskip("httpx")
    with httpx.Client(base_url=tgi_peer.url, trust_env=False) as client:
        yield client


def token(text: str = " red", **more: Any) -> dict[str, Any]:
    told = {"id": 1, "text": text, "logprob": -0.25, "special": False}
    return {"index": 1, "token": told, "generated_text": None, "details": None, **more}


def last(finish: str = "eos_token", **more: Any) -> dict[str, Any]:
    details = {"finish_reason": finish, "generated_tokens": 2, "seed": None, "input_length": 6}
    return token(" fox", generated_text=" red fox", details=details) | more


def framed(*events: Any) -> bytes:
    return b"".join(b"data:" + json.dumps(event).encode() + b"\n\n" for event in events)


@pytest.mark.parametrize("request_", [ASK, SHORT, PLAIN])
@pytest.mark.parametrize("path", ["/generate", "/"])
def test_a_stream_assembled_is_the_plain_reply(client: Any, path: str, request_: dict[str, Any]) -> None:
    """What a stream said, told as the plain reply to the same request, is what the server replies."""
    plain = client.post(path, json=request_).json()
    stream = client.post("/generate_stream", json=request_).content
    assert wire.assemble(stream, path, request_) == plain


@pytest.mark.parametrize("path", ["/generate", "/"])
def test_a_plain_reply_synthesised_is_the_stream(client: Any, path: str) -> None:
    """With details, token for token what the server streams, but for the prompt's length where it was not told."""
    body = client.post(path, json=ASK).json()
    made = b"".join(wire.synthesise(body, ASK))
    live = client.post("/generate_stream", json=ASK).content
    assert parsed(made) == [{**event, "details": without_length(event)} for event in parsed(live)]
    assert wire.judge_stream(made, ASK) == ""
    assert wire.assemble(made, path, ASK) == body


def parsed(data: bytes) -> list[Any]:
    return [json.loads(frame.removeprefix(b"data:")) for frame in data.split(b"\n\n")[:-1]]


def without_length(event: Any) -> Any:
    return event["details"] and {**event["details"], "input_length": 0}


def test_without_details_one_frame_says_it_all(client: Any) -> None:
    """Tokens that are not known are one; a prompt that the text begins with is no token's text."""
    request = {"inputs": "Say", "parameters": {"return_full_text": True}}
    body = client.post("/generate", json=request).json()
    (event,) = parsed(b"".join(wire.synthesise(body, request)))
    assert event["generated_text"] == body["generated_text"] == "Say" + event["token"]["text"]
    assert wire.judge_stream(b"".join(wire.synthesise(body, request)), request) == ""


@pytest.mark.parametrize("request_", [ASK, SHORT, PLAIN])
def test_a_stream_cut_anywhere_is_not_whole(client: Any, request_: dict[str, Any]) -> None:
    """At every byte before the true end a stream is incomplete, and assembling it fails."""
    stream = client.post("/generate_stream", json=request_).content
    for end in range(len(stream)):
        assert wire.judge_stream(stream[:end], request_) == "incomplete"
        with pytest.raises(ValueError):
            wire.assemble(stream[:end])
    assert wire.judge_stream(stream, request_) == ("truncated" if request_ is SHORT else "")


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([token(), last()], ""),
        ([token(), last("stop_sequence")], ""),
        ([token(), last("length")], "truncated"),
        ([token(), last("else")], "incomplete"),
        ([token()], "incomplete"),
        ([], "incomplete"),
        ([last(), token()], "incomplete"),
        ([last(), last()], "incomplete"),
        ([token(), {"error": "out of memory", "error_type": "generation"}], "error_in_200"),
        ([token(), last(), {"error": "late", "error_type": "generation"}], "error_in_200"),
        ([token(), "text", last()], "incomplete"),
        ([{"choices": []}, last()], "incomplete"),
        ([token(), last(details=None)], ""),
    ],
)
def test_which_streams_are_stored(events: list[Any], reason: str) -> None:
    """The last event alone ends it, with a reason to end; an error is an event like any other."""
    assert wire.judge_stream(framed(*events)) == reason


def test_an_event_that_is_no_json_is_no_end() -> None:
    """Malformed events, before the end or after it, and events named error."""
    assert wire.judge_stream(framed(token()) + b"data: {nonsense\n\n" + framed(last())) == "incomplete"
    assert wire.judge_stream(framed(token(), last()) + b"data: [DONE]\n\n") == "incomplete"
    assert wire.judge_stream(framed(token()) + b"event: error\ndata: overloaded\n\n") == "error_in_200"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"generated_text": "a", "details": {"finish_reason": "eos_token"}}, ""),
        ([{"generated_text": "a", "details": {"finish_reason": "stop_sequence"}}], ""),
        ({"generated_text": "a", "details": {"finish_reason": "length"}}, "truncated"),
        ({"generated_text": "a", "details": {"finish_reason": None}}, "incomplete"),
        ({"generated_text": "a", "details": None}, ""),
        ({"generated_text": ""}, ""),
        ({"error": "no", "error_type": "generation"}, "error_in_200"),
        ([{"error": "no"}], "error_in_200"),
        ([], "incomplete"),
        ([{"generated_text": "a"}, {"generated_text": "b"}], "incomplete"),
        ({"generated_text": None}, "incomplete"),
        ("text", "incomplete"),
        (None, "incomplete"),
    ],
)
def test_which_replies_are_stored(body: object, reason: str) -> None:
    """A text, and where it is told an end by itself."""
    assert wire.judge("/generate", {"inputs": "x"}, body) == reason


def test_every_sequence_of_best_of_counts() -> None:
    """One of the other sequences that ran into the limit makes the answer a truncated one."""
    others = [{"finish_reason": "length"}]
    details = {"finish_reason": "eos_token", "best_of_sequences": others}
    assert wire.judge("/generate", ASK, {"generated_text": "a", "details": details}) == "truncated"


def test_a_count_at_the_limit_is_a_truncation(client: Any) -> None:
    """Without details, the number of tokens tells: in the header of a reply, in the events of a stream."""
    request = {"inputs": ASK["inputs"], "parameters": {"max_new_tokens": 2}}
    reply = client.post("/generate", json=request)
    assert wire.judge("/generate", request, reply.json(), reply.headers) == "truncated"
    assert wire.judge("/generate", request, reply.json()) == ""
    roomy = {**request, "parameters": {"max_new_tokens": 200}}
    reply = client.post("/generate", json=roomy)
    assert wire.judge("/generate", roomy, reply.json(), reply.headers) == ""
    silent = framed(token(), last(details=None))
    assert wire.judge_stream(silent, request) == "truncated"
    assert wire.judge_stream(silent, roomy) == ""


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, False),
        ({}, False),
        ({"do_sample": False, "seed": 3}, False),
        ({"temperature": None, "top_k": None}, False),
        ({"temperature": 0}, False),
        ({"do_sample": True}, True),
        ({"temperature": 0.5}, True),
        ({"top_k": 5}, True),
        ({"top_p": 0.9}, True),
        ({"typical_p": 0.9}, True),
        ({"best_of": 2}, True),
    ],
)
def test_which_answers_are_sampled(parameters: object, expected: bool) -> None:
    """Greedy by default; a parameter of sampling samples even without do_sample. A seed is no sampling."""
    assert wire.sampled("/generate", {"inputs": "x", "parameters": parameters}) is expected


@pytest.mark.parametrize(
    ("path", "request_", "expected"),
    [
        ("/generate_stream", {"inputs": "x"}, True),
        ("/generate", {"inputs": "x", "stream": True}, False),
        ("/", {"inputs": "x", "stream": True}, True),
        ("/", {"inputs": "x"}, False),
        ("/mounted/generate_stream?a=b", None, True),
    ],
)
def test_which_requests_stream(path: str, request_: object, expected: bool) -> None:
    """Two routes of their own, and one that does either as the body says."""
    assert wire.streams(path, request_) is expected


def test_usage_of_a_reply_and_of_a_stream(client: Any) -> None:
    """Headers tell a reply's tokens, the last event a stream's; both are the same."""
    reply = client.post("/generate", json=ASK)
    stream = client.post("/generate_stream", json=ASK)
    told = wire.usage(reply.json(), reply.headers)
    assert told == wire.usage(wire.assemble(stream.content), stream.headers)
    assert told == wire.usage_of_stream(stream.content)
    assert wire.usage_of_stream(stream.content[:-1]) == wire.usage_of_stream(b"") == Usage()
    assert told.input == 6
    assert told.output == reply.json()["details"]["generated_tokens"]
    assert wire.usage({"generated_text": "a"}, {}) == Usage()


def test_top_tokens_survive_both_ways() -> None:
    """What top_n_tokens asked for is in the assembled reply and in the synthesised stream."""
    tops = [{"id": 2, "text": " blue", "logprob": -1.0, "special": False}]
    stream = framed(token(top_tokens=tops), last())
    body: Any = wire.assemble(stream)
    assert body["details"]["top_tokens"] == [tops, []]
    assert [event.get("top_tokens") for event in parsed(b"".join(wire.synthesise(body)))] == [tops, None]


def test_the_server_tells_its_version(client: Any) -> None:
    """`/info` names the model, its revision and the server's build; a new revision is a new version."""
    info = client.get(wire.INFO).json()
    assert wire.about_server(info) == {
        "model": "peer/tgi-stand-in",
        "model_version": "0" * 40,
        "system_fingerprint": "3.3.6-dev0-sha-peer",
    }
    assert "model_version" not in wire.about_server({**info, "model_sha": None})
    assert wire.version(info) != wire.version({**info, "model_sha": "1" * 40})
    assert wire.version(info) == wire.version({**info, "max_concurrent_requests": 1})
    assert wire.version([]) == ""
    assert wire.about({}, {}) == {}
