"""Other processes: one that does what a test tells it, line by line, and can be killed; and a forked child."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType


def forked(check: Callable[[], bool]) -> bool:
    """What `check` says in a forked child of this process; False where it raises there."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        finally:  # whatever it was, a child must not go on into the tests
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Neighbour:
    """Runs `script`, which reads lines from stdin and answers each with one line. Killed at the end of its `with`."""

    def __init__(self, script: str, *arguments: object) -> None:
        environ = {**os.environ, "CACHEKIT_IPFS": "off", "PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *words: object) -> str:
        """One line there, one back. Raises EOFError where the process ended instead of answering."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise EOFError(f"the neighbour ended with {self.process.wait()}")
        return answer.strip()

    def kill(self) -> None:
        """kill -9, and returns when it is dead."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> Neighbour:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
