"""`Answers.near` before `Answers.call`: what the one looked for in vain the other does not look for again, if it is the same."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import cachekit
from cachekit import Adapter, Answers, Reply, Wanted
from cachekit.cache.default import default

PLAIN = Wanted(False)


def _adapter() -> Adapter:
    return Adapter(
        name="test.near",
        capture=lambda value: Reply("plain", str(value).encode(), {}),
        restore=lambda reply, _streamed, _context: reply.body.decode(),
        judge=lambda _reply: "",
    )


def _ask(answers: Answers, looked: Any, asked: Any, value: str) -> Any:
    found = answers.near(looked, PLAIN)
    return answers.call(asked, lambda: value, PLAIN) if found is cachekit.MISS else found


@pytest.mark.parametrize(
    ("looked", "asked"),
    [
        ({"n": 1}, {"n": 1.0}),
        ({"n": 1}, {"n": True}),
        ({"n": 0.0}, {"n": -0.0}),
        ({"n": [1]}, {"n": [1, 2]}),
        ({"n": {}}, {"n": None}),
    ],
)
def test_another_call_has_a_key_of_its_own(looked: Any, asked: Any) -> None:
    """Whatever was looked for before, an answer is stored for the call that was asked."""
    answers = Answers(_adapter())
    assert _ask(answers, looked, asked, "theirs") == "theirs"
    assert answers.near(looked, PLAIN) is cachekit.MISS
    assert answers.near(asked, PLAIN) == "theirs"


def test_the_order_of_a_mapping_makes_no_other_call() -> None:
    """The SDK orders a body's fields its own way: it is the call that was looked for."""
    answers = Answers(_adapter())
    assert _ask(answers, {"a": 1, "b": [2]}, {"b": [2], "a": 1}, "value") == "value"
    assert answers.near({"a": 1, "b": [2]}, PLAIN) == "value"


def test_what_was_looked_for_does_not_outlive_a_sample_or_a_cache() -> None:
    """Looked for outside of `sample(1)`, or in another cache: the call is keyed where it is made."""
    answers = Answers(_adapter())
    assert answers.near({"n": 1}, PLAIN) is cachekit.MISS
    with cachekit.sample(1):
        assert answers.call({"n": 1}, lambda: "sampled", PLAIN) == "sampled"
    assert answers.near({"n": 1}, PLAIN) is cachekit.MISS
    with cachekit.configure(namespace="another"):
        assert answers.call({"n": 1}, lambda: "another", PLAIN) == "another"
    assert answers.near({"n": 1}, PLAIN) is cachekit.MISS


def test_what_came_after_the_look_is_found() -> None:
    """Somebody stored the answer between `near` and `call`: it is served, and the origin is not asked."""
    answers = Answers(_adapter())
    assert answers.near({"n": 1}, PLAIN) is cachekit.MISS
    other = threading.Thread(target=lambda: Answers(_adapter()).call({"n": 1}, lambda: "theirs", PLAIN))
    other.start()
    other.join()
    assert answers.call({"n": 1}, lambda: "mine", PLAIN) == "theirs"


def test_the_disk_is_looked_at_once_before_the_lease() -> None:
    """`near` and `call` together ask it as often as `call` alone."""
    answers = Answers(_adapter())
    answers.call({"n": 0}, lambda: "value", PLAIN)
    disk = default().disk
    assert disk is not None
    connection = disk._file.connections.mine.connection
    assert connection is not None
    said: list[str] = []
    connection.set_trace_callback(said.append)
    looks = []
    for number, nearby in ((1, False), (2, True)):
        said.clear()
        assert not nearby or answers.near({"n": number}, PLAIN) is cachekit.MISS
        answers.call({"n": number}, lambda: "value", PLAIN)
        looks.append(sum(statement.startswith("SELECT") for statement in said))
    assert looks[0] == looks[1]
