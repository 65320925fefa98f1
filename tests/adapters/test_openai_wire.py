"""OpenAI's wire: which answers may be stored, and a stream and a plain answer as two forms of one."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import shapes
from peers.fixtures import groq_peer, llama_peer  # noqa: F401 - found by name
from peers.servers import Server

from cachekit_adapters._wire import openai as wire
from cachekit_adapters._wire.prices import Usage
from cachekit_adapters._wire.sse import frame

Json = dict[str, Any]
TWO_CALLS = [shapes.tool_call(), shapes.tool_call("time", "{}", "call_2")]


def stream(chunks: list[Json], *, done: bool = True) -> bytes:
    return b"".join(shapes.frames(chunks, done=done))


def response(status: str = "completed", **more: Any) -> Json:
    part = {"type": "output_text", "text": "Hello.", "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "status": status, "content": [part]}
    usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 3}}
    return {"id": "resp_1", "object": "response", "model": "m-1", "status": status, "output": [item], "error": None,
            "incomplete_details": None, "usage": usage, **more}  # fmt: skip


def response_stream(last: str = "response.completed", **more: Any) -> bytes:
    whole = response(last.removeprefix("response."), **more)
    told: list[Json] = [
        {"type": "response.created", "response": {"id": "resp_1", "object": "response", "status": "in_progress"}},
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": "Hello."},
        {"type": last, "response": whole},
    ]
    return b"".join(shapes.named_frames(told))


def several(*finishes: str) -> Json:
    body = shapes.chat()
    body["choices"] = [{**body["choices"][0], "index": at, "finish_reason": f} for at, f in enumerate(finishes)]
    return body


# -- judging plain answers ---------------------------------------------------------------------


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "function_call"])
def test_a_finished_answer_may_be_stored(finish: str) -> None:
    """Also one that calls tools: the loop is the caller's."""
    assert wire.judge(shapes.chat(finish=finish)) == ""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (shapes.chat(finish="length"), "truncated"),
        (shapes.chat(finish="content_filter"), "content_filtered"),
        (shapes.chat(finish=None), "incomplete"),
        (shapes.chat(finish="something new"), "incomplete"),
        (shapes.chat(choices=[]), "incomplete"),
        (shapes.chat(choices=None), "incomplete"),
        (shapes.chat(error={"message": "overloaded"}), "error_in_200"),
        (shapes.chat(x_groq={"id": "r", "error": "over capacity"}), "error_in_200"),
        ({"error": "Model is overloaded", "error_type": "overloaded"}, "error_in_200"),
        ({"object": "error", "message": "no such model"}, "error_in_200"),
        ({"detail": "Not Found"}, "incomplete"),
        ([], "incomplete"),
        (None, "incomplete"),
    ],
)
def test_anything_else_is_told_under_its_reason(body: Any, reason: str) -> None:
    """Truncated, filtered, failed with 200, cut, or another schema altogether."""
    assert wire.judge(body) == reason


def test_a_refusal_is_not_an_answer() -> None:
    """`message.refusal` counts, though it stopped properly."""
    body = shapes.chat(None)
    body["choices"][0]["message"]["refusal"] = "I cannot help with that."
    assert wire.judge(body) == "refused"


def test_every_choice_counts_and_the_gravest_fault_is_told() -> None:
    """Who opts in to truncated answers gets no filtered or unfinished one with them."""
    assert wire.judge(several("stop", "stop")) == ""
    assert wire.judge(several("stop", "length")) == "truncated"
    assert wire.judge(several("length", "content_filter")) == "content_filtered"
    assert wire.judge(several("length", "new")) == "incomplete"


def test_embeddings_lists_and_single_models() -> None:
    """A vector that is missing is incomplete; a list of models may be empty."""
    assert wire.judge(shapes.embeddings([[0.1], [0.2]])) == ""
    assert wire.judge(shapes.embeddings([[0.1], []])) == "incomplete"
    assert wire.judge(shapes.embeddings([])) == "incomplete"
    assert wire.judge({"object": "list", "data": []}) == ""
    assert wire.judge({"object": "list", "data": [{"id": "m", "object": "model"}]}) == ""
    assert wire.judge({"object": "model", "id": "m"}) == ""


