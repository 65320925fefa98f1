"""What model servers say: answers, streams, batches, tensors, and the table of prices."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
from stories.faults.foreign.reader import Reader, reader
from tritonclient.http import InferResult

from cachekit import Reply
from cachekit_adapters import ovms
from cachekit_adapters._wire import items, openai, sse
from cachekit_adapters._wire.exchange import Head, opened
from cachekit_adapters._wire.openai import telling
from cachekit_adapters._wire.openai.vectors import sound
from cachekit_adapters._wire.prices import Prices, Usage, counted
from cachekit_adapters.claude import wire as claude
from cachekit_adapters.opea import wire as opea
from cachekit_adapters.ovms import wire as kserve
from cachekit_adapters.tei import wire as tei
from cachekit_adapters.tgi import wire as tgi

CHAT = {
    **{"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp"},
    "choices": [
        {
            **{"index": 0, "finish_reason": "stop", "logprobs": None},
            "message": {
                **{"role": "assistant", "content": "hi there"},
                "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
            },
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}},
}
RESPONSE = {
    **{"id": "r1", "object": "response", "status": "completed", "model": "m", "usage": {"input_tokens": 3}},
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}],
}
MESSAGE = {
    **{"id": "m1", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"},
    "content": [
        {"type": "thinking", "thinking": "so", "signature": "s"},
        {"type": "text", "text": "hi", "citations": [{"type": "page", "page": 1}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": [1]}},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "cache_creation": {"ephemeral_1h_input_tokens": 1}},
}
TOKEN = {"id": 1, "text": " red", "logprob": -0.25, "special": False}
DETAILS = {"finish_reason": "eos_token", "generated_tokens": 1, "seed": None, "input_length": 2, "tokens": [TOKEN]}
GENERATED = {"generated_text": " red", "details": DETAILS}
VECTORS = {
    **{"object": "list", "model": "m", "usage": {"prompt_tokens": 6, "total_tokens": 6}},
    "data": [{"object": "embedding", "index": at, "embedding": [0.5, at + 0.5]} for at in range(2)],
}


def readers(place: Path) -> Iterator[Reader]:
    """Every reader of what a server said; files are made in `place`."""
    yield from _events()
    yield from _chats()
    yield from _messages()
    yield from _generations()
    yield from _batches()
    yield from _opea()
    yield from _tensors()
    yield from _beside(place)


def dumped(*bodies: Any) -> list[bytes]:
    return [json.dumps(body).encode() for body in bodies]


def of_json(use: Callable[[Any], Any]) -> Callable[[bytes], Any]:
    """Reads what a server's JSON says; what is no JSON is no answer, and `operation.reply` says so."""

    def read(data: bytes) -> Any:
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return use(body)

    return read


def _events() -> Iterator[Reader]:
    seeds = [
        b'event: a\ndata: {"x": 1}\n\nid: 7\ndata: 2\ndata: 3\n\n: c\n\nretry: 3\r\n\r\ndata: [DONE]\n\n',
        b"\xef\xbb\xbfdata:1\r\rdata: \r\n\r\n",
    ]

    def events(data: bytes) -> Any:
        told = sse.tellable(data)
        assert [one for one in sse.events(told) if one[1]] == [one for one in sse.events(data) if one[1]]
        return list(sse.events(data)), sse.is_done(data), b"".join(sse.blocks(data)), sse.data_of(data)

    yield reader("server-sent events", events, seeds)
    told = [b'event: a\ndata: {"x": [1, null]}\n\ndata: 2\n\n: c\n\ndata: [DONE]\n\n']
    yield reader("events of JSON", lambda data: list(sse.json_events(data)), told, ValueError)


