"""For tests of what others build on cachekit: whether an adapter keeps what it promises."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from cachekit.cache.default import configure, stats
from cachekit.calls.decorators import distributed_cache
from cachekit.model import MISS, Adapter, Reply

Same = Callable[[Any, Any], bool]
_DECIDING: Final = frozenset(
    {
        *("input", "inputs", "max_tokens", "messages", "model", "prompt", "query", "response_format", "seed", "stop"),
        *("system", "temperature", "text", "tool_choice", "tools", "top_k", "top_p"),
    }
)
_EMPTY: Final[Mapping[str, Any]] = {}
_IMMUTABLE: Final = (str, bytes, int, float, complex, tuple, frozenset, type(None))


def check_adapter(
    adapter: Adapter,
    ask: Callable[[], Any],
    *,
    arguments: Mapping[str, Any] = _EMPTY,
    useless: Iterable[Callable[[], Any]] = (),
    secrets: Iterable[str] = (),
    same: Same | None = None,
) -> None:
    """Tries an adapter on real answers of its SDK, in an empty cache of its own that is removed at the end.

    Args:
        ask: gives an answer worth keeping, a fresh one each time: the SDK's own value, or a stream of it.
        arguments: of the call that this answer belongs to, by name; those in `adapter.neutral` need not be among them.
        useless: each gives an answer that must not be kept: cut off, refused, failed.
        secrets: texts that no stored answer may contain, such as the API key that was used.
        same: whether two answers (of a stream: the lists of their chunks) are the same; equal, and of one type, if None.

    Raises AssertionError with one sentence about the first promise that is broken.
    """
    same = _equal if same is None else same
    _check_names(adapter)
    secrets = tuple(secrets)
    _require(not any(secret in adapter.name for secret in secrets), "the name, which stands in keys, holds a secret")
    _check_sampled(adapter, arguments)
    answer = ask()
    if adapter.streams(answer):
        _check_stream(adapter, ask, same, secrets)
    else:
        _check_plain(adapter, ask, answer, same, secrets)
    _check_calls(adapter, ask, dict(arguments), same)
    for number, wrong in enumerate(useless):
        _check_useless(adapter, wrong, number)


def _require(holds: object, sentence: str) -> None:
    if not holds:
        raise AssertionError(sentence)


def _equal(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _check_names(adapter: Adapter) -> None:
    vendor, _, operation = adapter.name.partition(".")
    _require(vendor and operation, f"name {adapter.name!r} is not of the form 'vendor.operation'")
    wrong = [name for name in adapter.neutral if not isinstance(name, str) or not name.isidentifier()]
    _require(not wrong, f"neutral has {wrong!r}, which no argument can be called")
    deciding = sorted(adapter.neutral & _DECIDING)
    _require(not deciding, f"neutral has {deciding!r}, which change the answer: two questions would share one")


def _check_sampled(adapter: Adapter, arguments: Mapping[str, Any]) -> None:
    before = copy.deepcopy(dict(arguments))
    _require(isinstance(adapter.sampled(arguments), bool), "sampled() answers another thing than True or False")
    _require(dict(arguments) == before, "sampled() changes the arguments that it looks at")


def _check_plain(adapter: Adapter, ask: Callable[[], Any], answer: Any, same: Same, secrets: Iterable[str]) -> None:
    reply = adapter.capture(answer)
    _require(isinstance(reply, Reply), "capture() does not take an answer that is worth keeping for one")
    assert reply is not None
    _require(reply.kind == "plain", "capture() gives a stream's Reply for a value that streams() says is none")
    _require(same(answer, ask()), "the answer after capture() is another one than a fresh one: capture() changes it")
    again = adapter.capture(ask())
    _require(again is not None and again.body == reply.body, "capture() gives other bytes for the same answer")
    _check_reply(adapter, reply, secrets)
    restored, twice = (adapter.restore(reply, False, None) for _ in range(2))
    _require(
        type(restored) is type(answer), f"restore() gives a {type(restored).__name__}, the SDK {type(answer).__name__}"
    )
    _require(same(restored, answer), "restore(capture(answer)) is another answer")
    shared = restored is twice and not isinstance(restored, _IMMUTABLE)
    _require(not shared, "restore() gives two callers one object: what one changes the other sees")


def _check_stream(adapter: Adapter, ask: Callable[[], Any], same: Same, secrets: Iterable[str]) -> None:
    _require(adapter.finish is not None, "streams() says yes, and there is no finish() to make a Reply of it")
    assert adapter.finish is not None
    wire = ask()
    body = b"".join(adapter.source(wire))
    reply = adapter.finish(adapter.head(wire) + body)
    _require(reply.kind == "stream", "finish() gives a Reply that is no stream's")
    _check_reply(adapter, reply, secrets)
    told = list(adapter.restore(reply, True, None))
    _require(same(told, list(ask())), "restore() of a stream gives other chunks than the SDK")


def _check_reply(adapter: Adapter, reply: Reply, secrets: Iterable[str]) -> None:
    verdict = adapter.judge(reply)
    _require(isinstance(verdict, str), "judge() answers another thing than a word")
    _require(verdict == "", f"judge() calls an answer that is worth keeping {verdict!r}")
    texts = [reply.body.decode("utf-8", "replace"), *map(str, reply.about), *map(str, reply.about.values())]
    _require(not any(secret in text for secret in secrets for text in texts), "the Reply holds a secret")


def _check_calls(adapter: Adapter, ask: Callable[[], Any], arguments: dict[str, Any], same: Same) -> None:
    """Through a decorated function: the second call is a hit, and so is one that differs in what is neutral alone."""
    calls: list[int] = []

    @distributed_cache(adapter=adapter, version="1", cache_sampled=True, ignore=("calls", "ask"))
    def call(**_arguments: Any) -> Any:
        calls.append(1)
        return ask()

    def value() -> Any:
        answer = call(**arguments)
        return list(answer) if adapter.streams(answer) else answer

    with empty_cache():
        first, second = value(), value()
        skipped = dict(stats().as_dict()["skipped"])
        _require(len(calls) == 1, f"a second identical call is no hit{f' (not stored: {skipped})' if skipped else ''}")
        _require(same(first, second), "what a hit gives is another answer than what the call gave")
        for name in sorted(adapter.neutral):
            drain(call(**{**arguments, name: "another value"}))
            _require(len(calls) == 1, f"{name!r} is called neutral, and with another value of it the call misses")


def _check_useless(adapter: Adapter, wrong: Callable[[], Any], number: int) -> None:
    @distributed_cache(adapter=adapter, version="1", cache_sampled=True, ignore=("wrong",))
    def call() -> Any:
        return wrong()

    with empty_cache():
        drain(call())
        _require(call.peek() is MISS, f"useless answer {number} is kept: capture() must give None, or judge() a word")


def drain(answer: Any) -> None:
    """Reads a stream to its end; every other answer is left alone."""
    if hasattr(answer, "__next__"):
        for _ in answer:
            pass


@contextmanager
def empty_cache() -> Iterator[Path]:
    """An empty cache in a directory of its own, with IPFS off, until the block ends; the settings before it come back."""
    with tempfile.TemporaryDirectory(prefix="cachekit-testing-", ignore_cleanup_errors=True) as directory:
        with configure(dir=directory, ipfs="off", mode="on"):
            yield Path(directory)
