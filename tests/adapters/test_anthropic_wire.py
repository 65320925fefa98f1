"""Anthropic's wire: which messages may be stored, and a stream and a plain message as two forms of one."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import shapes
from peers.fixtures import llama_peer  # noqa: F401 - found by name
from peers.servers import Server

from cachekit_adapters._wire.prices import Usage
from cachekit_adapters._wire.sse import frame
from cachekit_adapters.claude import wire as wire

Json = dict[str, Any]
REASONS = ("", "truncated", "paused", "refused", "incomplete", "error_in_200")


def stream(events: list[Json]) -> bytes:
    return b"".join(shapes.named_frames(events))


STOPS = [
    ("end_turn", ""),
    ("stop_sequence", ""),
    ("tool_use", ""),
    ("max_tokens", "truncated"),
    ("model_context_window_exceeded", "truncated"),
    ("pause_turn", "paused"),
    ("refusal", "refused"),
    ("something new", "incomplete"),
]


@pytest.mark.parametrize(("stop", "reason"), STOPS)
def test_the_reason_to_stop_decides(stop: str, reason: str) -> None:
    """In a plain message and in a stream alike."""
    assert wire.judge(shapes.message(stop=stop)) == reason
    assert wire.judge_stream(stream(shapes.message_events(stop=stop))) == reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (shapes.message(stop=None), "incomplete"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "…"}}, "error_in_200"),
        ({**shapes.message(), "content": None}, "incomplete"),
        ({"input_tokens": 7}, ""),
        ({"data": [], "has_more": False}, ""),
        ({"detail": "Not Found"}, "incomplete"),
        ("text", "incomplete"),
    ],
)
def test_other_bodies(body: Any, reason: str) -> None:
    """No reason to stop, errors, other schemas; counts of tokens and lists are answers."""
    assert wire.judge(body) == reason


BLOCKS = [
    {"type": "thinking", "thinking": "Hm, €.", "signature": "sig"},
    {"type": "text", "text": "Hello.", "citations": [{"type": "char_location", "cited_text": "H"}]},
    shapes.tool_block(),
]


@pytest.mark.parametrize("content", [None, BLOCKS, [shapes.tool_block()]])
def test_a_stream_cut_anywhere_is_never_taken_for_whole(content: list[Json] | None) -> None:
    """Only the blank line behind `message_stop` makes it whole."""
    data = b"".join(wire.synthesise(shapes.message(content, stop="tool_use")))
    assert [cut for cut in range(len(data) + 1) if wire.judge_stream(data[:cut]) == ""] == [len(data)]
    assert all(wire.judge_stream(data[:cut]) == "incomplete" for cut in range(len(data)))


def test_a_message_in_a_chunk_of_its_own_order_is_not_whole() -> None:
    """Every event is needed: without one, or with one twice, the stream is not what the server meant."""
    events = [event for event in shapes.message_events() if event["type"] != "ping"]
    assert wire.judge_stream(stream(events)) == ""
    for at, event in enumerate(events):
        if event["type"] != "content_block_delta":
            assert wire.judge_stream(stream(events[:at] + events[at + 1 :])) == "incomplete", event
    assert wire.judge_stream(stream([events[0], *events])) == "incomplete"


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_error_event_is_an_error(at: int) -> None:
    """Wherever it stands."""
    events = shapes.message_events()
    events.insert(at, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})
    assert wire.judge_stream(stream(events)) == "error_in_200"
    assert wire.judge_stream(stream(events[: at + 1])) == "error_in_200"


@pytest.mark.parametrize(
    "bad", [b"event: x\ndata: {\n\n", b"event: x\ndata: 7\n\n", b'event: x\ndata: {"type":"y"}\n\n']
)
def test_an_event_that_cannot_be_read_spoils_the_stream(bad: bytes) -> None:
    """Malformed JSON, another schema, a name that is not its type."""
    pieces = shapes.named_frames(shapes.message_events())
    assert wire.judge_stream(b"".join([pieces[0], bad, *pieces[1:]])) == "incomplete"


def test_what_the_sdk_skips_is_skipped() -> None:
    """Pings, events without a name, kinds of events not known yet."""
    pieces = shapes.named_frames(shapes.message_events())
    more = [frame({"type": "message_stop"}), frame({"type": "ping"}, "ping"), frame({"type": "news"}, "news")]
    data = b"".join([pieces[0], *more, *pieces[1:]])
    assert wire.judge_stream(data) == ""
    assert wire.assemble(data) == shapes.message()


# -- one form into the other -------------------------------------------------------------------


def test_a_stream_amounts_to_the_plain_message() -> None:
    """Text and a tool's input are joined, totals overwrite the first counts, other usage stays."""
    blocks = [shapes.text_block(), shapes.tool_block()]
    events = shapes.message_events(blocks, stop="tool_use")
    assert wire.assemble(stream(events)) == shapes.message(blocks, stop="tool_use")