def _chats() -> Iterator[Reader]:
    plain = dumped(CHAT, RESPONSE, VECTORS)
    completed = [{"type": "response.created", "response": {}}, {"type": "response.completed", "response": RESPONSE}]
    streams = [
        b"".join(openai.synthesise(CHAT)),
        b"".join(sse.frame(event, event["type"]) for event in completed),
        b"".join(openai.synthesise({**CHAT, "x_groq": {"id": "g"}})),
    ]
    yield reader("chat", of_json(lambda body: (openai.judge(body), openai.usage(body), openai.about(body))), plain)
    yield reader("chat as a stream", of_json(lambda body: _mapping(openai.synthesise, body)), plain[:1], ValueError)
    told = reader("chat's stream", lambda data: _stream(openai, data), streams)
    yield told
    yield reader("chat's stream put together", openai.assemble, streams, ValueError)
    asked = {"stream_options": {"include_usage": True}}
    for request in (asked, {}):

        def fitted(data: bytes, request: Any = request) -> Any:
            return telling.fitted(telling.ASKED + data if not request else data, None, request)

        yield reader(f"chat's stream as asked for {request}", fitted, streams[:1], ValueError, telling.Unfit)


def _mapping(use: Callable[[Any], Any], body: Any) -> Any:
    return use(body) if isinstance(body, dict) else None


def _stream(wire: Any, data: bytes) -> Any:
    """All that is asked of a stream that was kept; none of it may raise."""
    kept = sse.Recorded(data)
    return wire.judge_stream(kept), wire.usage_of_stream(kept), wire.about_stream(kept)


def _messages() -> Iterator[Reader]:
    plain, streams = dumped(MESSAGE, {"input_tokens": 4}), [b"".join(claude.synthesise(MESSAGE))]
    yield reader("message", of_json(lambda body: (claude.judge(body), claude.usage(body), claude.about(body))), plain)
    yield reader("message as a stream", of_json(lambda body: _mapping(claude.synthesise, body)), plain[:1], ValueError)
    yield reader("message's stream", lambda data: _stream(claude, data), streams)
    yield reader("message's stream put together", claude.assemble, streams, ValueError)


def _generations() -> Iterator[Reader]:
    request = {"inputs": "a", "parameters": {"details": True, "max_new_tokens": 2, "return_full_text": True}}
    plain, streams = (
        dumped(GENERATED, [GENERATED], {"generated_text": "x"}),
        [b"".join(tgi.synthesise(GENERATED, request))],
    )
    info = {"model_id": "m", "model_sha": "s", "version": "3", "docker_label": "l", "model_dtype": "f"}

    def use(body: Any) -> Any:
        return tgi.judge("/generate", request, body), tgi.usage(body, {}), tgi.about(body, {})

    yield reader("generation", of_json(use), plain)
    yield reader("generation as a stream", of_json(lambda body: tgi.synthesise(body, request)), plain, ValueError)
    yield reader("generation's stream", lambda data: _stream(tgi, data), streams)
    yield reader("generation's stream put together", lambda data: tgi.assemble(data, "/", request), streams, ValueError)
    servers = of_json(
        lambda body: (tgi.version(body), tgi.about_server(body), tei.version(body), tei.about_server(body))
    )
    yield reader("server's own words", servers, dumped(info))


