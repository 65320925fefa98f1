"""What a user says of a function, or of a call: any name may be an argument's, and what is wrong is refused where it is said."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit import Adapter, Reply, Retry, UsageError, distributed_cache, persist_artifact, stats
from cachekit.calls.cached import Cached

NAMES = sorted(
    {
        *("self", "cls", "args", "kwargs", "wrapped", "instance", "owner", "value", "function", "func", "origin", "fn"),
        *(
            "target",
            "lane",
            "step",
            "key",
            "name",
            "helper",
            "policy",
            "again",
            "cache",
            "is_async",
            "call",
            "retry_state",
        ),
    }
)

ADAPTER = Adapter(
    name="test",
    capture=lambda answer: Reply("plain", str(answer).encode()),
    restore=lambda reply, *_: reply.body.decode(),
    judge=lambda _reply: "",
)


@distributed_cache(retry=Retry(on=ValueError))
def function(**named: Any) -> str:
    return min(named)


@distributed_cache
async def coroutine(**named: Any) -> str:
    return min(named)


@distributed_cache
def generator(**named: Any) -> Any:
    yield min(named)


@distributed_cache(adapter=ADAPTER)
def adapted(**named: Any) -> str:
    return min(named)


@persist_artifact
def artifact(**named: Any) -> Path:
    return Path(__file__)


class Owner:
    @distributed_cache
    def method(this, /, **named: Any) -> str:  # noqa: N805
        return min(named)

    @distributed_cache
    @classmethod
    def of_class(klass, /, **named: Any) -> str:  # noqa: N804
        return min(named)

    def __cachekit_key__(self) -> int:
        return 1


CALLS: dict[str, Callable[..., Any]] = {
    "function": lambda **named: function(**named),
    "coroutine": lambda **named: asyncio.run(coroutine(**named)),
    "generator": lambda **named: next(iter(generator(**named))),
    "adapted": lambda **named: adapted(**named),
    "artifact": lambda **named: artifact(**named) and min(named),
    "method": lambda **named: Owner().method(**named),
    "of_class": lambda **named: Owner.of_class(**named),
    "refresh": lambda **named: function.refresh(**named),
    "refresh of a method": lambda **named: Owner().method.refresh(**named),
    "refresh of a stream": lambda **named: next(iter(generator.refresh(**named))),
    "refresh of an answer": lambda **named: adapted.refresh(**named),
    "put and peek": lambda **named: function.put(min(named), **named) and function.peek(**named),
    "put and peek of an answer": lambda **named: adapted.put(min(named), **named) and adapted.peek(**named),
    "peek of an artifact": lambda **named: artifact(**named) and artifact.peek(**named) and min(named),
    "invalidate": lambda **named: (function(**named), function.invalidate(**named)) and min(named),
    "key_for": lambda **named: function.key_for(**named) and min(named),
    "explain": lambda **named: function.explain(**named) and min(named),
}


@pytest.mark.parametrize("kind", CALLS)
def test_every_argument_name_is_the_users(kind: str) -> None:
    """Wrappers and helpers take nothing by keyword that a function could."""
    for name in NAMES:
        assert CALLS[kind](**{name: 1}) == name


WRONG = {
    "Retry(on=...)": {"retry": Retry(on="ValueError")},  # type: ignore[arg-type]
    "Retry(on=...) takes a class": {"retry": Retry(on=ValueError())},  # type: ignore[arg-type]
    "Retry(on=...) takes a class of": {"retry": Retry(on=())},
    "Retry(attempts=...)": {"retry": Retry(on=ValueError, attempts=0)},
    "Retry(attempts=...) takes how often": {"retry": Retry(on=ValueError, attempts=1.5)},  # type: ignore[arg-type]
    "Retry(max_wait=...)": {"retry": Retry(on=ValueError, max_wait=-1)},
    "Retry(max_wait=...) takes seconds": {"retry": Retry(on=ValueError, max_wait=float("nan"))},
    "ignore='nope'": {"ignore": ("x", "nope")},
    "ignore= takes a string": {"ignore": None},
    "tags= takes a string": {"tags": 5},
    "namespace= takes at most 1024 bytes": {"namespace": "n" * 1025},
    "namespace= takes one line": {"namespace": "a\nb"},
    'coalesce= takes "team"': {"coalesce": "all"},
    'coalesce= takes "team" (one machine': {"coalesce": True},
    'coalesce="team" needs share=True': {"coalesce": "team", "share": False},
    "tags= takes at most 1024 bytes": {"tags": "t" * 1025},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_is_said_wrongly_is_refused_at_the_decorator(sentence: str) -> None:
    """Before any call, and the sentence names what is accepted."""
    for decorator in (distributed_cache, persist_artifact):
        with pytest.raises(UsageError) as raised:
            decorator(**WRONG[sentence])(lambda x: x)
        assert str(raised.value).startswith(sentence)


OUTER = [1]


def test_what_a_function_reads_from_outside_can_be_ignored() -> None:
    """Names of its closure and of its module are no mistakes; nor is any name where it takes any."""
    inner = [1]
    assert isinstance(distributed_cache(ignore=("OUTER", "inner"))(lambda x: (OUTER, inner)), Cached)
    assert isinstance(distributed_cache(ignore="whatever")(lambda **named: 1), Cached)


@pytest.mark.parametrize("helper", ["invalidate", "peek", "key_for", "explain"])
def test_a_helper_without_its_call_names_the_arguments(helper: str) -> None:
    """It could mean all calls: the sentence says what does that."""

    @distributed_cache
    def ask(question: str, *, model: str = "m") -> str:
        return question

    with pytest.raises(
        TypeError, match=r"\(question: .?str.?, \*, model: .?str.? = 'm'\).*invalidate\(tag=, namespace=\)"
    ):
        getattr(ask, helper)()


def test_an_adapters_function_is_refreshed_peeked_at_and_put() -> None:
    """With the SDK's own values, like any other function."""
    answers = iter("abc")

    @distributed_cache(adapter=ADAPTER, ignore="answers")
    def ask(x: int) -> str:
        return next(answers)

    assert [ask(1), ask.refresh(1), ask(1), ask.peek(1)] == ["a", "b", "b", "b"]
    assert ask.put("z", 1)
    assert [ask(1), ask.peek(1)] == ["z", "z"]
    assert stats(ask).as_dict()["skipped"] == {}


def test_an_adapters_coroutine_function_too() -> None:
    """The same, awaited."""
    answers = iter("abc")

    @distributed_cache(adapter=ADAPTER, ignore="answers")
    async def ask(x: int) -> str:
        return next(answers)

    async def main() -> list[Any]:
        first = [await ask(1), await ask.refresh(1), await ask(1), await ask.peek(1)]
        return [*first, await ask.put("z", 1), await ask(1)]

    assert asyncio.run(main()) == ["a", "b", "b", "b", True, "z"]


def test_an_artifact_is_a_text_where_the_function_says_so(tmp_path: Path) -> None:
    """`-> str` gets a str, on a miss, on a hit, and from `peek`."""
    made = tmp_path / "made"
    made.write_text("1")

    @persist_artifact(version="1")
    def build(x: int) -> str:
        return str(made)

    assert [type(build(1)), type(build(1)), type(build.peek(1)), type(build.refresh(1))] == [str] * 4
