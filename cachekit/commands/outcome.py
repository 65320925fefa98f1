"""The outcome of a command: had again where the same command ran before, else made now and kept."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from cachekit.artifacts.output import refuse_place
from cachekit.artifacts.portable import name_problem
from cachekit.cache.default import ROOT, add_listener, current_mode, default
from cachekit.calls.builds.build import Build
from cachekit.calls.builds.calls import call
from cachekit.calls.policy import ARTIFACT, policy_of
from cachekit.calls.prepare import keyed
from cachekit.calls.target import Target
from cachekit.commands import quick
from cachekit.commands.command import Command, Given
from cachekit.commands.notes import Left, Seen, seen_of, settings_files
from cachekit.commands.outputs import collect, look, place, read_about, write_about
from cachekit.commands.process import Shown, perform
from cachekit.commands.program import Program, program_of
from cachekit.commands.trace import Trace
from cachekit.errors import TierError, UsageError
from cachekit.files.digests import write_all
from cachekit.files.temporary import remove
from cachekit.model import Event, Record

_REMEMBERED: Final = 256
_programs: dict[tuple[Any, ...], tuple[Program, Seen]] = {}


class NotKept(Exception):
    """The command ran, and nothing of it is stored: its status is passed on, and `why` is said where that is a surprise."""

    def __init__(self, status: int, why: str = "") -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Done(NamedTuple):
    """`hit`: it did not run; `kept`: the next one is a hit; `why` not, where that is a surprise. `left` is what the
    next run can be told of it.
    """

    status: int
    hit: bool = False
    kept: bool = False
    why: str = ""
    program: Program | None = None
    left: Left | None = None


@dataclass(slots=True)
class Attempt:
    """One call: what it was given; and what it did itself: the command's `status`, None where it was not run, and where
    its outcome was built.
    """

    command: Command
    shown: Shown
    stdin: Given | None
    inherit: bool
    trace: Trace | None = None
    relay: bool = True
    policy: Mapping[str, Any] = field(default_factory=dict)
    program: Program = field(default_factory=Program)
    seen: Seen | None = None
    generation: int = 0
    record: Record | None = None
    status: int | None = None
    work: Path | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def noted(self) -> bool:
        """Whether the next one may be told by a note: a program's own calls have the cache open."""
        return self.relay and self.trace is None and (self.stdin is None or self.stdin.digest == quick.given())

    def perform(self, kept: Path | None) -> int:
        """Runs the command. Raises NotKept where what it printed must not be kept."""
        source: int | IO[bytes] | None = subprocess.DEVNULL
        if self.stdin is not None:
            self.stdin.file.seek(0)
            source = self.stdin.file
        elif self.inherit:
            source = None
        command = self.command if self.trace is None else self.trace.command
        ended = perform(command, kept, self.shown, source, relay=self.relay)
        self.status = ended.status
        if ended.problem and not ended.status:
            raise NotKept(ended.status, ended.problem)
        if ended.problem:
            raise NotKept(ended.status)
        return ended.status


def outcome_of(
    command: Command,
    shown: Shown,
    *,
    stdin: Given | None = None,
    inherit: bool = False,
    trace: Trace | None = None,
    relay: bool = True,
    ran: Callable[[Program], None] = lambda _program: None,
    **policy: Any,
) -> Done:
    """Replays the outcome, or runs the command, whose words are shown as it writes them, and keeps what comes of it.

    `inherit` gives it the caller's standard input, which does not count; `trace` runs it whatever is stored; `relay` is as
    `perform` says; `ran` is called before it runs; `policy` are keywords of `persist_artifact`. Raises UsageError for what
    cannot be run, and where an output was not made or cannot be placed.
    """
    attempt = Attempt(command, shown, stdin, inherit, trace, relay, policy)
    try:
        found = _found_or_alone(attempt, ran)
    except NotKept as ended:
        return Done(ended.status, why=ended.why, program=attempt.program)
    status, modes = read_about(found, len(command.outputs))
    hit = attempt.status is None
    if not hit and (trace is not None or current_mode() == "refresh"):
        with suppress(TierError):  # other notes hold what this outcome stands in place of
            default().ledger.bump()
    if hit:
        place(found, command.outputs, modes)
        for name, to in zip(Shown._fields, shown, strict=True):
            write_all(to, (found / name).read_bytes())  # unbuffered, one write may take a part
            to.flush()
    left = None
    if attempt.seen is not None and attempt.record is not None:
        left = Left(found, attempt.record, status, command.outputs, modes, attempt.seen, attempt.generation)
    return Done(status, hit=hit, kept=True, program=attempt.program, left=left)


def _found_or_alone(attempt: Attempt, ran: Callable[[Program], None]) -> Path:
    try:
        return _found(attempt, ran)
    except NotKept:
        if attempt.status is not None:
            raise
        # Another thread ran it, and has its words: who waited for that runs it too.
        raise NotKept(attempt.perform(None)) from None


