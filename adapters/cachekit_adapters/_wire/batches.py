"""Requests that ask for several things: each is looked up alone, one request asks for what is missing, all are merged.

The wire modules know how a request is divided (`items`, `tei`); here is only who is asked for what.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from cachekit import Answers, Do, Reply
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
    is_async: bool = False,
) -> Flow:
    """A flow: the Outcome of a `request` that `wire` divides, from what is stored and one `send(body)` for the rest.

    `place` is the identity without "body". Nothing is sent where all is stored, or under way; `send` gives an awaitable
    where `is_async`, and what it raises passes untouched. `scope` names the endpoint for its rate limit.
    """
    every = wire.split(path, request)
    assert every is not None
    division = _Division(wire, path, request, send, form or openai_form(), every)
    identities = [{**place, "body": every[at]} for at in division.distinct]
    ask = functools.partial(answers.parts, identities, division, scope=scope, is_async=is_async)
    yield from ask()
    merged = division.live if division.undivided else (yield Do(division.merged))
    if merged is None:
        # The answers do not fit together, or the reply was no answer to the part: the server is asked for the whole.
        division.undivided = True
        yield from ask(again=True)
        return division.live
    return merged


class _Division:
    """A Batch: the items of one divisible request, equal ones once, at their places in `distinct`.

    `found`: by an item's name, the Reply and the answer; `live`: what the server said last, to all where `undivided`.
    """

    def __init__(
        self,
        wire: BatchWire,
        path: str,
        request: object,
        send: Callable[[object], Any],
        form: Form,
        every: Sequence[object],
    ) -> None:
        self.wire, self.path, self.request, self.send, self.form, self.items = wire, path, request, send, form, every
        self.names: Sequence[Hashable] = [items.identity(item) for item in every]
        self.distinct = items.distinct(every, range(len(every)))
        self.found: dict[Hashable, tuple[Reply, object]] = {}
        self.live: Outcome | None = None
        self.undivided = False

    def known(self, at: int, value: Any) -> bool:
        try:
            self.found[self.names[self.distinct[at]]] = (value, self.form.opened(value))
        except (ValueError, TypeError, KeyError):
            return False  # kept by a version that kept it otherwise: a miss
        return True

    def ask(self, places: Sequence[int]) -> Any:
        part = self.wire.ask(self.path, self.request, [self.distinct[at] for at in places])
        self.undivided = self.undivided or part == self.request
        return self.send(self.request if self.undivided else part)

    def learn(self, places: Sequence[int], answer: Any) -> Mapping[int, Reply]:
        body, asked = self.form.read(answer), [self.distinct[at] for at in places]
        self.live = Outcome(body)
        try:
            answers = self.wire.take(self.path, self.request, asked, body)
        except (ValueError, AssertionError):
            return {}
        replies = self.form.replies([self.items[at] for at in asked], answers)
        for at, reply, its in zip(asked, replies, answers, strict=True):
            self.found[self.names[at]] = (reply, its)
        return dict(zip(places, replies, strict=True))

    def merged(self) -> Outcome | None:
        """The whole of what is known, None where the answers do not fit together or one is missing."""
        try:
            replies, answers = zip(*(self.found[name] for name in self.names), strict=True)
            return Outcome(self.wire.merge(self.path, self.request, answers), replies)
        except (KeyError, ValueError):
            return None
