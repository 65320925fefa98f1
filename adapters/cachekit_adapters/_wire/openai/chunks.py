"""OpenAI's chunks and the plain answer they amount to: one into the other, and back.

Taken apart and put together again a chat or text completion is the same, down to fields nobody documented.
"""

from __future__ import annotations

import copy
from typing import Any

from cachekit_adapters._wire.exchange import mapping, refusing
from cachekit_adapters._wire.sse import DONE, frame, json_events

Json = dict[str, Any]
# Told again in every chunk. Of what changes on the way (creation, with some servers) the first stands.
IN_EVERY_CHUNK = ("id", "created", "model", "system_fingerprint", "service_tier")
FIRST_STANDS = ("id", "created", "model")
ENDS_OF_RESPONSES = ("response.completed", "response.incomplete", "response.failed", "response.cancelled", "error")
REPLACED = ("id", "type", "role", "index")


def is_response(body: Json) -> bool:
    """Whether this is an answer of the Responses API."""
    return body.get("object") == "response" or ("output" in body and "status" in body)


@refusing
def assemble(data: bytes) -> Json:
    """The plain body a recorded stream amounts to, as far as it goes: of a cut stream, what came before the cut.

    A Responses stream gives the response its last event carries, or its `error` event. Raises ValueError for bytes
    that are no such stream.
    """
    chunks = [_chunk(name, chunk) for name, chunk in json_events(data)]
    if not chunks:
        raise ValueError("a stream without a chunk")
    if any(str(chunk.get("type", "")).startswith("response.") for chunk in chunks):
        return _last_response(chunks)
    body: Json = {}
    choices: dict[int, Json] = {}
    for chunk in chunks:
        _add_chunk(body, choices, chunk)
    body["choices"] = [_finished(choices[index]) for index in sorted(choices)]
    is_text = any("text" in choice for choice in body["choices"])
    body["object"] = "text_completion" if is_text else "chat.completion"
    return body


@refusing
def synthesise(body: Json, include_usage: bool = True) -> list[bytes]:
    """The events a server would have streamed `body` in, `[DONE]` the last: role, content, finish, usage.

    `include_usage=False` leaves the chunk of usage out, whose empty `choices` surprise who did not ask for it; Groq's
    usage stands in the finishing chunk, as Groq sends it. Raises ValueError if `body` is no chat or text completion.
    """
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("only chat and text completions can be given as a stream")
    known = [_with_index(at, mapping(choice)) for at, choice in enumerate(choices)]
    kind = "chat.completion.chunk" if "message" in known[0] else "text_completion"
    base = {**{name: body[name] for name in IN_EVERY_CHUNK if name in body}, "object": kind}
    stages = zip(*map(_stages, known), strict=True)
    sent = [{**base, "choices": [part]} for stage in stages for part in stage if part]
    sent[-1].update({k: v for k, v in body.items() if k not in (*base, "choices", "usage")})
    usage = body.get("usage")
    if usage is None:
        sent[-1].update({"usage": None} if "usage" in body else {})
    elif isinstance(body.get("x_groq"), dict):
        sent[-1]["x_groq"] = {**body["x_groq"], "usage": usage}
    elif include_usage:
        sent.append({**base, "choices": [], "usage": usage})
    return [*map(frame, sent), frame(DONE)]


# -- chunks into a body ------------------------------------------------------------------------


def _chunk(name: str, chunk: Any) -> Json:
    """A chunk; an error in whatever clothes it comes is one with `error`."""
    body = mapping(chunk)
    is_error = "error" in (name, body.get("object"), body.get("type"))
    return body if body.get("error") or not is_error else {"type": "error", "error": body}


def _add_chunk(body: Json, choices: dict[int, Json], chunk: Json) -> None:
    if "choices" not in chunk and not {"usage", "error"} & chunk.keys():
        raise ValueError("a chunk of another kind")
    for name, value in chunk.items():
        if name == "x_groq" and isinstance(value, dict):
            _set(body, "x_groq", {**mapping(body.get("x_groq") or {}), **value})
            body["x_groq"].pop("usage", None)
            if value.get("usage") is not None:
                body["usage"] = value["usage"]
        elif name != "choices" and not (name in FIRST_STANDS and body.get(name) is not None):
            _set(body, name, value)
    parts = chunk.get("choices")
    for part in map(mapping, parts if isinstance(parts, list) else ()):
        index = part.get("index", 0)
        if not isinstance(index, int):
            raise ValueError("a choice whose index is no number")
        _add_choice(choices.setdefault(index, {"index": index, "finish_reason": None}), part)


