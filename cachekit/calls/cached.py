"""The decorated function, the only home of wrapt: one FunctionWrapper, with everything else as values in its policy.

A call of a plain function tries its fast lane first (`lanes`); methods take the long way. `cached` says which kind of
Cached a function becomes, and what cannot be said of it.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, overload

import wrapt

from cachekit.calls import call
from cachekit.calls.helpers import Awaited, Helpers, P, R, T
from cachekit.calls.lanes import Known, Lane, serve
from cachekit.calls.prepare import driven, unopened
from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.model import ARTIFACT, MISS, Policy

if TYPE_CHECKING:

    class _Wrapper:
        """What checkers see of wrapt: its own stubs would let every attribute and every operator of a function pass."""

        def __init__(self, *parts: Any) -> None: ...

        _self_parent: Any
        _self_owner: Any

    _BoundWrapper = _Wrapper
else:
    _Wrapper, _BoundWrapper = wrapt.FunctionWrapper, wrapt.BoundFunctionWrapper

P2 = ParamSpec("P2")
R2 = TypeVar("R2")

_HELPERS: Mapping[str, Callable[..., Any]] = {
    helper.__name__: helper
    for helper in (call.refresh, call.peek, call.put, call.invalidate, call.key_for, call.explain)
}


class BoundCached(Helpers[P, R], _BoundWrapper):
    """A decorated method, bound: its helpers put the instance (or class) in front."""

    def _self_help(self, helper: str, args: Any, kwargs: Any, *value: Any) -> Any:
        return self._self_parent._self_help(helper, (*_owner(self), *args), kwargs, *value)

    def __deepcopy__(self, memo: Any) -> Any:
        (owner,) = _owner(self) or (None,)
        copied = copy.deepcopy(owner, memo)
        return self if copied is owner else self._self_parent.__get__(copied, self._self_owner)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        (owner,) = _owner(self) or (self._self_owner,)
        return getattr, (owner, self.__name__)


def _owner(bound: Any) -> tuple[Any, ...]:
    """The instance or the class that a method is bound to; nothing for a static one, or one that its class shows."""
    owner = getattr(bound.__wrapped__, "__self__", None)
    return () if owner is None else (owner,)


class Cached(Helpers[P, R], _Wrapper):
    """A decorated function. It has the signature, the name and the docstring of what it wraps, and pickles by name."""

    __bound_function_wrapper__ = BoundCached

    def __init__(self, wrapped: Callable[P, R], target: Target) -> None:
        super().__init__(wrapped, self._self_bound)
        self._self_target = target
        self._self_lane = Lane(target, wrapped)

    if TYPE_CHECKING:
        # In this order: a classmethod; what a class shows of a method; a method of an instance; a staticmethod.
        @overload
        def __get__(  # type: ignore[misc]  # mypy wants self to be a Cached; then it would take any function for a method
            self: Callable[Concatenate[type[T], P2], R2], owner: object, cls: type[T], /
        ) -> BoundCached[P2, R2]: ...
        @overload
        def __get__(self, owner: None, cls: object = None, /) -> BoundCached[P, R]: ...
        @overload
        def __get__(self: Callable[Concatenate[T, P2], R2], owner: T, cls: object = None, /) -> BoundCached[P2, R2]: ...
        @overload
        def __get__(self, owner: object, cls: object = None, /) -> BoundCached[P, R]: ...
        def __get__(self, owner: Any, cls: Any = None, /) -> Any: ...

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        lane = self._self_lane
        value: R = serve(lane, args, kwargs)
        if value is MISS:
            value = call.call(lane, args, kwargs)
        elif type(value) is Known:
            value = call.call_known(lane, value, args, kwargs)  # type: ignore[arg-type]
        return value

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
            return _pieces(self._self_target, origin, owned, kwargs)
        return call.call_owned(self._self_target, origin, owned, kwargs)

    def __reduce_ex__(self, _protocol: Any) -> Any:
        from cachekit.calls.sent import reduced

        return reduced(self)

    def _self_help(self, helper: str, args: Any, kwargs: Any, *value: Any) -> Any:
        if helper == "refresh":
            value = (self._self_origin(args, kwargs),)
        return _HELPERS[helper](self._self_target, *value, args, kwargs)

    def _self_origin(self, args: Any, kwargs: Any) -> Callable[[], Any]:
        wrapped = self.__wrapped__
        if isinstance(wrapped, (classmethod, staticmethod)):
            wrapped = wrapped.__func__
        return functools.partial(wrapped, *args, **kwargs)


class AsyncCached(Cached[P, Awaited[T]]):
    """A decorated coroutine function."""

    async def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        lane = self._self_lane
        value: T = serve(lane, args, kwargs)
        if value is MISS:
            value = await call.call(lane, args, kwargs)
        elif type(value) is Known:
            value = await call.call_known(lane, value, args, kwargs)  # type: ignore[arg-type]
        return value

    async def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        return await super()._self_owned(wrapped, args, kwargs, owned)


class GeneratorCached(Cached[P, R]):
    """A decorated generator function, or async generator function."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        origin = functools.partial(self.__wrapped__, *args, **kwargs)
        values: R = _pieces(self._self_target, origin, args, kwargs)
        return values


