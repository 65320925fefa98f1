"""A batch over plain HTTP: the request for what is missing, the shares of each text, the response to the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from cachekit import Reply
from cachekit_adapters._wire import items
from cachekit_adapters._wire.batches import Form, Outcome
from cachekit_adapters._wire.native import JSON, Native, Told, opened, plain
from cachekit_adapters._wire.operation import dumped
from cachekit_adapters.http.values import Asked, Came, kept_headers, kind_of, settled

_COUNT: Final = "x-compute-tokens"
_REWRITTEN: Final = frozenset({"content-length", "transfer-encoding"})


class Sending:
    """One divisible request, and what the server said last."""

    def __init__(self, native: Native, asked: Asked) -> None:
        self._native, self._asked, self._last = native, asked, None

    def request(self, body: object) -> Any:
        """The client's own request where it asks for just this, else one like it."""
        own = self._asked.request
        if body == self._asked.body:
            return own
        headers = [(name, text) for name, text in own.headers.multi_items() if name.lower() not in _REWRITTEN]
        made = self._asked.library.Request
        return made(own.method, own.url, headers=headers, content=dumped(body), extensions=own.extensions)

    def taken(self, came: Came) -> object:
        """The JSON of a response; None where it has none."""
        self._last = came.response
        if kind_of(came.response) != JSON:
            return None
        try:
            return orjson.loads(came.response.content)
        except ValueError:
            return None

    def form(self) -> Form:
        return Form(self._replies, lambda reply: orjson.loads(opened(reply.body)[1]), self.taken)

    def response(self, outcome: Outcome) -> Any:
        """The server's own response to the whole, or one with what was merged."""
        if outcome.replies is None:
            return self._last
        counts = [opened(reply.body)[0].headers.get(_COUNT) for reply in outcome.replies]
        headers = {"content-type": JSON}
        if None not in counts:
            headers[_COUNT] = str(sum(int(count) for count in counts if count is not None))
        content, made = _dumped(outcome.body), self._asked.library.Response
        found = made(200, headers=headers, content=content, request=self._asked.request)
        return settled(found)

    def _replies(self, requests: Sequence[object], answers: Sequence[object]) -> list[Reply]:
        told = kept_headers(self._last)
        counted = _COUNT in told and told[_COUNT].isdecimal()
        shares = items.share(int(told[_COUNT]), requests) if counted else [0] * len(requests)
        return [
            plain(self._native, self._told(request, answer, {_COUNT: str(share)} if counted else {}))
            for request, answer, share in zip(requests, answers, shares, strict=True)
        ]

    def _told(self, request: object, answer: object, headers: dict[str, str]) -> Told:
        return Told(self._asked.path, request, _dumped(answer), JSON, headers, self._asked.about)


def _dumped(body: object) -> bytes:
    """As `dumped`, ten times as fast: vectors are long."""
    try:
        return orjson.dumps(body)
    except TypeError:  # a number or a text that it refuses
        return dumped(body)