def _found(attempt: Attempt, ran: Callable[[Program], None]) -> Path:
    """Where the outcome stands in the store. Raises NotKept where it does not, and the command ran."""
    if current_mode() == "off" or default().artifacts is None:
        why = "" if current_mode() == "off" else f"there is no disk tier: {default().status()['disk'].reason}"
        raise NotKept(attempt.perform(None), why)
    command = attempt.command
    for path in command.outputs:
        refuse_place(path, ROOT.cache().settings.dir, command.inputs)
    attempt.generation = default().ledger.generation[0]
    began = time.time_ns()
    attempt.program, seen = _program_of(command, began)
    if seen is not None and attempt.noted and (rest := seen_of(settings_files(), command.inputs, began)) is not None:
        attempt.seen = {**seen, **rest}
    kept = _kept(attempt, ran)
    remove_listener = add_listener(attempt.events.append)
    try:
        outcome: Path = call(kept, again=attempt.trace is not None)
    except OSError as error:  # there was no room for a scratch directory, not even outside the store
        raise NotKept(attempt.perform(None) if attempt.status is None else attempt.status, str(error)) from error
    except UsageError as error:
        if attempt.work is None:
            raise
        raise NotKept(attempt.status or 0, str(error)) from error  # of what it made: the store does not take it
    finally:
        remove_listener()
    _check_stored(outcome, attempt)
    if attempt.seen is not None and (disk := default().disk) is not None:
        with suppress(TierError):  # without its record there is no note
            attempt.record = disk.get(keyed(kept.target, kept.args, kept.kwargs).key)
    return outcome


def _program_of(command: Command, began: int) -> tuple[Program, Seen | None]:
    """The program, and what was seen before it counted. A process that asks often finds it known while nothing changed."""
    environ = [
        value for item in os.environ.items() if item[0] == "PATH" or item[0].startswith("PYTHON") for value in item
    ]
    asked = (command.argv, command.cwd, os.getcwd(), *environ)
    known = _programs.get(asked)
    if known is not None and seen_of(known[0].watched, (), began) == known[1]:
        program = known[0]
    else:
        program = program_of(command.argv, command.cwd, os.environ)
    alone = seen_of(program.watched, (), began) if program.sure else None
    if alone is None:
        return program, None
    if len(_programs) >= _REMEMBERED:
        _programs.clear()
    _programs[asked] = program, alone
    return program, alone


def _check_stored(outcome: Path, attempt: Attempt) -> None:
    status = attempt.status or 0
    if any(event.what == "skipped" and event.reason == "input_changed" for event in attempt.events):
        why = "the program, or an --input is another one than before the command, which may have been made of either"
        raise NotKept(status, why)
    refused = [event for event in attempt.events if event.what == "error" and event.tier in ("artifacts", "disk")]
    left = attempt.work is not None and outcome.resolve().is_relative_to(attempt.work.resolve())
    if left and attempt.work is not None:
        remove(attempt.work.parent)
    if left or (refused and attempt.work is not None):
        raise NotKept(status, str(refused[0].error or refused[0].reason) if refused else "the store did not take it")


def _kept(attempt: Attempt, ran: Callable[[Program], None]) -> Build:
    name, storing = _name(attempt.command), current_mode() in ("on", "refresh")

    def outcome(command: Command, work: Path | None = None) -> Path:
        assert work is not None
        if attempt.status is not None:  # the store lost it at once: a command is not run twice for that
            raise NotKept(attempt.status, "the store did not keep it")
        ran(attempt.program)
        _build(attempt, work / name if storing else None)
        attempt.work = work
        attempt.events.clear()  # those before say nothing about storing it
        return work / name

    # In keys it is called so, wherever this module lies.
    outcome.__module__, outcome.__qualname__ = "cachekit.cli", "outcome"
    keywords: dict[str, Any] = {
        **ARTIFACT,
        "pin": False,
        **attempt.policy,
        "version": "3",  # the program counts, and a status is kept
        "scratch": "work",
        "key": lambda _bound: attempt.command.identity(attempt.program.facts, attempt.stdin),
        "ignore": ("attempt", "name", "ran", "storing"),
    }
    # Not by the decorator: the command line does without wrapt, which takes as long to import as all of this.
    return Build(Target(outcome, policy_of(**keywords)), outcome, (), {"command": attempt.command}, ())


def _build(attempt: Attempt, kept: Path | None) -> None:
    outputs = attempt.command.outputs
    before = [look(path) for path in outputs]
    status = attempt.perform(kept)
    if kept is None or (status and not attempt.command.failures):
        raise NotKept(status)
    for path, seen in zip(outputs, before, strict=True):
        if not path.exists() and not status:
            raise UsageError(f"the output {path} was not made by the command; nothing is stored")
        if seen and look(path) == seen:
            raise NotKept(status, f"the output {path} stood there before, and the command left it as it was")
    try:
        write_about(kept, status, collect(outputs, kept))
    except OSError as error:
        raise NotKept(status, str(error)) from error


def _name(command: Command) -> str:
    """What `ls --artifacts` and `show` call the outcome."""
    name = command.outputs[0].name if command.outputs else Path(command.argv[0]).name
    return "outcome" if name_problem(name) else name
