"""Requests that ask for several things: each is looked up alone, one request asks for what is missing, all are merged.

The wire modules know how a request is divided (`items`, `tei`); here is only who is asked for what.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cachekit import MISS, Answers, Do, Reply
from cachekit_adapters._wire import items, openai
from cachekit_adapters._wire.exchange import dumped
from cachekit_adapters._wire.flows import Flow
from cachekit_adapters._wire.prices import saving


class BatchWire(Protocol):
    """What a wire module knows of batches."""

    def split(self, path: str, request: object, /) -> list[object] | None: ...
    def ask(self, path: str, request: object, places: Sequence[int], /) -> object: ...
    def take(self, path: str, request: object, places: Sequence[int], body: object, /) -> list[object]: ...
    def merge(self, path: str, request: object, answers: Sequence[object], /) -> object: ...


class Form(NamedTuple):
    """How an item is kept. `replies(requests, answers)` makes a Reply of each answer, `opened` an answer of a Reply;
    `read` gives the JSON of what was sent for, None where it has none.
    """

    replies: Callable[[Sequence[object], Sequence[object]], Sequence[Reply]]
    opened: Callable[[Reply], object]
    read: Callable[[Any], object] = lambda body: body


class Outcome(NamedTuple):
    """The reply to the whole, and each item's; None where it is what the server said to this very request."""

    body: object
    replies: Sequence[Reply] | None = None


def openai_form(provider: str = "", read: Callable[[Any], object] = lambda body: body) -> Form:
    """Items of an OpenAI-shaped `/embeddings`, kept as their JSON; each has its share of `usage` in it."""

    def replies(_requests: Sequence[object], answers: Sequence[object]) -> Sequence[Reply]:
        return [_openai_reply(answer, provider) for answer in answers]

    return Form(replies, lambda reply: json.loads(reply.body), read)


def _openai_reply(answer: object, provider: str) -> Reply:
    about = openai.about(answer)
    cost = saving(openai.usage(answer), about.get("model", ""), provider)
    return Reply("plain", dumped(answer), about, cost)


def divided(
    answers: Answers,
    place: Mapping[str, Any],
    wire: BatchWire,
    path: str,
    request: object,
    send: Callable[[object], Any],
    *,
    form: Form | None = None,
    scope: str = "",
) -> Flow:
    """A flow: the Outcome of a `request` that `wire` divides, from what is stored and one `send(body)` for the rest.

    `place` is the identity without "body". Nothing is sent where all is stored. What `send` raises passes untouched.
    `scope` names the endpoint for its rate limit.
    """
    parts = wire.split(path, request)
    assert parts is not None
    names = [items.identity(item) for item in parts]
    division = _Division(answers, place, wire, path, request, form or openai_form(), parts, names)
    return division.outcome(send, scope)


@dataclass
class _Division:
    """One divisible request, its items and their names, equal ones' equal; by name, the Reply and answer that are known."""

    answers: Answers
    place: Mapping[str, Any]
    wire: BatchWire
    path: str
    request: object
    form: Form
    items: Sequence[object]
    names: Sequence[Hashable]
    known: dict[Hashable, tuple[Reply, object]] = field(default_factory=dict)

    def outcome(self, send: Callable[[object], Any], scope: str) -> Flow:
        missing = yield Do(self._missing)
        if missing:
            part = self.wire.ask(self.path, self.request, missing)
            live = yield from self._sent(part, missing, send, scope)
            if part == self.request:
                return live
        merged = yield Do(self._merged)
        if merged is not None:
            return merged
        # The answers do not fit together, or the reply was no answer to the part: the server is asked for the whole.
        return (yield from self._sent(self.request, range(len(self.items)), send, scope))

    def _sent(self, part: object, places: Sequence[int], send: Callable[[object], Any], scope: str) -> Flow:
        """The Outcome of asking for `part`, the body of the items at `places`; what it says to each is kept."""
        started, begin = time.time_ns(), time.perf_counter()
        answer = yield from self.answers.heeding(functools.partial(send, part), scope)
        body, seconds = self.form.read(answer), time.perf_counter() - begin
        yield Do(functools.partial(self._learn, places, body, started, seconds))
        return Outcome(body)

    def _missing(self) -> list[int]:
        """Where the items stand that nobody knows, equal ones once."""
        missing: list[int] = []
        for at in items.distinct(self.items, range(len(self.items))):
            reply = self.answers.stored(self._identity(at))
            try:
                if reply is not MISS:
                    self.known[self.names[at]] = (reply, self.form.opened(reply))
                    continue
            except (ValueError, TypeError, KeyError):
                pass  # kept by a version that kept it otherwise: a miss
            missing.append(at)
        return missing

    def _learn(self, places: Sequence[int], body: object, started: int, seconds: float) -> bool:
        """Keeps what `body` says to the items at `places`; False where it does not fit them."""
        places = items.distinct(self.items, places)
        try:
            answers = self.wire.take(self.path, self.request, places, body)
        except (ValueError, AssertionError):
            return False
        replies = self.form.replies([self.items[at] for at in places], answers)
        for at, reply, answer in zip(places, replies, answers, strict=True):
            self.answers.keep(self._identity(at), reply, started, seconds / len(places))
            self.known[self.names[at]] = (reply, answer)
        return True

    def _merged(self) -> Outcome | None:
        """The whole of what is known, None where the answers do not fit together or one is missing."""
        try:
            replies, answers = zip(*(self.known[name] for name in self.names), strict=True)
            return Outcome(self.wire.merge(self.path, self.request, answers), replies)
        except (KeyError, ValueError):
            return None

    def _identity(self, at: int) -> dict[str, Any]:
        return {**self.place, "body": self.items[at]}
