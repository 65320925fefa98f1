"""In a living process: what changes between two calls makes the second another call, on the fast lane too."""

from __future__ import annotations

import contextvars
import functools
import importlib
import os
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from keys.projects import Project

from cachekit import UsageError, distributed_cache, env, stats

CONFIG = {"model": "a", "deep": [1]}
NAMES = ["a"]
MODEL: Any = "a"


class Settings:
    MODEL = "a"


def helper(x: str) -> str:
    return x + "1"


def deeper(x: str) -> str:
    return helper(x)


@dataclass(frozen=True)
class Bot:
    name: str
    PROMPT = "a"

    @distributed_cache
    def ask(self, x: str) -> str:
        return self.PROMPT + x


def _reads_dict(x: str) -> str:
    return str(CONFIG) + x


def _reads_list(x: str) -> str:
    return NAMES[0] + x


def _reads_scalar(x: str) -> str:
    return f"{MODEL!r} {x}"


def _reads_class(x: str) -> str:
    return Settings.MODEL + x


def _calls(x: str) -> str:
    return deeper(x)


def _reads_place(x: str) -> str:
    return PLACE.read_text()  # type: ignore[name-defined,no-any-return]  # noqa: F821 - set by the test


def _defaults(x: str, config: dict[str, Any] = CONFIG) -> str:  # noqa: B006 - a mutable default is what is tested
    return str(config) + x


def _set(module: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, value)


