"""The decorated function, the only home of wrapt: one FunctionWrapper, with everything else as values in its policy.

A call of a plain function tries its fast lane first (`lanes`); methods take the long way.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import wrapt

from cachekit import calls, methods
from cachekit.default import ROOT
from cachekit.lanes import Known, Lane, serve
from cachekit.model import MISS, Explanation, Key, Missing
from cachekit.targets import Target

P = ParamSpec("P")
R = TypeVar("R")


class BoundCached(wrapt.BoundFunctionWrapper[P, R]):
    """A decorated method, bound: the helpers of `Cached` with the instance (or class) put in front."""

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_parent.refresh(*_owner(self), *args, **kwargs)

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_parent.peek(*_owner(self), *args, **kwargs)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self._self_parent.put(value, *_owner(self), *args, **kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        return self._self_parent.invalidate(*_owner(self), *args, **kwargs)

    def key_for(self, *args: Any, **kwargs: Any) -> Key:
        return cast("Key", self._self_parent.key_for(*_owner(self), *args, **kwargs))

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        return cast("Explanation", self._self_parent.explain(*_owner(self), *args, **kwargs))


def _owner(bound: Any) -> tuple[Any, ...]:
    if bound._self_binding == "classmethod":
        return (bound.__wrapped__.__self__,)
    if bound._self_binding in ("function", "instancemethod", "callable") and bound._self_instance is not None:
        return (bound._self_instance,)
    return ()


class Cached(wrapt.FunctionWrapper[P, R], Generic[P, R]):
    """A decorated function. It has the signature, the name and the docstring of what it wraps, and pickles by name."""

    __bound_function_wrapper__ = BoundCached  # type: ignore[assignment]

    def __init__(self, wrapped: Callable[P, R], target: Target) -> None:
        super().__init__(wrapped, self._self_bound)
        self._self_target = target
        self._self_lane = Lane(target, wrapped)

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...  # pyright: ignore[reportRedeclaration]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[no-redef]  # pyright: ignore
        lane = self._self_lane
        found = serve(lane, args, kwargs)
        if found is MISS:
            return calls.call(lane, args, kwargs)
        if type(found) is Known:
            return calls.call_known(lane, found, args, kwargs)
        return found

    def _self_bound(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        # wrapt calls this for bound wrappers only; `wrapped` is bound already, and the key needs its owner.
        owner = getattr(wrapped, "__self__", None)
        owned = args if owner is None or inspect.isbuiltin(wrapped) else (owner, *args)
        if owner is None and instance is not None and not isinstance(self.__wrapped__, staticmethod):
            owned = (instance, *args)
        return self._self_owned(wrapped, args, kwargs, owned)

    def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        origin = functools.partial(wrapped, *args, **kwargs)
        if self._self_target.kind.endswith("generator"):
            from cachekit import generators

            return generators.call(self._self_target, origin, owned, kwargs)
        if self._self_target.is_async:
            return calls.acall_owned(self._self_target, origin, owned, kwargs)
        return calls.call_owned(self._self_target, origin, owned, kwargs)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return self.__wrapped__.__qualname__

    @property
    def cache(self) -> Any:
        """The cache that this function's calls use."""
        return ROOT.cache()

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the origin and stores what it gives, whatever is stored already."""
        return methods.refresh(self._self_target, self._self_origin(args, kwargs), args, kwargs)

    def peek(self, *args: Any, **kwargs: Any) -> R | Missing | Any:
        """The stored value, or `cachekit.MISS`; the origin is not called."""
        return methods.peek(self._self_target, args, kwargs)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stores `value` as the answer to the call. Raises UsageError where the mode forbids storing."""
        return methods.put(self._self_target, value, args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Ends hits for this call, in every process; returns whether something was removed."""
        return methods.invalidate(self._self_target, args, kwargs)

    def key_for(self, *args: Any, **kwargs: Any) -> Key:
        """The key of this call. Raises UsageError where it cannot be keyed."""
        return methods.key_for(self._self_target, args, kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """What the key of this call consists of, and where an answer stands."""
        return methods.explain(self._self_target, args, kwargs)

    def _self_origin(self, args: Any, kwargs: Any) -> Callable[[], Any]:
        wrapped = self.__wrapped__
        if isinstance(wrapped, (classmethod, staticmethod)):
            wrapped = wrapped.__func__
        return functools.partial(wrapped, *args, **kwargs)


class AsyncCached(Cached[P, R]):
    """A decorated coroutine function."""

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]  # pyright: ignore
        lane = self._self_lane
        found = serve(lane, args, kwargs)
        if found is MISS:
            return await calls.acall(lane, args, kwargs)
        if type(found) is Known:
            return await calls.acall_known(lane, found, args, kwargs)
        return found


class GeneratorCached(Cached[P, R]):
    """A decorated generator function, or async generator function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        from cachekit import generators

        return generators.call(self._self_target, functools.partial(self.__wrapped__, *args, **kwargs), args, kwargs)
