"""Text Embeddings Inference, native: which replies are whole, what they cost, who answered; its batches: `batches`.

Nothing is sampled and nothing streams. A vector's low bits may depend, at the server, on the batch it was computed in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cachekit_adapters._wire import items
from cachekit_adapters._wire.exchange import texts
from cachekit_adapters._wire.openai.vectors import finite, sound
from cachekit_adapters._wire.prices import Usage, counted, tokens
from cachekit_adapters.tei.batches import OPENAI, ask, fits, merge, operation, split, take

__all__ = [
    "INFO",
    "NEUTRAL",
    "about",
    "about_server",
    "ask",
    "judge",
    "merge",
    "operation",
    "sampled",
    "split",
    "take",
    "usage",
    "version",
]

INFO = "/info"
NEUTRAL = frozenset({"user"})
# What makes another model, or another server's way with the same one.
_VERSION = (
    "model_id", "model_sha", "model_dtype", "served_model_name", "version", "max_input_length", "auto_truncate",
)  # fmt: skip


def sampled(path: str, request: object) -> bool:
    """False: no answer of this server is drawn by lot."""
    return False


def judge(path: str, request: object, body: object) -> str:
    """ "" where the reply may be stored, else error_in_200 or incomplete (an item without its answer, a null in one)."""
    route = operation(path, request)
    if isinstance(body, Mapping) and "error" in body:
        return "error_in_200"
    if route in OPENAI:
        return items.judge(path, request, body)
    if not isinstance(body, list):
        return "" if not route and body else "incomplete"
    return "" if body and fits(route, request, body) and all(map(_sound, body)) else "incomplete"


def usage(body: object, headers: Mapping[str, str]) -> Usage:
    """Tokens in: of an OpenAI-shaped reply its `usage`, of the others the header x-compute-tokens."""
    in_body = tokens(body.get("usage"), "prompt_tokens") if isinstance(body, Mapping) else 0
    return Usage(input=in_body or counted(headers, "x-compute-tokens"))


def about(body: object, headers: Mapping[str, str]) -> dict[str, str]:
    """`model` of an OpenAI-shaped reply; the native ones do not name theirs: ask `/info` (`about_server`)."""
    return texts(body, model="model")


def about_server(info: object) -> dict[str, str]:
    """`model`, and `model_version` where it is known, of a reply to `GET /info`."""
    return texts(info, model="model_id", model_version="model_sha")


def version(info: object) -> str:
    """What of a reply to `GET /info` changes with the model or with how it is served, as text; "" of no such reply."""
    if not isinstance(info, Mapping) or "model_id" not in info:
        return ""
    return json.dumps({name: info.get(name) for name in _VERSION})


# -- inside ------------------------------------------------------------------------------------


def _sound(entry: object) -> bool:
    """Only finite numbers, and some: null is how the server writes a NaN."""
    if isinstance(entry, Mapping):
        return all(_sound(value) or isinstance(value, str) for name, value in entry.items() if name != "text")
    if isinstance(entry, list):
        return sound(entry) or (bool(entry) and isinstance(entry[0], (list, Mapping)) and all(map(_sound, entry)))
    return isinstance(entry, (int, float)) and finite(entry)
