"""A batch over plain HTTP: the request for what is missing, the shares of each text, the response to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from cachekit import Reply
from cachekit_adapters._wire import items
from cachekit_adapters._wire.batches import Form, Outcome
from cachekit_adapters._wire.bodies import library_of
from cachekit_adapters._wire.exchange import JSON, ClientAnswer, ClientRequest, Exchange, dumped, opened
from cachekit_adapters._wire.operation import Operation
from cachekit_adapters.http.values import kept_headers, kind_of, settled

_COUNT: Final = "x-compute-tokens"
_REWRITTEN: Final = frozenset({"content-length", "transfer-encoding"})


class Sending:
    """One divisible request, and what the server said last."""

    def __init__(self, operation: Operation, request: ClientRequest) -> None:
        self._operation, self._request, self._last = operation, request, None

    def request(self, body: object) -> Any:
        """The client's own request where it asks for just this, else one like it."""
        own = self._request.sent
        if body == self._request.body:
            return own
        headers = [(name, text) for name, text in own.headers.multi_items() if name.lower() not in _REWRITTEN]
        return library_of(own).Request(
            own.method, own.url, headers=headers, content=dumped(body), extensions=own.extensions
        )

    def read(self, answer: ClientAnswer) -> object:
        """The JSON of a response; None where it has none."""
        self._last = answer.value
        if kind_of(answer.value) != JSON:
            return None
        try:
            return orjson.loads(answer.value.content)
        except ValueError:
            return None

    def form(self) -> Form:
        return Form(self._replies, lambda reply: orjson.loads(opened(reply.body)[1]), self.read)

    def response(self, outcome: Outcome) -> Any:
        """The server's own response to the whole, or one with what was merged."""
        if outcome.replies is None:
            return self._last
        counts = [opened(reply.body)[0].headers.get(_COUNT) for reply in outcome.replies]
        headers = {"content-type": JSON}
        if None not in counts:
            headers[_COUNT] = str(sum(int(count) for count in counts if count is not None))
        sent, content = self._request.sent, _dumped(outcome.body)
        return settled(library_of(sent).Response(200, headers=headers, content=content, request=sent))

    def _replies(self, bodies: Sequence[object], answers: Sequence[object]) -> list[Reply]:
        """The Reply of each item: its answer, and its share of the tokens that the server counted."""
        count = kept_headers(self._last).get(_COUNT, "")
        if not count.isdecimal():
            return [self._reply(body, answer, {}) for body, answer in zip(bodies, answers, strict=True)]
        shares = items.share(int(count), bodies)
        return [
            self._reply(body, answer, {_COUNT: str(share)})
            for body, answer, share in zip(bodies, answers, shares, strict=True)
        ]

    def _reply(self, body: object, answer: object, headers: dict[str, str]) -> Reply:
        path, about = self._request.path, self._request.about
        return self._operation.reply(Exchange(path, body, _dumped(answer), JSON, headers, about, answer))


def _dumped(body: object) -> bytes:
    """As `dumped`, ten times as fast: vectors are long."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a number or a text that it refuses
        return dumped(body)
