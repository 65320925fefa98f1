"""Groq's SDK: chat completions, embeddings, transcriptions and the list of models.

from cachekit_adapters import groq, wrap

client = wrap(Groq())                                  # every call of this client
@distributed_cache(adapter=groq.CHAT)                  # or a function of your own
"""

from __future__ import annotations

from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._sdk import client as stainless
from cachekit_adapters._sdk import shapes
from cachekit_adapters._sdk.shapes import quick_chat, vendor
from cachekit_adapters._wire.held import Held, given, said

SDK: Final = "groq"

CHAT: Final[Adapter] = shapes.chat(SDK)
EMBEDDING: Final[Adapter] = shapes.embedding(SDK)
AUDIO: Final[Adapter] = shapes.audio(SDK)
MODELS: Final[Adapter] = shapes.models(SDK)

OPERATIONS: Final = {
    ("post", "/chat/completions"): CHAT,
    ("post", "/embeddings"): EMBEDDING,
    ("post", "/audio/transcriptions"): AUDIO,
    ("post", "/audio/translations"): AUDIO,
    ("get", "/models"): MODELS,
}

HELD: Final = {
    CHAT.name: Held(
        {"search_settings": said, "compound_custom": said, "include_domains": given, "exclude_domains": given}
    )
}

_QUICK: Final = quick_chat(SDK, "/openai/v1/chat/completions")


def wrap(client: Any, **keywords: Any) -> Any:
    """A copy of a Groq or AsyncGroq client whose calls are cached."""
    return stainless.wrapped(client, vendor(OPERATIONS, HELD, _QUICK, keywords))
