"""Text Generation Inference, native: `/generate`, `/generate_stream`, and `/`, which is either as `stream` in the body says.

A reply without `details` does not say why it ended. It then counts as complete, unless the number of tokens is told
(by the header x-generated-tokens, or by the events of a stream) and reached the request's max_new_tokens. A stream has
no [DONE]: its last event alone has `generated_text`, and an error is an event like any other. The chat routes are
OpenAI's: `_wire.openai`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cachekit_adapters._wire import sse
from cachekit_adapters._wire.exchange import readable, refusing, texts
from cachekit_adapters._wire.prices import Usage, counted, tokens

INFO = "/info"
_FINISHED = frozenset({"eos_token", "stop_sequence"})
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p")
_VERSION = ("model_id", "model_sha", "model_dtype", "version", "sha", "docker_label")
Json = dict[str, object]


def streams(path: str, request: object) -> bool:
    """Whether this request's reply is a stream."""
    route = _route(path)
    if route.endswith("/generate_stream"):
        return True
    return not route.endswith("/generate") and bool(_table(request).get("stream"))


def sampled(path: str, request: object) -> bool:
    """Whether the answer is drawn by lot: do_sample, or any of the parameters with which the server samples anyway."""
    parameters = _parameters(request)
    best_of = parameters.get("best_of")
    drawn = any(parameters.get(name) not in (None, 0) for name in _SAMPLING)
    return bool(parameters.get("do_sample")) or drawn or (isinstance(best_of, int) and best_of > 1)


def judge(path: str, request: object, body: object, headers: Mapping[str, str] | None = None) -> str:
    """ "" where the reply may be stored, else truncated, error_in_200 or incomplete. `headers` are the reply's."""
    reply = _one(body)
    if "error" in reply:
        return "error_in_200"
    if not isinstance(reply.get("generated_text"), str):
        return "incomplete"
    details = reply.get("details")
    if isinstance(details, Mapping):
        return _finish(details)
    return _by_count(request, counted(headers or {}, "x-generated-tokens"))


def judge_stream(data: bytes, request: object = None) -> str:
    """ "" where `data` is a whole stream that may be stored, else truncated, error_in_200 or incomplete."""
    events = _events(data)
    if any("error" in event for event in events or ()):
        return "error_in_200"
    if not events or not all(map(_is_token, events)) or any(map(_is_last, events[:-1])) or not _is_last(events[-1]):
        return "incomplete"
    details = events[-1].get("details")
    return _finish(details) if isinstance(details, Mapping) else _by_count(request, len(events))


def usage(body: object, headers: Mapping[str, str]) -> Usage:
    """Tokens in and out: of the headers, else of `details`; of a stream, `body` is what `assemble(data)` gives."""
    details = _table(_one(body).get("details"))
    return Usage(
        input=counted(headers, "x-prompt-tokens") or _input_length(details),
        output=counted(headers, "x-generated-tokens") or tokens(details, "generated_tokens"),
    )


def usage_of_stream(data: bytes) -> Usage:
    """Tokens in and out of a stream, whole or not, as its last event tells them."""
    events = _events(data)
    return usage({"details": events[-1].get("details")} if events else None, {})


def about(body: object, headers: Mapping[str, str]) -> dict[str, str]:
    """Nothing: the native replies do not name their model; ask `/info` (`about_server`)."""
    return {}


def about_stream(data: bytes) -> dict[str, str]:
    """Nothing, as `about`."""
    return {}


def about_server(info: object) -> dict[str, str]:
    """`model`, `model_version` and `system_fingerprint`, those that are known, of a reply to `GET /info`."""
    table = _table(info)
    build = "-".join(str(table[name]) for name in ("version", "docker_label") if table.get(name))
    named = {**table, "build": build}
    return texts(named, model="model_id", model_version="model_sha", system_fingerprint="build")


def version(info: object) -> str:
    """What of a reply to `GET /info` changes with the model or with its server, as text; "" of no such reply."""
    table = _table(info)
    return json.dumps({name: table.get(name) for name in _VERSION}) if "model_id" in table else ""


