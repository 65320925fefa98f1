"""OpenAI's SDK, and with it every server that speaks its API: vLLM, OVMS /v3, TGI's chat, llama.cpp, OPEA.

from cachekit_adapters import openai, wrap

client = wrap(OpenAI(base_url="http://localhost:8000/v3"))
"""

from __future__ import annotations

import functools
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters import openai_wire, stainless
from cachekit_adapters.openai_shapes import (
    AUDIO_NEUTRAL,
    EMBEDDING_NEUTRAL,
    NEUTRAL,
    RESPONSE_NEUTRAL,
    by_suffix,
    json_values,
    openai_values,
    shape,
    synthesised,
    versions,
)
from cachekit_adapters.stainless import Quick, Way
from cachekit_adapters.wires import never, operation

SDK: Final = "openai"
_values = functools.partial(openai_values, SDK)

CHAT: Final[Adapter] = operation(
    "openai.chat",
    openai_wire,
    _values("ChatCompletion"),
    ttl=1800,
    neutral=NEUTRAL,
    provider=SDK,
    synthesised=synthesised,
)
COMPLETION: Final[Adapter] = operation(
    "openai.completion", openai_wire, _values("Completion"), ttl=3600, neutral=NEUTRAL, provider=SDK
)
EMBEDDING: Final[Adapter] = operation(
    "openai.embedding",
    openai_wire,
    _values("CreateEmbeddingResponse"),
    ttl=86400,
    neutral=EMBEDDING_NEUTRAL,
    provider=SDK,
    sampled=never,
)
RESPONSES: Final[Adapter] = operation(
    "openai.responses", openai_wire, _values("Response"), ttl=1800, neutral=RESPONSE_NEUTRAL, provider=SDK
)
AUDIO: Final[Adapter] = operation(
    "openai.audio", openai_wire, _values("Transcription"), ttl=86400, neutral=AUDIO_NEUTRAL, provider=SDK, sampled=never
)
MODELS: Final[Adapter] = operation(
    "openai.models", openai_wire, json_values(SDK), ttl=3600, neutral=frozenset(), sampled=never
)

OPERATIONS: Final = {
    ("post", "/chat/completions"): CHAT,
    ("post", "/completions"): COMPLETION,
    ("post", "/embeddings"): EMBEDDING,
    ("post", "/responses"): RESPONSES,
    ("post", "/audio/transcriptions"): AUDIO,
    ("post", "/audio/translations"): AUDIO,
    ("get", "/models"): MODELS,
}


_QUICK: Final = (
    Quick("chat.completions.create", "/chat/completions", functools.partial(shape, SDK, "ChatCompletion")),
)


def wrap(client: Any, **said: Any) -> Any:
    """A copy of an OpenAI or AsyncOpenAI client whose calls are cached; organization and project are tenants."""
    return stainless.wrapped(client, Way(by_suffix(OPERATIONS, said), _tenant, _QUICK, versions(said)))


def _tenant(client: Any) -> dict[str, Any]:
    return {"organization": client.organization, "project": client.project}
