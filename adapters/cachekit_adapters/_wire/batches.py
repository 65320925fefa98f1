"""Requests that ask for several things: each is looked up alone, one request asks for what is missing, all are merged.

The wire modules know how a request is divided (`items`, `tei_wire`); here is only who is asked for what.
"""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Generator, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cachekit import MISS, Answers, Reply, driven
from cachekit_adapters._wire import items, openai
from cachekit_adapters._wire.operation import dumped, saving


class Parts(Protocol):
    """What a wire module knows of batches."""

    def split(self, path: str, request: object, /) -> items.Batch | None: ...
    def ask(self, path: str, request: object, wanted: Sequence[int], /) -> object: ...
    def take(self, path: str, request: object, wanted: Sequence[int], body: object, /) -> list[object]: ...
    def merge(self, path: str, request: object, answers: Sequence[object], /) -> object: ...


class Form(NamedTuple):
    """How an item is kept. `replies(requests, answers)` makes a Reply of each answer, `opened` an answer of a Reply."""

    replies: Callable[[Sequence[object], Sequence[object]], Sequence[Reply]]
    opened: Callable[[Reply], object]


class Outcome(NamedTuple):
    """The reply to the whole. `live` where it is what the server said to this very request; `replies`, each item's."""

    body: object
    live: bool
    replies: Sequence[Reply]


def openai_form(provider: str = "") -> Form:
    """Items of an OpenAI-shaped `/embeddings`, kept as their JSON; each has its share of `usage` in it."""

    def replies(_requests: Sequence[object], answers: Sequence[object]) -> Sequence[Reply]:
        return [_openai_reply(answer, provider) for answer in answers]

    return Form(replies, lambda reply: json.loads(reply.body))


def _openai_reply(answer: object, provider: str) -> Reply:
    about = openai.about(answer)
    cost = saving(openai.usage(answer), about.get("model", ""), provider)
    return Reply("plain", dumped(answer), about, cost)


def divided(
    answers: Answers,
    place: Mapping[str, Any],
    wire: Parts,
    path: str,
    request: object,
    send: Callable[[object], object],
    *,
    form: Form | None = None,
    scope: str = "",
) -> Outcome:
    """The reply to a `request` that `wire` divides, from what is stored and from one `send(body)` that asks for the rest.

    `place` is the identity without "body". Nothing is sent where all is stored. What `send` raises passes untouched.
    `scope` names the endpoint for its rate limit.
    """
    steps = _Batch(answers, place, wire, path, request, form or openai_form()).steps()
    body: object = None
    while True:
        try:
            asked = steps.send(body)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        body = driven(answers.heeding(functools.partial(send, asked), scope), is_async=False)


async def adivided(
    answers: Answers,
    place: Mapping[str, Any],
    wire: Parts,
    path: str,
    request: object,
    send: Callable[[object], Awaitable[object]],
    *,
    form: Form | None = None,
    scope: str = "",
) -> Outcome:
    steps = _Batch(answers, place, wire, path, request, form or openai_form()).steps()
    body: object = None
    while True:
        # Tiers block: they are asked in a thread.
        ended, found = await asyncio.to_thread(_advance, steps, body)
        if ended:
            return found  # type: ignore[no-any-return]
        body = await driven(answers.heeding(functools.partial(send, found), scope), is_async=True)


def _advance(steps: Generator[object, object, Outcome], body: object) -> tuple[bool, Any]:
    try:
        return False, steps.send(body)
    except StopIteration as end:
        return True, end.value


class _Batch:
    """One divisible request. `steps` yields the bodies to be sent, and gets the reply to each."""

    def __init__(
        self, answers: Answers, place: Mapping[str, Any], wire: Parts, path: str, request: object, form: Form
    ) -> None:
        batch = wire.split(path, request)
        assert batch is not None
        self.answers, self.place, self.wire, self.path, self.request = answers, place, wire, path, request
        self.form, self.items = form, batch.items
        self.names: list[Hashable] = [items.identity(item) for item in self.items]
        self.found: dict[Hashable, tuple[Reply, object]] = {}

    def steps(self) -> Generator[object, object, Outcome]:
        missing = self._missing()
        body: object = None
        if missing:
            asked = self.wire.ask(self.path, self.request, missing)
            everything = asked == self.request
            started, begin = time.time_ns(), time.perf_counter()
            body = yield asked
            learned = self._learn(missing, body, started, time.perf_counter() - begin)
            if everything:
                return Outcome(body, True, self._replies() if learned else ())
        merged = self._merged()
        if merged is not None:
            return merged
        # The answers do not fit together, or the reply was no answer to the part: the server is asked for the whole.
        started, begin = time.time_ns(), time.perf_counter()
        body = yield self.request
        learned = self._learn(range(len(self.items)), body, started, time.perf_counter() - begin)
        return Outcome(body, True, self._replies() if learned else ())

    def _missing(self) -> list[int]:
        missing: list[int] = []
        for at in items.distinct(self.items, range(len(self.items))):
            reply = self.answers.stored(self._identity(at))
            try:
                if reply is not MISS:
                    self.found[self.names[at]] = (reply, self.form.opened(reply))
                    continue
            except (ValueError, TypeError, KeyError):
                pass  # kept by a version that kept it otherwise: a miss
            missing.append(at)
        return missing

    def _learn(self, wanted: Sequence[int], body: object, started: int, seconds: float) -> bool:
        """Keeps what `body` says to the items `wanted`; False where it does not fit them."""
        asked = items.distinct(self.items, wanted)
        try:
            told = self.wire.take(self.path, self.request, asked, body)
        except (ValueError, AssertionError):
            return False
        replies = self.form.replies([self.items[at] for at in asked], told)
        for at, reply, answer in zip(asked, replies, told, strict=True):
            self.answers.keep(self._identity(at), reply, started, seconds / len(asked))
            self.found[self.names[at]] = (reply, answer)
        return True

    def _merged(self) -> Outcome | None:
        try:
            told = [self.found[name][1] for name in self.names]
            return Outcome(self.wire.merge(self.path, self.request, told), False, self._replies())
        except (KeyError, ValueError):
            return None

    def _replies(self) -> list[Reply]:
        return [self.found[name][0] for name in self.names]

    def _identity(self, at: int) -> dict[str, Any]:
        return {**self.place, "body": self.items[at]}
