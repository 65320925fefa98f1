"""A key is made of the request as it goes out, whoever put a part in: the call, the client, or the client's own HTTP client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import groq
import httpx
import openai
import pytest
from peers import shapes
from peers.scripted import Reply, Request, Scripted, scripted_server

import cachekit
from cachekit_adapters import tei, wrap

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}]}
Open = Callable[..., Any]


def answer(request: Request) -> Reply:
    """What each vendor's server says, by the route."""
    is_claude = "messages" in request.path or "rawPredict" in request.path
    return shapes.json_reply(shapes.message() if is_claude else shapes.chat())


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(answer) as found:
        yield found


def open_openai(url: str, **said: Any) -> Any:
    return openai.OpenAI(api_key="k", base_url=url, max_retries=0, **said)


def open_groq(url: str, **said: Any) -> Any:
    return groq.Groq(api_key="k", base_url=url, max_retries=0, **said)


def open_claude(url: str, **said: Any) -> Any:
    return anthropic.Anthropic(api_key="k", base_url=url, max_retries=0, **said)


def open_azure(url: str, **said: Any) -> Any:
    return openai.AzureOpenAI(api_key="k", azure_endpoint=url, max_retries=0, **{"api_version": "2025-01-01", **said})


def open_vertex(url: str, **said: Any) -> Any:
    return anthropic.AnthropicVertex(region="r", access_token="t", base_url=url, max_retries=0, **said)


def ask(client: Any, **more: Any) -> Any:
    if hasattr(client, "messages"):
        return client.messages.create(**ASK, max_tokens=9, **more)
    return client.chat.completions.create(**ASK, temperature=0, **more)


def asked(server: Scripted, bare: Any) -> int:
    """How many requests a question costs that is asked twice through a wrapped client."""
    before = server.count
    with bare:
        client = wrap(bare, cache_sampled=True)
        ask(client)
        ask(client)
    return server.count - before


EACH = [open_openai, open_groq, open_claude]
SAID: list[tuple[str, Open, dict[str, Any], dict[str, Any]]] = [
    *(
        (f"{name} of {opened.__name__}", opened, {name: {"x-route": "A"}}, {name: {"x-route": "B"}})
        for opened in EACH
        for name in ("default_headers", "default_query")
    ),
    *(
        (f"a gateway's secret of {opened.__name__}", opened, {"default_headers": a}, {"default_headers": b})
        for opened in EACH
        for a, b in [({"x-portkey-api-key": "A"}, {"x-portkey-api-key": "B"})]
    ),
    *(
        (f"http_client of {opened.__name__}", opened, {"http_client": a}, {"http_client": b})
        for opened in EACH
        for a, b in [("A", "B")]
    ),
    ("Azure's api_version", open_azure, {"api_version": "2024-01-01"}, {"api_version": "2025-01-01"}),
    ("a beta by default", open_claude, {"default_headers": {"anthropic-beta": "a"}}, {}),
    ("a version", open_claude, {"default_headers": {"anthropic-version": "2024-01-01"}}, {}),
    ("a project of Vertex", open_vertex, {"project_id": "A"}, {"project_id": "B"}),
    ("a region of Vertex", open_vertex, {"project_id": "A", "region": "A"}, {"project_id": "A", "region": "B"}),
    ("an organization", open_openai, {"organization": "A"}, {"organization": "B"}),
]


def opened(kind: Open, url: str, said: dict[str, Any]) -> Any:
    if "http_client" in said:
        library = groq.DefaultHttpxClient if kind is open_groq else _default_of(kind)
        said = {"http_client": library(headers={"x-route": said["http_client"]})}
    if kind is open_vertex and "region" in said:
        return anthropic.AnthropicVertex(access_token="t", base_url=url, max_retries=0, **said)
    return kind(url, **said)


def _default_of(kind: Open) -> Any:
    return openai.DefaultHttpxClient if kind is open_openai else anthropic.DefaultHttpxClient


