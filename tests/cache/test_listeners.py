"""Listeners: what they hear is theirs, what they raise is counted."""

from __future__ import annotations

from cachekit import Event, add_listener, distributed_cache, stats


def test_what_a_listener_raises_reaches_no_caller() -> None:
    """The call has its answer, the next listener hears, and the errors are counted by their class."""
    heard: list[str] = []

    def broken(event: Event) -> None:
        raise KeyError(event.what)

    @distributed_cache(version="1")
    def square(x: int) -> int:
        return x * x

    remove = [add_listener(broken), add_listener(lambda event: heard.append(event.what))]
    try:
        assert [square(3), square(3)] == [9, 9]
    finally:
        for one in remove:
            one()
    assert {"miss", "hit"} <= set(heard)
    assert stats().as_dict()["errors"]["listener"]["KeyError"] == len(heard)
