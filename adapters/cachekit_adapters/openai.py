"""OpenAI's SDK, and with it every server that speaks its API: vLLM, OVMS /v3, TGI's chat, llama.cpp, OPEA.

from cachekit_adapters import openai, wrap

client = wrap(OpenAI(base_url="http://localhost:8000/v3"))
"""

from __future__ import annotations

from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._sdk import client as stainless
from cachekit_adapters._sdk import shapes
from cachekit_adapters._sdk.shapes import RESPONSE_NEUTRAL, quick_chat, vendor
from cachekit_adapters._wire import held

SDK: Final = "openai"

CHAT: Final[Adapter] = shapes.chat(SDK)
COMPLETION: Final[Adapter] = shapes.completion(SDK)
EMBEDDING: Final[Adapter] = shapes.embedding(SDK)
RESPONSES: Final[Adapter] = shapes.operation(SDK, "responses", "Response", ttl=1800, neutral=RESPONSE_NEUTRAL)
AUDIO: Final[Adapter] = shapes.audio(SDK)
MODELS: Final[Adapter] = shapes.models(SDK)

OPERATIONS: Final = {
    ("post", "/chat/completions"): CHAT,
    ("post", "/completions"): COMPLETION,
    ("post", "/embeddings"): EMBEDDING,
    ("post", "/responses"): RESPONSES,
    ("post", "/audio/transcriptions"): AUDIO,
    ("post", "/audio/translations"): AUDIO,
    ("get", "/models"): MODELS,
}

HELD: Final = {CHAT.name: held.CHAT, RESPONSES.name: held.RESPONSES}

_QUICK: Final = quick_chat(SDK, "/chat/completions")


def wrap(client: Any, **keywords: Any) -> Any:
    """A copy of an OpenAI or AsyncOpenAI client whose calls are cached; organization and project are tenants."""
    return stainless.wrapped(client, vendor(OPERATIONS, HELD, _QUICK, keywords))
