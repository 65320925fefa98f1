"""`cachekit run -- COMMAND…`: what a command printed and the files it made, kept, and had again instead of running it."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cachekit.artifacts.output import refuse_place
from cachekit.artifacts.portable import name_problem
from cachekit.cache.default import ROOT, add_listener, current_mode, default
from cachekit.calls.decorators import persist_artifact
from cachekit.cli.command import collect, look, perform, place
from cachekit.cli.report import Report, printable
from cachekit.errors import CannotKey, UsageError
from cachekit.files.digests import content_digest
from cachekit.files.temporary import remove
from cachekit.model import Event


class NotKept(Exception):
    """The command ran, and nothing of it is stored: its status is passed on, and `why` is said where that is a surprise."""

    def __init__(self, status: int, why: str = "") -> None:
        super().__init__(why)
        self.status, self.why = status, why


@dataclass(slots=True)
class Attempt:
    """What this call did itself: the command's `status`, None where it was not run, and where its outcome was built."""

    status: int | None = None
    work: Path | None = None
    events: list[Event] = field(default_factory=list)


def run(options: argparse.Namespace) -> Report:
    """Runs the command, or replays its outcome; the exit status is the command's."""
    command = tuple(options.command[1:] if options.command[:1] == ["--"] else options.command)
    if not command:
        raise UsageError(
            "`cachekit run` takes a command: cachekit run --input FILE --output FILE -- COMMAND ARGUMENTS…"
        )
    outputs = [_named("--output", text) for text in options.output]
    inputs = [_readable(text) for text in options.input]
    for path in outputs:
        refuse_place(path, ROOT.cache().settings.dir, inputs)
    environment = {name: os.environ.get(name) for name in options.env}
    attempt = Attempt()
    try:
        outcome = _outcome(options, attempt, command, inputs, environment, outputs)
    except NotKept as ended:
        if ended.why:
            print(f"cachekit: nothing was kept: {printable(ended.why)}", file=sys.stderr)
        return _report(outputs, status=ended.status, kept=False)
    if attempt.status is None:
        place(outcome, outputs)
        _print(outcome, aside=options.json)
    return _report(outputs, hit=attempt.status is None)


def _report(outputs: Sequence[Path], *, hit: bool = False, status: int = 0, kept: bool = True) -> Report:
    data = {"hit": hit, "status": status, "kept": kept, "outputs": [str(path) for path in outputs]}
    return Report(data, "", status, raw=b"")


def _outcome(
    options: argparse.Namespace,
    attempt: Attempt,
    command: Sequence[str],
    inputs: Sequence[Path],
    environment: Mapping[str, str | None],
    outputs: Sequence[Path],
) -> Path:
    """Where the outcome stands in the store. Raises NotKept where it does not, and the command ran."""
    if current_mode() == "off" or default().artifacts is None:
        why = "" if current_mode() == "off" else f"there is no disk tier: {default().status()['disk'].reason}"
        raise NotKept(perform(command, None, aside=options.json).status, why)
    kept = _kept(options, attempt, _name(command, outputs))
    remove_listener = add_listener(attempt.events.append)
    try:
        outcome: Path = kept(command=command, inputs=inputs, environment=environment, outputs=outputs)
    except OSError as error:  # there was no room for a scratch directory, not even outside the store
        status = perform(command, None, aside=options.json).status if attempt.status is None else attempt.status
        raise NotKept(status, str(error)) from error
    except UsageError as error:
        if attempt.work is None:
            raise
        raise NotKept(0, str(error)) from error  # of what the command made: the store does not take it
    finally:
        remove_listener()
    _check_stored(outcome, attempt)
    return outcome


