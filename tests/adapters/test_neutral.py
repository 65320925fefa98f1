"""The lists of neutral parameters beside the installed SDKs: a parameter that an SDK adds is decided on, not overlooked."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import anthropic
import groq
import openai
import pytest
from anthropic.resources.beta.messages import Messages as BetaMessages
from anthropic.resources.messages import Messages
from groq.resources.audio.transcriptions import Transcriptions as GroqTranscriptions
from groq.resources.audio.translations import Translations as GroqTranslations
from groq.resources.chat.completions import Completions as GroqChat
from groq.resources.embeddings import Embeddings as GroqEmbeddings
from openai.resources.audio.transcriptions import Transcriptions
from openai.resources.audio.translations import Translations
from openai.resources.chat.completions import Completions as Chat
from openai.resources.completions import Completions
from openai.resources.embeddings import Embeddings
from openai.resources.responses import Responses
from peers import shapes
from peers.scripted import scripted_server

from cachekit import Adapter
from cachekit_adapters import claude, wrap
from cachekit_adapters import groq as groq_adapter
from cachekit_adapters import openai as openai_adapter

# Each adds to the body, the query or the headers of a request, and so identifies it.
EXTRA = frozenset({"extra_headers", "extra_query", "extra_body"})
CHAT = frozenset(
    {
        *("messages", "model", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "n", "parallel_tool_calls", "presence_penalty", "reasoning_effort"),
        *("response_format", "seed", "stop", "temperature", "tool_choice", "tools", "top_logprobs", "top_p"),
    }
)
AUDIO = frozenset({"model", "file", "prompt", "response_format", "temperature"})
MESSAGES = frozenset(
    {
        *("max_tokens", "messages", "model", "container", "inference_geo", "output_config", "speed"),
        *("stop_sequences", "system", "thinking", "tool_choice", "tools", "workspace_id"),
    }
)
RESPONSES = frozenset(
    {
        *("access_programs", "background", "background_options", "context_management", "conversation", "image"),
        *("include", "input", "instructions", "max_output_tokens", "max_tool_calls", "model", "moderation"),
        *("parallel_tool_calls", "previous_response_id", "prompt", "reasoning", "store", "temperature", "text"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "truncation"),
    }
)
# OpenAI's own, which other SDKs and operations of its shape pass on in `extra_body`, or inside of a block of content.
OPENAIS_WIRE = frozenset(
    {
        *("metadata", "prompt_cache_breakpoint", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"),
        *("safety_identifier", "service_tier", "store", "stream_options"),
    }
)
NOTHING = frozenset[str]()


class Operation(NamedTuple):
    """A method of an SDK, the adapter in front of it, what identifies its calls, and neutral fields it has no name for."""

    create: Any
    adapter: Adapter
    identifies: frozenset[str]
    wire: frozenset[str] = NOTHING


OPERATIONS = {
    "groq chat": Operation(
        GroqChat.create,
        groq_adapter.CHAT,
        CHAT
        | {
            *("citation_options", "compound_custom", "disable_tool_validation", "documents", "exclude_domains"),
            *("include_domains", "include_reasoning", "reasoning_format", "search_settings"),
        },
        OPENAIS_WIRE,
    ),
    "groq embeddings": Operation(
        GroqEmbeddings.create, groq_adapter.EMBEDDING, frozenset({"input", "model", "encoding_format"})
    ),
    "groq transcriptions": Operation(
        GroqTranscriptions.create,
        groq_adapter.AUDIO,
        AUDIO | {"language", "timestamp_granularities", "url"},
        frozenset({"stream"}),
    ),
    "groq translations": Operation(GroqTranslations.create, groq_adapter.AUDIO, AUDIO | {"url"}, frozenset({"stream"})),
    "openai chat": Operation(
        Chat.create,
        openai_adapter.CHAT,
        CHAT | {"audio", "modalities", "moderation", "prediction", "verbosity", "web_search_options"},
        OPENAIS_WIRE,
    ),
    "openai completions": Operation(
        Completions.create,
        openai_adapter.COMPLETION,
        frozenset(
            {
                *("model", "prompt", "best_of", "echo", "frequency_penalty", "logit_bias", "logprobs", "max_tokens"),
                *("n", "presence_penalty", "seed", "stop", "suffix", "temperature", "top_p"),
            }
        ),
        OPENAIS_WIRE,
    ),
    "openai embeddings": Operation(
        Embeddings.create,
        openai_adapter.EMBEDDING,
        frozenset({"input", "model", "dimensions", "encoding_format"}),
    ),
    "openai responses": Operation(Responses.create, openai_adapter.RESPONSES, RESPONSES, OPENAIS_WIRE),
    "openai transcriptions": Operation(
        Transcriptions.create,
        openai_adapter.AUDIO,
        AUDIO
        | {
            *("chunking_strategy", "include", "keywords", "known_speaker_names", "known_speaker_references"),
            *("language", "languages", "timestamp_granularities"),
        },
    ),
    "openai translations": Operation(Translations.create, openai_adapter.AUDIO, AUDIO, frozenset({"stream"})),
    "anthropic messages": Operation(Messages.create, claude.MESSAGES, MESSAGES),
    "anthropic beta messages": Operation(
        BetaMessages.create,
        claude.MESSAGES,
        MESSAGES
        | {
            *("betas", "billing_policy", "compaction", "context_management", "fallback_credit_token", "fallbacks"),
            *("mcp_servers", "thread"),
        },
    ),
}


def _parameters(create: Any) -> set[str]:
    return set(inspect.signature(create).parameters) - {"self"}


EACH = [pytest.param(operation, id=name) for name, operation in OPERATIONS.items()]


@pytest.mark.parametrize("operation", EACH)
def test_every_parameter_of_the_sdk_is_decided_on(operation: Operation) -> None:
    """A parameter is neutral or identifies the call, never both, and none is left undecided."""
    parameters, neutral = _parameters(operation.create), operation.adapter.neutral
    identifies = operation.identifies | EXTRA
    undecided = parameters - neutral - identifies
    assert not undecided, (
        f"{operation.create.__module__} has new parameters: {', '.join(sorted(undecided))}. They are part of the key, which "
        "is safe. Decide for each: if the same question can be answered differently with it, name it in this test; if it "
        f"only says who asks, what it costs or how the answer travels, add it to the neutral ones of {operation.adapter.name}"
    )
    assert not neutral & identifies
    assert not identifies - parameters, "this test names parameters that the SDK no longer has"


@pytest.mark.parametrize("operation", EACH)
def test_every_neutral_name_is_one_that_the_sdk_or_the_wire_has(operation: Operation) -> None:
    """A neutral name nobody knows would be a typing error that lets nothing out, or lets out what comes by that name."""
    unknown = operation.adapter.neutral - _parameters(operation.create) - operation.wire
    assert not unknown, f"neither in the SDK's signature nor on the wire: {', '.join(sorted(unknown))}"


def test_a_workspace_named_in_a_call_is_a_tenant() -> None:
    """What one workspace was answered is never served to another, nor to a call that names none; a user may share it."""
    said: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello?"}]}
    with scripted_server(shapes.json_reply(shapes.message())) as server:
        with anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0) as plain:
            client = wrap(plain, cache_sampled=True)
            for workspace in ("wrkspc_1", "wrkspc_2"):
                for _ in range(2):
                    client.messages.create(**said, workspace_id=workspace)
            client.messages.create(**said)
            client.messages.create(**said, user_profile_id="somebody")
            with client.messages.stream(**said, user_profile_id="another") as stream:
                stream.get_final_message()
        assert server.count == 3


@pytest.mark.parametrize("place", ["input_schema", "input"])
def test_a_tool_may_have_a_property_named_like_a_neutral_field(place: str) -> None:
    """`cache_control` of a block is neutral; a property of that name, in a tool's schema or arguments, is not."""

    def said(kind: str, control: Any) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"cache_control": {"type": kind}}}
        block = {"type": "tool_use", "id": "t", "name": "browse", "input": {"cache_control": kind}}
        tools = [{"name": "browse", "input_schema": schema, "cache_control": control}]
        called = {"tools": tools} if place == "input_schema" else {"system": [{"type": "text", "text": "s"}]}
        content = [{"type": "text", "text": "Go on.", "cache_control": control}, *([block] if place == "input" else ())]
        return {"model": "m", "max_tokens": 9, "messages": [{"role": "assistant", "content": content}], **called}

    with scripted_server(shapes.json_reply(shapes.message())) as server:
        with anthropic.Anthropic(api_key="k", base_url=server.url, max_retries=0) as plain:
            client: Any = wrap(plain, cache_sampled=True)
            client.messages.create(**said("string", {"type": "ephemeral"}))
            client.messages.create(**said("string", {"type": "ephemeral", "ttl": "1h"}))
            assert server.count == 1
            client.messages.create(**said("integer", {"type": "ephemeral"}))
        assert server.count == 2


def test_a_response_that_the_server_keeps_is_another_one() -> None:
    """`store` decides whether `previous_response_id` may name the response later, so it identifies the call."""
    body = {"id": "r", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": []}
    with scripted_server(shapes.json_reply(body)) as server:
        with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as plain:
            client = wrap(plain, cache_sampled=True)
            for store in (False, True, False, True):
                client.responses.create(model="m", input="Hello?", store=store)
        assert server.count == 2


def test_headers_of_a_call_identify_it() -> None:
    """`extra_headers` may name an organisation or a beta: another one is another call, tracing is not."""
    said: Any = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "Hello?"}]}
    with scripted_server(shapes.json_reply(shapes.chat())) as server:
        with groq.Groq(api_key="k", base_url=server.url, max_retries=0) as plain:
            client = wrap(plain)
            for trace in ("1", "2"):
                client.chat.completions.create(**said, extra_headers={"traceparent": trace})
            assert server.count == 1
            client.chat.completions.create(**said, extra_headers={"Groq-Beta": "b"})
        assert server.count == 2
    assert "extra_headers" not in groq_adapter.CHAT.neutral
