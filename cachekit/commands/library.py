"""A command out of a program: what it printed comes as bytes, and its files where they were."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cachekit.commands.command import Command, Given, argv_of, named, readable
from cachekit.commands.outcome import outcome_of
from cachekit.commands.process import Shown, shell_status
from cachekit.errors import UsageError


class Outcome(NamedTuple):
    """How a command ended: `status` as a shell says it, what it printed as bytes; `hit` where it did not run, `kept` where
    the next one is a hit. `returncode` is the status as `subprocess` has it: less than 0 for a signal.
    """

    status: int
    stdout: bytes
    stderr: bytes
    hit: bool = False
    kept: bool = False
    returncode: int = 0


def run_command(
    argv: Sequence[str | os.PathLike[str]],
    *,
    input: bytes | None = None,
    cwd: str | os.PathLike[str] | None = None,
    env: Iterable[str] = (),
    inputs: Iterable[str | os.PathLike[str]] = (),
    outputs: Iterable[str | os.PathLike[str]] = (),
    account: str = "",
    store_failures: bool = False,
    **policy: Any,
) -> Outcome:
    """What `cachekit run` does, for a program: the outcome of the same command is had again, files included.

    Args:
        argv: the program and its arguments, as a list. The program counts by its content, see docs/commands.md.
        input: the bytes of standard input, part of the key; None for nothing.
        cwd: where it runs; counts as it is written. None for here, which does not count.
        env: names of variables that count. It has the whole environment, whatever is named.
        inputs: files and trees that count by content.
        outputs: files and trees that it makes; a hit puts them there.
        account: who asks, where that decides the answer; never a secret.
        store_failures: also keep an outcome with another status than 0; else it is passed on, every time.
        policy: keywords of `persist_artifact`: ttl (None for ever), pin, tags, share, namespace.

    Raises UsageError for a text in place of a list, an input that is not there, an output that was not made, and a
    program that cannot be run.
    """
    names = [env] if isinstance(env, str) else list(env)
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if isinstance(env, Mapping) or wrong is not None:
        raise UsageError("env= takes the names of variables that count; set their values in os.environ")
    command = Command(
        argv=argv_of(argv),
        cwd=None if cwd is None else os.path.abspath(cwd),
        where="" if cwd is None else os.fspath(cwd),
        inputs=tuple(readable(path, "the input") for path in inputs),
        outputs=tuple(named("outputs=", path) for path in outputs),
        environment={name: os.environ.get(name) for name in names},
        account=account,
        failures=store_failures,
    )
    stdout, stderr = io.BytesIO(), io.BytesIO()
    given = None if input is None else Given.read([input])
    try:
        done = outcome_of(command, Shown(stdout, stderr), stdin=given, relay=False, **policy)
    finally:
        if given is not None:
            given.file.close()
    said = stdout.getvalue(), stderr.getvalue()
    return Outcome(shell_status(done.status), *said, done.hit, done.kept, done.status)
