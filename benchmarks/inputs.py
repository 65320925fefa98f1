"""What is cached: a chat completion. The call is about 2 kB of JSON (model, six messages, temperature), the answer too."""

from __future__ import annotations

import random
from typing import Any

_WORDS = [
    "the",
    "model",
    "returns",
    "a",
    "verified",
    "answer",
    "from",
    "cache",
    "when",
    "every",
    "argument",
    "binds",
    "alike",
    "and",
    "nothing",
    "it",
    "reads",
    "has",
    "changed",
    "since",
    "so",
    "that",
    "a",
    "second",
    "engineer",
    "on",
    "another",
    "machine",
    "pays",
    "milliseconds",
    "instead",
    "of",
    "seconds",
    "for",
    "one",
    "completion",
]
_TURNS = ("system", "user", "assistant", "user", "assistant", "user")


def _text(source: random.Random, size: int) -> str:
    words: list[str] = []
    length = 0
    while length < size:
        words.append(source.choice(_WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)[:size]


def chat(number: int = 0) -> dict[str, Any]:
    """Keyword arguments of one call; another number is another conversation."""
    source = random.Random(number)
    messages = [{"role": role, "content": _text(source, 290)} for role in _TURNS]
    return {"model": "llama-3.3-70b-versatile", "messages": messages, "temperature": 0.2}


def completion(number: int = 0, size: int = 2_000) -> dict[str, Any]:
    """The answer: about `size` bytes of JSON, in choices of at most 1.5 kB each."""
    source = random.Random(-1 - number)
    count = max(1, (size - 250) // 1500)
    texts = [_text(source, (size - 250) // count - (60 if count > 1 else 0)) for _ in range(count)]
    choices = [
        {"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for index, text in enumerate(texts)
    ]
    return {
        "id": f"chatcmpl-{number:012d}",
        "object": "chat.completion",
        "created": 1_700_000_000 + number,
        "model": "llama-3.3-70b-versatile",
        "choices": choices,
        "usage": {"prompt_tokens": 431, "completion_tokens": 388, "total_tokens": 819, "queue_time": 0.0182},
    }