@pytest.mark.parametrize(("kind", "first", "second"), [pytest.param(*each[1:], id=each[0]) for each in SAID])
def test_what_a_client_says_of_itself_is_part_of_the_key(
    server: Scripted, kind: Open, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Two clients whose requests differ share no answer; two alike do."""
    assert asked(server, opened(kind, server.url, first)) == 1
    assert asked(server, opened(kind, server.url, second)) == 1
    assert asked(server, opened(kind, server.url, first)) == 0


def test_who_put_a_header_in_does_not_matter(server: Scripted) -> None:
    """A header of the client and the same one of the call are one request."""
    with open_openai(server.url, default_headers={"x-route": "A"}) as bare:
        ask(wrap(bare))
    with open_openai(server.url) as bare:
        ask(wrap(bare), extra_headers={"X-Route": "A"})
        assert server.count == 1
        ask(wrap(bare).with_options(default_headers={"x-route": "A"}))
        assert server.count == 1
        ask(wrap(bare).with_options(default_headers={"x-route": "B"}))
    assert server.count == 2


def test_a_header_that_changes_later_counts(server: Scripted) -> None:
    """The headers of a passed HTTP client, and its settings, are looked at in every call."""
    with openai.DefaultHttpxClient(headers={"x-route": "A"}) as http:
        bare = open_openai(server.url, http_client=http)
        client = wrap(bare)
        ask(client)
        http.headers["x-route"] = "B"
        ask(client)
        client.organization = "somebody else"
        ask(client)
        ask(client)
    assert server.count == 3


def test_the_key_of_the_api_is_no_part(server: Scripted) -> None:
    """A rotated key hits, and so does what the SDK says of itself and of the machine."""
    for key in ("first", "second"):
        for said in ({}, {"default_headers": {"User-Agent": key, "x-stainless-os": key, "traceparent": key}}):
            with openai.OpenAI(api_key=key, base_url=server.url, **said) as bare:
                ask(wrap(bare))
    assert server.count == 1


def test_no_secret_of_a_client_stands_on_the_disk(server: Scripted, own_cache: Path) -> None:
    """A gateway's key and a webhook's are in no file of the cache."""
    with open_openai(
        server.url, default_headers={"x-portkey-api-key": "hush-hush"}, webhook_secret="hush-hush"
    ) as bare:
        ask(wrap(bare))
    cachekit.flush(10)
    files = [path for path in own_cache.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"hush-hush" in path.read_bytes()]


def test_async_clients_say_the_same(server: Scripted) -> None:
    """An async client's headers count alike, and its answer is the sync client's."""

    async def both() -> None:
        for route in ("A", "B"):
            async with openai.AsyncOpenAI(api_key="k", base_url=server.url, default_headers={"x-route": route}) as bare:
                await wrap(bare).chat.completions.create(**ASK, temperature=0)

    asyncio.run(both())
    assert server.count == 2
    assert asked(server, open_openai(server.url, default_headers={"x-route": "A"})) == 0


def test_inference_clients_headers_and_cookies_count(server: Scripted) -> None:
    """Hugging Face's client: headers and cookies of its own are part of the key, its token is not."""
    hub = pytest.importorskip("huggingface_hub")
    for said in ({}, {"headers": {"x-route": "A"}}, {"headers": {"x-route": "B"}}, {"cookies": {"tenant": "A"}}):
        for token in ("first", "second"):
            client = wrap(hub.InferenceClient(base_url=server.url, token=token, **said))
            client.chat_completion(ASK["messages"], temperature=0)
    hub.close_session()
    assert server.count == 4


def test_a_gateways_secret_counts_over_plain_http() -> None:
    """Two tenants of one gateway share no vectors, and a rotated key of the API itself does not matter."""
    vector = Reply(200, json.dumps([[1.0, 2.0]]).encode())
    with scripted_server(vector) as server:
        for name in ("x-portkey-api-key", "authorization"):
            for secret in ("A", "B"):
                with httpx.Client(base_url=server.url, headers={name: secret}, trust_env=False) as bare:
                    wrap(bare, adapter=tei.EMBED).post("/embed", json={"inputs": "a"})
        assert server.count == 3


@pytest.mark.parametrize("opening", [open_openai, open_groq, open_claude])
def test_a_method_explains_its_call_and_asks_nothing(server: Scripted, opening: Open) -> None:
    """`create.explain(...)` says what differs from the nearest earlier call, whoever put a part in; no request goes out."""
    client = wrap(opening(server.url), cache_sampled=True)
    ask(client)
    many = len(server.requests)
    holder = client.messages if hasattr(client, "messages") else client.chat.completions
    asked = {**ASK, **({"max_tokens": 9} if hasattr(client, "messages") else {"temperature": 0})}
    same = holder.create.explain(**asked)
    other = holder.create.explain(**{**asked, "model": "n"}, extra_headers={"x-tenant": "b"})
    assert same.found.startswith("memory")
    assert any("model was 'm', is 'n'" in line for line in other.differs)
    assert any("x-tenant" in line for line in other.differs)
    assert len(server.requests) == many


def test_an_async_clients_method_explains_its_call(server: Scripted) -> None:
    """On an async client the explanation is awaited, as the call is."""

    async def explained() -> Any:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url, max_retries=0) as bare:
            client = wrap(bare)
            await client.chat.completions.create(**ASK, temperature=0)
            return await client.chat.completions.create.explain(**ASK, temperature=0)

    assert asyncio.run(explained()).found.startswith("memory")
