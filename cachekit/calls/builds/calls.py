"""Calls that build a file or a directory, and what else can be done with such a function: refresh, peek, put.

Between the common path of a call and its caller stands a Work: what is stored is a Manifest, and what the caller gets is
a path. Where the store refuses, the caller gets what the origin built, and the refusal is counted under `artifacts`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cachekit.artifacts.manifest import Manifest
from cachekit.artifacts.output import refuse_place
from cachekit.cache.default import ROOT
from cachekit.calls.builds.build import Build, Unkept, as_said, uncached
from cachekit.calls.builds.work import Work, handed, scratch_of, taken_in
from cachekit.calls.call import storing
from cachekit.calls.prepare import Prepared, begun, driven, keyed, prepare, retried
from cachekit.model import MISS, Event
from cachekit.plan import plan as plans
from cachekit.plan.steps import Begin, CallOrigin, Do, Steps

_CONTAINERS = (list, tuple, set, frozenset)


def paths_in(value: Any) -> Iterator[Path]:
    """Every Path in nested containers; other objects are not looked into, nor is a container that holds itself."""
    waiting, seen = [value], set[int]()
    while waiting:
        one = waiting.pop()
        if isinstance(one, Path):
            yield one
        elif isinstance(one, (dict, *_CONTAINERS)) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, dict) else one)


__all__ = ["Build", "call", "peek", "put"]


def call(build: Build, *, again: bool = False) -> Any:
    """The artifact's read-only path, or the caller's own `output` with its content; `again` builds it whatever is stored."""
    return driven(_called(build, again=again), is_async=build.target.is_async)


def _called(build: Build, *, again: bool) -> Steps:
    prepared = yield from _preparing(build)
    if prepared is None:
        return (yield from uncached(build))
    work, answer = Work(prepared, build), None if again else prepared.nearby()
    if not isinstance(answer, Manifest):
        answer = yield from _built(work, again=again, announce=again)
        work.over = True
    result = yield Do(functools.partial(handed, work, answer))
    if result is MISS:
        work = Work(prepared, build)
        answer = yield from _built(work, again=True)
        result = yield Do(functools.partial(handed, work, answer))
    return (yield from uncached(build)) if result is MISS else as_said(build, result)


def _built(work: Work, *, again: bool, announce: bool = False) -> Steps:
    """The manifest of the plan; or what the origin gave, where the store does not have it."""
    prepared, request = work.prepared, work.prepared.request
    steps = plans.compute(request, []) if again else plans.plan(request)
    origin = retried(work.build.target, lambda: driven(_building(work), is_async=prepared.is_async))
    answer = yield from begun(prepared, steps, origin, announce=announce)
    yield Begin(None)
    return answer


def _building(work: Work) -> Steps:
    with scratch_of(work) as scratch:
        result = (yield CallOrigin(origin=work.build.origin(scratch.path))).value
        # Whoever is cancelled must not take the directory away under the thread that reads it.
        return (yield Do(functools.partial(taken_in, work, result, scratch), held=True))


def peek(build: Build) -> Any:
    """What a hit would give, `output` left alone; MISS where there is none, or its files cannot be had."""
    prepared = keyed(build.target, build.owned, build.kwargs)
    return driven(_peeked(prepared, build), is_async=prepared.is_async)


def _peeked(prepared: Prepared, build: Build) -> Steps:
    if prepared.cache.artifacts is None:
        return MISS
    manifest = yield from begun(prepared, plans.peek(prepared.request), quiet=True)
    if manifest is MISS:
        return MISS
    return as_said(build, (yield Do(functools.partial(handed, Work(prepared, build), manifest, place=False))))


def put(build: Build, value: Any) -> Any:
    """Stores a copy of what stands at the path `value`, or what an artifact codec writes of it, as the call's answer."""
    prepared = storing(build.target, build.owned, build.kwargs)
    return driven(_put(prepared, build, value), is_async=prepared.is_async)


def _put(prepared: Prepared, build: Build, value: Any) -> Steps:
    if not _has_store(prepared):
        return False
    work = Work(prepared, build)
    manifest = yield Do(functools.partial(_given, work, value))
    if isinstance(manifest, Unkept):
        return False
    return (yield from begun(prepared, plans.put(prepared.request, manifest), announce=True))


def _inputs(build: Build) -> list[Path]:
    """The paths that the call is made of, and that are there."""
    ignored = build.target.policy.ignore
    bound = build.target.bound(build.owned, build.kwargs)
    found = paths_in([value for name, value in bound.items() if name not in ignored])
    return [path for path in found if path.exists()]


def _preparing(build: Build) -> Steps:
    """None where the call must go straight to the origin; the reason is counted."""
    inputs = _inputs(build)
    if build.output is not None:
        refuse_place(build.output, ROOT.cache().settings.dir, inputs)
    prepare_it = functools.partial(prepare, build.target, build.owned, build.kwargs)
    # Inputs are read for the key.
    prepared = (yield Do(prepare_it)) if inputs else prepare_it()
    return prepared if prepared is not None and _has_store(prepared) else None


def _has_store(prepared: Prepared) -> bool:
    if prepared.cache.artifacts is not None:
        return True
    # Why, `status()` says: the directory could not be had.
    prepared.cache.tell(Event("bypass", prepared.target.name, reason="no_store"))
    return False


def _given(work: Work, value: Any) -> Manifest | Unkept:
    with scratch_of(work) as scratch:
        return taken_in(work, value, scratch)
