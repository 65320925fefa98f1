"""Embeddings of several texts through an SDK: each text is an entry of its own, and only the missing ones are sent."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from cachekit import Answers, Reply
from cachekit_adapters._sdk.answered import Answered, answering
from cachekit_adapters._sdk.values import RAW, SdkRequest, headers_of, is_async_client, plain
from cachekit_adapters._wire import batches, items
from cachekit_adapters._wire.exchange import dumped
from cachekit_adapters._wire.flows import Flow


def divides(answers: Answers, identity: Mapping[str, Any], request: SdkRequest) -> bool:
    """Whether a request asks for several things that can be had one by one. A raw response is wanted whole."""
    if not answers.adapter.name.endswith(".embedding") or RAW in headers_of(request.options):
        return False
    return items.split(str(identity["path"]), identity["body"]) is not None


def answer(
    answers: Answers, identity: Mapping[str, Any], request: SdkRequest, real: Callable[..., Any], scope: str
) -> Flow:
    """A flow: the SDK's value of the whole answer; `real` asks the server for the part that is missing."""

    last: list[Any] = []

    def read(answer: Any) -> Any:
        last[:] = [answer]
        return plain(answer)

    def send(body: Any) -> Any:
        return asked(request.cast_to, _part(request, body))

    is_async = is_async_client(request.client)
    asked = answering(functools.partial(real, stream=False, stream_cls=None), is_async=is_async)
    place = {name: value for name, value in identity.items() if name != "body"}
    form = batches.openai_form(answers.adapter.name.partition(".")[0], read)
    path, body = str(identity["path"]), identity["body"]
    outcome = yield from batches.divided(
        answers, place, items, path, body, send, form=form, scope=scope, is_async=is_async
    )
    if outcome.replies is None:
        return last[0].value if type(last[0]) is Answered else last[0]
    return answers.adapter.restore(Reply("plain", dumped(outcome.body)), False, request)


def _part(request: SdkRequest, body: Mapping[str, Any]) -> Any:
    """The options as they were, asking for less: what is neutral for the key still goes to the server."""
    return request.options.model_copy(update={"json_data": {**request.options.json_data, "input": body["input"]}})