@refusing
def assemble(data: bytes, path: str = "/generate", request: object = None) -> object:
    """The plain reply that says what the whole stream `data` said; of `/`, the list of one that this route gives.

    With `request`, as that request gets it: without `details` unless it asks for them. Without, they stand there, with
    the stream's `input_length`. Raises ValueError where the stream is not whole.
    """
    events = _events(data)
    if not events or judge_stream(data) not in ("", "truncated"):
        raise ValueError("not a whole stream")
    reply: Json = {"generated_text": events[-1]["generated_text"]}
    details = _details(events, keep_length=request is None)
    if details is not None and (request is None or _parameters(request).get("details")):
        reply["details"] = details
    return reply if _route(path).endswith(("/generate", "/generate_stream")) else [reply]


@refusing
def synthesise(body: object, request: object = None) -> list[bytes]:
    """A plain reply as the frames of a stream: one per token where `details` has them, else a single one.

    `request` tells whether `generated_text` begins with the prompt, which is no token's text. Raises ValueError where
    `body` is no reply.
    """
    reply = _one(body)
    if not isinstance(reply.get("generated_text"), str):
        raise ValueError("no generated_text")
    details = _table(reply.get("details"))
    whole = {"id": 0, "text": _generated(reply, request), "logprob": 0.0, "special": False}
    generated, tops, frames = _listed(details, "tokens") or [whole], _listed(details, "top_tokens"), []
    for at, token in enumerate(generated):
        event: Json = {"index": at + 1, "token": token, "generated_text": None, "details": None}
        if at < len(tops) and tops[at]:
            event["top_tokens"] = tops[at]
        if at == len(generated) - 1:
            event.update(generated_text=reply["generated_text"], details=_stream_details(details))
        frames.append(b"data:" + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")
    return frames


# -- inside ------------------------------------------------------------------------------------


def _route(path: str) -> str:
    return path.partition("?")[0].rstrip("/")


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _parameters(request: object) -> Mapping[str, object]:
    return _table(_table(request).get("parameters"))


def _one(body: object) -> Mapping[str, object]:
    """The reply itself: `/` has it in a list of one."""
    return _table(body[0] if isinstance(body, list) and len(body) == 1 else body)


def _finish(details: Mapping[str, object]) -> str:
    """The verdict of `details`, those of the other sequences of best_of included."""
    others = details.get("best_of_sequences")
    sequences = [details, *(map(_table, others) if isinstance(others, list) else ())]
    reasons = {str(each.get("finish_reason")) for each in sequences}
    if reasons <= _FINISHED:
        return ""
    return "truncated" if reasons <= _FINISHED | {"length"} else "incomplete"


def _by_count(request: object, generated: int) -> str:
    limit = _parameters(request).get("max_new_tokens")
    return "truncated" if isinstance(limit, int) and 0 < limit <= generated else ""


def _events(data: bytes) -> list[Json] | None:
    """The stream's events; None where one is not a JSON object."""
    events: list[Json] = []
    for name, text in sse.events(data):
        event = readable(text)
        if name == "error":
            event = {"error": event}
        if not isinstance(event, dict):
            return None
        events.append(event)
    return events


def _is_token(event: Json) -> bool:
    return isinstance(event.get("token"), dict)


def _is_last(event: Json) -> bool:
    return isinstance(event.get("generated_text"), str)


def _details(events: Sequence[Json], *, keep_length: bool) -> Json | None:
    given = events[-1].get("details")
    if not isinstance(given, Mapping):
        return None
    last = {name: value for name, value in given.items() if keep_length or name != "input_length"}
    details: Json = {**last, "prefill": [], "tokens": [event["token"] for event in events]}
    tops = [event.get("top_tokens") or [] for event in events]
    return {**details, "top_tokens": tops} if any(tops) else details


def _listed(details: Mapping[str, object], name: str) -> list[object]:
    items = details.get(name)
    return list(items) if isinstance(items, list) else []


def _generated(reply: Mapping[str, object], request: object) -> str:
    text, prompt = str(reply["generated_text"]), _table(request).get("inputs")
    full = _parameters(request).get("return_full_text") and isinstance(prompt, str)
    return text.removeprefix(str(prompt)) if full else text


def _stream_details(details: Mapping[str, object]) -> Json | None:
    if not details:
        return None
    kept = {name: details.get(name) for name in ("finish_reason", "generated_tokens", "seed")}
    return {**kept, "input_length": _input_length(details)}


def _input_length(details: Mapping[str, object]) -> int:
    """Of a stream's details, or as many as the prefill that was asked for has; 0 where neither is there."""
    return tokens(details, "input_length") or len(_listed(details, "prefill"))
