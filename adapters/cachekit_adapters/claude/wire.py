"""What Anthropic's Messages API means on the wire. Knows bytes and JSON, no SDK.

Whether an answer may be stored is "" or one reason: `error_in_200`, `incomplete`, `paused` (the tool loop goes on),
`refused`, `truncated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cachekit_adapters._wire.exchange import texts
from cachekit_adapters._wire.prices import Usage, tokens
from cachekit_adapters.claude.events import assemble, read, synthesise

__all__ = [
    "about",
    "about_stream",
    "assemble",
    "judge",
    "judge_stream",
    "sampled",
    "synthesise",
    "usage",
    "usage_of_stream",
]

STOPS = {
    "end_turn": "",
    "stop_sequence": "",
    "tool_use": "",
    "max_tokens": "truncated",
    "model_context_window_exceeded": "truncated",
    "pause_turn": "paused",
    "refusal": "refused",
}


def judge(body: Any) -> str:
    """Why a 200's `body` may not be stored; "" if it may: a finished message, a count of tokens, a list. Never raises."""
    if not isinstance(body, dict):
        return "incomplete"
    if body.get("type") == "error" or body.get("error"):
        return "error_in_200"
    if body.get("type") == "message":
        return _judge_stop(body.get("stop_reason")) if isinstance(body.get("content"), list) else "incomplete"
    counted = isinstance(body.get("input_tokens"), int) or isinstance(body.get("data"), list)
    return "" if counted or body.get("type") == "model" else "incomplete"


def judge_stream(data: bytes) -> str:
    """Why a recorded stream may not be stored; "" if it may: from `message_start` to `message_stop`, every block
    closed, and a reason to stop that `judge` accepts. Never raises."""
    try:
        received = read(data)
    except ValueError:
        return "incomplete"
    if received.failed:
        return "error_in_200"
    return judge(received.message) if received.stopped else "incomplete"


def usage(body: Any) -> Usage:
    """The tokens `body` tells of; zeros where it does not. The vendor's `input_tokens` leave out what the prompt cache
    read or wrote; `Usage.input` is all of them."""
    counts = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(counts, dict):
        return Usage(input=tokens(body, "input_tokens"))
    split = counts.get("cache_creation")
    long_lived, short_lived = tokens(split, "ephemeral_1h_input_tokens"), tokens(split, "ephemeral_5m_input_tokens")
    written = max(tokens(counts, "cache_creation_input_tokens"), long_lived + short_lived)
    cached = tokens(counts, "cache_read_input_tokens")
    return Usage(
        input=tokens(counts, "input_tokens") + cached + written,
        output=tokens(counts, "output_tokens"),
        cached_input=cached,
        cache_write_5m=written - long_lived,
        cache_write_1h=long_lived,
    )


def usage_of_stream(data: bytes) -> Usage:
    """The tokens a stream tells of, however it ends: those of `message_start`, overwritten by the totals at its end."""
    return usage(_received(data))


def about(body: Any) -> dict[str, str]:
    """Which model answered: `model`, where the answer has it."""
    return texts(body, model="model")


def about_stream(data: bytes) -> dict[str, str]:
    """Which model answers in a stream, however it ends."""
    return about(_received(data))


def sampled(request: Mapping[str, Any]) -> bool:
    """True: the API has no parameter that makes two answers the same."""
    return True


def _judge_stop(stop: Any) -> str:
    return STOPS.get(stop, "incomplete") if isinstance(stop, str) else "incomplete"


def _received(data: bytes) -> dict[str, Any]:
    try:
        return read(data, lenient=True).message
    except ValueError:
        return {}
