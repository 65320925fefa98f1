"""Calls that build a file or a directory: what is stored is a Manifest, and what the caller gets is a path.

Between the common path of a call and its caller stands this: what the origin built is taken into the artifact store
and becomes a Manifest, and a Manifest becomes a path again, fetched from the team where it is not here. Where the store
refuses, the caller gets what the origin built, and the refusal is counted under `artifacts`.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachekit import plan as plans
from cachekit.artifact_about import about
from cachekit.artifact_origin import Build, Unkept, auncached, checked, handed_over, inside, own_scratch, same, uncached
from cachekit.errors import TierError
from cachekit.manifest import Manifest
from cachekit.model import Event
from cachekit.perform import aperform, perform
from cachekit.prepare import Prepared, prepare
from cachekit.request import STREAMING, Request
from cachekit.temporaries import remove

__all__ = ["Build", "acall", "call"]


@dataclass(slots=True)
class Work:
    """One call on its way. `made` is where the origin left the result, if it was this call that asked it."""

    prepared: Prepared
    build: Build
    made: Path | None = None

    @property
    def store(self) -> Any:
        store = self.prepared.cache.artifacts
        assert store is not None
        return store

    @property
    def request(self) -> Request:
        """Nothing is stored of what the artifact store does not have."""
        return replace(self.prepared.request, judge=lambda value: STREAMING if type(value) is Unkept else "")

    def tell(self, error: TierError | OSError) -> None:
        reason = error.reason if isinstance(error, TierError) else "io"
        self.prepared.cache.tell(Event("error", self.prepared.target.name, "artifacts", reason, error=error))


def call(build: Build, *, again: bool = False) -> Any:
    """The artifact's read-only path, or the caller's own `output` with its content; `again` builds it whatever is stored."""
    prepared = prepare(build.target, build.owned, build.kwargs)
    if prepared is None:
        return uncached(build)
    work, found = Work(prepared, build), None if again else prepared.nearby()
    if not isinstance(found, Manifest):
        steps = plans.compute(work.request, []) if again else plans.plan(work.request)
        found = perform(prepared, steps, lambda: _built(work), announce=again)
    path = _handed(work, found)
    if path is None:
        path = _handed(work, perform(prepared, plans.compute(work.request, []), lambda: _built(work)))
    return uncached(build) if path is None else path


async def acall(build: Build, *, again: bool = False) -> Any:
    import asyncio

    prepared = prepare(build.target, build.owned, build.kwargs)
    if prepared is None:
        return await auncached(build)
    work, found = Work(prepared, build), None if again else prepared.nearby()
    if not isinstance(found, Manifest):
        steps = plans.compute(work.request, []) if again else plans.plan(work.request)
        found = await aperform(prepared, steps, lambda: _abuilt(work), announce=again)
    path = await asyncio.to_thread(_handed, work, found)
    if path is None:
        found = await aperform(prepared, plans.compute(work.request, []), lambda: _abuilt(work))
        path = await asyncio.to_thread(_handed, work, found)
    return await auncached(build) if path is None else path


def _handed(work: Work, found: Manifest | Unkept) -> Path | None:
    """What the caller gets, fetched first where it is not here; None where it cannot be had."""
    if isinstance(found, Unkept):
        return handed_over(work.build, found)
    try:
        path: Path | None = work.store.have(found)
        path = path if path is not None else _fetched(work, found)
        return _placed(work, found, path)
    except (TierError, OSError) as error:
        work.tell(error)
        return None


def _fetched(work: Work, manifest: Manifest) -> Path:
    shared, namespace = work.prepared.cache.shared, work.prepared.key.namespace
    fetch = None if shared is None else functools.partial(shared.files.fetch, namespace, manifest)
    path: Path = work.store.complete(manifest, fetch)
    return path


def _placed(work: Work, manifest: Manifest, path: Path) -> Path:
    output = work.build.output
    if output is None:
        return path
    if work.made is None or not same(work.made, output):
        work.store.place(manifest, output)
    return output


def _built(work: Work) -> Manifest | Unkept:
    with _scratch(work) as scratch:
        return _taken_in(work, work.build.origin(scratch.path)(), scratch)


async def _abuilt(work: Work) -> Manifest | Unkept:
    import asyncio

    with _scratch(work) as scratch:
        origin: Callable[[], Awaitable[Any]] = work.build.origin(scratch.path)
        return await asyncio.to_thread(_taken_in, work, await origin(), scratch)


@dataclass(slots=True)
class Scratch:
    """The managed directory of one attempt; `stays` where it holds all there is of the result."""

    path: Path | None
    stays: bool = False


@contextmanager
def _scratch(work: Work) -> Iterator[Scratch]:
    scratch = Scratch(_new_scratch(work) if work.build.needs_scratch else None)
    try:
        yield scratch
    finally:
        if scratch.path is not None and not scratch.stays:
            remove(scratch.path)


def _new_scratch(work: Work) -> Path:
    try:
        path: Path = work.store.new_scratch()
    except TierError as error:
        work.tell(error)
        return own_scratch()
    return path


def _taken_in(work: Work, result: Any, scratch: Scratch) -> Manifest | Unkept:
    path = checked(work.build, result)
    own = inside(path, scratch.path)
    try:
        if work.prepared.mode == "read-only":
            work.prepared.cache.tell(Event("skipped", work.prepared.target.name, reason="read-only"))
        else:
            manifest = work.store.ingest(path, about=about(work.prepared), own=own)
            work.made = path
            return _named(work, manifest)
    except TierError as error:
        work.tell(error)
    scratch.stays = own
    return Unkept(path, scratch.path if own else None)


def _named(work: Work, manifest: Manifest) -> Manifest:
    prepared = work.prepared
    shared = prepared.cache.shared
    if shared is None or not prepared.request.far:
        return manifest
    try:
        return shared.files.named(prepared.key.namespace, manifest, sealed=work.build.target.policy.encrypt)
    except TierError as error:  # stored here, and nobody else can fetch it
        work.tell(error)
        return manifest
