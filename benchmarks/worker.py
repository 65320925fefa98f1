"""A process with a cache of its own that fills and reads when told to: `fill N`, `read N CALLS` (answers us a call)."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns, time_ns
from typing import Any

QUESTION = "what does the cache say?"


class Process:
    """The parent's end of a process that answers with numbers, one a line."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None) -> None:
        self._process = subprocess.Popen(
            command, env=environ, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate(timeout=60)

    def send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self._process.wait()}")
        return float(line)

    def ask(self, command: str) -> float:
        self.send(command)
        return self.answer()


class Worker(Process):
    """One that has the cache at `place`."""

    def __init__(self, place: Path) -> None:
        root = Path(__file__).parent
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root.parent), str(root)])}
        super().__init__([sys.executable, __file__, str(place)], environ)


def _store(function: Any, number: int, value: Any) -> None:
    """Straight into the disk tier: a hundred thousand whole calls would take minutes and make the same file."""
    from cachekit.cache.default import default
    from cachekit.model import Record

    cache, target = default(), function._self_target
    assert cache.disk is not None
    codec, payload = target.codec.dump(value)
    key, _ = target.key(((QUESTION, number), {}), cache.settings.namespace, 0)
    cache.disk.put(key, Record(codec, payload, time_ns()))


def main(place: str) -> None:
    from inputs import completion

    import cachekit

    cachekit.configure(dir=place, ipfs="off", memory_limit=0, mode="on", size_limit="4GB")

    @cachekit.distributed_cache(version="1", share=False)
    def answer(question: str, number: int) -> Any:
        return completion(number)

    chosen = random.Random(7)
    for line in sys.stdin:
        command, *numbers = line.split()
        entries = int(numbers[0])
        calls: Any = range(entries)
        if command == "read":
            calls = [chosen.randrange(entries) for _ in range(int(numbers[1]))]
        begin = perf_counter_ns()
        for number in calls:
            if command == "read":
                answer(QUESTION, number)
            else:
                _store(answer, number, completion(number))
        print((perf_counter_ns() - begin) / 1e3 / len(calls), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