def _batches() -> Iterator[Reader]:
    request, places = {"model": "m", "input": ["a", "bb"]}, range(2)
    yield reader("vectors", of_json(lambda body: items.judge("/v1/embeddings", request, body)), dumped(VECTORS))

    def divided(wire: Any, path: str, request: Any) -> Callable[[Any], Any]:
        return lambda body: wire.merge(path, request, wire.take(path, request, places, body))

    yield reader("vectors divided", of_json(divided(items, "/v1/embeddings", request)), dumped(VECTORS), ValueError)
    asked = {
        "/embed": ({"inputs": ["a", "bb"]}, [[0.5, 1], [1.5, 2]]),
        "/embed_all": ({"inputs": ["a", "bb"]}, [[[0.5], [1]], [[1.5]]]),
        "/embed_sparse": ({"inputs": ["a", "bb"]}, [[{"index": 1, "value": 0.5}], [{"index": 2, "value": 0.5}]]),
        "/predict": ({"inputs": [["a"], ["bb"]]}, [[{"label": "x", "score": 0.5}], [{"label": "y", "score": 1}]]),
        "/rerank": ({"query": "q", "texts": ["a", "bb"]}, [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]),
        "/similarity": ({"inputs": {"source_sentence": "a", "sentences": ["b"]}}, [0.5]),
    }
    for path, (body, answer) in asked.items():

        def use(read: Any, path: str = path, body: Any = body) -> Any:
            return tei.judge(path, body, read), tei.usage(read, {}), tei.about(read, {})

        yield reader(f"TEI's {path}", of_json(use), dumped(answer))
        if path != "/similarity":
            yield reader(f"TEI's {path} divided", of_json(divided(tei, path, body)), dumped(answer), ValueError)
    raw = numpy.arange(4, dtype="<f4").tobytes()
    yield reader("base64 vector", lambda data: sound(data.decode("latin-1")), [base64.b64encode(raw)])
    yield reader("vector", of_json(sound), dumped([0.5, 1], [[0.5], [1]]))


def _opea() -> Iterator[Reader]:
    request = {"retrieved_docs": [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}], "top_n": 1}
    ranked = {"id": "q", "reranked_docs": [{"id": "c", "text": "y"}], "initial_query": "q"}
    embedded = {"text": ["a"], "embedding": [[0.5, 1]]}

    def use(body: Any) -> Any:
        routes = ("/v1/reranking", "/v1/embeddings", "/v1/chat/completions")
        return [opea.judge(route, request, body) for route in routes], opea.relabel(routes[0], request, body)

    yield reader("OPEA's answer", of_json(use), dumped(ranked, embedded, CHAT, {"detail": "x"}))
    streams = [b"".join(openai.synthesise(CHAT)), b"data: b'hi'\n\ndata: [DONE]\n\n"]
    yield reader("OPEA's stream", opea.judge_stream, streams)


def _tensors() -> Iterator[Reader]:
    outputs = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]}]
    binary = [{"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}]
    told = [{"model_name": "m", "model_version": "1", "outputs": one, "id": "7"} for one in (outputs, binary)]
    raw = numpy.ones(2, "float32").tobytes()
    headers = dumped(*told)
    seeds = [headers[0], headers[1] + raw]
    kept = [len(header).to_bytes(4, "little") + seed for header, seed in zip(headers, seeds, strict=True)]
    restore = ovms.INFER.restore
    yield reader("stored tensors", lambda data: _read(restore(Reply("plain", data), False, "8")), kept, ValueError)

    def live(data: bytes) -> Any:
        """What an SDK made of an answer, where it made something of it."""
        for length in (None, len(headers[1])):
            try:
                result = InferResult.from_response_body(data, header_length=length)
            except Exception:  # the SDK's own trouble, as it is without us
                continue
            reply = ovms.INFER.capture(result)
            if reply is not None and not ovms.INFER.judge(reply):
                _read(restore(reply, False, "8"))
        return None

    yield reader("tensors", live, seeds)


def _read(result: Any) -> Any:
    return kserve.judge(result), kserve.about(result)


def _beside(place: Path) -> Iterator[Reader]:
    head = Head("/generate", "application/json", {"x-compute-tokens": "5"}, {"model": "m"}).packed() + b'{"a": 1}'
    yield reader("answer's head", opened, [head], ValueError)
    yield reader("counting header", lambda data: counted({"X-Tokens": data.decode("latin-1")}, "x-tokens"), [b"12"])
    prices = {
        "gpt": {
            **{"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "litellm_provider": "openai"},
            **{"input_cost_per_token_above_200k_tokens": 3e-6, "cache_read_input_token_cost": 1e-7},
        }
    }
    path = place / "prices.json"

    def priced(data: bytes) -> Any:
        path.write_bytes(data)
        table = Prices.load(path)
        return table.cost("gpt", Usage(300_000, 10, 5, 6, 7), "openai")

    yield reader("prices", priced, dumped(prices), ValueError, costs=5)
