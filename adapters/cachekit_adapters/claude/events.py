"""Anthropic's events and the message they amount to: one into the other, and back."""

from __future__ import annotations

import copy
import json
from typing import Any, NamedTuple

from cachekit_adapters._wire.exchange import mapping, parsed, refusing
from cachekit_adapters._wire.sse import frame, json_events

Json = dict[str, Any]
# delta → the field of the block that it continues
CONTINUED = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
CUMULATIVE = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


class Received(NamedTuple):
    """What came of a stream. `stopped`: its `message_stop` did. `failed`: the server said so."""

    message: Json
    stopped: bool
    failed: bool


class _Reading:
    """One stream, event after event. Blocks are open until their stop."""

    def __init__(self) -> None:
        self.message: Json = {}
        self.blocks: list[Json] = []
        self.opened: set[int] = set()
        self.stopped = self.failed = False

    def take(self, name: str, event: Json) -> None:
        """An event, in its place. Raises ValueError for one that is out of it."""
        if name == "message_start" and not self.message:
            self.message = copy.deepcopy(mapping(event.get("message")))
        elif not self.message:
            raise ValueError(f"{name} before message_start")
        elif name == "content_block_start":
            self.open(event)
        elif name == "content_block_delta":
            self.go_on(event)
        elif name == "content_block_stop":
            self.opened.remove(self.at(event))
        elif name == "message_delta":
            _add_totals(self.message, event)
        elif name == "message_stop":
            self.stopped = True
        elif name == "message_start":
            raise ValueError("message_start twice")

    def open(self, event: Json) -> None:
        if event.get("index") != len(self.blocks):
            raise ValueError("a content block out of its order")
        self.opened.add(len(self.blocks))
        self.blocks.append(copy.deepcopy(mapping(event.get("content_block"))))

    def go_on(self, event: Json) -> None:
        block, delta = self.blocks[self.at(event)], mapping(event.get("delta"))
        kind = delta.get("type")
        if isinstance(kind, str) and kind in CONTINUED:
            name = CONTINUED[kind]
            block[name] = _text(block.get(name, "")) + _text(delta.get(name))
        elif kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        elif kind in ("signature_delta", "compaction_delta"):
            block.update({name: value for name, value in delta.items() if name != "type"})
        else:
            block.setdefault("unknown_deltas", []).append(kind)

    def at(self, event: Json) -> int:
        index = event.get("index")
        if not isinstance(index, int) or index not in self.opened:
            raise ValueError("an event of a content block that is not open")
        return index


@refusing
def read(data: bytes, lenient: bool = False) -> Received:
    """What came of a stream, with each block's pieces joined and a tool's input still as text (`partial_json`).

    Raises ValueError for events that are no such stream; `lenient` ends at them instead. What the SDK skips is
    skipped: pings, and events without a name.
    """
    reading = _Reading()
    try:
        for name, event in json_events(data):
            if name == "error":
                reading.failed = True
                break
            if name and name != "ping" and not reading.stopped:
                _take(reading, name, event)
        if reading.stopped and reading.opened:
            raise ValueError("a content block without its end")
    except ValueError:
        if not lenient:
            raise
    reading.message["content"] = reading.blocks
    return Received(reading.message, reading.stopped, reading.failed)


@refusing
def assemble(data: bytes) -> Json:
    """The plain `message` a recorded stream amounts to, as far as it goes. Raises ValueError for bytes that are no such
    stream, an `error` event, a tool's input that is no JSON, and deltas of a kind not known here."""
    received = read(data)
    if received.failed or not received.message.get("type"):
        raise ValueError("a stream without a message")
    for block in received.message["content"]:
        if "unknown_deltas" in block:
            raise ValueError(f"deltas not known here: {block['unknown_deltas'][0]}")
        whole = block.pop("partial_json", "")
        if whole:
            block["input"] = parsed(whole)
        elif str(block.get("type", "")).endswith("tool_use"):
            block.setdefault("input", {})
    return received.message


@refusing
def synthesise(body: Json) -> list[bytes]:
    """The events a server would have streamed the message `body` in. Raises ValueError if it is none."""
    if body.get("type") != "message" or not isinstance(body.get("content"), list):
        raise ValueError("only messages can be given as a stream")
    counts = mapping(body.get("usage") or {})
    ends = {name: body[name] for name in ("stop_reason", "stop_sequence", "stop_details") if name in body}
    start: Json = {**body, "content": [], **dict.fromkeys(ends)}
    if "output_tokens" in counts:
        start["usage"] = {**counts, "output_tokens": 0}
    totals = {name: counts[name] for name in CUMULATIVE if counts.get(name) is not None}
    events: list[Json] = [{"type": "message_start", "message": start}]
    for at, block in enumerate(body["content"]):
        events += _block_events(at, mapping(block))
    events += [{"type": "message_delta", "delta": ends, "usage": totals}, {"type": "message_stop"}]
    return [frame(event, event["type"]) for event in events]


def _take(reading: _Reading, name: str, event: Any) -> None:
    if mapping(event).get("type") != name:
        raise ValueError(f"an event named {name} that is none")
    reading.take(name, event)


def _add_totals(message: Json, event: Json) -> None:
    """What a `message_delta` says overwrites what stood there; its null, and its silence, do not."""
    delta = mapping(event.get("delta") or {})
    message.update({name: value for name, value in delta.items() if value is not None or name not in message})
    counts = {name: value for name, value in mapping(event.get("usage") or {}).items() if value is not None}
    if counts:
        message["usage"] = {**mapping(message.get("usage") or {}), **counts}


def _block_events(at: int, block: Json) -> list[Json]:
    start, deltas = dict(block), list[Json]()
    for name in ("text", "thinking"):
        if block.get("type") == name and isinstance(block.get(name), str):
            start[name] = ""
            deltas.append({"type": f"{name}_delta", name: block[name]})
    if block.get("type") == "thinking" and isinstance(block.get("signature"), str):
        start["signature"] = ""
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    if block.get("type") == "text" and block.get("citations"):
        start["citations"] = []
        if not isinstance(block["citations"], list):
            raise ValueError("citations that are no list")
        deltas += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
    if str(block.get("type", "")).endswith("tool_use") and block.get("input"):
        start["input"] = {}
        deltas.append({"type": "input_json_delta", "partial_json": json.dumps(block["input"])})
    return [
        {"type": "content_block_start", "index": at, "content_block": start},
        *({"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": at},
    ]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a {type(value).__name__} where a text should be")
    return value