def _pieces(target: Target, origin: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    room = _room(target)
    return origin() if room is None else room.call(target, origin, args, kwargs)


def _room(target: Target) -> Any:
    """What makes calls of this kind, imported by the first of them; None where it cannot be read."""
    room: Any
    try:
        if target.keeps_files:
            from cachekit.calls.builds import calls as room
        elif target.policy.adapter is not None:
            from cachekit.calls.answers import answers as room
        else:
            from cachekit.calls.streams import generators as room
    except OSError as error:  # no descriptor is free: the call itself may need none
        unopened(target, error)
        return None
    return room


_KINDS: Mapping[str, type[Cached[Any, Any]]] = {
    "value": Cached,
    "coroutine": AsyncCached,
    "generator": GeneratorCached,
    "async_generator": GeneratorCached,
}


class ArtifactCached(Cached[P, R]):
    """A decorated function that builds a file or a directory."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        place: R = self._self_owned(self.__wrapped__, args, kwargs, args)
        return place

    def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        builds = _room(self._self_target)
        if builds is None:
            return wrapped(*args, **kwargs)
        return builds.call(builds.Build(self._self_target, wrapped, args, kwargs, owned))

    def _self_help(self, helper: str, args: Any, kwargs: Any, *value: Any) -> Any:
        from cachekit.calls.builds import calls

        helpers: Mapping[str, Callable[..., Any]]
        helpers = {"refresh": functools.partial(calls.call, again=True), "peek": calls.peek, "put": calls.put}
        if helper not in helpers:
            return super()._self_help(helper, args, kwargs, *value)
        return helpers[helper](calls.Build(self._self_target, self._self_origin((), {}), args, kwargs, args), *value)


class AdaptedCached(Cached[P, R]):
    """A decorated function that asks a model's server, as an adapter knows it."""

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        target = self._self_target
        origin: Any = functools.partial(self.__wrapped__, *args, **kwargs)
        answers = _room(target)
        if answers is None:
            value: R = origin()
            return value
        flow = answers.call(self._self_lane, args, kwargs, origin, answers.wanted(target, args, kwargs))
        answer: R = driven(flow, is_async=target.is_async)
        return answer

    def _self_help(self, helper: str, args: Any, kwargs: Any, *value: Any) -> Any:
        if helper not in ("refresh", "peek", "put"):
            return super()._self_help(helper, args, kwargs, *value)
        from cachekit.calls.answers import answers

        lane, target = self._self_lane, self._self_target
        wanted = answers.wanted(target, args, kwargs)
        if helper == "put":
            flow = answers.put(lane, args, kwargs, *value)
        elif helper == "peek":
            flow = answers.peek(lane, args, kwargs, wanted)
        else:
            flow = answers.call(lane, args, kwargs, self._self_origin(args, kwargs), wanted, again=True)
        return driven(flow, is_async=target.is_async)


def cached(function: Any, policy: Policy) -> Cached[Any, Any]:
    """`function`, decorated. Raises UsageError where what was said does not fit it, or each other."""
    if policy.codec not in ("auto", ARTIFACT):
        from cachekit.values.codecs import check_codec

        check_codec(policy.codec)
    target = Target(function, policy)
    _check(target, policy)
    if target.keeps_files:
        return ArtifactCached(function, target)
    return (_KINDS[target.kind] if policy.adapter is None else AdaptedCached)(function, target)


def _check(target: Target, policy: Policy) -> None:
    for keyword, name in (("output", policy.output), ("scratch", policy.scratch), ("previous", policy.previous)):
        if name and name not in target.keyer.parameters:
            raise UsageError(f"{keyword}={name!r}: {target.name} has no parameter of that name")
        if name and keyword != "previous" and not target.keeps_files:
            raise UsageError(f"{keyword}= is for artifacts; {target.name} has a codec that keeps values")
    _check_ignored(target, policy)
    if policy.previous and (target.keeps_files or policy.adapter is not None or target.kind.endswith("generator")):
        raise UsageError("previous= is for functions that return a value: no artifact, no adapter=, no generator")
    if policy.output and policy.output == policy.scratch:
        raise UsageError(f"output= and scratch= both name {policy.output!r}; they are two places")
    if target.keeps_files:
        _check_artifact(target, policy)
    elif policy.adapter is not None and target.kind.endswith("generator"):
        raise UsageError("adapter= is for functions that return what the SDK returns, a stream included; do not yield")


def _check_ignored(target: Target, policy: Policy) -> None:
    said = policy.ignore - (policy.adapter.neutral if policy.adapter is not None else frozenset())
    unknown = sorted(
        name for name in said - {policy.output, policy.scratch, policy.previous} if not target.keyer.takes(name)
    )
    if not unknown:
        return
    # What the function reads from outside can be left out too.
    from cachekit.keys.code.source import nested_codes

    codes = list(nested_codes(target.function.__code__))
    read = {name for code in codes for name in (*code.co_names, *code.co_freevars, *code.co_varnames)}
    for name in unknown:
        if name not in read:
            names = ", ".join(target.keyer.parameters) or "none"
            raise UsageError(f"ignore={name!r}: {target.name} neither takes nor reads it; its arguments: {names}")


def _check_artifact(target: Target, policy: Policy) -> None:
    if policy.adapter is not None:
        raise UsageError("an artifact has no adapter=; it is for functions that return what a model's SDK returns")
    if policy.output and not isinstance(policy.codec, str):
        raise UsageError("output= is for functions that return a path; an artifact codec gives the object itself")
    if target.kind.endswith("generator"):
        raise UsageError("an artifact is one path: return it, do not yield")
