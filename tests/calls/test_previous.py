"""`previous=`: the origin is given the value that is past its TTL, and may say that it is still so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import cachekit
from cachekit import Retry, UsageError, distributed_cache

GIVEN: list[int | None] = []


@pytest.fixture(autouse=True)
def nothing_given() -> None:
    GIVEN.clear()


def counter(**keywords: object) -> Callable[..., int]:
    """A cached function that adds one to what stood before, and notes that."""

    @distributed_cache(version="1", previous="old", **{"ttl": 0, "stale_if_error": "1h", **keywords})
    def count(name: str, old: int | None = None) -> int:
        GIVEN.append(old)
        return (old or 0) + 1

    return count


def test_the_origin_gets_the_old_value() -> None:
    """The first call is given nothing, each later one what the one before it stored."""
    count = counter()
    assert [count("a"), count("a"), count("a"), count("b")] == [1, 2, 3, 1]
    assert GIVEN == [None, 1, 2, None]


def test_coroutine_functions_too() -> None:
    """A coroutine function's origin is given the old value."""

    @distributed_cache(ttl=0, stale_if_error="1h", version="1", previous="old")
    async def count(old: int | None = None) -> int:
        return (old or 0) + 1

    async def twice() -> list[int]:
        return [await count(), await count()]

    assert asyncio.run(twice()) == [1, 2]


def test_methods_and_retries_too() -> None:
    """A method that is retried gets the old value in each attempt."""

    class Source:
        @distributed_cache(
            ttl=0,
            stale_if_error="1h",
            version="1",
            previous="old",
            retry=Retry(on=OSError, max_wait=0),
            key=lambda _: 0,
        )
        def count(self, *, old: int | None = None) -> int:
            GIVEN.append(old)
            if len(GIVEN) == 2:
                raise OSError
            return (old or 0) + 1

    assert [Source().count(), Source().count()] == [1, 2]
    assert GIVEN == [None, 1, 1]


def test_not_part_of_the_key() -> None:
    """Whatever stands there, it is the same call."""
    count = counter(ttl="1h")
    assert count.key_for("a", old=3) == count.key_for("a")


def test_what_was_invalidated_is_not_given() -> None:
    """A value that was invalidated may be wrong, so the origin starts anew."""
    count = counter()
    count("a")
    count.invalidate("a")
    assert (count("a"), GIVEN) == (1, [None, None])


def test_nothing_is_given_where_the_cache_takes_no_part() -> None:
    """Bypassed, refreshed, and inside another origin that was given something: the default stands."""
    count = counter()
    count("a")
    with cachekit.bypass():
        count("a")
    with cachekit.mode("refresh"):
        count("a")
    assert GIVEN == [None, None, None]


def test_the_refresh_in_the_background_gets_it() -> None:
    """stale_while_revalidate serves the old value, and its refresh asks with it."""
    count = counter(stale_if_error=0, stale_while_revalidate="1h")
    assert [count("a"), count("a")] == [1, 1]
    count.cache.close()
    assert GIVEN == [None, 1]


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"previous": "no"}, "has no parameter"),
        ({"previous": "old"}, "how long one is kept"),
        ({"previous": "old", "stale_if_error": 1, "codec": "path"}, "no artifact"),
    ],
)
def test_what_cannot_be(keywords: dict[str, object], sentence: str) -> None:
    """A name that is no parameter, no window, and an artifact are refused when the function is decorated."""

    def build(old: object = None) -> None: ...

    with pytest.raises(UsageError, match=sentence):
        distributed_cache(**{"stale_if_error": 1 if keywords["previous"] == "no" else 0, **keywords})(build)
