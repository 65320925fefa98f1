"""A wrapped client beside the bare one: what it gives, warns and raises is the same, and what it keeps is what came."""

from __future__ import annotations

import asyncio
import base64
import datetime
import inspect
import json
import struct
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import groq
import openai
import pydantic
import pytest
from peers import shapes
from peers.scripted import Reply, Request, Scripted, scripted_server

from cachekit import distributed_cache
from cachekit_adapters import openai as openai_adapter
from cachekit_adapters import wrap
from cachekit_adapters._sdk.rebuilding import cloned

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello?"}], "temperature": 0}


class Answer(pydantic.BaseModel):
    v: int


class Unserialisable(pydantic.BaseModel):
    """What a caller may well parse an answer into."""

    v: int

    @pydantic.field_serializer("v")
    def refuse(self, v: int) -> int:
        raise ValueError("no")


def answer(request: Request) -> Reply:
    if request.path.endswith("/embeddings"):
        return shapes.json_reply(_embeddings(request.json()))
    if request.json().get("stream"):
        return shapes.stream_reply(shapes.frames(shapes.chat_chunks()))
    return shapes.json_reply(shapes.chat('{"v": 3}'), headers={"x-request-id": "req_1"})


def _embeddings(said: Any) -> Any:
    given = said["input"] if isinstance(said["input"], list) else [said["input"]]
    told = shapes.embeddings([[1.0, 2.0] for _ in given])
    if said.get("encoding_format") == "base64":
        for each in told["data"]:
            each["embedding"] = base64.b64encode(struct.pack("<2f", 1.0, 2.0)).decode()
    return told


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server(answer) as found:
        yield found


@pytest.fixture
def bare(server: Scripted) -> Iterator[Any]:
    with openai.OpenAI(api_key="k", base_url=server.url, max_retries=0) as client:
        yield client


def parse(client: Any, kind: Any) -> Any:
    return client.chat.completions.parse(**ASK, response_format=kind).choices[0].message.parsed


@pytest.mark.parametrize("kind", [Answer, Unserialisable])
def test_parse_gives_the_callers_object_and_warns_of_nothing(bare: Any, server: Scripted, kind: Any) -> None:
    """On a miss and on a hit, also where the object cannot be serialised and warnings are errors."""
    client = wrap(bare)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert parse(client, kind) == kind(v=3)
    assert server.count == 1


def test_parse_leaves_nothing_in_what_a_plain_call_gets(bare: Any, server: Scripted) -> None:
    """The same question asked plainly is answered as the server answered it."""
    client = wrap(bare)
    parse(client, Answer)
    sent = json.loads(server.requests[0].body)
    plain = client.chat.completions.create(**sent)
    assert server.count == 1
    assert "parsed" not in plain.choices[0].message.to_dict()


def test_a_function_that_parses_is_asked_each_time(bare: Any, server: Scripted) -> None:
    """What it returns holds the caller's objects, which nothing on the disk does."""

    @distributed_cache(adapter=openai_adapter.CHAT)
    def ask(question: str) -> Any:
        said = {**ASK, "messages": [{"role": "user", "content": question}]}
        return bare.chat.completions.parse(**said, response_format=Answer)

    with pytest.warns(UserWarning, match="no answer"):
        for _ in range(2):
            assert ask("Hello?").choices[0].message.parsed == Answer(v=3)
    assert server.count == 2


@pytest.mark.parametrize("said", [{}, {"encoding_format": "base64"}, {"encoding_format": "float"}])
def test_embeddings_come_in_the_form_that_was_asked_for(bare: Any, server: Scripted, said: Any) -> None:
    """Live and stored vectors are what the bare client gives, without a warning."""
    client = wrap(bare)
    wanted = bare.embeddings.create(model="m", input=["a", "b"], **said)
    before = server.count
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            assert client.embeddings.create(model="m", input=["a", "b"], **said) == wanted
    assert server.count == before + 1


@pytest.mark.parametrize("opened", [openai.OpenAI, groq.Groq])
def test_an_empty_answer_is_given_without_a_warning(opened: Any) -> None:
    """The bare client is silent about a 200 with `{}`, so the wrapped one is."""
    with scripted_server(shapes.json_reply({})) as server, opened(api_key="k", base_url=server.url) as bare:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert wrap(bare).chat.completions.create(**ASK) == bare.chat.completions.create(**ASK)


def test_a_raw_response_that_streams_is_the_bare_clients(bare: Any, server: Scripted) -> None:
    """`with_raw_response.create(stream=True)` goes to the server, and its `parse()` gives the chunks."""
    client = wrap(bare)
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(**ASK, stream=True)
        assert len(list(raw.parse())) > 1
    assert server.count == 2


def test_a_raw_hit_knows_how_long_it_took(bare: Any) -> None:
    """`elapsed` is there: it took no time."""
    client = wrap(bare)
    first, second = (client.chat.completions.with_raw_response.create(**ASK) for _ in range(2))
    assert first.elapsed > datetime.timedelta(0)
    assert second.elapsed == datetime.timedelta(0)
    assert second.parse() == first.parse()


