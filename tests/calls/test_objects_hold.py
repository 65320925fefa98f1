"""Decorated functions and methods as things that objects hold: shown, copied and pickled as plain ones are."""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import os
import pickle
import pydoc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from cachekit import distributed_cache

HELPERS = {"cache", "explain", "invalidate", "key_for", "peek", "put", "refresh"}


def plain(x: int) -> int:
    """What it is for."""
    return x


@distributed_cache
def decorated(x: int) -> int:
    """What it is for."""
    return x


@distributed_cache
async def waited(x: int) -> int:
    return x


class Plain:
    """What methods without a cache do."""

    def __init__(self, by: int) -> None:
        self.by = by
        self.kept = [self.method]

    def method(self, x: int) -> int:
        return self.by * x

    @classmethod
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @staticmethod
    def static(x: int) -> int:
        return x


class Outside(Plain):
    """The cache outside of what Python binds with."""

    @distributed_cache(key=lambda call: (call["self"].by, call["x"]))
    def method(self, x: int) -> int:
        return self.by * x

    @distributed_cache
    @classmethod
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @distributed_cache
    @staticmethod
    def static(x: int) -> int:
        return x


class Inside(Outside):
    """The cache inside of it."""

    @classmethod
    @distributed_cache
    def of_class(cls, x: int) -> str:
        return f"{cls.__name__}{x}"

    @staticmethod
    @distributed_cache
    def static(x: int) -> int:
        return x


kinds = pytest.mark.parametrize("kind", [Plain, Outside, Inside])
functions = pytest.mark.parametrize("function", [plain, decorated, waited], ids=["plain", "decorated", "waited"])


@dataclasses.dataclass
class Holder:
    function: Callable[[int], Any]
    notes: list[int]


class Model(pydantic.BaseModel):
    function: Callable[[int], Any]
    notes: list[int]


@pytest.mark.parametrize("function", [decorated, waited, Outside(2).method, Outside.of_class, Outside.static])
def test_the_helpers_are_shown(function: Any) -> None:
    """`dir` has them beside the function's own names, for functions and bound methods; each of them is there."""
    shown = dir(function)
    assert set(shown) >= HELPERS | set(dir(function.__wrapped__))
    assert shown == sorted(shown)
    assert all(getattr(function, name) is not None for name in HELPERS)


def test_a_function_is_still_seen_as_one() -> None:
    """Signature, help, coroutine-ness and functools.wraps look through the decorator."""

    @functools.wraps(decorated)
    def above(*args: Any) -> Any:
        return decorated(*args)

    assert inspect.signature(decorated) == inspect.signature(plain) == inspect.signature(above)
    shown = pydoc.plain(pydoc.render_doc(decorated))
    assert shown.replace("decorated", "plain") == pydoc.plain(pydoc.render_doc(plain))
    assert inspect.iscoroutinefunction(waited)
    assert inspect.isfunction(decorated)
    assert inspect.ismethod(Outside(2).method)
    assert inspect.unwrap(above) is decorated.__wrapped__
    assert vars(decorated) is vars(decorated.__wrapped__)


def test_a_helper_says_what_it_does() -> None:
    """`help(f.peek)` has a sentence, on a method's too."""
    assert "MISS" in pydoc.render_doc(decorated.peek)
    assert "MISS" in pydoc.render_doc(Outside(2).method.peek)


@functions
def test_a_copy_is_the_function_itself(function: Any) -> None:
    """Functions are copied by reference."""
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function


@functions
def test_objects_that_hold_a_function_are_copied(function: Any) -> None:
    """Deeply, as a dataclass, as its fields, as a pydantic model: what else they hold is new, the function is the same."""
    holder, model = Holder(function, [1]), Model(function=function, notes=[1])
    found = [
        copy.copy(holder).function,
        copy.deepcopy(holder).function,
        dataclasses.replace(holder).function,
        dataclasses.asdict(holder)["function"],
        model.model_copy(deep=True).function,
        copy.deepcopy([{"a": function}])[0]["a"],
    ]
    assert all(each is function for each in found)
    assert copy.deepcopy(holder).notes is not holder.notes


