"""`cachekit run -- COMMAND…`: what a command printed and the files it made, kept, and had again instead of running it."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

from cachekit.cache.default import current_mode, default
from cachekit.cli.report import Report, printable
from cachekit.commands import quick
from cachekit.commands.command import Command, Given, argv_of, named, readable
from cachekit.commands.notes import fold, leave
from cachekit.commands.outcome import Done, outcome_of
from cachekit.commands.process import CannotRun, Shown, shell_status
from cachekit.commands.program import Program, undeclared
from cachekit.commands.trace import Trace, trace_of
from cachekit.errors import UsageError

_PIECE: Final = 1 << 20


def run(options: argparse.Namespace) -> Report:
    """Runs the command, or replays its outcome; the exit status is the command's."""
    command = _command(options)
    shown = Shown(sys.stderr.buffer if options.json else sys.stdout.buffer, sys.stderr.buffer)
    off = current_mode() == "off"
    trace = _tracing(command) if options.trace else None
    stdin = None if off else _stdin(options)
    try:
        done = outcome_of(
            command,
            shown,
            stdin=stdin,
            # What is typed does not count, and whoever asks at a terminal is answered there.
            inherit=off or _is_terminal(sys.stdin),
            ttl=options.ttl,
            pin=options.pin,
            trace=trace,
            ran=lambda program: _say_undeclared(command, program),
        )
    except CannotRun as error:
        print(f"cachekit: {printable(str(error))}", file=sys.stderr)
        done = Done(error.status)
    except BrokenPipeError:  # the reader of a replay has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        done = Done(quick.UNREAD, hit=True, kept=True)
    if done.left is not None and current_mode() == "on":
        with suppress(OSError, ValueError):  # it ran, and is kept: without a note the next hit goes the whole way
            leave(default(), options.words, done.left, report=options.json)
    if not off:
        fold(default())
    if trace is not None:
        _say_traced(trace, done.program or Program())
    if done.why:
        print(f"cachekit: nothing was kept: {printable(done.why)}", file=sys.stderr)
    return _report(command, done)


def _command(options: argparse.Namespace) -> Command:
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        raise UsageError(
            "`cachekit run` takes a command: cachekit run --input FILE --output FILE -- COMMAND ARGUMENTS…"
        )
    if current_mode() != "off":
        default()  # what other processes read of the inputs is known there
    return Command(
        argv=argv_of(words),
        where=os.getcwd() if options.cwd else "",
        outputs=tuple(named("--output", text) for text in options.output),
        inputs=tuple(_input(text) for text in options.input),
        environment={name: os.environ.get(name) for name in options.env},
        terminal=(_is_terminal(sys.stderr if options.json else sys.stdout), _is_terminal(sys.stderr)),
        failures=options.store_failures,
    )


def _input(text: str) -> Path:
    return readable(text, "--input")


def _stdin(options: argparse.Namespace) -> Given | None:
    """Standard input to its end: of a file always, of a pipe only when asked, because one that nobody closes never ends."""
    if quick.is_file(0):
        return Given.read(quick.rest_of_stdin())
    if not options.stdin or sys.stdin is None or _is_terminal(sys.stdin):
        return None
    return Given.read(iter(lambda: os.read(0, _PIECE), b""))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _say_undeclared(command: Command, program: Program) -> None:
    """Once, before it runs: what is replayed then is not made of another content."""
    for text in undeclared(command.argv, program, (*command.inputs, *command.outputs), command.cwd):
        say = f"--input {text} where the command reads it, --output {text} where it makes it"
        print(
            f"cachekit: {printable(text)} is named in the command and does not count: say {printable(say)}",
            file=sys.stderr,
        )


def _tracing(command: Command) -> Trace | None:
    trace = trace_of(command)
    if trace is None:
        why = "there is no strace here that may look: install it, or allow ptrace"
        print(f"cachekit: what the command reads cannot be listed ({why})", file=sys.stderr)
    return trace


def _say_traced(trace: Trace, program: Program) -> None:
    try:
        for path in trace.read(program):
            print(f"cachekit: read and not declared: {printable(path)}", file=sys.stderr)
    finally:
        trace.file.unlink(missing_ok=True)


def _report(command: Command, done: Done) -> Report:
    outputs = [str(path) for path in command.outputs]
    status = shell_status(done.status)
    data = {"hit": done.hit, "status": status, "kept": done.kept, "outputs": outputs}
    return Report(data, "", status, raw=b"")
