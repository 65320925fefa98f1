"""Requests that refer to what a server holds and changes: each goes there, and is counted under its reason."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import anthropic
import groq
import openai
import pytest
from peers import shapes
from peers.scripted import Reply, Request, Scripted, scripted_server

import cachekit
from cachekit_adapters import claude, wrap
from cachekit_adapters import groq as groq_adapter
from cachekit_adapters import openai as openai_adapter
from cachekit_adapters._wire.held import Held

ASK: list[Any] = [{"role": "user", "content": "Next?"}]
RESPONSE = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": []}
FUNCTION = {"type": "function", "name": "f", "parameters": {}}
RESPONSES_HELD: list[tuple[dict[str, Any], str]] = [
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"background": True}, "background"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"tools": [FUNCTION, {"type": "code_interpreter", "container": "cntr_1"}]}, "server_tools"),
    ({"tools": [{"type": "web_search"}]}, "server_tools"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["v"]}]}, "server_tools"),
    ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]}, "server_tools"),
    ({"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]}, "server_tools"),
    ({"tools": [{"type": "nobody_knows"}]}, "server_tools"),
]
CLAUDE_HELD: list[tuple[dict[str, Any], str]] = [
    ({"container": "c"}, "container"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "server_tools"),
    ({"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}, "server_tools"),
    ({"extra_body": {"mcp_servers": [{"type": "url", "name": "x", "url": "http://x"}]}}, "mcp_servers"),
]
CHAT_HELD: list[tuple[dict[str, Any], str]] = [({"web_search_options": {}}, "web_search_options")]
GROQ_HELD: list[tuple[dict[str, Any], str]] = [
    ({"search_settings": {}}, "search_settings"),
    ({"tools": [{"type": "browser_search"}]}, "server_tools"),
]


def answer(request: Request) -> Reply:
    if request.path.endswith("/responses"):
        return shapes.json_reply(RESPONSE)
    return shapes.json_reply(shapes.message() if "messages" in request.path else shapes.chat())


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(answer) as found:
        yield found


def create(kind: str, url: str) -> Any:
    """A wrapped client's method, ready but for the parameters in question."""
    said: dict[str, Any] = {"api_key": "k", "base_url": url, "max_retries": 0}
    if kind == "claude":
        client = wrap(anthropic.Anthropic(**said), cache_sampled=True)
        return lambda **more: client.messages.create(model="m", max_tokens=9, messages=ASK, **more)
    if kind == "responses":
        client = wrap(openai.OpenAI(**said), cache_sampled=True)
        return lambda **more: client.responses.create(model="m", input="Next?", **more)
    client = wrap(groq.Groq(**said) if kind == "groq" else openai.OpenAI(**said))
    return lambda **more: client.chat.completions.create(model="m", messages=ASK, temperature=0, **more)


HELD = {"responses": RESPONSES_HELD, "claude": CLAUDE_HELD, "chat": CHAT_HELD, "groq": GROQ_HELD}


@pytest.mark.parametrize(
    ("kind", "said", "reason"), [(kind, said, reason) for kind, each in HELD.items() for said, reason in each]
)
def test_what_the_server_holds_is_asked_each_time(
    server: Scripted, kind: str, said: dict[str, Any], reason: str
) -> None:
    """The second turn reaches the server, and both are counted."""
    ask = create(kind, server.url)
    ask(**said)
    ask(**said)
    assert server.count == 2
    assert cachekit.stats().as_dict()["bypasses"] == {reason: 2}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("responses", {"conversation": None, "background": False}),
        ("responses", {"prompt": {"id": "pmpt_1", "version": "2"}}),
        ("responses", {"previous_response_id": "resp_1"}),
        ("responses", {"tools": [FUNCTION]}),
        ("claude", {"tools": [{"name": "f", "input_schema": {"type": "object"}}]}),
        ("claude", {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ],
)
def test_what_says_everything_itself_is_kept(server: Scripted, kind: str, said: dict[str, Any]) -> None:
    """Tools of the caller, and references to what never changes, are questions like any other."""
    ask = create(kind, server.url)
    ask(**said)
    ask(**said)
    assert server.count == 1


