"""Answers in the shapes of the OpenAI, Groq and Anthropic APIs, for `scripted`: bodies, streams, errors.

Written from the vendors' published schemas. Everything is deterministic; `json_reply` and `stream_reply` make Replies.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .scripted import Reply

Json = dict[str, Any]
USAGE: Json = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
FINGERPRINT = "fp_peer"


def json_reply(told: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A well-formed JSON answer."""
    return Reply(status, json.dumps(told).encode(), headers or {})


def stream_reply(frames: Sequence[bytes], *, headers: Mapping[str, str] | None = None, cut: int | None = None) -> Reply:
    """A chunked event stream, one chunk per frame; `cut` breaks the connection after so many bytes."""
    return Reply(200, list(frames), headers or {}, "text/event-stream", "chunked", cut)


def error_reply(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An error that every one of the SDKs understands."""
    told = {"type": "error", "error": {"type": "peer_error", "message": message}}
    return json_reply(told, status, headers)


def frames(chunks: Iterable[Json], *, done: bool = True) -> list[bytes]:
    """Server-sent events of OpenAI's kind: one frame per chunk, and `data: [DONE]`."""
    sent = [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks]
    return [*sent, b"data: [DONE]\n\n"] if done else sent


def named_frames(events: Iterable[Json]) -> list[bytes]:
    """Server-sent events of Anthropic's kind: each named by its `type`."""
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


# -- OpenAI and Groq ---------------------------------------------------------------------------


def tool_call(name: str = "weather", arguments: str = '{"city": "Bern"}', identity: str = "call_1") -> Json:
    """One entry of `tool_calls`."""
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(
    content: str | None = "Hello there.", *, finish: str | None = "stop", tool_calls: Sequence[Json] = (), **more: Any
) -> Json:
    """A `chat.completion`; `more` adds fields to it, or replaces them."""
    message: Json = {"role": "assistant", "content": content}
    if tool_calls:
        message["tool_calls"] = list(tool_calls)
        finish = "tool_calls" if finish == "stop" else finish
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-peer", "object": "chat.completion", "created": 1763000000, "model": "peer-1",
        "choices": [choice], "usage": dict(USAGE), "system_fingerprint": FINGERPRINT, **more,
    }  # fmt: skip


def chat_chunks(
    pieces: Sequence[str] = ("Hello", " there", "."),
    *,
    finish: str | None = "stop",
    tool_calls: Sequence[Json] = (),
    usage: bool = False,
    groq: bool = False,
) -> list[Json]:
    """The `chat.completion.chunk`s of one answer.

    `usage` adds OpenAI's last chunk of `stream_options`, `groq` the `x_groq` of Groq's first and last chunks.
    `finish=None` leaves the stream without an end.
    """
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces]
    deltas += [{"tool_calls": [part]} for at, call in enumerate(tool_calls) for part in _call_parts(at, call)]
    chunks = [_chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]) for delta in deltas]
    if finish:
        finish = "tool_calls" if tool_calls and finish == "stop" else finish
        chunks.append(_chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}]))
    if groq:
        chunks[0]["x_groq"] = {"id": "req_peer"}
        chunks[-1]["x_groq"] = {"id": "req_peer", "usage": dict(USAGE)}
    return [*chunks, _chunk([], usage=dict(USAGE))] if usage else chunks


def _call_parts(at: int, call: Json) -> list[Json]:
    """A tool call as it streams: its name first, then its arguments in two halves."""
    arguments = call["function"]["arguments"]
    half = len(arguments) // 2
    head = {**call, "index": at, "function": {"name": call["function"]["name"], "arguments": ""}}
    return [head, *({"index": at, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:]))]


def _chunk(choices: list[Json], **more: Any) -> Json:
    return {
        "id": "chatcmpl-peer", "object": "chat.completion.chunk", "created": 1763000000, "model": "peer-1",
        "system_fingerprint": FINGERPRINT, "choices": choices, **more,
    }  # fmt: skip


def embeddings(vectors: Sequence[Sequence[float]], **more: Any) -> Json:
    """An embeddings answer, a list of floats per item."""
    data = [{"object": "embedding", "index": at, "embedding": list(vector)} for at, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 2 * len(data), "total_tokens": 2 * len(data)}
    return {"object": "list", "model": "peer-embed-1", "data": data, "usage": usage, **more}


# -- Anthropic ---------------------------------------------------------------------------------


def text_block(text: str = "Hello there.") -> Json:
    """A `text` content block."""
    return {"type": "text", "text": text, "citations": None}


def tool_block(name: str = "weather", given: Mapping[str, Any] | None = None, identity: str = "toolu_1") -> Json:
    """A `tool_use` content block."""
    return {"type": "tool_use", "id": identity, "name": name, "input": dict(given or {"city": "Bern"})}


def message(content: Sequence[Json] | None = None, *, stop: str | None = "end_turn", **more: Any) -> Json:
    """A `message`; `more` adds fields to it, or replaces them."""
    usage = {
        "input_tokens": 11, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 5,
    }  # fmt: skip
    return {
        "id": "msg_peer", "type": "message", "role": "assistant", "model": "claude-peer-1",
        "content": list(content if content is not None else [text_block()]),
        "stop_reason": stop, "stop_sequence": None, "usage": usage, **more,
    }  # fmt: skip


def message_events(content: Sequence[Json] | None = None, *, stop: str | None = "end_turn") -> list[Json]:
    """The events of one streamed `message`, a ping among them. `stop=None` leaves the stream without an end."""
    whole = message(content, stop=None)
    events: list[Json] = [
        {"type": "message_start", "message": {**whole, "content": [], "usage": {**whole["usage"], "output_tokens": 1}}}
    ]
    for at, block in enumerate(whole["content"]):
        events += _block_events(at, block)
    events.insert(2, {"type": "ping"})
    if stop:
        delta = {"stop_reason": stop, "stop_sequence": None}
        events += [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3}}, {"type": "message_stop"}]
    return events


def _block_events(at: int, block: Json) -> list[Json]:
    if block["type"] == "text":
        empty, kind, name, whole = {**block, "text": ""}, "text_delta", "text", block["text"]
    else:
        empty, kind, name, whole = (
            {**block, "input": {}},
            "input_json_delta",
            "partial_json",
            json.dumps(block["input"]),
        )
    half = len(whole) // 2
    deltas = [{"type": kind, name: part} for part in (whole[:half], whole[half:])]
    return [
        {"type": "content_block_start", "index": at, "content_block": empty},
        *({"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": at},
    ]
