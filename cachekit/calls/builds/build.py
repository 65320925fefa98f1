"""The origin of an artifact: how it is called, and what the caller gets of it where the store does not have the result."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from cachekit.artifacts.output import put_path
from cachekit.calls.prepare import retried
from cachekit.calls.target import Target
from cachekit.errors import UsageError
from cachekit.files.copying import CALLERS
from cachekit.files.temporary import remove
from cachekit.plan.steps import CallOrigin, Steps


class Build(NamedTuple):
    """One call that builds something: the function as it is to be called, and what the key is made of (`owned`)."""

    target: Target
    wrapped: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    owned: tuple[Any, ...]

    @property
    def codec(self) -> Any:
        """What writes the function's object as files and reads it again; None where it returns a path itself."""
        chosen = self.target.policy.codec
        return None if isinstance(chosen, str) else chosen

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
        if scratch is None or not self.needs_scratch:
            return functools.partial(self.wrapped, *self.args, **self.kwargs)
        name, signature = str(self.target.policy.scratch), inspect.signature(self.wrapped)
        if name not in signature.parameters:
            return functools.partial(self.wrapped, *self.args, **{**self.kwargs, name: scratch})
        # By its place, where it has no other name or None was passed there.
        bound = signature.bind_partial(*self.args, **self.kwargs)
        bound.arguments[name] = scratch
        return functools.partial(self.wrapped, *bound.args, **bound.kwargs)


class Unkept(NamedTuple):
    """What the origin gave and the store does not have; `scratch` is the directory that holds it, where one does."""

    result: Any
    scratch: Path | None


def checked(build: Build, result: Any) -> Path:
    text = os.fspath(result) if isinstance(result, (str, os.PathLike)) else ""
    if not text or not _stands(text):
        what = repr(text) if isinstance(result, (str, os.PathLike)) else type(result).__name__
        raise UsageError(
            f"{build.target.name} is persisted as an artifact and gave {what}, where the path of an existing file or "
            "directory was expected; return one, or say with codec= how such an object is saved"
        )
    return Path(text)


def _stands(path: str) -> bool:
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        # What the system could not tell is no fault of the function's.
        return isinstance(error, OSError) and error.errno not in CALLERS
    return True


def as_said(build: Build, result: Any) -> Any:
    """A path, as a text where the function is annotated to return one."""
    return str(result) if isinstance(result, Path) and build.codec is None and build.target.returns is str else result


def same(one: Path, other: Path) -> bool:
    return os.path.abspath(one) == os.path.abspath(other)


def uncached(build: Build) -> Steps:
    """The origin alone, with the same arguments."""
    with _removed_on_error(build) as scratch:
        outcome = yield CallOrigin(origin=retried(build.target, build.origin(scratch)))
        return _given(build, outcome.value, scratch)


def own_scratch() -> Path:
    """A directory outside the store; whoever asked removes it."""
    import tempfile

    return Path(tempfile.mkdtemp(prefix="cachekit-"))


@contextmanager
def _removed_on_error(build: Build) -> Iterator[Path | None]:
    scratch = own_scratch() / "scratch" if build.needs_scratch else None
    try:
        if scratch is not None:
            scratch.mkdir()
        yield scratch
    except BaseException:
        if scratch is not None:
            remove(scratch.parent)
        raise


def _given(build: Build, result: Any, scratch: Path | None) -> Any:
    """The result as it is, unless only the scratch directory has it and the caller named a place."""
    if scratch is None:
        return result
    if not isinstance(result, (str, os.PathLike)) or not inside(Path(os.fspath(result)), scratch):
        remove(scratch.parent)
        return result
    return result if build.output is None else handed_over(build, Unkept(checked(build, result), scratch.parent))


def inside(path: Path, scratch: Path | None) -> bool:
    """Whether what stands at `path` goes with the scratch directory."""
    if scratch is None:
        return False
    # A link in it goes with it, wherever that leads.
    return path.absolute().is_relative_to(scratch.absolute()) or path.resolve().is_relative_to(scratch.resolve())


def handed_over(build: Build, found: Unkept) -> Any:
    """The result at `output`, or where it is: then the scratch directory stays, because it is all there is of it."""
    output = build.output
    if output is None or same(found.result, output):
        return found.result
    put_path(found.result, output, movable=found.scratch is not None)
    if found.scratch is not None:
        remove(found.scratch)
    return output
