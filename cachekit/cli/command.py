"""A command as `cachekit run` runs it, and the files that it makes.

It gets no standard input; what it prints is shown and kept, and signals are passed on to it. Of its files: whether it
made them, a copy for the store, and back where they were, with no more permissions than they had.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from cachekit.artifacts.output import copy_any, put_path
from cachekit.errors import UNREADABLE, IntegrityError, UsageError
from cachekit.files.digests import Signature, signature
from cachekit.files.temporary import new_name, remove

Look = Mapping[tuple[str, bool], Signature]
"""What was seen of a file or a tree: the signature of each path below it, as it is and where it leads."""

_MODES: Final = "modes.json"
_PIECE: Final = 1 << 16
_SIGNALS: Final = ("SIGTERM", "SIGINT", "SIGHUP")
_LOOK: Final = 0.2
_PATIENCE: Final = 1.0
"""Seconds for the last words of a command that a signal ended: what it started may hold the pipe for as long as it likes."""


class Ended(NamedTuple):
    """`status` as a shell says it; `problem` is why what it printed must not be kept, "" where nothing speaks against it."""

    status: int
    problem: str


def perform(command: Sequence[str], kept: Path | None, *, aside: bool) -> Ended:
    """Runs it; what it prints is shown (with `aside` all of it on standard error).

    It is kept as `stdout` and `stderr` in the new directory `kept`, and nowhere where that is None. Raises UsageError for
    what cannot be run.
    """
    lost: list[str] = []
    with _passing_on() as signals:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise UsageError(f"{command[0]} cannot be run: {error.strerror or error}") from error
        signals.reach(process)
        copying = _copying(process, kept, lost, aside=aside)
        status = process.wait()
        ended = bool(signals.heard)
        _await(copying, signals)
    if signals.heard and not ended:  # the command was over, and only what it started still held the pipe
        status = -signals.heard[0]
    if signals.heard:
        lost.append(f"{signal.Signals(signals.heard[0]).name} was passed on to the command")
    return Ended(128 - status if status < 0 else status, lost[0] if lost else "")


def _await(copying: Sequence[threading.Thread], signals: _Relay) -> None:
    while not signals.heard and any(thread.is_alive() for thread in copying):
        for thread in copying:
            thread.join(_LOOK)
    for thread in copying:
        thread.join(_PATIENCE)


def _copying(
    process: subprocess.Popen[bytes], kept: Path | None, lost: list[str], *, aside: bool
) -> list[threading.Thread]:
    streams = ((process.stdout, "stdout", sys.stderr if aside else sys.stdout), (process.stderr, "stderr", sys.stderr))
    threads = []
    for source, name, shown in streams:
        arguments = (source, None if kept is None else kept / name, shown.buffer, lost)
        threads.append(threading.Thread(target=_copied, args=arguments, name=f"cachekit-{name}", daemon=True))
        threads[-1].start()
    return threads


def _copied(source: IO[bytes], kept: Path | None, shown: IO[bytes], lost: list[str]) -> None:
    # Closed where nobody reads any more (`| head`): the command is told so, as it would be without us.
    with source, closing(_Kept(kept, lost)) as file:
        try:
            while piece := os.read(source.fileno(), _PIECE):
                file.write(piece)
                shown.write(piece)
                shown.flush()
        except OSError as error:
            lost.append(f"what it printed could not be shown: {error}")


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
        # Ctrl-C reaches a terminal's whole foreground group, the command too, and some break off at the second one.
        if self._process is not None and not (number == signal.SIGINT and _in_foreground()):
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


def look(output: Path) -> Look:
    """What changes when anybody writes to a file or a tree; empty where nothing stands."""
    seen: dict[tuple[str, bool], Signature] = {}
    for relative, place in _all(output):
        for follow in (False, True):
            with contextlib.suppress(OSError):  # gone meanwhile, or a link to nothing
                seen[relative, follow] = signature(os.stat(place, follow_symlinks=follow))
    return seen


def collect(outputs: Sequence[Path], kept: Path) -> None:
    """Copies the outputs into `kept`, and notes their permissions there. Raises OSError."""
    for number, output in enumerate(outputs):
        place = kept / "outputs" / str(number)
        place.mkdir(parents=True)
        copy_any(output, place / output.name)
    # An artifact's files are as readable as the store: what they may be elsewhere is content like any other.
    (kept / _MODES).write_text(json.dumps([_modes(output) for output in outputs]), encoding="utf-8")


def place(kept: Path, outputs: Sequence[Path]) -> None:
    """Replaces what stands at the outputs. Raises UsageError where one cannot be written, IntegrityError for what `collect`
    did not leave."""
    modes = _kept_modes(kept / _MODES, len(outputs))
    for number, output in enumerate(outputs):
        try:
            _placed(kept / "outputs" / str(number) / output.name, output, modes[number])
        except (OSError, UsageError) as error:
            why = getattr(error.__cause__ or error, "strerror", None) or error
            raise UsageError(f"cannot write the output {str(output)!r} ({why}): name another place") from error


def _kept_modes(file: Path, many: int) -> list[dict[str, int]]:
    try:
        modes: list[dict[str, int]] = json.loads(file.read_text(encoding="utf-8"))
        if len(modes) != many or not all(type(mode) is int for one in modes for mode in one.values()):
            raise ValueError("they are no numbers for each output")
    except UNREADABLE as error:
        raise IntegrityError(
            f"the permissions that were kept cannot be read ({error}); run it with CACHEKIT_MODE=refresh"
        ) from error
    return modes


def _placed(source: Path, output: Path, modes: Mapping[str, int]) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    # Nobody else looks in before the permissions are what they were.
    private = output.parent / f".cachekit-{new_name()}"
    private.mkdir(mode=0o700)
    try:
        staged = private / "output"
        copy_any(source, staged)
        _permit(staged, modes, _allowed(private))
        put_path(staged, output, movable=True)
    finally:
        remove(private)


def _permit(staged: Path, modes: Mapping[str, int], allowed: int) -> None:
    # The deepest first: a directory may lose what it takes to reach the things in it.
    for relative, path in sorted(_all(staged), reverse=True):
        if not path.is_symlink():
            path.chmod(modes.get(relative, 0o700 if path.is_dir() else 0o600) & allowed)


def _allowed(directory: Path) -> int:
    """What the umask lets anything new have, seen on a file: to ask for the umask is to change it."""
    descriptor = os.open(directory / "allowed", os.O_CREAT | os.O_WRONLY, 0o777)
    try:
        return os.fstat(descriptor).st_mode & 0o777
    finally:
        os.close(descriptor)


def _modes(output: Path) -> dict[str, int]:
    return {
        relative: path.stat().st_mode & 0o777 for relative, path in _all(output) if not (relative and path.is_symlink())
    }


def _all(root: Path) -> Iterator[tuple[str, Path]]:
    yield "", root
    for above, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(above, name)
            yield path.relative_to(root).as_posix(), path