# -- the tables beside the SDKs ------------------------------------------------------------------

OWN_TOOLS = {
    "responses": {
        *("function", "computer", "computer_use_preview", "image_generation", "local_shell", "shell", "custom"),
        *("namespace", "tool_search", "apply_patch"),
    },
    "claude": {
        *("bash_20241022", "bash_20250124", "browser_toolset_20260801", "computer_20241022", "computer_20250124"),
        *("computer_20251124", "computer_toolset_20260801", "custom", "memory_20250818", "text_editor_20241022"),
        *("text_editor_20250124", "text_editor_20250429", "text_editor_20250728"),
        *("tool_search_tool_bm25", "tool_search_tool_bm25_20251119"),
        *("tool_search_tool_regex", "tool_search_tool_regex_20251119"),
    },
}
SERVER_TOOLS = {
    "responses": {
        *("file_search", "web_search", "web_search_2025_08_26", "web_search_preview"),
        *("web_search_preview_2025_03_11", "mcp", "code_interpreter", "programmatic_tool_calling"),
    },
    "claude": {
        *("advisor_20260301", "code_execution_20250522", "code_execution_20250825", "code_execution_20260120"),
        *("code_execution_20260521", "mcp_toolset", "web_fetch_20250910", "web_fetch_20260209", "web_fetch_20260309"),
        *("web_fetch_20260318", "web_search_20250305", "web_search_20260209", "web_search_20260318"),
    },
}
TABLES: dict[str, tuple[Held, list[str]]] = {
    "responses": (
        openai_adapter.HELD[openai_adapter.RESPONSES.name],
        ["openai.types.responses.tool_param.ToolParam"],
    ),
    "claude": (
        claude.HELD[claude.MESSAGES.name],
        ["anthropic.types.ToolUnionParam", "anthropic.types.beta.BetaToolUnionParam"],
    ),
}


def kinds_of(union: str) -> set[str]:
    """The values of `type` of each tool in an SDK's union."""
    module, _, name = union.rpartition(".")
    kinds: set[str] = set()
    for tool in typing.get_args(getattr(importlib.import_module(module), name)):
        hints = typing.get_type_hints(tool).get("type")
        kinds |= set(_literals(hints))
    return kinds


def _literals(hint: Any) -> Iterator[str]:
    if isinstance(hint, str):
        yield hint
    for part in typing.get_args(hint):
        yield from _literals(part)


@pytest.mark.parametrize("name", list(TABLES))
def test_every_tool_of_the_sdk_is_decided_on(name: str) -> None:
    """Each type of tool that an SDK knows runs at the caller's or at the server's, and none is left undecided."""
    held, unions = TABLES[name]
    kinds = set[str]().union(*map(kinds_of, unions))
    undecided = kinds - OWN_TOOLS[name] - SERVER_TOOLS[name]
    assert not undecided, f"new tools, which pass by until somebody says who runs them: {sorted(undecided)}"
    assert not (OWN_TOOLS[name] | SERVER_TOOLS[name]) - kinds, "this test names tools that the SDK no longer has"
    for kind in kinds:
        assert bool(held.reason({"tools": [{"type": kind}]})) == (kind in SERVER_TOOLS[name])


@pytest.mark.parametrize(
    ("create", "held"),
    [
        ("openai.resources.responses.Responses", openai_adapter.HELD[openai_adapter.RESPONSES.name]),
        ("openai.resources.chat.completions.Completions", openai_adapter.HELD[openai_adapter.CHAT.name]),
        ("groq.resources.chat.completions.Completions", groq_adapter.HELD[groq_adapter.CHAT.name]),
        ("anthropic.resources.beta.messages.Messages", claude.HELD[claude.MESSAGES.name]),
    ],
)
def test_the_tables_name_parameters_that_exist(create: str, held: Held) -> None:
    """A name that no SDK has would be a typing error, and would let through what it was to hold back."""
    module, _, name = create.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name).create).parameters
    assert held.parameters.keys() <= set(parameters)
