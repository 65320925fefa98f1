"""What the adapters decorate themselves has a name of its own: where its module stands is no part of a key."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path
from typing import Any

import pytest

from cachekit import Answers, Cached
from cachekit_adapters import coreml_models, gguf, groq, openvino_models, qualcomm_models, transformers_models

MODULES = [coreml_models, gguf, openvino_models, qualcomm_models, transformers_models]


def moved(module: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same source as another module, as if it had been moved."""
    name = f"elsewhere_{module.__name__.rpartition('.')[2]}"
    spec = importlib.util.spec_from_file_location(name, module.__file__)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, made)
    spec.loader.exec_module(made)
    return made


def decorated(module: Any) -> dict[str, Any]:
    """The functions of a module that cachekit decorated, by name."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Cached)}


def arguments(function: Any, path: Path) -> dict[str, Any]:
    """A value for each parameter; for paths one that exists."""
    parameters = inspect.signature(function).parameters.values()
    return {each.name: path if "Path" in str(each.annotation) else "x" for each in parameters if each.name != "scratch"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_module_that_moves_keeps_its_keys(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another module of the same source computes the same digests, and shows the same names."""
    here, there = decorated(module), decorated(moved(module, monkeypatch))
    assert here.keys() == there.keys() != set()
    for name, function in here.items():
        call = arguments(function, tmp_path)
        key, other = function.key_for(**call), there[name].key_for(**call)
        assert (other.digest, other.function) == (key.digest, key.function)
        assert key.function == f"{module.__name__}.{name}"


def test_answers_are_named_after_their_operation() -> None:
    """A server's operation is known by the adapter's name, and by no module of ours."""
    target: Any = Answers(groq.CHAT)._lane.target
    assert target.name == "cachekit_adapters.groq.chat"
    assert target.function.__module__ == "cachekit_adapters"