def test_the_id_of_a_request_is_none_where_there_was_none(bare: Any) -> None:
    """A live answer has its id; a hit has the attribute, and nothing in it."""
    client = wrap(bare)
    live, stored = (client.chat.completions.create(**ASK) for _ in range(2))
    assert live._request_id == "req_1"
    assert stored._request_id is None
    assert stored == live


@pytest.mark.parametrize("opened", [openai.OpenAI, openai.AsyncOpenAI, groq.Groq, anthropic.Anthropic])
def test_copies_have_the_signature_of_the_sdks(opened: Callable[..., Any]) -> None:
    """`copy` and `with_options` say which options they take."""
    bare = opened(api_key="k")
    client = wrap(bare)
    assert inspect.signature(client.copy) == inspect.signature(bare.copy)
    assert inspect.signature(client.with_options) == inspect.signature(bare.with_options)


@pytest.mark.parametrize("opened", [openai.OpenAI, groq.Groq])
def test_strict_validation_stays_strict(opened: Any) -> None:
    """A client that refuses an answer of the wrong shape refuses it wrapped as well, each time."""
    odd = shapes.chat()
    odd["choices"][0]["message"]["content"] = ["no text"]
    with scripted_server(shapes.json_reply(odd)) as server:
        with opened(api_key="k", base_url=server.url, _strict_response_validation=True) as bare:
            for client in (bare, wrap(bare), wrap(bare)):
                with pytest.raises((openai.APIResponseValidationError, groq.APIResponseValidationError)):
                    client.chat.completions.create(**ASK)


def test_async_parse_and_raw_streams(server: Scripted) -> None:
    """The async client likewise."""

    async def main() -> None:
        async with openai.AsyncOpenAI(api_key="k", base_url=server.url) as bare:
            client = wrap(bare)
            for _ in range(2):
                parsed = await client.chat.completions.parse(**ASK, response_format=Unserialisable)
                assert parsed.choices[0].message.parsed == Unserialisable(v=3)
            assert server.count == 1
            raw = await client.chat.completions.with_raw_response.create(**ASK, stream=True)
            assert len([chunk async for chunk in raw.parse()]) > 1

    asyncio.run(main())


@pytest.mark.parametrize("sdk", [openai, groq, anthropic])
def test_a_stream_that_a_hook_read_before_is_kept(sdk: Any) -> None:
    """A client's hook may read the body first; the chunks come all the same, live and stored, sync and async."""
    name = {openai: "OpenAI", groq: "Groq", anthropic: "Anthropic"}[sdk]

    def read(response: Any) -> None:
        response.read()

    async def aread(response: Any) -> None:
        await response.aread()

    def said(client: Any) -> Any:
        if sdk is anthropic:
            return client.messages.create(model="m", max_tokens=9, messages=ASK["messages"], stream=True)
        return client.chat.completions.create(**ASK, stream=True)

    async def both(url: str) -> None:
        http = sdk.DefaultAsyncHttpxClient(event_hooks={"response": [aread]})
        async with getattr(sdk, f"Async{name}")(api_key="k", base_url=url, http_client=http) as bare:
            client = wrap(bare, cache_sampled=True)
            for _ in range(2):
                assert [chunk async for chunk in await said(client)]

    events = shapes.named_frames(shapes.message_events()) if sdk is anthropic else shapes.frames(shapes.chat_chunks())
    for is_async in (False, True):
        with scripted_server(shapes.stream_reply(events)) as found:
            if is_async:
                asyncio.run(both(found.url))
            else:
                http = sdk.DefaultHttpxClient(event_hooks={"response": [read]})
                with getattr(sdk, name)(api_key="k", base_url=found.url, http_client=http) as bare:
                    client = wrap(bare, cache_sampled=True)
                    for _ in range(2):
                        assert list(said(client))
            assert found.count == 1


def test_an_answer_with_a_date_hits() -> None:
    """What an SDK makes of a text, such as a date, is copied as well as the rest."""
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
    copy = cloned({"expires_at": now, "sizes": {1, 2}})
    assert copy == {"expires_at": now, "sizes": {1, 2}}
    told = shapes.message(container={"id": "c", "expires_at": "2026-01-02T00:00:00Z", "skills": None})
    with scripted_server(shapes.json_reply(told)) as found:
        with anthropic.Anthropic(api_key="k", base_url=found.url) as bare:
            client = wrap(bare, cache_sampled=True)
            said: Any = {"model": "m", "max_tokens": 9, "messages": ASK["messages"]}
            first = client.messages.create(**said)
            assert client.messages.create(**said) == first
        assert found.count == 1


def test_a_deployment_of_azure_stays() -> None:
    """The SDK's own `copy` forgets it, and with it where requests go that belong to none."""
    bare = openai.AzureOpenAI(api_key="k", azure_endpoint="http://a.example", azure_deployment="d", api_version="1")
    for client in (bare, wrap(bare)):
        request = client._build_request(openai._models.FinalRequestOptions.construct(method="get", url="/models"))
        assert str(request.url) == "http://a.example/openai/models?api-version=1"
