"""What SDKs of OpenAI's shape have in common: the parameters that change nothing, and the classes of their answers."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any, Final

from cachekit import Adapter, Answers
from cachekit_adapters._sdk.client import Quick, Vendor
from cachekit_adapters._sdk.values import SdkValues, Shape
from cachekit_adapters._wire import openai
from cachekit_adapters._wire.held import Held
from cachekit_adapters._wire.openai.telling import chats
from cachekit_adapters._wire.operation import adapter, bare, never

NEUTRAL: Final = frozenset(
    {
        *("stream", "stream_options", "user", "metadata", "store", "service_tier", "timeout", "safety_identifier"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prompt_cache_breakpoint"),
    }
)
# Headers may name a tenant or a beta. A stored response can be referred to later, one that was not stored cannot.
RESPONSE_NEUTRAL: Final = NEUTRAL - {"store"}
EMBEDDING_NEUTRAL: Final = frozenset({"user", "timeout"})
AUDIO_NEUTRAL: Final = frozenset({"stream", "timeout"})

_CLASSES: Final[Mapping[str, tuple[str, str]]] = {
    "ChatCompletion": ("types.chat", "ChatCompletionChunk"),
    "Completion": ("types", "Completion"),
    "CreateEmbeddingResponse": ("types", ""),
    "Transcription": ("types.audio", ""),
    "Response": ("types.responses", "ResponseStreamEvent"),
}


@functools.cache
def shape(sdk: str, name: str, *, is_async: bool = False) -> Shape:
    """What a value of the class called `name` looks like."""
    place, chunk = _CLASSES[name]
    types = importlib.import_module(f"{sdk}.{place}")
    return Shape(sdk, getattr(types, name), getattr(types, chunk, None), is_async)


def operation(sdk: str, name: str, kind: str, **more: Any) -> Adapter:
    """The Adapter of an operation whose answers are of the class `kind`; `more` as in `operation.bare`."""
    values = SdkValues(lambda is_async: shape(sdk, kind, is_async=is_async))
    return adapter(bare(openai, name=f"{sdk}.{name}", provider=sdk, headed=False, **more), values)


def chat(sdk: str) -> Adapter:
    return operation(sdk, "chat", "ChatCompletion", ttl=1800, neutral=NEUTRAL, streaming=chats())


def completion(sdk: str) -> Adapter:
    return operation(sdk, "completion", "Completion", ttl=3600, neutral=NEUTRAL, streaming=chats())


def embedding(sdk: str) -> Adapter:
    return operation(sdk, "embedding", "CreateEmbeddingResponse", ttl=86400, neutral=EMBEDDING_NEUTRAL, sampled=never)


def audio(sdk: str) -> Adapter:
    return operation(sdk, "audio", "Transcription", ttl=86400, neutral=AUDIO_NEUTRAL, sampled=never)


def models(sdk: str) -> Adapter:
    # Its class is the request's own business: only a client's requests have it.
    return operation(sdk, "models", "ChatCompletion", ttl=3600, sampled=never)


def quick_chat(sdk: str, path: str) -> Quick:
    return Quick("chat.completions.create", path, functools.partial(shape, sdk, "ChatCompletion"))


def vendor(
    operations: Mapping[tuple[str, str], Adapter],
    held: Mapping[str, Held],
    quick: Quick,
    keywords: Mapping[str, Any],
) -> Vendor:
    """What `wrap` puts before a client: `operations` by method and end of the path, what the server holds by their
    names, `keywords` as it was given them.
    """
    by_server = keywords.get("version") == "server"
    policy = {name: value for name, value in keywords.items() if name != "version" or not by_server}
    ready = {place: Answers(adapter, **policy) for place, adapter in operations.items()}

    def find(method: str, path: str) -> Answers | None:
        for (known, suffix), answers in ready.items():
            if method.lower() == known and path.rstrip("/").endswith(suffix):
                return answers
        return None

    return Vendor(find, held, quick, by_server)
