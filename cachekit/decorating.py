"""Which kind of Cached a function becomes, and what cannot be said of it. The two kinds that go a way of their own are here."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from cachekit.cached import AsyncCached, Cached, GeneratorCached
from cachekit.errors import UsageError
from cachekit.model import Policy
from cachekit.targets import Target
from cachekit.values.codecs import check_codec

if TYPE_CHECKING:
    from cachekit.artifact_origin import Build
    from cachekit.asking import Wanted

P = ParamSpec("P")
R = TypeVar("R")

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
        from cachekit import artifact_calls

        build = self._self_build(args, kwargs)
        return (artifact_calls.acall if self._self_target.is_async else artifact_calls.call)(build, again=True)

    def peek(self, *args: Any, **kwargs: Any) -> Any:
        from cachekit import artifact_calls

        build = self._self_build(args, kwargs)
        return (artifact_calls.apeek if self._self_target.is_async else artifact_calls.peek)(build)

    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        from cachekit import artifact_calls

        build = self._self_build(args, kwargs)
        return (artifact_calls.aput if self._self_target.is_async else artifact_calls.put)(build, value)

    def _self_owned(self, wrapped: Any, args: Any, kwargs: Any, owned: Any) -> Any:
        from cachekit import artifact_calls

        build = artifact_calls.Build(self._self_target, wrapped, args, kwargs, owned)
        return (artifact_calls.acall if self._self_target.is_async else artifact_calls.call)(build)

    def _self_build(self, args: Any, kwargs: Any) -> Build:
        from cachekit import artifact_calls

        return artifact_calls.Build(self._self_target, self._self_origin((), {}), args, kwargs, args)


class AdaptedCached(Cached[P, R]):
    """A decorated function that asks a model's server, as an adapter knows it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # pyright: ignore
        from cachekit import answers

        target = self._self_target
        origin: Any = functools.partial(self.__wrapped__, *args, **kwargs)
        return (answers.acall if target.is_async else answers.call)(
            self._self_lane, args, kwargs, origin, _wanted(target, args, kwargs)
        )


def _wanted(target: Target, args: Any, kwargs: Any) -> Wanted:
    from cachekit.asking import Wanted

    adapter = target.policy.adapter
    assert adapter is not None
    bound = target.bound(args, kwargs)
    streamed = bound.get("stream")
    sampled = not target.policy.cache_sampled and adapter.sampled(bound)
    context = "async" if target.is_async else None
    return Wanted(None if streamed is None else bool(streamed), context, adapter.name, sampled)


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
