"""Plain HTTP clients, httpx and httpx2: what they POST to the routes of one operation is cached.

    client = wrap(httpx.Client(base_url="http://localhost:8080"), adapter=tei.EMBED)

A request goes out as the client would send it, and a response comes back of the client's own class. Only a 200 is kept;
any other goes to the caller as it came. A hit makes no request, so the client's hooks and its auth do not see one.
"""

from __future__ import annotations

import copy
import functools
import importlib
from typing import Any, Final

from cachekit import Adapter, Answers, UsageError, Wanted
from cachekit_adapters._wire.batches import adivided, divided
from cachekit_adapters._wire.native import EVENTS, Native
from cachekit_adapters._wire.versions import Versions
from cachekit_adapters.http.batches import Sending
from cachekit_adapters.http.questions import Question, question_of, versioned
from cachekit_adapters.http.values import HTTP, Came, again, kind_of, library_of

__all__ = ["HTTP", "wrap"]

_HOMES: Final = frozenset({"tei", "tgi", "opea"})


def wrap(client: Any, *, adapter: Adapter | None = None, **said: Any) -> Any:
    """A copy of an httpx or httpx2 client whose POSTs to the adapter's routes are cached.

    `version="server"` asks the server's `/info` which model it has, at most once a minute, and caches nothing where it
    does not say. Other `said` are keywords of `distributed_cache`. Raises UsageError for another kind of client, or
    without an adapter that says what it is used for.
    """
    native, library = _native(adapter), library_of(client)
    if adapter is None or library is None:
        raise UsageError(f"wrap() of plain HTTP knows clients of httpx and httpx2, not {type(client).__qualname__}")
    versions = _versions(native, said)
    found = copy.copy(client)
    door = Door(found, native, Answers(adapter, **said), versions)
    found.send = door.asend if door.is_async else door.send
    return found


def _native(adapter: Adapter | None) -> Native:
    home = "" if adapter is None else adapter.name.partition(".")[0]
    operations = importlib.import_module(f"cachekit_adapters.{home}").OPERATIONS if home in _HOMES else {}
    native = None if adapter is None else operations.get(adapter.name)
    if not isinstance(native, Native):
        raise UsageError(
            "a plain HTTP client does not say what it is used for: pass adapter=, one of tei.EMBED, tei.PREDICT, "
            "tei.RERANK, tei.SIMILARITY, tgi.GENERATE, opea.CHAT, opea.TEXT, opea.EMBEDDINGS, opea.RERANKING"
        )
    return native


def _versions(native: Native, said: dict[str, Any]) -> Versions | None:
    if said.get("version") != "server":
        return None
    del said["version"]
    if native.server is None:
        raise UsageError(f'version="server": {native.name}\'s servers do not tell which model they have; name one')
    return Versions(native.server, f"cachekit_adapters.{native.name}")


class Door:
    """The `send` of a wrapped client."""

    def __init__(self, client: Any, native: Native, answers: Answers, versions: Versions | None) -> None:
        self.native, self.answers, self.versions = native, answers, versions
        self.library = importlib.import_module(str(library_of(client)))
        self.real, self.build, self.base = client.send, client.build_request, client.base_url.path
        self.is_async = hasattr(client, "aclose")

    def send(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
        question = self.question(request)
        if question is not None and self.versions is not None:
            version = self.versions.of(question.server + self.versions.path, self._get)
            question = None if version is None else versioned(question, version)
        if question is None:
            return self.real(request, stream=stream, **how)
        try:
            response = self._answered(question, functools.partial(self._ask, question, stream, how))
        except _refused(self.library) as refused:
            return again(refused.response, question.asked, whole=not stream)
        if stream and response.is_closed:
            return again(response, question.asked, whole=False)
        if not stream:
            _read(response)
        return response

    async def asend(self, request: Any, *, stream: bool = False, **how: Any) -> Any:
        question = self.question(request)
        if question is not None and self.versions is not None:
            version = await self.versions.aof(question.server + self.versions.path, self._get)
            question = None if version is None else versioned(question, version)
        if question is None:
            return await self.real(request, stream=stream, **how)
        try:
            response = await self._aanswered(question, functools.partial(self._aask, question, stream, how))
        except _refused(self.library) as refused:
            return again(refused.response, question.asked, whole=not stream)
        if stream and response.is_closed:
            return again(response, question.asked, whole=False)
        if not stream:
            await _aread(response)
        return response

    def question(self, request: Any) -> Question | None:
        return question_of(self.native, request, self.base, self.library, is_async=self.is_async)

    def _get(self, url: str) -> Any:
        return self.real(self.build("GET", url))

    def _answered(self, question: Question, ask: Any) -> Any:
        asked = question.asked
        if not question.divisible:
            value = self.answers.call(question.identity, lambda: ask(asked.request), self._wanted(question))
            return value.response if isinstance(value, Came) else value
        sending = Sending(self.native, asked)
        outcome = divided(
            *(self.answers, question.identity, self.native.parts, asked.path, asked.body),
            lambda body: sending.taken(ask(sending.request(body))),
            form=sending.form(),
            scope=question.scope,
        )
        return sending.response(outcome)

    async def _aanswered(self, question: Question, ask: Any) -> Any:
        asked = question.asked
        if not question.divisible:
            value = await self.answers.call(
                question.identity, lambda: ask(asked.request), self._wanted(question)._replace(is_async=True)
            )
            return value.response if isinstance(value, Came) else value
        sending = Sending(self.native, asked)

        async def send(body: object) -> object:
            return sending.taken(await ask(sending.request(body)))

        outcome = await adivided(
            *(self.answers, question.identity, self.native.parts, asked.path, asked.body),
            send,
            form=sending.form(),
            scope=question.scope,
        )
        return sending.response(outcome)

    def _wanted(self, question: Question) -> Wanted:
        asked = question.asked
        streamed, sampled = self.native.streams(asked.path, asked.body), self.native.sampled(asked.path, asked.body)
        return Wanted(streamed, asked, question.scope, sampled)

    def _ask(self, question: Question, stream: bool, how: dict[str, Any], request: Any) -> Came:
        asked = question.asked
        expected = self.native.streams(asked.path, asked.body)
        response = self.real(request, stream=stream or expected, **how)
        if response.status_code != 200:
            _read(response)
            raise _refused(self.library)("not a 200", request=response.request, response=response)
        # A stream where none was expected goes on to who asked; anything else is wanted whole.
        if not expected and kind_of(response) != EVENTS:
            _read(response)
        return Came(response, asked)

    async def _aask(self, question: Question, stream: bool, how: dict[str, Any], request: Any) -> Came:
        asked = question.asked
        expected = self.native.streams(asked.path, asked.body)
        response = await self.real(request, stream=stream or expected, **how)
        if response.status_code != 200:
            await _aread(response)
            raise _refused(self.library)("not a 200", request=response.request, response=response)
        if not expected and kind_of(response) != EVENTS:
            await _aread(response)
        return Came(response, asked)


@functools.cache
def _refused(library: Any) -> Any:
    """What carries a response that is no 200 through the engine, which reads Retry-After from it; never raised outside."""
    return type("Refused", (library.HTTPStatusError,), {})


def _read(response: Any) -> None:
    try:
        response.read()
    except BaseException:
        response.close()
        raise


async def _aread(response: Any) -> None:
    try:
        await response.aread()
    except BaseException:
        await response.aclose()
        raise
