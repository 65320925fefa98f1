"""A command as it runs: what it prints is shown and kept, and signals are passed on to it.

Where we write to a terminal it does too, and has the caller's standard input where that is one.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from cachekit.commands.command import Command
from cachekit.errors import UsageError
from cachekit.files.digests import write_all

_PIECE: Final = 1 << 16
_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_TYPED: Final = ("SIGINT", "SIGQUIT")
"""Those that a terminal sends to its whole foreground group."""
_LOOK: Final = 0.2
_PATIENCE: Final = 1.0
"""Seconds for the last words of a command that a signal ended: what it started may hold the pipe for as long as it likes."""


class CannotRun(UsageError):
    """There is no such program, or it may not be run; `status` is what a shell says then."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f"{name} cannot be run: {error.strerror or error}")
        self.status = 127 if isinstance(error, FileNotFoundError) else 126


class Ended(NamedTuple):
    """`status` as `subprocess` has it, less than 0 for a signal; `problem` is why what it printed must not be
    kept, "" where nothing speaks against it.
    """

    status: int
    problem: str


class Shown(NamedTuple):
    """Where the command's standard output and standard error appear while it runs."""

    stdout: IO[bytes]
    stderr: IO[bytes]


def perform(
    command: Command, kept: Path | None, shown: Shown, stdin: int | IO[bytes] | None, *, relay: bool = True
) -> Ended:
    """Runs it; what it prints is shown, and kept as `stdout` and `stderr` in the new directory `kept`, unless that is None.

    `stdin` is what `subprocess` takes: None for the caller's own. `relay` passes our signals on, which end nothing else
    then; without it, what ends the wait (Ctrl-C) ends the command. Raises CannotRun for what cannot be run.
    """
    lost: list[str] = []
    with _passing_on() if relay else nullcontext(_Relay()) as signals:
        ends = [_end_for(terminal) for terminal in command.terminal]
        try:
            process = subprocess.Popen(
                command.argv, cwd=command.cwd, stdin=stdin, stdout=ends[0].theirs, stderr=ends[1].theirs
            )
        except OSError as error:
            raise CannotRun(command.argv[0], error) from error
        finally:
            for end in ends:
                end.given_away()
        signals.reach(process)
        copying = _copying(process, ends, kept, lost, shown)
        try:
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        ended = bool(signals.heard)
        _await(copying, signals)
    if signals.heard and not ended:  # the command was over, and only what it started still held the pipe
        status = -signals.heard[0]
    if signals.heard:
        lost.append(f"{signal.Signals(signals.heard[0]).name} was passed on to the command")
    return Ended(status, lost[0] if lost else "")


def shell_status(status: int) -> int:
    """How a shell says it, which cannot be told back: 143 is `SIGTERM`, and what some programs exit with."""
    return 128 - status if status < 0 else status


class _End:
    """One stream of the command: `theirs` is what it writes to, `ours` what we read from; None where that is a pipe's."""

    def __init__(self, theirs: int = subprocess.PIPE, ours: IO[bytes] | None = None) -> None:
        self.theirs, self.ours = theirs, ours

    def given_away(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)


def _end_for(terminal: bool) -> _End:
    """A pipe; a terminal of its own where ours is one, so that the command's words look as they would without us."""
    if not terminal or os.name != "posix":
        return _End()
    import termios

    ours, theirs = os.openpty()
    with suppress(OSError, termios.error):
        how = termios.tcgetattr(theirs)
        how[1] &= ~termios.OPOST  # its bytes as they are: our own terminal makes of them what it makes
        termios.tcsetattr(theirs, termios.TCSANOW, how)
        columns, lines = os.get_terminal_size()
        resize = getattr(termios, "tcsetwinsize", None)  # Python 3.11
        if resize is not None:
            resize(theirs, (lines, columns))
    return _End(theirs, os.fdopen(ours, "rb", buffering=0))


def _await(copying: Sequence[threading.Thread], signals: _Relay) -> None:
    while not signals.heard and any(thread.is_alive() for thread in copying):
        for thread in copying:
            thread.join(_LOOK)
    for thread in copying:
        thread.join(_PATIENCE)


def _copying(
    process: subprocess.Popen[bytes], ends: Sequence[_End], kept: Path | None, lost: list[str], shown: Shown
) -> list[threading.Thread]:
    sources = (ends[0].ours or process.stdout, ends[1].ours or process.stderr)
    threads = []
    for source, name, to in zip(sources, Shown._fields, shown, strict=True):
        arguments = (source, None if kept is None else kept / name, to, lost)
        threads.append(threading.Thread(target=_copied, args=arguments, name=f"cachekit-{name}", daemon=True))
        threads[-1].start()
    return threads


def _copied(source: IO[bytes], kept: Path | None, shown: IO[bytes], lost: list[str]) -> None:
    # Closed where nobody reads any more (`| head`): the command is told so, as it would be without us.
    with source, closing(_Kept(kept, lost)) as file:
        try:
            while piece := _read(source.fileno()):
                file.write(piece)
                write_all(shown, piece)
                shown.flush()
        except OSError as error:
            lost.append(f"what it printed could not be shown: {error}")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _PIECE)
    except OSError as error:
        if error.errno == errno.EIO:  # the end of a terminal that nobody has open any more
            return b""
        raise


class _Kept:
    """A file for as long as there is room; a full disk must not keep the command's words from whoever reads them."""

    def __init__(self, path: Path | None, lost: list[str]) -> None:
        self._lost = lost
        self._descriptor = -1
        try:
            if path is not None:
                path.parent.mkdir(exist_ok=True)
                self._descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        except OSError as error:
            lost.append(str(error))

    def write(self, piece: bytes) -> None:
        rest = memoryview(piece)
        try:
            while rest and self._descriptor >= 0:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._lost.append(str(error))
            self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class _Relay:
    """Passes the signals that we get on to a process, and notes them."""

    def __init__(self) -> None:
        self.heard: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def reach(self, process: subprocess.Popen[bytes]) -> None:
        """From now on `process` gets them, and at once what came while it was started."""
        self._process = process
        for number in list(self.heard):
            self._send(number)

    def handle(self, number: int, _frame: object) -> None:
        self.heard.append(number)
        self._send(number)

    def _send(self, number: int) -> None:
        # Ctrl-C has reached the command already then, and some break off at the second one.
        typed = signal.Signals(number).name in _TYPED
        if self._process is not None and not (typed and _in_foreground()):
            self._process.send_signal(number)


@contextmanager
def _passing_on() -> Iterator[_Relay]:
    signals, before = _Relay(), dict[int, Any]()
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        for number in (int(getattr(signal, name)) for name in _SIGNALS):
            # What is ignored (nohup) stays so, and the command inherits it.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, signals.handle)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        terminal = os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY)
    except OSError:  # there is none
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
