"""Machines agree: another Python, hash seed, directory and order of imports compute the same keys for the same projects."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from keys.code.generated import Generated
from keys.code.test_classes import CLASSES, Case
from keys.code.test_imports import IMPORTS
from keys.code.test_values import VALUES
from keys.code.test_wrapped import WRAPPED

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = "pythons" in os.environ.get("CACHEKIT_REQUIRE", "").split(",")
KEYS = """
import functools, importlib, sys, types
from pathlib import Path
package = types.ModuleType("cachekit")
package.__path__ = [sys.argv[1]]  # without its __init__: orjson is all that keys need
sys.modules["cachekit"] = package
from cachekit.keys.keyer import Keyer
from cachekit.model import Policy
keyers = {}
def distributed_cache(function):
    keyers[function.__name__] = Keyer(function, policy=Policy())
    return function
package.distributed_cache = distributed_cache
for place in sorted(Path(sys.argv[2]).iterdir()):
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    before = set(sys.modules)
    if sys.argv[3] == "backwards" and place.name[0] == "p":
        for path in sorted(place.glob("[!m]*.py"), reverse=True):
            importlib.import_module(path.stem)
    main = importlib.import_module("main")
    print(place.name, keyers["ask"].key(getattr(main, "CALL", ("x",)), {}, namespace="n"))
    sys.path.remove(str(place))
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or getattr(sys.modules[name], "__path__", "")).find(str(place)) >= 0:
            del sys.modules[name]
"""


def candidates() -> Iterator[str]:
    """Other Pythons of this machine, the newest first: on PATH, and those of pyenv and uv."""
    homes = [Path("~/.pyenv/versions").expanduser(), Path("~/.local/share/uv/python").expanduser()]
    for minor in (14, 13, 12, 11, 10):
        if minor == sys.version_info.minor:
            continue
        yield from filter(None, [shutil.which(f"python3.{minor}")])
        yield from (str(path) for home in homes for path in sorted(home.glob(f"*3.{minor}.*/bin/python3.{minor}")))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another Python with what keys need."""
    place, said = tmp_path_factory.mktemp("python"), "no other Python is here"
    for number, python in enumerate(candidates()):
        venv = place / str(number)
        try:
            subprocess.run([python, "-m", "venv", str(venv)], check=True, capture_output=True, timeout=100)  # noqa: S603
            pip = [str(venv / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "orjson"]
            subprocess.run(pip, check=True, capture_output=True, timeout=100)  # noqa: S603
            return str(venv / "bin/python")
        except (OSError, subprocess.SubprocessError) as error:
            said = f"{python}: {error}"
    if REQUIRED:
        pytest.fail(said)
    pytest.skip(said)


def keys(python: str, place: Path, order: str, seed: str) -> dict[str, str]:
    command = [python, "-B", "-c", KEYS, str(ROOT / "cachekit"), str(place), order]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return dict(line.split(" ") for line in done.stdout.splitlines())


def write(place: Path, modules: dict[str, str]) -> None:
    for name, text in modules.items():
        path = place / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def plain(cases: dict[str, Case]) -> Iterator[dict[str, str]]:
    """Projects of the cases that need no third party. Before 3.12 a class of make_dataclass does not know its module."""
    for above, body, neighbours, _ in cases.values():
        head = f"from cachekit import distributed_cache\n{above}\n@distributed_cache\ndef ask(x):\n"
        main = head + textwrap.indent(body, "  ") + "\n"
        text = main + "".join(neighbours.values())
        if not any(name in text for name in ("pydantic", "wrapt", "numpy", "make_dataclass")):
            yield {"main": main, **neighbours}


@pytest.mark.timeout(300)
def test_keys_are_the_same_elsewhere(tmp_path: Path, other: str) -> None:
    """Of random projects and of every kind of class, value, wrapper and import."""
    drawn = {f"g{seed}": Generated(seed).modules() for seed in range(30)}
    # A module that is imported inside a function may count otherwise where it was imported before.
    inside = {f"i{number}": modules for number, modules in enumerate(plain(IMPORTS))}
    kinds = {f"p{number}": modules for number, modules in enumerate(plain({**CLASSES, **VALUES, **WRAPPED}))}
    projects = {**drawn, **inside, **kinds}
    for name, modules in projects.items():
        write(tmp_path / "here" / name, modules)
        write(tmp_path / "elsewhere" / "deeper" / name, modules)
    here = keys(sys.executable, tmp_path / "here", "forwards", "1")
    there = keys(other, tmp_path / "elsewhere" / "deeper", "backwards", "2")
    assert len(here) == len(projects) > 100
    assert {name: projects[name] for name in here if here[name] != there[name]} == {}
