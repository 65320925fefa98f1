"""What OpenAI's API means on the wire, for all who speak it: chat and text completions, responses, embeddings, lists.

Groq, vLLM, llama.cpp, OpenVINO's /v3, TGI's chat and OPEA speak it, each with additions. Knows bytes and JSON, no SDK.

Whether an answer may be stored is "" or one reason: `error_in_200`, `incomplete`, `content_filtered`, `refused`,
`truncated`. Where an answer has several faults the gravest is told, so that opting in to one lets in no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cachekit_adapters._wire.exchange import texts
from cachekit_adapters._wire.openai.chunks import assemble, is_response, synthesise
from cachekit_adapters._wire.openai.vectors import sound
from cachekit_adapters._wire.prices import Usage, tokens
from cachekit_adapters._wire.sse import is_done, json_events

__all__ = [
    "about",
    "about_stream",
    "assemble",
    "is_response",
    "judge",
    "judge_stream",
    "sampled",
    "synthesise",
    "usage",
    "usage_of_stream",
]

GRAVEST_FIRST = ("error_in_200", "incomplete", "content_filtered", "refused", "truncated", "")
# The last two are TGI's own words, which its chat route lets through.
FINISHES = {
    "stop": "",
    "tool_calls": "",
    "function_call": "",
    "eos_token": "",
    "stop_sequence": "",
    "length": "truncated",
    "max_tokens": "truncated",
    "max_output_tokens": "truncated",
    "content_filter": "content_filtered",
    "error": "error_in_200",
}
UNSAMPLED_PATHS = ("/embeddings", "/rerank", "/reranking", "/models", "/moderations", "/tokenize", "/score")


def judge(body: Any) -> str:
    """Why a 200's `body` may not be stored; "" if it may. Never raises."""
    if not isinstance(body, dict):
        return "incomplete"
    groq = body.get("x_groq")
    if body.get("error") or "error" in (body.get("object"), body.get("type")):
        return "error_in_200"
    if isinstance(groq, dict) and groq.get("error"):
        return "error_in_200"
    if is_response(body):
        return _judge_response(body)
    if "choices" in body:
        return _gravest(_items(body, "choices"), _judge_choice)
    return _judge_other(body)


def judge_stream(data: bytes) -> str:
    """Why a recorded stream may not be stored; "" if it may: every choice finished, and `[DONE]` or
    `response.completed` received. Never raises.

    How many choices were asked for is not in the bytes: a server that sends fewer and ends properly is believed.
    """
    try:
        body = assemble(data)
    except ValueError:
        return "incomplete"
    reason = judge(body)
    if reason == "error_in_200" or is_response(body):
        return reason
    indexes = [choice["index"] for choice in body.get("choices", ())]
    whole = is_done(data) and indexes == list(range(len(indexes)))
    return reason if whole else "incomplete"


def usage(body: Any) -> Usage:
    """The tokens `body` tells of; zeros where it does not."""
    counts = _counts(body)
    read = counts.get("prompt_tokens_details") or counts.get("input_tokens_details")
    written, long_lived = tokens(read, "cache_write_tokens"), 0
    if isinstance(read, dict):
        long_lived = tokens(read.get("cache_write_tokens_details"), "ttl_12h_tokens")
    return Usage(
        input=tokens(counts, "prompt_tokens", "input_tokens"),
        output=tokens(counts, "completion_tokens", "output_tokens"),
        cached_input=tokens(read, "cached_tokens"),
        cache_write_5m=max(written - long_lived, 0),
        cache_write_1h=long_lived,
    )


def usage_of_stream(data: bytes) -> Usage:
    """The last usage a stream tells of, however it ends."""
    last = Usage()
    for chunk in _readable(data):
        last = usage(chunk) if _counts(chunk) else last
    return last


def about(body: Any) -> dict[str, str]:
    """Which model answered: `model` and `system_fingerprint`, each where the answer has it."""
    return texts(body, model="model", system_fingerprint="system_fingerprint")


def about_stream(data: bytes) -> dict[str, str]:
    """Which model answers in a stream, however it ends."""
    fields: dict[str, str] = {}
    for chunk in _readable(data):
        fields = {**about(chunk), **fields}
    return fields


