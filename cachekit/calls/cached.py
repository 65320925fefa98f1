"""The decorated function, the only home of wrapt: one FunctionWrapper, with everything else as values in its policy.

A call of a plain function tries its fast lane first (`lanes`); methods take the long way.

Which kind of Cached a function becomes, and what cannot be said of it. The two kinds that go a way of their own are here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

import wrapt

from cachekit.cache.default import ROOT
from cachekit.calls import call
from cachekit.calls.lanes import Known, Lane, serve
from cachekit.calls.prepare import driven
from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.model import MISS, Explanation, Key, Missing, Policy
from cachekit.values.codecs import check_codec

if TYPE_CHECKING:
    from cachekit.calls.answers.asking import Wanted
    from cachekit.calls.builds.build import Build


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
            return call.call(lane, args, kwargs)
        if type(found) is Known:
            return call.call_known(lane, found, args, kwargs)
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
            from cachekit.calls.streams import generators

            return generators.call(self._self_target, origin, owned, kwargs)
        return call.call_owned(self._self_target, origin, owned, kwargs)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return self.__wrapped__.__qualname__

    @property
    def cache(self) -> Any:
        """The cache that this function's calls use."""
        return ROOT.cache()

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the origin and stores what it gives, whatever is stored already."""
        return call.refresh(self._self_target, self._self_origin(args, kwargs), args, kwargs)

    def peek(self, *args: Any, **kwargs: Any) -> R | Missing | Any:
        """The stored value, or `cachekit.MISS`; the origin is not called."""
        return call.peek(self._self_target, args, kwargs)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stores `value` as the answer to the call. Raises UsageError where the mode forbids storing."""
        return call.put(self._self_target, value, args, kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Ends hits for this call, in every process; returns whether something was removed."""
        return call.invalidate(self._self_target, args, kwargs)

    def key_for(self, *args: Any, **kwargs: Any) -> Key:
        """The key of this call. Raises UsageError where it cannot be keyed."""
        return call.key_for(self._self_target, args, kwargs)

    def explain(self, *args: Any, **kwargs: Any) -> Explanation:
        """What the key of this call consists of, and where an answer stands."""
        return call.explain(self._self_target, args, kwargs)

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
            return await call.call(lane, args, kwargs)
        if type(found) is Known:
            return await call.call_known(lane, found, args, kwargs)
        return found

    async def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        return await super()._self_owned(wrapped, args, kwargs, owned)


class GeneratorCached(Cached[P, R]):
    """A decorated generator function, or async generator function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        from cachekit.calls.streams import generators

        return generators.call(self._self_target, functools.partial(self.__wrapped__, *args, **kwargs), args, kwargs)


_KINDS: Mapping[str, type[Cached[Any, Any]]] = {
    "value": Cached,
    "coroutine": AsyncCached,
    "generator": GeneratorCached,
    "async_generator": GeneratorCached,
}


class ArtifactCached(Cached[P, R]):
    """A decorated function that builds a file or a directory."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        return self._self_owned(self.__wrapped__, args, kwargs, args)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        from cachekit.calls.builds import calls

        build = self._self_build(args, kwargs)
        return calls.call(build, again=True)

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        from cachekit.calls.builds import calls

        build = self._self_build(args, kwargs)
        return calls.peek(build)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        from cachekit.calls.builds import calls

        build = self._self_build(args, kwargs)
        return calls.put(build, value)

    def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        from cachekit.calls.builds import calls

        build = calls.Build(self._self_target, wrapped, args, kwargs, owned)
        return calls.call(build)

    def _self_build(self, args: Any, kwargs: Any) -> Build:
        from cachekit.calls.builds import calls

        return calls.Build(self._self_target, self._self_origin((), {}), args, kwargs, args)


class AdaptedCached(Cached[P, R]):
    """A decorated function that asks a model's server, as an adapter knows it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        from cachekit.calls.answers import answers

        target = self._self_target
        origin: Any = functools.partial(self.__wrapped__, *args, **kwargs)
        flow = answers.call(self._self_lane, args, kwargs, origin, _wanted(target, args, kwargs))
        return driven(flow, is_async=target.is_async)


def _wanted(target: Target, args: Any, kwargs: Any) -> Wanted:
    from cachekit.calls.answers.asking import Wanted

    adapter = target.policy.adapter
    assert adapter is not None
    bound = target.bound(args, kwargs)
    streamed = bound.get("stream")
    sampled = not target.policy.cache_sampled and adapter.sampled(bound)
    context = "async" if target.is_async else None
    return Wanted(None if streamed is None else bool(streamed), context, adapter.name, sampled, target.is_async)


def cached(function: Any, policy: Policy) -> Cached[Any, Any]:
    """`function`, decorated. Raises UsageError where what was said does not fit it, or each other."""
    check_codec(policy.codec)
    target = Target(function, policy)
    _check(target, policy)
    if target.keeps_files:
        return ArtifactCached(function, target)
    return (_KINDS[target.kind] if policy.adapter is None else AdaptedCached)(function, target)


def _check(target: Target, policy: Policy) -> None:
    for said, name in (("output", policy.output), ("scratch", policy.scratch)):
        if name and name not in target.keyer.parameters:
            raise UsageError(f"{said}={name!r}: {target.name} has no parameter of that name")
        if name and not target.keeps_files:
            raise UsageError(f"{said}= is for artifacts; {target.name} has a codec that keeps values")
    if policy.output and policy.output == policy.scratch:
        raise UsageError(f"output= and scratch= both name {policy.output!r}; they are two places")
    if target.keeps_files:
        _check_artifact(target, policy)
    elif policy.adapter is not None and target.kind.endswith("generator"):
        raise UsageError("adapter= is for functions that return what the SDK returns, a stream included; do not yield")


def _check_artifact(target: Target, policy: Policy) -> None:
    if policy.adapter is not None:
        raise UsageError("an artifact has no adapter=; it is for functions that return what a model's SDK returns")
    if policy.output and not isinstance(policy.codec, str):
        raise UsageError("output= is for functions that return a path; an artifact codec gives the object itself")
    if target.kind.endswith("generator"):
        raise UsageError("an artifact is one path: return it, do not yield")
