"""One call that builds an artifact, on its way: what the origin made is taken in, and what the store has is handed out.

What the origin built becomes a Manifest, and a Manifest becomes a path again (or the object that an artifact codec reads
there), fetched from the team where it is not here.

How an artifact came to be, for the people who find it: by which function, from what, on which machine, and when.
"""

from __future__ import annotations

import functools
import os
import platform
import time
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cachekit.artifacts import progress
from cachekit.artifacts.manifest import Manifest
from cachekit.artifacts.portable import name_problem
from cachekit.calls.builds.build import Build, Unkept, checked, handed_over, inside, own_scratch, same
from cachekit.calls.prepare import Prepared, changed_inputs
from cachekit.errors import CannotEncode, IntegrityError, TierError, UsageError
from cachekit.files.temporary import new_name, remove
from cachekit.keys.code.source import source_digest
from cachekit.keys.keyer import ARGUMENT
from cachekit.model import MISS, Event
from cachekit.plan.steps import STREAMING, Request


def about(prepared: Prepared) -> Mapping[str, str]:
    """Texts by name, none of them a secret. What `encrypt=False` publishes says nothing of the arguments."""
    target = prepared.target
    version, function = target.policy.version, target.function
    if version is None and isinstance(function, types.FunctionType):
        version = f"source {source_digest(function)[0][:12]}"
    return {
        **(_arguments(prepared) if target.policy.encrypt else {}),
        "function": target.name,
        "key": str(prepared.key),
        "machine": platform.node(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": version or "",
    }


def _arguments(prepared: Prepared) -> dict[str, str]:
    target, key = prepared.target, prepared.key
    try:
        parts = target.explained(prepared.call, key.namespace, 0).parts
    except (
        Exception
    ) as error:  # a key= of the caller's may raise anything, and so do inputs that the function took away
        prepared.cache.tell(Event("error", target.name, "key", type(error).__name__, error=error))
        return {}
    given = target.keyer.bind(*prepared.call)
    found = {name: text for name, text in parts if name.startswith(ARGUMENT)}
    return {name: _named(text, given.get(name.removeprefix(ARGUMENT))) for name, text in found.items()}


def _named(text: str, value: object) -> str:
    return f"{value.name}: {text}" if isinstance(value, Path) and text.startswith("Path(") else text


@dataclass(slots=True)
class Work:
    """`made` is what the origin gave, `place` where that stood, and `built` what became of it; `over` says that the caller
    has an answer already.
    """

    prepared: Prepared
    build: Build
    made: Any = None
    place: Path | None = None
    built: Manifest | None = None
    over: bool = False

    def __post_init__(self) -> None:
        self.prepared.refine = self._refined

    @property
    def store(self) -> Any:
        store = self.prepared.cache.artifacts
        assert store is not None
        return store

    def _refined(self, request: Request) -> Request:
        """Nothing is stored of what the artifact store does not have; `cacheable` judged before it was taken in."""
        # Built again behind the call, the new content and the old one would be written to one place.
        window = 0.0 if self.build.output is not None else request.stale_while_revalidate
        return replace(
            request, judge=_unkept, cacheable=None, stale_while_revalidate=window, changed=self._input_changed
        )

    def _input_changed(self) -> bool:
        # A function may build inside its input, as compilers do: that the result is there now changes nothing else.
        made = [Path(os.path.realpath(path)) for path in (self.place, self.build.output) if path is not None]
        changed = (Path(os.path.realpath(path)) for path in changed_inputs(self.prepared))
        return any(not any(path.is_relative_to(one) for path in made) for one in changed)

    def tell(self, error: TierError | OSError) -> None:
        reason = error.reason if isinstance(error, TierError) else "io"
        self.prepared.cache.tell(Event("error", self.prepared.target.name, "artifacts", reason, error=error))

    def skip(self, reason: str, error: Exception | None = None) -> None:
        self.prepared.cache.tell(Event("skipped", self.prepared.target.name, reason=reason, error=error))


def _unkept(value: Any) -> str:
    return STREAMING if type(value) is Unkept else ""


def handed(work: Work, found: Manifest | Unkept, *, place: bool = True) -> Any:
    """What the caller gets, fetched first where it is not here, and put at `output`; MISS where it cannot be had."""
    if isinstance(found, Unkept):
        return handed_over(work.build, found)
    try:
        path = work.store.have(found) or _fetched(work, found)
        if work.build.codec is not None:
            return _read(work, found, path)
        return _placed(work, found, path) if place else path
    except (TierError, OSError) as error:
        work.tell(error)
        return MISS


def _fetched(work: Work, manifest: Manifest) -> Path:
    team, namespace = work.prepared.cache.team, work.prepared.key.namespace
    fetch = None if team is None else functools.partial(team.files.fetch, namespace, manifest)
    path: Path = work.store.complete(manifest, fetch)
    return path


def _placed(work: Work, manifest: Manifest, path: Path) -> Path:
    output = work.build.output
    if output is None:
        return path
    if work.built is not manifest or not same(Path(work.made), output):
        work.store.place(manifest, output)
    return output


def _read(work: Work, manifest: Manifest, path: Path) -> Any:
    if work.built is manifest:
        return work.made
    try:
        return work.build.codec.load(path)
    except Exception as error:  # a foreign codec may raise anything: what it cannot read is built again, and counted
        raise IntegrityError(f"{work.build.codec!r} could not load {path.name!r}: {error}", reason="codec") from error


@dataclass(slots=True)
class Scratch:
    """The managed directory of one attempt, in one that goes with it; `stays` where that holds all there is of the result."""

    path: Path | None
    stays: bool = False

    @property
    def above(self) -> Path | None:
        return None if self.path is None else self.path.parent


@contextmanager
def scratch_of(work: Work) -> Iterator[Scratch]:
    scratch = Scratch(_new_scratch(work) if work.build.needs_scratch or work.build.codec is not None else None)
    try:
        yield scratch
    finally:
        if scratch.above is not None and not scratch.stays:
            remove(scratch.above)


def _new_scratch(work: Work) -> Path:
    try:
        return _made(work, work.store.new_scratch() if work.store.has_room() else own_scratch())
    except (TierError, OSError) as error:
        work.tell(error)
        return _made(work, own_scratch())


def _made(work: Work, above: Path) -> Path:
    # Who returns the directory itself has an artifact that is called after the function.
    path = above / _called(work)
    path.mkdir()
    return path


def _called(work: Work) -> str:
    name = str(getattr(work.build.target.function, "__name__", ""))
    return name if name.isidentifier() and not name_problem(name) else "artifact"


def taken_in(work: Work, result: Any, scratch: Scratch) -> Manifest | Unkept:
    """What the origin gave, in the store; as it is, with the reason counted, where it does not get there."""
    path = checked(work.build, result) if work.build.codec is None else None
    work.place = path
    manifest = _kept(work, result, path, scratch)
    if manifest is not None:
        work.built, work.made = manifest, result
        return manifest
    # Behind the call nobody gets it.
    scratch.stays = path is not None and inside(path, scratch.above) and not work.over
    return Unkept(result if path is None else path, scratch.above if scratch.stays else None)


def _kept(work: Work, result: Any, path: Path | None, scratch: Scratch) -> Manifest | None:
    if reason := _refusal(work, result):
        work.skip(reason)
        return None
    try:
        path = path or _written(work, result, scratch)
        return _stored(work, path, own=inside(path, scratch.above))
    except TierError as error:
        work.tell(error)
    except CannotEncode as error:
        work.skip(error.reason, error)
        work.build.target.warn_once(error, about="codec", paid=True)
    except UsageError:
        raise
    except Exception as error:  # what was built is there, and its caller gets it, but who stops by raising
        if progress.stops(error):
            raise
        work.skip("raised", error)
    return None


def _refusal(work: Work, result: Any) -> str:
    if work.prepared.mode == "read-only":
        return "read-only"
    cacheable = work.build.target.policy.cacheable
    return "not_cacheable" if cacheable is not None and not cacheable(result) else ""


def _written(work: Work, result: Any, scratch: Scratch) -> Path:
    assert scratch.above is not None
    path = scratch.above / new_name() / _called(work)
    path.parent.mkdir()
    try:
        work.build.codec.save(result, path)
    except Exception as error:  # a foreign codec may raise anything; the value is returned, not stored, and counted
        raise CannotEncode(f"{work.build.codec!r} could not save: {error}", reason="codec") from error
    if not path.exists():
        raise CannotEncode(f"{work.build.codec!r} saved nothing at the path it was given", reason="codec")
    return path


def _stored(work: Work, path: Path, *, own: bool) -> Manifest:
    manifest: Manifest = work.store.ingest(path, about=about(work.prepared), own=own)
    prepared = work.prepared
    team = prepared.cache.team
    if team is None or not prepared.request.far:
        return manifest
    try:
        named: Manifest = team.files.named(prepared.key.namespace, manifest, sealed=work.build.target.policy.encrypt)
    except TierError as error:  # stored here, and nobody else can fetch it
        work.tell(error)
        return manifest
    return named