def _add_choice(choice: Json, part: Json) -> None:
    for name, value in part.items():
        if name == "delta":
            _merge(choice.setdefault("message", {}), mapping(value or {}))
        elif name == "message":
            raise ValueError("a whole message in a chunk: what it adds to the deltas is not known")
        elif name == "logprobs" and isinstance(value, dict):
            held = choice.get("logprobs")
            choice["logprobs"] = held if isinstance(held, dict) else {}
            _extend(choice["logprobs"], value)
        elif name == "text" and isinstance(value, str):
            choice["text"] = str(choice.get("text") or "") + value
        elif isinstance(value, list) and isinstance(choice.get(name), list):
            choice[name] = choice[name] + value
        else:
            _set(choice, name, value)


def _merge(held: Json, delta: Json) -> None:
    """Add what a delta says to what is held: texts are continued, lists go on, `tool_calls` by their index."""
    for name, value in delta.items():
        before = held.get(name)
        if name == "tool_calls" and isinstance(value, list):
            _add_calls(held, value)
        elif isinstance(before, str) and isinstance(value, str) and name not in REPLACED:
            # Some servers say a function's whole name in every chunk.
            held[name] = before if name == "name" and before == value else before + value
        elif isinstance(before, dict) and isinstance(value, dict):
            _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            held[name] = before + value
        elif value != "" or not before:
            _set(held, name, copy.deepcopy(value))


def _add_calls(message: Json, parts: list[Any]) -> None:
    """Calls are held with their index, until the message is finished."""
    held = message.get("tool_calls")
    calls: list[Json] = held if isinstance(held, list) else []
    message["tool_calls"] = calls
    for part in map(mapping, parts):
        index = part.get("index")
        if not isinstance(index, int):  # Gemini's door leaves it out, and sends calls whole
            index = len(calls) if part.get("id") or not calls else calls[-1]["index"]
        call = next((call for call in calls if call["index"] == index), None)
        if call is None:
            call = {"index": index}
            calls.append(call)
        _merge(call, {name: value for name, value in part.items() if name != "index"})


def _finished(choice: Json) -> Json:
    message = choice.get("message")
    if message is not None:
        message.setdefault("role", "assistant")
        calls = message.get("tool_calls")
        if isinstance(calls, list):
            calls.sort(key=lambda call: int(call["index"]))
            for call in calls:
                del call["index"]
    return choice


def _extend(held: Json, more: Json) -> None:
    for name, value in more.items():
        before = held.get(name)
        both = isinstance(before, list) and isinstance(value, list)
        _set(held, name, [*before, *value] if both and before is not None else value)


def _set(held: Json, name: str, value: Any) -> None:
    """Null says nothing where something was said."""
    if value is not None or name not in held:
        held[name] = value


def _last_response(chunks: list[Json]) -> Json:
    ends = [chunk for chunk in chunks if chunk.get("type") in ENDS_OF_RESPONSES]
    if not ends:
        raise ValueError("a stream of a response without its end")
    return ends[-1] if ends[-1]["type"] == "error" else mapping(ends[-1].get("response"))


# -- a body into chunks ------------------------------------------------------------------------


def _with_index(at: int, choice: Json) -> Json:
    return {"index": at, **choice}


def _stages(choice: Json) -> tuple[Json, Json, Json]:
    """The parts of one choice in their order; the first is empty where there is no role to tell."""
    rest = {k: v for k, v in choice.items() if k not in ("index", "message", "text", "logprobs", "finish_reason")}
    start: Json = {"index": choice["index"], "finish_reason": None}
    logprobs = {"logprobs": choice["logprobs"]} if "logprobs" in choice else {}
    finish = {"index": choice["index"], **rest, "finish_reason": choice.get("finish_reason")}
    if "message" not in choice:
        return {}, {**start, "text": choice.get("text", ""), **logprobs}, {**finish, "text": ""}
    message = mapping(choice["message"])
    delta = {name: value for name, value in message.items() if name != "role"}
    if isinstance(delta.get("tool_calls"), list):
        delta["tool_calls"] = [{**mapping(call), "index": at} for at, call in enumerate(delta["tool_calls"])]
    role = {"role": message.get("role", "assistant")}
    return {**start, "delta": role}, {**start, "delta": delta, **logprobs}, {**finish, "delta": {}}