def sampled(request: Mapping[str, Any], path: str = "") -> bool:
    """Whether asking twice may give two answers: True unless the temperature is 0, or nothing is sampled here.

    `path` is the route, where it is known: `{"model", "input": "text"}` alone is an embedding as well as a response,
    and then counts as sampled. A seed alone does not make an answer the same.
    """
    extra = request.get("extra_body")
    parameters = {**request, **extra} if isinstance(extra, Mapping) else request
    temperature = parameters.get("temperature")
    if isinstance(temperature, (int, float)) and not isinstance(temperature, bool):
        return temperature != 0
    if path:
        return not path.rstrip("/").endswith(UNSAMPLED_PATHS)
    if "messages" in parameters or "prompt" in parameters:
        return True
    return not (_is_embedding(parameters) or "documents" in parameters or "texts" in parameters)


def _judge_choice(choice: Any) -> str:
    if not isinstance(choice, dict):
        return "incomplete"
    if choice.get("error"):
        return "error_in_200"
    message, finish = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict) and not isinstance(choice.get("text"), str):
        return "incomplete"
    reason = FINISHES.get(finish, "incomplete") if isinstance(finish, str) else "incomplete"
    refused = isinstance(message, dict) and bool(message.get("refusal"))
    return min(reason, "refused" if refused else "", key=GRAVEST_FIRST.index)


def _judge_response(body: Mapping[str, Any]) -> str:
    status, details = body.get("status"), body.get("incomplete_details")
    if status == "failed":
        return "error_in_200"
    if status not in ("completed", "incomplete") or not isinstance(body.get("output"), list):
        return "incomplete"
    if status == "completed" and not details:
        parts = [part for item in body["output"] for part in _items(item, "content")]
        refused = any(isinstance(part, dict) and part.get("type") == "refusal" for part in parts)
        return "refused" if refused else ""
    why = details.get("reason") if isinstance(details, dict) else None
    return FINISHES.get(why) or "incomplete" if isinstance(why, str) else "incomplete"


def _judge_other(body: Mapping[str, Any]) -> str:
    """Embeddings, lists of models, one model, reranked results, transcriptions."""
    if isinstance(body.get("data"), list):
        is_empty_list = not body["data"] and "usage" not in body
        return "" if is_empty_list else _gravest(body["data"], _judge_datum)
    known = isinstance(body.get("results"), list) or isinstance(body.get("text"), str) or body.get("object") == "model"
    return "" if known else "incomplete"


def _judge_datum(datum: Any) -> str:
    if not isinstance(datum, dict):
        return "incomplete"
    is_vector = datum.get("object") == "embedding" or "embedding" in datum
    return "" if not is_vector or sound(datum.get("embedding")) else "incomplete"


def _gravest(items: list[Any], judged: Callable[[Any], str]) -> str:
    return min((judged(item) for item in items), key=GRAVEST_FIRST.index, default="incomplete")


def _items(holder: Any, name: str) -> list[Any]:
    items = holder.get(name) if isinstance(holder, dict) else None
    return items if isinstance(items, list) else []


def _counts(body: Any) -> dict[str, Any]:
    """The counts of a body, a chunk, or of the response inside an event; Groq's stand under `x_groq`."""
    if not isinstance(body, dict):
        return {}
    for holder in (body, body.get("x_groq"), body.get("response")):
        counts = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(counts, dict):
            return counts
    return {}


def _readable(data: bytes) -> list[dict[str, Any]]:
    """The chunks up to the first that cannot be read; responses without their events."""
    chunks: list[dict[str, Any]] = []
    try:
        for _, chunk in json_events(data):
            inner = chunk.get("response") if isinstance(chunk, dict) else None
            chunks += [each for each in (inner if isinstance(inner, dict) else chunk,) if isinstance(each, dict)]
    except ValueError:
        pass  # what came before it still says who answered
    return chunks


def _is_embedding(request: Mapping[str, Any]) -> bool:
    given = request.get("input")
    if "encoding_format" in request or "dimensions" in request:
        return "input" in request
    # A response's input is a text, or a list of mappings; a batch to embed is a list of texts or of tokens.
    return isinstance(given, list) and bool(given) and not any(isinstance(each, Mapping) for each in given)
