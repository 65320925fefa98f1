"""A function that is called often has a guard, and what it reads still counts as it is at the call."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from cachekit import distributed_cache
from cachekit.keys.guard import MOST, guard

CONFIG: dict[str, Any] = {"model": "a", "deep": [1, {"x": (2, 3)}]}
LIMIT: Any = 1
TEXTS = {"a": "one", "b": "two"}


class Settings:
    MODEL = "a"


class Text(str):
    __slots__ = ()


def helper(x: str) -> str:
    return x + "1"


def replaced(x: str) -> str:
    return x + "2"


here = sys.modules[__name__]
OFTEN = 50


def called(value: Any = None) -> tuple[Callable[[], None], list[int]]:
    """A function that reads all of the above, called until it has a guard, and its calls so far."""
    calls: list[int] = []

    @distributed_cache(share=False)
    def ask(x: str) -> str:
        calls.append(1)
        try:
            later = LATER  # type: ignore[name-defined]  # noqa: F821
        except NameError:
            later = 0
        return f"{later} {sorted('ba')} {helper(x)} {CONFIG} {LIMIT!r} {TEXTS!r} {Settings.MODEL} {value!r}"

    def call() -> None:
        assert ask("x") == ask.__wrapped__("x")
        calls.pop()

    for _ in range(OFTEN):
        call()
    assert ask._self_target.keyer.quick().__name__ == "guard"  # type: ignore[attr-defined]
    assert len(calls) == 1
    return call, calls


CHANGES: dict[str, Callable[[pytest.MonkeyPatch], object]] = {
    "a helper": lambda patch: patch.setattr(here, "helper", replaced),
    "a value in a dict": lambda patch: patch.setitem(CONFIG, "model", "b"),
    "a new name in a dict": lambda patch: patch.setitem(CONFIG, "new", 1),
    "a list in a dict": lambda patch: patch.setitem(CONFIG, "deep", [*CONFIG["deep"]]) or CONFIG["deep"].append(2),
    "an item of a list": lambda patch: patch.setitem(CONFIG, "deep", [2, CONFIG["deep"][1]]),
    "a dict in that list": lambda patch: patch.setitem(CONFIG["deep"][1], "x", (2, 4)),
    "an equal number of another type": lambda patch: patch.setattr(here, "LIMIT", True),
    "an equal text of another type": lambda patch: patch.setitem(TEXTS, "a", Text("one")),
    "a dict for another": lambda patch: patch.setattr(here, "TEXTS", {"a": "three"}),
    "a builtin": lambda patch: patch.setattr(here, "sorted", lambda texts: [*texts], raising=False),
    "a name that was missing": lambda patch: patch.setattr(here, "LATER", 1, raising=False),
    "a class attribute": lambda patch: patch.setattr(Settings, "MODEL", "b"),
    "a class attribute more": lambda patch: patch.setattr(Settings, "OTHER", "b", raising=False),
}


def test_the_order_and_the_very_names_of_a_dict_are_compared() -> None:
    """A name that went and came back is another place, and an equal name of another type another name."""
    held: dict[str, Any] = {"a": 1, "b": 2, "c": []}
    made, _ = guard([], [({"held": held}, "held", held)], [], [], 7, _said)
    assert made is not None
    assert made() == 7
    names = list(held)
    held[names[0]] = held.pop(names[0])
    assert made() == -1
    for name in names:
        held[name] = held.pop(name)
    assert made() == 7
    held[Text("c")] = held.pop("c")
    assert made() == -1


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_behind_the_guard_is_another_call(
    change: Callable[[pytest.MonkeyPatch], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is changed, in place or not, the next call is made; and changed back, it hits again."""
    call, calls = called()
    with monkeypatch.context() as patch:
        change(patch)
        call()
        assert len(calls) == 2
    call()
    assert len(calls) == 2


def test_a_closure_behind_the_guard_counts() -> None:
    """What a closure holds is looked at too."""
    values = ["a"]
    call, calls = called(values)
    values.append("b")
    call()
    assert len(calls) == 2


def test_a_state_that_comes_and_goes_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two states that alternate are two calls, however often they do."""
    call, calls = called()
    for number in range(100):
        CONFIG["model"] = "ab"[number % 2]
        call()
    CONFIG["model"] = "a"
    assert len(calls) == 2


def _said() -> int:
    return -1


def test_a_name_that_is_gone_is_not_the_same() -> None:
    """Where a look-up raises, the other one is asked; a module may have any names."""
    module = types.ModuleType("gone")
    module.__dict__.update({"name": helper, "Exception": None, "é": 1, "class": 2})
    space: dict[str, Any] = module.__dict__
    checks = [(space, "é", 1), (space, "class", 2), ({"a": "x"}, "a", "x")]
    made, copies = guard([(space, "name", helper)], checks, [], [], 7, _said)
    assert made is not None
    assert copies == [1, 2, "x"]
    assert made() == 7
    del space["name"]
    assert made() == -1
    space["name"] = helper
    assert made() == 7
    del space["é"]
    assert made() == -1


def test_too_much_to_compare_has_no_guard() -> None:
    """A large dict is compared by its bytes, as before."""
    assert guard([], [({"a": (big := dict.fromkeys(map(str, range(MOST))))}, "a", big)], [], [], 7, _said) == (None, [])
