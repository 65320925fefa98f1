"""Uses of the public surface, never executed: mypy --strict and pyright read it."""

from __future__ import annotations

from datetime import timedelta

from cachekit import MISS, Cached, Key, Retry, configure, distributed_cache, stats


@distributed_cache
def bare(text: str, *, model: str = "m") -> dict[str, int]:
    return {text: len(model)}


@distributed_cache(ttl="1h", tags=["user:{user}"], retry=Retry(on=(OSError,)), stale_if_error=timedelta(days=1))
def called(user: int) -> list[str]:
    return [str(user)]


@distributed_cache
async def waited(text: str) -> str:
    return text


class Service:
    @distributed_cache(ignore=("self",))
    def method(self, number: int) -> float:
        return number / 2


def uses() -> None:
    first: dict[str, int] = bare("a", model="b")
    second: list[str] = called(1)
    third: float = Service().method(3)
    decorated: Cached[..., dict[str, int]] = bare
    key: Key = bare.key_for("a")
    removed: bool = bool(called.invalidate(1))
    if bare.peek("a") is MISS:
        bare("a", modle="b")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with configure(ttl="5m"):
        called("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    print(first, second, third, decorated, key, removed, stats(bare).as_dict())


async def awaits() -> None:
    text: str = await waited("a")
    print(text)