def _item(mapping: Any, name: Any, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setitem(mapping, name, value)


HERE = sys.modules[__name__]
LIVING: dict[str, tuple[Any, Callable[[pytest.MonkeyPatch], None]]] = {
    "an assigned constant": (_reads_scalar, _set(HERE, "MODEL", "b")),
    "a constant of another type": (_reads_scalar, _set(HERE, "MODEL", 1)),
    "a changed dict": (_reads_dict, _item(CONFIG, "model", "b")),
    "a changed list": (_reads_list, lambda patch: patch.setattr(HERE, "NAMES", ["b"])),
    "a list changed in place": (_reads_list, lambda _: NAMES.__setitem__(0, "b")),
    "a class attribute": (_reads_class, _set(Settings, "MODEL", "b")),
    "a patched helper of a helper": (_calls, _set(HERE, "helper", lambda x: x + "2")),
    "a mutable default": (_defaults, _item(CONFIG, "model", "b")),
}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    NAMES[:] = ["a"]


@pytest.mark.parametrize("name", LIVING)
def test_a_change_is_another_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third call, after two that the lane knows, gets what the function gives now; changed back, the first one."""
    function, change = LIVING[name]
    ask = distributed_cache(function)
    first = ask("x")
    assert ask("x") == ask("x") == first
    with monkeypatch.context() as patch:
        change(patch)
        assert ask("x") == function("x") != first
        assert ask("x") == function("x")
    NAMES[:] = ["a"]
    assert ask("x") == first


def test_one_and_true_are_two_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are equal and of different types are different, on the fast lane too."""
    ask = distributed_cache(_reads_scalar)
    for value in (1, True, 1.0):
        monkeypatch.setattr(HERE, "MODEL", value)
        assert ask("x") == ask("x") == _reads_scalar("x")


def test_a_class_attribute_of_a_method_s_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a decorated method reads through `self` reaches the class."""
    assert Bot("n").ask("x") == Bot("n").ask("x") == "ax"
    monkeypatch.setattr(Bot, "PROMPT", "b")
    assert Bot("n").ask("x") == "bx"


def test_a_file_as_a_default(tmp_path: Path) -> None:
    """A path that stands in the signature counts by its content."""
    data = tmp_path / "data"
    data.write_text("one")

    @distributed_cache
    def read(path: Path = data) -> str:
        return path.read_text()

    assert read() == read() == "one"
    data.write_text("three")
    assert read() == "three"


def test_what_a_partial_adds(tmp_path: Path) -> None:
    """The arguments of a partial are arguments: a file by its content, a list by what is in it now."""
    data, items = tmp_path / "data", [1]
    data.write_text("one")
    load = distributed_cache(functools.partial(lambda path, n: path.read_text() * n, data))
    count = distributed_cache(functools.partial(lambda seen, n: len(seen) * n, items))
    assert (load(1), load(1), count(1), count(1)) == ("one", "one", 1, 1)
    data.write_text("three")
    items.append(2)
    assert (load(1), count(1)) == ("three", 2)


def test_what_a_bound_method_adds() -> None:
    """The instance of a bound method is an argument."""

    @dataclass
    class Counter:
        n: int

        def times(self, x: int) -> int:
            return self.n * x

    counter = Counter(2)
    times = distributed_cache(counter.times)
    assert times(3) == times(3) == 6
    counter.n = 3
    assert times(3) == 9


def test_a_key_that_reads_more_than_its_argument() -> None:
    """`key=` is asked at each call, whatever it reads."""
    version = ["1"]

    @distributed_cache(key=lambda arguments: (arguments["x"], version[0]), version="v")
    def ask(x: str) -> str:
        return x + version[0]

    assert ask("x") == ask("x") == "x1"
    version[0] = "2"
    assert ask("x") == "x2"


def test_a_proxy_outside_of_its_context_is_not_followed() -> None:
    """An object that raises whatever it is asked counts by its class, and `explain` says that it is not followed."""

    class Proxy:
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("no context")

    proxy = Proxy()

    @distributed_cache
    def ask(x: str) -> str:
        return x if x else str(proxy)

    assert ask("x") == ask("x") == "x"
    assert "not followed proxy" in dict(ask.explain("x").parts)


def test_whatever_an_argument_raises_the_call_goes_on() -> None:
    """What is raised while a key is built is counted as a call that cannot be keyed."""

    @dataclass(frozen=True)
    class Odd:
        n: int = 1

        def __cachekit_key__(self) -> str:
            raise LookupError("odd")

    @distributed_cache
    def ask(x: Any) -> int:
        return 1

    with pytest.warns(UserWarning, match="odd"):
        assert ask(Odd()) == 1
    assert stats(ask).as_dict()["bypasses"] == {"unkeyable": 1}


def test_a_mock_passes_the_cache_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A patched helper, or a mock as an argument: nothing is read or stored, and nobody is warned."""
    ask, calls = distributed_cache(_calls), mock.Mock(side_effect=["1", "2"])
    monkeypatch.setattr(HERE, "helper", calls)
    assert (ask("x"), ask("x")) == ("1", "2")
    assert stats(ask).as_dict()["bypasses"] == {"mocked": 2}


def test_a_thread_local_is_refused() -> None:
    """Each thread has a value of its own: the call is not cached, and a warning says so."""
    local = threading.local()
    local.x = "1"

    @distributed_cache
    def ask(x: str) -> str:
        return str(local.x) + x

    with pytest.warns(UserWarning, match=r"'local' is a threading\.local"):
        assert ask("x") == "1x"
    local.x = "2"
    assert ask("x") == "2x"


def test_a_context_variable_counts_by_its_value() -> None:
    """What a ContextVar is now is part of the call."""
    model = contextvars.ContextVar("model", default="a")

    @distributed_cache
    def ask(x: str) -> str:
        return model.get() + x

    assert ask("x") == ask("x") == "ax"
    model.set("b")
    assert ask("x") == "bx"


@pytest.mark.parametrize("annotation", [Path, Path | str, os.PathLike, "Path", "str | os.PathLike[str]"], ids=str)
def test_a_text_for_a_path_counts_by_content(tmp_path: Path, annotation: Any) -> None:
    """A text passed for a parameter that is annotated as a path is the file that stands there, or the text."""
    data = tmp_path / "data"
    data.write_text("one")

    def read(path: Any) -> str:
        return Path(path).read_text()

    read.__annotations__["path"] = annotation
    ask = distributed_cache(read)
    assert ask(str(data)) == ask(str(data)) == "one"
    data.write_text("three")
    assert ask(str(data)) == "three"
    assert ask.key_for(str(data)) == ask.key_for(data)
    assert ask.key_for("nothing here") != ask.key_for("nothing there")


def test_paths_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts by its content; of a directory `explain` says that it is not followed, but for `depends=`."""
    (tmp_path / "data").write_text("one")
    monkeypatch.setattr(HERE, "PLACE", tmp_path / "data", raising=False)
    ask, named = distributed_cache(_reads_place), distributed_cache(depends=tmp_path)(_calls)
    assert ask("x") == ask("x") == "one"
    before = named.key_for("x")
    (tmp_path / "data").write_text("three")
    assert ask("x") == "three"
    assert named.key_for("x") != before
    for place in (tmp_path, tmp_path / "missing"):
        monkeypatch.setattr(HERE, "PLACE", place)
        before = ask.key_for("x")
        (tmp_path / "more").write_text(place.name)
        assert ask.key_for("x") == before
    monkeypatch.setattr(HERE, "PLACE", tmp_path)
    assert "not followed PLACE" in dict(ask.explain("x").parts)


def test_depends_on_the_environment_and_on_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `depends=` names counts: a variable as it is now, a distribution by its version, a package's function."""
    monkeypatch.setenv("MODEL_URL", "a")

    @distributed_cache(depends=[env("MODEL_URL"), "pytest", textwrap.dedent])
    def ask(x: str) -> str:
        return os.environ["MODEL_URL"] + x

    before = ask.key_for("x")
    assert ask("x") == ask("x") == "ax"
    monkeypatch.setenv("MODEL_URL", "b")
    assert ask("x") == "bx"
    assert ask.key_for("x") != before
    with pytest.raises(UsageError, match="no distribution"):
        distributed_cache(depends="no-such-thing")(_calls).key_for("x")
    with pytest.raises(UsageError, match="depends="):
        distributed_cache(depends=3)(_calls)  # type: ignore[call-overload]


def test_a_reloaded_module(tmp_path: Path) -> None:
    """A reloaded module's functions are those that are loaded now."""
    text = "from cachekit import distributed_cache\nimport lib\n@distributed_cache\ndef ask(x): return lib.helper(x)\n"
    project = Project(tmp_path / "project", main=text, lib="def helper(x): return x + '1'\n")
    try:
        main = project.imported()
        assert main.ask("x") == main.ask("x") == "x1"
        project.edit(lib=("'1'", "'22'"))
        importlib.reload(sys.modules["lib"])
        assert main.ask("x") == "x22"
    finally:
        project.close()


def test_a_cell_run_again_keeps_its_hits() -> None:
    """A notebook's cell that is run again unchanged is the same function; edited, another one."""
    import linecache

    def run(number: int, text: str) -> types.FunctionType:
        filename = f"<cell {number}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        exec(compile(text, filename, "exec"), space)
        function: types.FunctionType = space["ask"]
        return function

    space: dict[str, Any] = {"__name__": "__main__", "distributed_cache": distributed_cache}
    run(1, "def helper(x): return x + '1'\nask = None\n")
    cell = "@distributed_cache\ndef ask(x): return helper(x)\n"
    first = run(2, cell).key_for("x")  # type: ignore[attr-defined]
    assert run(3, cell).key_for("x") == first  # type: ignore[attr-defined]
    run(4, "def helper(x): return x + '2'\n")
    assert run(5, cell).key_for("x") != first  # type: ignore[attr-defined]