def _check_stored(outcome: Path, attempt: Attempt) -> None:
    if any(event.what == "skipped" and event.reason == "input_changed" for event in attempt.events):
        raise NotKept(0, "an --input is another one than before the command, which may have been made of either")
    refused = [event for event in attempt.events if event.what == "error" and event.tier in ("artifacts", "disk")]
    left = attempt.work is not None and outcome.resolve().is_relative_to(attempt.work.resolve())
    if left and attempt.work is not None:
        remove(attempt.work.parent)
    if left or (refused and attempt.work is not None):
        raise NotKept(0, str(refused[0].error or refused[0].reason) if refused else "the store did not take it")


def _kept(options: argparse.Namespace, attempt: Attempt, name: str) -> Callable[..., Any]:
    aside, storing = bool(options.json), current_mode() in ("on", "refresh")

    def outcome(
        command: Sequence[str],
        inputs: Sequence[Path],
        environment: Mapping[str, str | None],
        outputs: Sequence[Path],
        work: Path | None = None,
    ) -> Path:
        assert work is not None
        if attempt.status is not None:  # the store lost it at once: a command is not run twice for that
            raise NotKept(attempt.status, "the store did not keep it")
        _build(attempt, command, outputs, work / name if storing else None, aside=aside)
        attempt.work = work
        attempt.events.clear()  # those before say nothing about storing it
        return work / name

    # In keys it is called so, wherever this module lies.
    outcome.__module__, outcome.__qualname__ = "cachekit.cli", "outcome"
    # Version 2: the command gets no standard input, and the permissions of its outputs are kept.
    return persist_artifact(
        pin=options.pin,
        ttl=options.ttl,
        version="2",
        scratch="work",
        key=_identity,
        ignore=("aside", "attempt", "name", "storing"),
    )(outcome)


def _build(
    attempt: Attempt, command: Sequence[str], outputs: Sequence[Path], kept: Path | None, *, aside: bool
) -> None:
    before = [look(path) for path in outputs]
    ended = perform(command, kept, aside=aside)
    attempt.status = ended.status
    if ended.status or kept is None:
        raise NotKept(ended.status)
    if ended.problem:
        raise NotKept(0, ended.problem)
    for path, seen in zip(outputs, before, strict=True):
        if not path.exists():
            raise UsageError(f"--output {path} was not made by the command; nothing is stored")
        if seen and look(path) == seen:
            raise NotKept(0, f"--output {path} stood there before, and the command left it as it was")
    try:
        collect(outputs, kept)
    except OSError as error:
        raise NotKept(0, str(error)) from error


def _identity(bound: Mapping[str, Any]) -> Any:
    """The command as it is written, inputs by content; where the outputs lie is the caller's own business."""
    return {
        "command": list(bound["command"]),
        "inputs": list(bound["inputs"]),
        # What a manifest tells of the call is for the team; the values may be passwords.
        "environment": {name: _digest(value) for name, value in bound["environment"].items()},
        "outputs": [path.name for path in bound["outputs"]],
    }


def _digest(value: str | None) -> str | None:
    return None if value is None else hashlib.sha256(os.fsencode(value)).hexdigest()


def _name(command: Sequence[str], outputs: Sequence[Path]) -> str:
    """What `ls --artifacts` and `show` call the outcome."""
    name = outputs[0].name if outputs else Path(command[0]).name
    return "outcome" if name_problem(name) else name


def _named(option: str, text: str) -> Path:
    if not text:
        raise UsageError(f"{option} takes the path of a file or a directory")
    return Path(os.path.abspath(text))


def _readable(text: str) -> Path:
    path = _named("--input", text)
    if not os.path.exists(path):
        raise UsageError(f"--input {text} does not exist")
    try:
        if current_mode() != "off":
            default()  # what other processes read of it is known there
            content_digest(path, where="--input")
    except CannotKey as error:
        why = error.__cause__
        raise UsageError(f"--input {text} cannot be read ({why}): it counts by its content") from error
    return path


def _print(outcome: Path, *, aside: bool) -> None:
    for name, shown in (("stdout", sys.stderr if aside else sys.stdout), ("stderr", sys.stderr)):
        shown.buffer.write((outcome / name).read_bytes())
        shown.flush()
