"""A STAND-IN for Text Generation Inference, which no package index has: scripted from its published openapi.json (3.3.6).

Real are the shapes: requests, answers, headers, events, errors. What is generated is ours: words chosen by a hash of
the prompt and, where sampling is on, of the seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from .scripted import Reply, Request, Scripted, scripted_server
from .shapes import json_reply

_WORDS: Sequence[str] = (
    "red fox river stone paper lamp quiet cloud garden bridge seven song winter harbour glass apple".split()
)
_SEEDS = itertools.count(1000)


@contextlib.contextmanager
def tgi_server(*, model_sha: str | None = "0" * 40) -> Iterator[Scripted]:
    """`/generate`, `/generate_stream`, `/` (either, by `stream`), `/info`, `/health`.

    Greedy unless `do_sample`; a sampled answer without a seed differs each time, and `details.seed` tells the seed
    used. An answer ends after 4 to 11 tokens with eos_token, earlier with stop_sequence or length. `inputs` of more
    than 4096 characters, an empty one, or parameters of the wrong type are refused with 422.
    """
    with scripted_server(lambda request: _answer(request, model_sha)) as server:
        yield server


def _answer(request: Request, model_sha: str | None) -> Reply:
    path = request.path.partition("?")[0]
    if path == "/health":
        return Reply()
    if path == "/info":
        return json_reply(_info(model_sha))
    if path not in ("/", "/generate", "/generate_stream"):
        return Reply(404)
    try:
        body = request.json()
        text, parameters = body["inputs"], {**(body.get("parameters") or {})}
        generated = _Generated(text, parameters)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return json_reply({"error": f"Input validation error: {error}", "error_type": "validation"}, 422)
    if path == "/generate_stream" or (path == "/" and body.get("stream")):
        return Reply(200, generated.frames(), generated.stream_headers(), "text/event-stream", "chunked")
    whole = generated.whole()
    return json_reply([whole] if path == "/" else whole, 200, generated.headers())


def _info(model_sha: str | None) -> dict[str, Any]:
    return {
        "model_id": "peer/tgi-stand-in", "model_sha": model_sha, "model_pipeline_tag": "text-generation",
        "max_concurrent_requests": 128, "max_best_of": 2, "max_stop_sequences": 4, "max_input_tokens": 1024,
        "max_total_tokens": 2048, "validation_workers": 2, "max_client_batch_size": 4,
        "router": "text-generation-router", "version": "3.3.6-dev0", "sha": None, "docker_label": "sha-peer",
    }  # fmt: skip


class _Generated:
    """One generation: `tokens` with their leading spaces, `finish`, and the seed used, None where greedy."""

    def __init__(self, text: str, parameters: dict[str, Any]) -> None:
        if not isinstance(text, str) or not text:
            raise ValueError("`inputs` must be a non-empty string")
        if len(text) > 4096:
            raise ValueError("`inputs` must have less than 1024 tokens")
        self.text, self.parameters = text, parameters
        limit = parameters.get("max_new_tokens") or 1024
        if int(limit) <= 0:
            raise ValueError("`max_new_tokens` must be strictly positive")
        sampled = bool(parameters.get("do_sample"))
        self.seed = None if not sampled else parameters.get("seed") or next(_SEEDS)
        digest = hashlib.sha256(f"{self.seed} {text}".encode()).digest()
        words = [" " + _WORDS[byte % len(_WORDS)] for byte in digest[1 : 5 + digest[0] % 8]]
        self.tokens, self.finish = words[:limit], "eos_token" if len(words) <= limit else "length"
        self._stop(parameters.get("stop") or [])

    def _stop(self, stops: list[str]) -> None:
        for at in range(len(self.tokens)):
            if any("".join(self.tokens[: at + 1]).endswith(stop) for stop in stops):
                self.tokens, self.finish = self.tokens[: at + 1], "stop_sequence"
                return

    def generated_text(self) -> str:
        said = "".join(self.tokens)
        return self.text + said if self.parameters.get("return_full_text") else said

    def listed(self) -> list[dict[str, Any]]:
        return [
            {"id": _WORDS.index(token.strip()), "text": token, "logprob": -0.25, "special": False}
            for token in self.tokens
        ]

    def whole(self) -> dict[str, Any]:
        if not self.parameters.get("details"):
            return {"generated_text": self.generated_text()}
        details = {
            "finish_reason": self.finish, "generated_tokens": len(self.tokens), "seed": self.seed, "prefill": [],
            "tokens": self.listed(),
        }  # fmt: skip
        return {"generated_text": self.generated_text(), "details": details}

    def frames(self) -> list[bytes]:
        sent = []
        for at, token in enumerate(self.listed()):
            last = at == len(self.tokens) - 1
            details = {
                "finish_reason": self.finish, "generated_tokens": len(self.tokens), "seed": self.seed,
                "input_length": len(self.text.split()),
            }  # fmt: skip
            event = {
                "index": at + 1, "token": token, "generated_text": self.generated_text() if last else None,
                "details": details if last else None,
            }  # fmt: skip
            # No space after the colon: so the router's framework writes its JSON events.
            sent.append(b"data:" + json.dumps(event).encode() + b"\n\n")
        return sent

    def stream_headers(self) -> dict[str, str]:
        return {
            "x-compute-type": "cpu", "x-compute-characters": str(len(self.text)), "x-accel-buffering": "no",
        }  # fmt: skip

    def headers(self) -> dict[str, str]:
        times = ("total", "validation", "queue", "inference")
        return {
            "x-compute-type": "cpu", "x-compute-time": "0.001", "x-compute-characters": str(len(self.text)),
            **{f"x-{name}-time": "1" for name in times}, "x-time-per-token": "1",
            "x-prompt-tokens": str(len(self.text.split())), "x-generated-tokens": str(len(self.tokens)),
        }  # fmt: skip