@kinds
def test_a_bound_method_is_copied_with_its_object(kind: type[Plain]) -> None:
    """A shallow copy is bound to the same object, a deep one to the copy; what an object holds of itself stays its own."""
    one = kind(2)
    assert copy.copy(one.method).__self__ is one  # type: ignore[attr-defined]
    other = copy.deepcopy(one.method)
    assert other.__self__ is not one  # type: ignore[attr-defined]
    assert (other(3), one.method(3)) == (6, 6)
    twin = copy.deepcopy(one)
    twin.by = 5
    assert twin.kept[0].__self__ is twin  # type: ignore[attr-defined]
    assert (twin.kept[0](3), one.kept[0](3)) == (15, 6)


@kinds
def test_methods_of_a_class_are_copied(kind: type[Plain]) -> None:
    """Class methods and static ones, from the class and from an object."""
    for method in (kind.of_class, kind(2).of_class, kind.static, kind(2).static, kind.method):
        for found in (copy.copy(method), copy.deepcopy(method)):
            assert found == method
    assert copy.deepcopy(kind.of_class)(3) == f"{kind.__name__}3"
    assert copy.deepcopy(kind(2).static)(3) == 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@functions
def test_a_function_is_pickled_by_its_name(function: Any, protocol: int) -> None:
    """What is loaded is the very same function."""
    assert pickle.loads(pickle.dumps(function, protocol)) is function


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@kinds
def test_methods_are_pickled_with_what_they_are_bound_to(kind: type[Plain], protocol: int) -> None:
    """Methods of an object, of a class, and static ones."""

    def again(method: Any) -> Any:
        return pickle.loads(pickle.dumps(method, protocol))

    one = kind(2)
    assert again(one.method)(3) == 6
    assert again(kind.method)(one, 3) == 6
    assert again(one).kept[0](3) == 6
    assert again(kind.of_class) == kind.of_class
    assert again(one.of_class)(3) == f"{kind.__name__}3"
    assert again(kind.static)(3) == again(one.static)(3) == 3


def test_a_loaded_method_is_decorated() -> None:
    """What is loaded hits what the original stored."""
    one = Outside(2)
    one.method(3)
    assert pickle.loads(pickle.dumps(one.method)).peek(3) == copy.deepcopy(one.method).peek(3) == 6
    Outside.of_class(3)
    assert pickle.loads(pickle.dumps(Outside.of_class)).peek(3) == "Outside3"


def test_a_local_function_is_refused_as_python_refuses_it() -> None:
    """No name leads to it."""

    def local(x: int) -> int:
        return x

    def refusal(function: Any) -> type[Exception]:
        with pytest.raises((pickle.PicklingError, AttributeError)) as raised:
            pickle.dumps(function)
        return raised.type

    assert refusal(distributed_cache(local)) is refusal(local)


SCALES = """
import dataclasses

import cachekit


@cachekit.distributed_cache
def double(x):
    return 2 * x


@dataclasses.dataclass(frozen=True)
class Scale:
    by: int

    @cachekit.distributed_cache
    def method(self, x):
        return self.by * x

    @cachekit.distributed_cache
    @classmethod
    def of_class(cls, x):
        return cls.__name__ + str(x)

    @cachekit.distributed_cache
    @staticmethod
    def static(x):
        return -x
"""

MAPPED = """
import multiprocessing
import sys

from scales import Scale, double

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        for function in (double, Scale(3).method, Scale.of_class, Scale(3).static):
            print(*pool.map(function, [1, 2]))
    print(double.peek(1), Scale(3).method.peek(2), Scale.of_class.peek(1))
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_pool_maps_methods(start: str, tmp_path: Path) -> None:
    """`Pool.map` takes functions and bound methods, and this process hits what the workers stored."""
    (tmp_path / "scales.py").write_text(SCALES, encoding="utf-8")
    script = tmp_path / "mapped.py"
    script.write_text(MAPPED, encoding="utf-8")
    environ = {**os.environ, "CACHEKIT_DIR": str(tmp_path / "cache"), "CACHEKIT_IPFS": "off"}
    command = [sys.executable, str(script), start]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["2 4", "3 6", "Scale1 Scale2", "-1 -2", "2 6 Scale1"]
