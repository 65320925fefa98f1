"""Anthropic's SDK: messages and their stream helpers.

    from cachekit_adapters import claude, wrap

    client = wrap(Anthropic(), cache_sampled=True)         # Claude's answers are sampled: say that one is enough

`Anthropic(middleware=...)` would be a door too. The one that groq and openai need serves all three alike, and lies above
the SDK's retries, so that a replay's CacheMiss is never retried.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Final

from cachekit import Adapter
from cachekit_adapters._sdk import client as stainless
from cachekit_adapters._sdk.client import Quick
from cachekit_adapters._sdk.shapes import vendor
from cachekit_adapters._sdk.values import SdkValues, Shape
from cachekit_adapters._wire.held import Held, given
from cachekit_adapters._wire.operation import adapter, bare
from cachekit_adapters.claude import wire

NEUTRAL: Final = frozenset(
    {
        *("stream", "metadata", "service_tier", "cache_control", "diagnostics", "timeout", "user_profile_id"),
    }
)


@functools.cache
def _shape(is_async: bool = False) -> Shape:
    types = importlib.import_module("anthropic.types")
    return Shape("anthropic", types.Message, types.RawMessageStreamEvent, is_async)


_MESSAGES: Final = bare(wire, name="claude.messages", ttl=1800, neutral=NEUTRAL, provider="anthropic", headed=False)
MESSAGES: Final[Adapter] = adapter(_MESSAGES, SdkValues(_shape))

OPERATIONS: Final = {
    ("post", "/v1/messages"): MESSAGES,
}

HELD: Final = {
    MESSAGES.name: Held(
        {"container": given, "mcp_servers": given, "thread": given},
        ("custom", "bash_", "browser_toolset_", "computer_", "memory_", "text_editor_", "tool_search_tool_"),
    )
}

_QUICK: Final = Quick("messages.create", "/v1/messages", _shape)


def wrap(client: Any, **keywords: Any) -> Any:
    """A copy of an Anthropic or AsyncAnthropic client whose calls are cached; a workspace is a tenant."""
    return stainless.wrapped(client, vendor(OPERATIONS, HELD, _QUICK, keywords))
