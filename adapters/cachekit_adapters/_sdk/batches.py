"""Embeddings of several texts through an SDK: each text is an entry of its own, and only the missing ones are sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cachekit import Answers, Reply
from cachekit_adapters._sdk.values import RAW, SdkRequest, headers_of, plain
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

    def send(body: Any) -> Any:
        return real(request.cast_to, _part(request, body), stream=False, stream_cls=None)

    place = {name: value for name, value in identity.items() if name != "body"}
    form = batches.openai_form(answers.adapter.name.partition(".")[0], plain)
    path, body = str(identity["path"]), identity["body"]
    outcome = yield from batches.divided(answers, place, items, path, body, send, form=form, scope=scope)
    return answers.adapter.restore(Reply("plain", dumped(outcome.body)), False, request)


def _part(request: SdkRequest, body: Mapping[str, Any]) -> Any:
    """The options as they were, asking for less: what is neutral for the key still goes to the server."""
    return request.options.model_copy(update={"json_data": {**request.options.json_data, "input": body["input"]}})