def test_text_completions() -> None:
    """`text` stands where chats have a message."""
    choice = {"index": 0, "text": "Hello.", "logprobs": None, "finish_reason": "stop"}
    assert wire.judge({"object": "text_completion", "choices": [choice]}) == ""
    assert wire.judge({"object": "text_completion", "choices": [{**choice, "text": None}]}) == "incomplete"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (response(), ""),
        (response("incomplete", incomplete_details={"reason": "max_output_tokens"}), "truncated"),
        (response("incomplete", incomplete_details={"reason": "content_filter"}), "content_filtered"),
        (response("incomplete"), "incomplete"),
        (response("in_progress"), "incomplete"),
        (response("cancelled"), "incomplete"),
        (response("failed", error={"code": "server_error", "message": "…"}), "error_in_200"),
        (response("failed"), "error_in_200"),
        (response(output=[{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]), "refused"),
    ],
)
def test_responses(body: Json, reason: str) -> None:
    """The Responses API says how it went in `status`, and why in `incomplete_details`."""
    assert wire.judge(body) == reason


# -- judging streams ---------------------------------------------------------------------------

STREAMS = {
    "chat": stream(shapes.chat_chunks(("Hel", "lo €", " there"), usage=True)),
    "tools": stream(shapes.chat_chunks((), tool_calls=TWO_CALLS)),
    "groq": stream(shapes.chat_chunks(groq=True)),
    "crlf": stream(shapes.chat_chunks(("Hi",))).replace(b"\n", b"\r\n"),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_anywhere_is_never_taken_for_whole(name: str) -> None:
    """Only the end of `[DONE]`'s blank line makes it whole."""
    data = STREAMS[name]
    whole = [cut for cut in range(len(data) + 1) if wire.judge_stream(data[:cut]) == ""]
    # Of a CRLF the CR alone already ends the line.
    assert whole == ([len(data) - 1, len(data)] if name == "crlf" else [len(data)])


def test_a_stream_of_a_response_cut_anywhere_is_never_taken_for_whole() -> None:
    """`response.completed` is its end; there need be no `[DONE]`."""
    data = response_stream()
    assert [cut for cut in range(len(data) + 1) if wire.judge_stream(data[:cut]) == ""] == [len(data)]


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_a_cut_is_a_cut_whatever_the_stream_said_before(finish: str) -> None:
    """Opting in to truncated answers does not let in broken connections."""
    chunks = shapes.chat_chunks(finish=finish)
    assert wire.judge_stream(stream(chunks)) == {"length": "truncated", "content_filter": "content_filtered"}[finish]
    assert wire.judge_stream(stream(chunks, done=False)) == "incomplete"


def test_done_without_a_finish_reason_is_incomplete() -> None:
    """So is a choice that never finished beside one that did, and one of which nothing came."""
    assert wire.judge_stream(stream(shapes.chat_chunks(finish=None))) == "incomplete"
    other = shapes.chat_chunks(("x",), finish=None)[1]
    other["choices"][0]["index"] = 1
    assert wire.judge_stream(stream([*shapes.chat_chunks(), other])) == "incomplete"
    only_second = wire.synthesise({**shapes.chat(), "choices": [{**shapes.chat()["choices"][0], "index": 1}]})
    assert wire.judge_stream(b"".join(only_second)) == "incomplete"
    assert wire.judge_stream(frame("[DONE]")) == "incomplete"


@pytest.mark.parametrize(
    "error",
    [
        frame({"error": {"message": "overloaded"}}),
        frame({"error": "overloaded", "error_type": "overloaded"}),
        frame({"object": "error", "message": "overloaded"}),
        frame({"message": "overloaded"}, "error"),
        frame({"choices": [], "x_groq": {"id": "r", "error": "over capacity"}}),
    ],
)
def test_an_error_in_the_stream_is_an_error(error: bytes) -> None:
    """Whether the stream goes on and ends properly, or breaks off there."""
    pieces = shapes.frames(shapes.chat_chunks())
    assert wire.judge_stream(b"".join([*pieces[:2], error, *pieces[2:]])) == "error_in_200"
    assert wire.judge_stream(pieces[0] + error) == "error_in_200"


def test_an_error_in_a_responses_stream_is_an_error() -> None:
    """As `response.failed`, or as an `error` event."""
    assert wire.judge_stream(response_stream("response.failed")) == "error_in_200"
    told = frame({"type": "error", "code": "server_error", "message": "…"}, "error")
    assert wire.judge_stream(response_stream("response.created") + told) == "error_in_200"
    assert (
        wire.judge_stream(response_stream("response.incomplete", incomplete_details={"reason": "max_output_tokens"}))
        == "truncated"
    )


@pytest.mark.parametrize("bad", [b"data: {\n\n", b"data: 7\n\n", b'data: {"detail": "gone"}\n\n', b'data: "\xff"\n\n'])
def test_a_chunk_that_cannot_be_read_spoils_the_stream(bad: bytes) -> None:
    """Malformed JSON, another schema, bytes that are no text."""
    pieces = shapes.frames(shapes.chat_chunks())
    assert wire.judge_stream(b"".join([pieces[0], bad, *pieces[1:]])) == "incomplete"


# -- one form into the other -------------------------------------------------------------------


def test_a_stream_amounts_to_the_plain_answer() -> None:
    """Texts are joined, tool calls merged by their index, usage and fingerprint taken over."""
    assert wire.assemble(stream(shapes.chat_chunks(usage=True))) == shapes.chat()
    assert wire.assemble(stream(shapes.chat_chunks((), tool_calls=TWO_CALLS, usage=True))) == shapes.chat(
        "", tool_calls=TWO_CALLS
    )
    assert wire.assemble(stream(shapes.chat_chunks(groq=True))) == shapes.chat(x_groq={"id": "req_peer"})
    assert wire.assemble(response_stream()) == response()


def test_interleaved_choices_reasoning_logprobs_and_fields_nobody_documented() -> None:
    """Each choice gets its own; texts are continued, whatever they are called."""

    def chunk(index: int, finish: str | None = None, tokens: tuple[str, ...] = (), **delta: Any) -> Json:
        logprobs = {"content": [{"token": token} for token in tokens], "refusal": None}
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return {"object": "chat.completion.chunk", "id": "i", "choices": [choice]}

    body = wire.assemble(
        stream(
            [
                chunk(1, role="assistant", content=None, reasoning="Be"),
                chunk(0, role="assistant", content="", refusal=None),
                chunk(1, tokens=("B",), content="B", reasoning="cause"),
                chunk(0, tokens=("A", "a"), content="Aa", mood="hap"),
                chunk(0, "stop", tokens=("!",), content="!", mood="py"),
                chunk(1, "stop"),
            ]
        )
    )
    first, second = body["choices"]
    assert first["message"] == {"role": "assistant", "content": "Aa!", "refusal": None, "mood": "happy"}
    assert second["message"] == {"role": "assistant", "content": "B", "reasoning": "Because"}
    assert [held["token"] for held in first["logprobs"]["content"]] == ["A", "a", "!"]
    assert wire.judge(body) == ""


def test_tool_calls_without_index_out_of_order_and_with_names_said_twice() -> None:
    """What some servers make of the protocol."""

    def chunk(*calls: Json, finish: str | None = None) -> Json:
        return {"choices": [{"index": 0, "delta": {"tool_calls": list(calls)}, "finish_reason": finish}]}

    whole = wire.assemble(stream([chunk(shapes.tool_call()), chunk(TWO_CALLS[1], finish="tool_calls")]))
    assert whole["choices"][0]["message"]["tool_calls"] == TWO_CALLS
    late = [{**call, "index": at} for at, call in enumerate(TWO_CALLS)][::-1]
    whole = wire.assemble(stream([chunk(late[0]), chunk(late[1], finish="tool_calls")]))
    assert whole["choices"][0]["message"]["tool_calls"] == TWO_CALLS
    parts = [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": "{"}},
        {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": "}"}},
    ]
    whole = wire.assemble(stream([chunk(parts[0]), chunk(parts[1], finish="tool_calls")]))
    assert whole["choices"][0]["message"]["tool_calls"] == [shapes.tool_call("weather", "{}", "c")]


TEXT = st.text(max_size=8)
CALL = st.builds(shapes.tool_call, TEXT, TEXT, TEXT)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={
        "tool_calls": st.none() | st.lists(CALL, max_size=3),
        "refusal": st.none() | TEXT,
        "reasoning_content": TEXT,
        "function_call": st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}),
        "annotations": st.lists(JSON, max_size=2),
        "audio": st.none() | st.fixed_dictionaries({"id": TEXT, "data": TEXT, "expires_at": st.integers()}),
        "unheard_of": JSON,
    },
)
LOGPROBS = st.none() | st.fixed_dictionaries({"content": st.none() | st.lists(JSON, max_size=2), "refusal": st.none()})
FINISH = st.sampled_from(["stop", "tool_calls", "length", None])
CHOICE = st.fixed_dictionaries(
    {"message": MESSAGE, "finish_reason": FINISH}, optional={"logprobs": LOGPROBS, "stop_reason": JSON}
)
COMPLETION = st.fixed_dictionaries({"text": TEXT, "finish_reason": FINISH}, optional={"logprobs": LOGPROBS})
TOP = st.fixed_dictionaries(
    {"id": TEXT, "created": st.integers(), "model": TEXT},
    optional={
        "usage": st.none() | st.just(dict(shapes.USAGE)),
        "system_fingerprint": st.none() | TEXT,
        "x_groq": st.fixed_dictionaries({"id": TEXT}),
        "timings": JSON,
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> Json:
    kind, choice = draw(st.sampled_from([("chat.completion", CHOICE), ("text_completion", COMPLETION)]))
    choices = draw(st.lists(choice, min_size=1, max_size=3))
    return {**draw(TOP), "object": kind, "choices": [{**each, "index": at} for at, each in enumerate(choices)]}


@settings(deadline=None)
@given(bodies())
def test_taken_apart_and_put_together_an_answer_is_the_same(body: Json) -> None:
    """For chats and text completions, several choices, tool calls, and fields nobody documented."""
    before = json.dumps(body)
    pieces = wire.synthesise(body)
    assert wire.assemble(b"".join(pieces)) == body
    assert wire.judge_stream(b"".join(pieces)) == wire.judge(body)
    assert json.dumps(body) == before, "the body given stays as it was"


def test_a_synthesised_stream_has_the_shape_of_a_live_one() -> None:
    """Role, content, finish, usage, `[DONE]`; the usage can be left out for who did not ask for it."""
    chunks = [json.loads(piece[6:]) for piece in wire.synthesise(shapes.chat())[:-1]]
    assert [chunk["object"] for chunk in chunks] == ["chat.completion.chunk"] * 4
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert chunks[1]["choices"][0]["delta"] == {"content": "Hello there."}
    assert chunks[2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[3]["choices"] == [] and chunks[3]["usage"] == shapes.USAGE
    assert wire.synthesise(shapes.chat())[-1] == b"data: [DONE]\n\n"
    assert len(wire.synthesise(shapes.chat(), include_usage=False)) == 4
    groq = wire.synthesise(shapes.chat(x_groq={"id": "r"}))
    assert json.loads(groq[2][6:])["x_groq"] == {"id": "r", "usage": shapes.USAGE} and len(groq) == 4


@pytest.mark.parametrize("body", [response(), shapes.embeddings([[0.1]]), {}, {"choices": [7]}])
def test_what_is_no_completion_is_not_made_a_stream(body: Json) -> None:
    """ValueError, so that the caller can miss instead."""
    with pytest.raises(ValueError):
        wire.synthesise(body)


# -- usage, model, sampling --------------------------------------------------------------------


def test_usage_in_every_shape() -> None:
    """Chat, Groq's stream, responses, embeddings; nonsense counts as nothing."""
    assert wire.usage(shapes.chat()) == Usage(11, 3)
    assert wire.usage(response()) == Usage(5, 2, 3)
    assert wire.usage(shapes.embeddings([[1.0]])) == Usage(2)
    assert wire.usage_of_stream(STREAMS["chat"]) == wire.usage_of_stream(STREAMS["groq"]) == Usage(11, 3)
    assert wire.usage_of_stream(response_stream()) == Usage(5, 2, 3)
    written = {"cache_write_tokens": 7, "cache_write_tokens_details": {"ttl_30m_tokens": 5, "ttl_12h_tokens": 2}}
    assert wire.usage({"usage": {"input_tokens": 9, "input_tokens_details": written}}) == Usage(9, 0, 0, 5, 2)
    assert wire.usage({"usage": {"prompt_tokens": "many", "completion_tokens": True}}) == Usage()
    assert wire.usage({"usage": None}) == wire.usage(None) == wire.usage_of_stream(b"data: {") == Usage()


def test_the_model_that_answered() -> None:
    """Snapshot and fingerprint, each only where the answer has it; also of a stream that broke."""
    assert wire.about(shapes.chat()) == {"model": "peer-1", "system_fingerprint": "fp_peer"}
    assert wire.about({**shapes.chat(), "system_fingerprint": None}) == {"model": "peer-1"}
    assert wire.about_stream(STREAMS["chat"][:400] + b"\n\ndata: {\n\n") == wire.about(shapes.chat())
    assert wire.about_stream(response_stream()) == {"model": "m-1"}
    assert wire.about([]) == wire.about_stream(b"") == {}


@pytest.mark.parametrize(
    ("request_", "path", "sampled"),
    [
        ({"messages": []}, "", True),
        ({"messages": [], "temperature": 0}, "", False),
        ({"messages": [], "temperature": 0.0}, "", False),
        ({"messages": [], "temperature": 0.1}, "", True),
        ({"messages": [], "temperature": None}, "", True),
        ({"messages": [], "temperature": False}, "", True),
        ({"messages": [], "seed": 7}, "", True),
        ({"messages": [], "temperature": 1, "extra_body": {"temperature": 0}}, "", False),
        ({"prompt": "x"}, "", True),
        ({"model": "m", "input": "x"}, "", True),
        ({"model": "m", "input": "x"}, "/v1/responses", True),
        ({"model": "m", "input": "x", "temperature": 0}, "/v1/responses", False),
        ({"model": "m", "input": "x"}, "/openai/v1/embeddings", False),
        ({"model": "m", "input": "x", "encoding_format": "float"}, "", False),
        ({"model": "m", "input": ["x", "y"]}, "", False),
        ({"model": "m", "input": [{"role": "user", "content": "x"}]}, "", True),
        ({"query": "x", "documents": ["y"]}, "", False),
        ({}, "/v1/models", False),
    ],
)
def test_what_counts_as_sampled(request_: Json, path: str, sampled: bool) -> None:
    """Temperature 0 and APIs without sampling do not; a seed alone does not help; in doubt it is sampled."""
    assert wire.sampled(request_, path) is sampled


# -- bad input ---------------------------------------------------------------------------------

KEYS = ["choices", "delta", "message", "index", "finish_reason", "error", "usage", "object", "type", "status", "output",
        "x_groq", "tool_calls", "logprobs", "text", "content", "response", "id", "function", "name", "model"]  # fmt: skip
WILD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["stop", "error", "response", "response.completed", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(WILD | st.dictionaries(st.sampled_from(KEYS), WILD), max_size=4))
def test_no_answer_however_strange_makes_it_raise(told: list[Any]) -> None:
    """A server that changes its schema is a reason not to store, and nothing worse."""
    data = b"".join(map(frame, told)) + frame("[DONE]")
    reason = wire.judge_stream(data)
    assert reason == "" or reason in wire.GRAVEST_FIRST
    assert wire.usage_of_stream(data) >= Usage()
    wire.about_stream(data)
    for body in told:
        assert wire.judge(body) in wire.GRAVEST_FIRST
        wire.usage(body), wire.about(body)


# -- the real thing ----------------------------------------------------------------------------

ASK: Json = {
    "model": "m", "messages": [{"role": "user", "content": "What is a cache good for?"}], "temperature": 0, "seed": 1,
    "max_tokens": 64, "grammar": 'root ::= "Fresh answers."',
}  # fmt: skip
TOOL: Json = {
    "type": "function",
    "function": {"name": "weather", "description": "…", "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}},
        "required": ["city"], "additionalProperties": False}},
}  # fmt: skip
CASES = {
    "chat": ("/v1/chat/completions", {**ASK, "logprobs": True, "stream_options": {"include_usage": True}}),
    "two choices": ("/v1/chat/completions", {**ASK, "n": 2}),
    "text": ("/v1/completions", {**{k: v for k, v in ASK.items() if k != "messages"}, "prompt": "Hi"}),
    "tool": (
        "/v1/chat/completions",
        {
            **{k: v for k, v in ASK.items() if k != "grammar"},
            "tools": [TOOL],
            "tool_choice": "required",
            "max_tokens": 200,
        },
    ),
    "response": ("/v1/responses", {"model": "m", "input": "Hi", "temperature": 0, "grammar": ASK["grammar"]}),
}


def post(url: str, body: Json) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def steady(body: Json) -> Any:
    """What two equal answers have in common: no ids, no probabilities to the last bit. No content is empty content."""
    if body.get("object") == "response":
        return [[part["text"] for part in item["content"]] for item in body["output"]]
    found = []
    for choice in body["choices"]:
        message = {name: value or None for name, value in choice.get("message", {}).items()}
        for call in message.get("tool_calls") or ():
            call.pop("id")
        # The plain answer has the token that ended it, too; its text is empty.
        logprobs = [held["token"] for held in (choice.get("logprobs") or {}).get("content", ()) if held["token"]]
        found.append({**choice, "message": message, "logprobs": logprobs})
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_real_servers_stream_amounts_to_its_plain_answer(case: str, llama_peer: Server) -> None:  # noqa: F811
    """Recorded from a running llama-server: the stream is whole, and assembles to what the plain call gives."""
    path, body = CASES[case]
    plain = json.loads(post(llama_peer.url + path, body))
    recorded = post(llama_peer.url + path, {**body, "stream": True})
    assert wire.judge(plain) == wire.judge_stream(recorded) == ""
    assembled = wire.assemble(recorded)
    assert steady(assembled) == steady(plain)
    assert wire.about_stream(recorded) == wire.about(plain)
    if case in ("chat", "text", "response"):
        assert wire.usage_of_stream(recorded)[:2] == wire.usage(plain)[:2] != (0, 0)
    step = max(len(recorded) // 300, 1)
    assert all(wire.judge_stream(recorded[:cut]) for cut in range(0, len(recorded) - 1, step))


def test_a_real_servers_truncated_stream_is_truncated(groq_peer: Server) -> None:  # noqa: F811
    """Two tokens are not the answer."""
    body = {**ASK, "max_tokens": 2}
    url = f"{groq_peer.url}/openai/v1/chat/completions"
    assert wire.judge_stream(post(url, {**body, "stream": True})) == "truncated"
    assert wire.judge(json.loads(post(url, body))) == "truncated"