def test_a_tool_without_input_gets_an_empty_one() -> None:
    """Also where the server leaves `input` out of the start, as llama-server does."""
    block = {"type": "tool_use", "id": "t", "name": "now"}
    events = shapes.message_events([{**block, "input": {}}], stop="tool_use")
    del events[1]["content_block"]["input"]
    del events[3:5]
    assert wire.assemble(stream(events))["content"] == [{**block, "input": {}}]


def test_deltas_not_known_are_stored_as_they_are_and_not_assembled() -> None:
    """The recorded stream is whole; what it amounts to is not guessed."""
    events = shapes.message_events()
    events.insert(2, {"type": "content_block_delta", "index": 0, "delta": {"type": "mood_delta", "mood": "!"}})
    assert wire.judge_stream(stream(events)) == ""
    with pytest.raises(ValueError, match="mood_delta"):
        wire.assemble(stream(events))


@pytest.mark.parametrize("data", [b"", b"data: {\n\n", stream(shapes.message_events()[1:])])
def test_what_is_no_message_is_not_assembled(data: bytes) -> None:
    """ValueError, so that the caller can miss instead."""
    with pytest.raises(ValueError):
        wire.assemble(data)


TEXT = st.text(max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=5,
)
BLOCK = st.one_of(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": TEXT}, optional={"citations": st.none() | st.lists(JSON, max_size=2)}
    ),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXT}),
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["tool_use", "server_tool_use"]),
            "id": TEXT,
            "name": TEXT,
            "input": st.dictionaries(TEXT, JSON, max_size=3),
        }
    ),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "tool_use_id": TEXT, "content": JSON}),
)


@settings(deadline=None)
@given(st.lists(BLOCK, max_size=4), st.sampled_from([stop for stop, _ in STOPS]), st.none() | TEXT)
def test_taken_apart_and_put_together_a_message_is_the_same(
    content: list[Json], stop: str, ended_by: str | None
) -> None:
    """Whatever blocks it has."""
    body = shapes.message(content, stop=stop, stop_sequence=ended_by, container=None)
    before = json.dumps(body)
    data = b"".join(wire.synthesise(body))
    assert wire.assemble(data) == body
    assert wire.judge_stream(data) == wire.judge(body)
    assert json.dumps(body) == before, "the message given stays as it was"


@pytest.mark.parametrize("body", [{}, {"input_tokens": 3}, {"type": "message"}, {"type": "message", "content": [7]}])
def test_what_is_no_message_is_not_made_a_stream(body: Json) -> None:
    """ValueError, so that the caller can miss instead."""
    with pytest.raises(ValueError):
        wire.synthesise(body)


# -- usage, model, sampling --------------------------------------------------------------------


def test_usage_counts_the_whole_prompt() -> None:
    """Anthropic's `input_tokens` leave out what was cached; ours do not, and the two writes are told apart."""
    assert wire.usage(shapes.message()) == Usage(16, 3, 5)
    counts = {
        "input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 30,
    }  # fmt: skip
    assert wire.usage({"usage": counts}) == Usage(140, 2, 100, 30, 0)
    split = {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}
    assert wire.usage({"usage": {**counts, "cache_creation": split}}) == Usage(140, 2, 100, 10, 20)
    assert wire.usage({"input_tokens": 7}) == Usage(7)
    assert wire.usage(None) == wire.usage({"usage": []}) == Usage()


