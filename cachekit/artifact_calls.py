"""Calls that build a file or a directory: what is stored is a Manifest, and what the caller gets is a path.

Between the common path of a call and its caller stands this: what the origin built is taken into the artifact store
and becomes a Manifest, and a Manifest becomes a path again, fetched from the team where it is not here.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cachekit import plan as plans
from cachekit.errors import TierError, UsageError
from cachekit.manifest import Manifest
from cachekit.model import Event
from cachekit.perform import aperform, aretried, perform, retried
from cachekit.prepare import Prepared, prepare
from cachekit.targets import Target


class Build(NamedTuple):
    """One call that builds something: the function as it is to be called, and what the key is made of (`owned`)."""

    target: Target
    wrapped: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    owned: tuple[Any, ...]

    @property
    def output(self) -> Path | None:
        """Where the caller wants the result, None for "wherever it is"."""
        name = self.target.policy.output
        value = self.target.bound(self.owned, self.kwargs).get(name) if name else None
        return None if value is None else Path(os.fspath(value))

    @property
    def needs_scratch(self) -> bool:
        name = self.target.policy.scratch
        return bool(name) and self.target.bound(self.owned, self.kwargs).get(name or "") is None

    def origin(self, scratch: Path | None) -> Callable[[], Any]:
        kwargs = self.kwargs if scratch is None else {**self.kwargs, str(self.target.policy.scratch): scratch}
        return functools.partial(self.wrapped, *self.args, **kwargs)


def call(build: Build) -> Any:
    """The artifact's read-only path, or the caller's own `output` with its content."""
    prepared = prepare(build.target, build.owned, build.kwargs)
    if prepared is None:
        return _uncached(build)
    found = prepared.nearby()
    if not isinstance(found, Manifest):
        found = perform(prepared, plans.plan(prepared.request), lambda: _built(prepared, build))
    path = _path(prepared, found)
    if path is None:
        found = perform(prepared, plans.compute(prepared.request, []), lambda: _built(prepared, build))
        path = _store(prepared).assemble(found)
    return _placed(prepared, build, found, path)


async def acall(build: Build) -> Any:
    import asyncio

    prepared = prepare(build.target, build.owned, build.kwargs)
    if prepared is None:
        return await _auncached(build)

    async def built() -> Manifest:
        return await _abuilt(prepared, build)

    found = prepared.nearby()
    if not isinstance(found, Manifest):
        found = await aperform(prepared, plans.plan(prepared.request), built)
    path = await asyncio.to_thread(_path, prepared, found)
    if path is None:
        found = await aperform(prepared, plans.compute(prepared.request, []), built)
        path = _store(prepared).assemble(found)
    return await asyncio.to_thread(_placed, prepared, build, found, path)


def _store(prepared: Prepared) -> Any:
    store = prepared.cache.artifacts
    assert store is not None
    return store


def _path(prepared: Prepared, manifest: Manifest) -> Path | None:
    """Where the artifact stands, fetched first where it does not; None where it cannot be had."""
    try:
        found: Path | None = _store(prepared).have(manifest)
        return found if found is not None else _fetched(prepared, manifest)
    except (TierError, OSError) as error:
        reason = error.reason if isinstance(error, TierError) else "io"
        prepared.cache.tell(Event("error", prepared.target.name, "artifacts", reason, error=error))
        return None


def _fetched(prepared: Prepared, manifest: Manifest) -> Path:
    store, shared = _store(prepared), prepared.cache.shared
    missing = store.missing(manifest)
    if missing:
        if shared is None:
            raise TierError(f"{len(missing)} files are not on this machine, and IPFS is off", reason="missing_files")
        shared.files.fetch(prepared.key.namespace, manifest, missing)
    path: Path = store.assemble(manifest)
    return path


def _built(prepared: Prepared, build: Build) -> Manifest:
    with _scratch(prepared, build) as scratch:
        return _taken_in(prepared, build, retried(build.target, build.origin(scratch))(), scratch)


async def _abuilt(prepared: Prepared, build: Build) -> Manifest:
    import asyncio

    with _scratch(prepared, build) as scratch:
        origin: Callable[[], Awaitable[Any]] = build.origin(scratch)
        result = await aretried(build.target, origin)()
        return await asyncio.to_thread(_taken_in, prepared, build, result, scratch)


@contextmanager
def _scratch(prepared: Prepared, build: Build) -> Iterator[Path | None]:
    if not build.needs_scratch:
        yield None
        return
    with _store(prepared).scratch() as directory:
        yield directory


def _taken_in(prepared: Prepared, build: Build, result: Any, scratch: Path | None) -> Manifest:
    path = _checked(build, result)
    own = scratch is not None and path.resolve().is_relative_to(scratch.resolve())
    manifest: Manifest = _store(prepared).ingest(path, about=_about(prepared), own=own)
    shared = prepared.cache.shared
    if shared is None or not prepared.request.far:
        return manifest
    return shared.files.named(prepared.key.namespace, manifest, sealed=build.target.policy.encrypt)


def _checked(build: Build, result: Any) -> Path:
    if not isinstance(result, (str, os.PathLike)) or not Path(os.fspath(result)).exists():
        raise UsageError(
            f"{build.target.name} is persisted as an artifact and returned {type(result).__name__}, where the path of an "
            "existing file or directory was expected"
        )
    return Path(os.fspath(result))


def _about(prepared: Prepared) -> Mapping[str, str]:
    return {
        "function": prepared.target.name,
        "key": str(prepared.key),
        "machine": platform.node(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _placed(prepared: Prepared, build: Build, manifest: Manifest, path: Path) -> Path:
    output = build.output
    if output is None:
        return path
    _store(prepared).place(manifest, output)
    return output


# -- without the cache: the origin alone, with the same arguments ------------------------------------------------------------


def _uncached(build: Build) -> Any:
    scratch = _own_scratch(build)
    return _handed_over(build, retried(build.target, build.origin(scratch))(), scratch)


async def _auncached(build: Build) -> Any:
    scratch = _own_scratch(build)
    origin: Callable[[], Awaitable[Any]] = build.origin(scratch)
    return _handed_over(build, await aretried(build.target, origin)(), scratch)


def _own_scratch(build: Build) -> Path | None:
    return Path(tempfile.mkdtemp(prefix="cachekit-")) if build.needs_scratch else None


def _handed_over(build: Build, result: Any, scratch: Path | None) -> Any:
    """The result at `output`, or where it is: then the scratch directory stays, because it is all there is of it."""
    output = build.output
    if scratch is None or output is None or Path(result) == output:
        return result
    path = _checked(build, result)
    if path.is_dir():
        shutil.copytree(path, output, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(path, output)
    shutil.rmtree(scratch, ignore_errors=True)
    return output
