"""Decorated functions on their way to other processes: by name, or by value where cloudpickle sends functions so.

pickle finds a function again by its name. cloudpickle, with which joblib, Dask, Ray and Spark feed their workers, sends
what no name leads to there (a script's, a notebook's or a local function) piece by piece. Such a function goes with its
policy, and with the text of its source: a worker's key is this process's key.
"""

from __future__ import annotations

import io
import sys
import typing
from importlib.machinery import ModuleSpec
from types import FrameType
from typing import Any

from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.keys.code import carried
from cachekit.keys.code.own import SCRIPT


class Sender:
    """The cloudpickle that asks, whoever brings a copy of it along."""

    def __init__(self, frame: FrameType) -> None:
        self._pickler: Any = type(frame.f_locals["self"])
        self._registered = frame.f_globals.get("list_registry_pickle_by_value", set)()

    def by_value(self, module: str) -> bool:
        """Whether what a module defines is sent, because a worker cannot import it, or shall not."""
        if module in SCRIPT or module not in sys.modules:
            return True
        return any(f"{module}.".startswith(f"{one}.") for one in self._registered)

    def takes(self, value: Any) -> bool:
        try:
            self._pickler(io.BytesIO()).dump(value)
        except Exception:  # a lock, a socket, a file: whatever cannot be sent raises as it likes
            return False
        return True


def reduced(cached: Any) -> Any:
    """What `cached.__reduce_ex__` gives; `pickle` itself calls it, so the frame above is the pickler's."""
    frame, wrapped = sys._getframe(2), cached.__wrapped__
    name: str = wrapped.__qualname__
    if "cloudpickle" not in str(frame.f_globals.get("__name__")) or "self" not in frame.f_locals:
        return name
    sender, target = Sender(frame), cached._self_target
    if _found(wrapped.__module__, name) is cached and not sender.by_value(wrapped.__module__):
        return name
    if id(target) not in _tried and not _can_go(sender, target):
        return _bare, (wrapped,)
    return _empty, (type(cached),), _state(sender, wrapped, target), None, None, _fill


_tried: set[int] = set()
"""Targets whose policy is being tried: it may lead to the function again."""


def _can_go(sender: Sender, target: Target) -> bool:
    _tried.add(id(target))
    try:
        if sender.takes(target.policy):
            return True
    finally:
        _tried.discard(id(target))
    sentence = "something that was said of it (codec=, key=, cacheable=, adapter=, depends=) cannot be sent to a worker"
    remedy = "there it is called uncached: put it into a module that workers can import"
    target.warn_once(UsageError(f"{sentence}, and {remedy}"), about="sent")
    return False


def _state(sender: Sender, wrapped: Any, target: Target) -> dict[str, Any]:
    spec = target.function.__globals__.get("__spec__")
    return {
        "wrapped": wrapped,
        "policy": target.policy,
        "carried": target.keyer.carried(sender.by_value),
        "module": None if spec is None else spec.name,
        "returns": target.returns,
    }


def _found(module: str, name: str) -> Any:
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _bare(function: Any) -> Any:
    return function


def _empty(kind: Any) -> Any:
    # Made before what it wraps: the function may call itself.
    return kind.__new__(kind)


def _fill(cached: Any, state: dict[str, Any]) -> None:
    wrapped, target = state["wrapped"], Target(state["wrapped"], state["policy"])
    names = typing.cast(Any, target.function)
    if state["module"] is not None and names.__globals__.get("__spec__") is None:
        names.__globals__["__spec__"] = ModuleSpec(state["module"], None)
    if "return" in names.__annotations__ and state["returns"] is not None:
        # cloudpickle sends no names that stand in annotations only.
        names.__annotations__["return"] = state["returns"]
    carried.take(state["carried"])
    cached.__init__(wrapped, target)
