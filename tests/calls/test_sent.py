"""Decorated functions that go to other processes, by name and by value, with the real pools that send them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import pytest
import workers

from cachekit import distributed_cache


@pytest.mark.parametrize("how", ["loky", "dask"])
def test_a_scripts_functions_hit_in_the_workers(how: str, tmp_path: Path) -> None:
    """What cloudpickle sends is decorated there too, and has the same key as here."""
    workers.check(workers.run(how, tmp_path))


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_a_process_pool_takes_them_by_name(start: str, tmp_path: Path) -> None:
    """concurrent.futures with each way to start a process."""
    workers.check(workers.run("executor", tmp_path, start))


def there(tmp_path: Path, payload: bytes, code: str) -> str:
    """What `code` prints in a new process, whose `function` is the payload."""
    (tmp_path / "payload").write_bytes(payload)
    text = f"import pickle, sys\nfunction = pickle.load(open(sys.argv[1], 'rb'))\n{textwrap.dedent(code)}"
    environ = {**os.environ, "CACHEKIT_DIR": str(tmp_path / "cache"), "CACHEKIT_IPFS": "off"}
    command = [sys.executable, "-c", text, str(tmp_path / "payload")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_local_function_goes_with_its_key(tmp_path: Path) -> None:
    """A closure of an importable module: no name leads to it, and no file of its own is named there."""

    def made(by: int):  # type: ignore[no-untyped-def]
        @distributed_cache
        def times(x: int) -> int:
            return by * x

        return times

    function = made(3)
    printed = there(tmp_path, cloudpickle.dumps(function), "print(function(2), function.key_for(2), function.peek(2))")
    assert printed == f"6 {function.key_for(2)} 6"


def test_a_cells_function_goes_with_its_source(tmp_path: Path) -> None:
    """The text of a notebook's cell is in no file, and the worker's entries can be shared all the same."""
    import linecache

    text = "from cachekit import distributed_cache\n@distributed_cache\ndef f(x):\n    return x + 1\n"
    linecache.cache["<cell 1>"] = (len(text), None, text.splitlines(keepends=True), "<cell 1>")
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(text, "<cell 1>", "exec"), names)
    function = names["f"]
    key = function.key_for(1)  # type: ignore[attr-defined]
    payload = cloudpickle.dumps(function)
    assert key.shareable
    assert there(tmp_path, payload, "key = function.key_for(1); print(key, key.shareable)") == f"{key} True"


def test_a_function_that_workers_can_import_goes_by_name() -> None:
    """As any function does; so the worker has its own, once."""
    import colorsys

    colorsys.decorated = distributed_cache(ttl=1)(_as_if_in(colorsys))  # type: ignore[attr-defined]
    try:
        payload = cloudpickle.dumps(colorsys.decorated)  # type: ignore[attr-defined]
        assert len(payload) < 100
        assert cloudpickle.loads(payload) is colorsys.decorated  # type: ignore[attr-defined]
        cloudpickle.register_pickle_by_value(colorsys)
        assert cloudpickle.loads(cloudpickle.dumps(colorsys.decorated)) is not colorsys.decorated  # type: ignore[attr-defined]
    finally:
        cloudpickle.unregister_pickle_by_value(colorsys)
        del colorsys.decorated  # type: ignore[attr-defined]


def _as_if_in(module):  # type: ignore[no-untyped-def]
    def decorated(x):  # type: ignore[no-untyped-def]
        return x

    decorated.__module__, decorated.__qualname__ = module.__name__, "decorated"
    return decorated


def test_a_policy_that_cannot_go_is_left_behind_with_one_warning(tmp_path: Path) -> None:
    """The function itself still goes, and works there."""
    import threading

    lock = threading.Lock()

    def cacheable(value: int) -> bool:
        return not lock.locked()

    @distributed_cache(cacheable=cacheable)
    def f(x: int) -> int:
        return x + 1

    with pytest.warns(UserWarning, match="cannot be sent to a worker") as warned:
        payload = cloudpickle.dumps(f)
        cloudpickle.dumps(f)
    assert len(warned) == 1
    assert there(tmp_path, payload, "print(type(function).__name__, function(1))") == "function 2"


def test_a_tree_of_functions_that_know_each_other_goes(tmp_path: Path) -> None:
    """A function that leads to itself, by its own name and through its policy."""
    names: dict[str, object] = {"__name__": "__main__"}
    text = """
    from cachekit import distributed_cache
    def cacheable(value):
        return odd is not None
    @distributed_cache(cacheable=cacheable, version="1")
    def even(n):
        return n == 0 or odd(n - 1)
    @distributed_cache(version="1")
    def odd(n):
        return n != 0 and even(n - 1)
    """
    exec(textwrap.dedent(text), names)
    code = "import json; print(json.dumps([function(4), function.peek(2), type(function).__name__]))"
    assert json.loads(there(tmp_path, cloudpickle.dumps(names["even"]), code)) == [True, True, "Cached"]
