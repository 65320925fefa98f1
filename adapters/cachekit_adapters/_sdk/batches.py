"""Embeddings of several texts through an SDK: each text is an entry of its own, and only the missing ones are sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cachekit import Answers, Reply
from cachekit_adapters._sdk.values import RAW, Door, headers_of, plain
from cachekit_adapters._wire import batches, items
from cachekit_adapters._wire.operation import dumped


def divides(answers: Answers, said: Mapping[str, Any], door: Door) -> bool:
    """Whether a request asks for several things that can be had one by one. A raw response is wanted whole."""
    if not answers.adapter.name.endswith(".embedding") or RAW in headers_of(door.options):
        return False
    return items.split(str(said["path"]), said["body"]) is not None


def answer(answers: Answers, said: Mapping[str, Any], door: Door, real: Callable[..., Any], scope: str) -> Any:
    """The SDK's value of the whole answer; `real` asks the server for the part that is missing."""

    def send(body: Any) -> Any:
        return plain(real(door.cast_to, _part(door, body), stream=False, stream_cls=None))

    path, place = _divided(said)
    form = batches.openai_form(_provider(answers))
    found = batches.divided(answers, place, items, path, said["body"], send, form=form, scope=scope)
    return _whole(answers, found.body, door)


async def aanswer(
    answers: Answers, said: Mapping[str, Any], door: Door, real: Callable[..., Awaitable[Any]], scope: str
) -> Any:
    async def send(body: Any) -> Any:
        return plain(await real(door.cast_to, _part(door, body), stream=False, stream_cls=None))

    path, place = _divided(said)
    form = batches.openai_form(_provider(answers))
    found = await batches.adivided(answers, place, items, path, said["body"], send, form=form, scope=scope)
    return _whole(answers, found.body, door)


def _divided(said: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(said["path"]), {name: value for name, value in said.items() if name != "body"}


def _part(door: Door, body: Mapping[str, Any]) -> Any:
    """The request as it was, asking for less: what is neutral for the key still goes to the server."""
    return door.options.model_copy(update={"json_data": {**door.options.json_data, "input": body["input"]}})


def _provider(answers: Answers) -> str:
    return answers.adapter.name.partition(".")[0]


def _whole(answers: Answers, body: Any, door: Door) -> Any:
    return answers.adapter.restore(Reply("plain", dumped(body)), False, door)
