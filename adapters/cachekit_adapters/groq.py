"""Groq's SDK: chat completions, embeddings, transcriptions and the list of models.

from cachekit_adapters import groq, wrap

client = wrap(Groq())                                  # every call of this client
@distributed_cache(adapter=groq.CHAT)                  # or a function of your own
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
    by_suffix,
    json_values,
    openai_values,
    shape,
    synthesised,
    versions,
)
from cachekit_adapters.stainless import Quick, Way
from cachekit_adapters.wires import never, operation

SDK: Final = "groq"
_values = functools.partial(openai_values, SDK)

CHAT: Final[Adapter] = operation(
    "groq.chat",
    openai_wire,
    _values("ChatCompletion"),
    ttl=1800,
    neutral=NEUTRAL,
    provider=SDK,
    synthesised=synthesised,
)
EMBEDDING: Final[Adapter] = operation(
    "groq.embedding",
    openai_wire,
    _values("CreateEmbeddingResponse"),
    ttl=86400,
    neutral=EMBEDDING_NEUTRAL,
    provider=SDK,
    sampled=never,
)
AUDIO: Final[Adapter] = operation(
    "groq.audio", openai_wire, _values("Transcription"), ttl=86400, neutral=AUDIO_NEUTRAL, provider=SDK, sampled=never
)
MODELS: Final[Adapter] = operation(
    "groq.models", openai_wire, json_values(SDK), ttl=3600, neutral=frozenset(), sampled=never
)

OPERATIONS: Final = {
    ("post", "/chat/completions"): CHAT,
    ("post", "/embeddings"): EMBEDDING,
    ("post", "/audio/transcriptions"): AUDIO,
    ("post", "/audio/translations"): AUDIO,
    ("get", "/models"): MODELS,
}


_QUICK: Final = (
    Quick("chat.completions.create", "/openai/v1/chat/completions", functools.partial(shape, SDK, "ChatCompletion")),
)


def wrap(client: Any, **said: Any) -> Any:
    return stainless.wrapped(client, Way(by_suffix(OPERATIONS, said), lambda _client: None, _QUICK, versions(said)))
