"""`cachekit run -- COMMAND…`: what a command printed and the files it made, kept, and had again instead of running it."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from cachekit.artifact_output import put_path
from cachekit.cli_answer import Answer
from cachekit.decorators import persist_artifact
from cachekit.errors import UsageError

_PIECE: Final = 1 << 16


class Failed(Exception):
    """The command ended with another status than 0: passed on, and nothing is stored."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the command ended with status {status}")
        self.status = status


def run(options: argparse.Namespace) -> Answer:
    """Runs the command, or replays its outcome; the exit status is the command's."""
    command = tuple(options.command[1:] if options.command[:1] == ["--"] else options.command)
    if not command:
        raise UsageError(
            "`cachekit run` takes a command: cachekit run --input FILE --output FILE -- COMMAND ARGUMENTS…"
        )
    ran: list[bool] = []
    outputs = [Path(text).absolute() for text in options.output]
    try:
        outcome: Path = _kept(options, ran)(
            command=command,
            inputs=[_existing(text) for text in options.input],
            environment={name: os.environ.get(name) for name in options.env},
            outputs=outputs,
        )
    except Failed as failed:
        return Answer({"hit": False, "status": failed.status}, "", _passed_on(failed.status), raw=b"")
    if not ran:
        _replayed(outcome, outputs, aside=options.json)
    return Answer({"hit": not ran, "status": 0, "outputs": [str(path) for path in outputs]}, "", raw=b"")


def _kept(options: argparse.Namespace, ran: list[bool]) -> Callable[..., Any]:
    aside = bool(options.json)

    @persist_artifact(
        pin=options.pin, ttl=options.ttl, version="1", scratch="work", key=_identity, ignore=("aside", "ran")
    )
    def outcome(
        command: Sequence[str],
        inputs: Sequence[Path],
        environment: Mapping[str, str | None],
        outputs: Sequence[Path],
        work: Path | None = None,
    ) -> Path:
        assert work is not None
        ran.append(True)
        kept = work / "outcome"
        kept.mkdir()
        status = _performed(command, kept, aside=aside)
        if status:
            raise Failed(status)
        for number, path in enumerate(outputs):
            _taken(path, kept / "outputs" / str(number))
        return kept

    return outcome


def _identity(bound: Mapping[str, Any]) -> Any:
    """The command as it is written, inputs by content; where the outputs lie is the caller's own business."""
    return {
        "command": list(bound["command"]),
        "inputs": list(bound["inputs"]),
        "environment": dict(bound["environment"]),
        "outputs": [path.name for path in bound["outputs"]],
    }


def _existing(text: str) -> Path:
    path = Path(text).absolute()
    if not path.exists():
        raise UsageError(f"--input {text} does not exist")
    return path


def _performed(command: Sequence[str], kept: Path, *, aside: bool) -> int:
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise UsageError(f"{command[0]} cannot be run: {error.strerror or error}") from error
    streams = ((process.stdout, "stdout", sys.stderr if aside else sys.stdout), (process.stderr, "stderr", sys.stderr))
    copying = [
        threading.Thread(target=_copied, args=(source, kept / name, shown.buffer), name=f"cachekit-{name}")
        for source, name, shown in streams
    ]
    for thread in copying:
        thread.start()
    for thread in copying:
        thread.join()
    return process.wait()


def _copied(source: IO[bytes], kept: Path, shown: IO[bytes]) -> None:
    with kept.open("wb") as file:
        while piece := os.read(source.fileno(), _PIECE):
            file.write(piece)
            shown.write(piece)
            shown.flush()


def _taken(path: Path, place: Path) -> None:
    if not path.exists():
        raise UsageError(f"--output {path} was not made by the command; nothing is stored")
    place.mkdir(parents=True)
    if path.is_dir():
        shutil.copytree(path, place / path.name, symlinks=True)
    else:
        shutil.copy2(path, place / path.name)


def _replayed(outcome: Path, outputs: Sequence[Path], *, aside: bool) -> None:
    for number, path in enumerate(outputs):
        put_path(outcome / "outputs" / str(number) / path.name, path, movable=False)
        _make_writable(path)
    for name, shown in (("stdout", sys.stderr if aside else sys.stdout), ("stderr", sys.stderr)):
        shown.buffer.write((outcome / name).read_bytes())
        shown.flush()


def _make_writable(path: Path) -> None:
    """What came out of the store is read-only there; the caller's copy is the caller's."""
    for place in (path, *path.rglob("*")) if path.is_dir() else (path,):
        if not place.is_symlink():
            place.chmod(place.stat().st_mode | 0o200)


def _passed_on(status: int) -> int:
    """As a shell says it: 128 and the signal's number for a command that a signal ended."""
    return 128 - status if status < 0 else status