def test_usage_and_model_of_a_stream_also_of_a_broken_one() -> None:
    """Totals at the end overwrite the first counts; of a cut stream the first counts are known."""
    data = stream(shapes.message_events())
    assert wire.usage_of_stream(data) == Usage(16, 3, 5)
    assert wire.usage_of_stream(data[:-200] + b"\n\ndata: {\n\n") == Usage(16, 1, 5)
    assert wire.about_stream(data) == wire.about_stream(data[:-200]) == {"model": "claude-peer-1"}
    assert wire.usage_of_stream(b"data: {") == Usage() and wire.about_stream(b"") == wire.about([]) == {}


def test_every_answer_counts_as_sampled() -> None:
    """There is no temperature any more that would make two answers the same."""
    assert wire.sampled({"temperature": 0}) is True


# -- bad input ---------------------------------------------------------------------------------

NAMES = ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta",
         "message_stop", "error", "ping", ""]  # fmt: skip
KEYS = ["message", "index", "content_block", "delta", "usage", "type", "text", "partial_json", "stop_reason", "content",
        "citations", "citation", "model", "input_tokens"]  # fmt: skip
WILD = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["message", "text_delta", "end_turn", "tool_use"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(KEYS), WILD)), max_size=6), st.booleans()
)
def test_no_stream_however_strange_makes_it_raise(told: list[tuple[str, Json]], started: bool) -> None:
    """A server that changes its schema is a reason not to store, and nothing worse."""
    events = [frame({**event, "type": name}, name) for name, event in told]
    data = b"".join(shapes.named_frames(shapes.message_events())[:2] * started + events)
    assert wire.judge_stream(data) in REASONS
    assert wire.usage_of_stream(data) >= Usage()
    wire.about_stream(data)
    for _, event in told:
        assert wire.judge(event) in REASONS
        wire.usage(event), wire.about(event)


# -- the real thing ----------------------------------------------------------------------------


ASK: Json = {
    "model": "m", "messages": [{"role": "user", "content": "What is a cache good for?"}], "temperature": 0, "seed": 1,
    "max_tokens": 200,
}  # fmt: skip
TOOL: Json = {
    "name": "weather", "description": "…",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}},
                     "required": ["city"], "additionalProperties": False},
}  # fmt: skip


def post(url: str, body: Json) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("more", [{}, {"tools": [TOOL], "tool_choice": {"type": "any"}}])
def test_a_real_servers_stream_amounts_to_its_plain_message(more: Json, llama_peer: Server) -> None:  # noqa: F811
    """Recorded from a running llama-server: the stream is whole, and assembles to what the plain call gives."""
    url, body = f"{llama_peer.url}/v1/messages", {**ASK, **more}
    plain, recorded = json.loads(post(url, body)), post(url, {**body, "stream": True})
    assert wire.judge(plain) == wire.judge_stream(recorded) == ""
    assembled = wire.assemble(recorded)
    for message in (plain, assembled):
        for block in message["content"]:
            block.pop("id", None)
    assert {**assembled, "id": 0, "usage": 0} == {**plain, "id": 0, "usage": 0}
    assert wire.usage_of_stream(recorded)[:2] == wire.usage(plain)[:2]
    assert all(wire.judge_stream(recorded[:cut]) == "incomplete" for cut in range(0, len(recorded), 7))


def test_a_real_servers_truncated_stream_is_truncated(llama_peer: Server) -> None:  # noqa: F811
    """Two tokens are not the answer."""
    body = {**ASK, "max_tokens": 2, "stream": True}
    assert wire.judge_stream(post(f"{llama_peer.url}/v1/messages", body)) == "truncated"
