"""What a reader of foreign bytes promises, and whether it keeps it."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

SECONDS: Final = 5.0
"""Of the processor's time that one input may take; most take some microseconds."""
BYTES: Final = 256 << 20
"""What all inputs of one reader together may let the process grow by."""
NEVER: Final = object()


@dataclass(frozen=True)
class Reader:
    """`read` gives a value, or raises one of `raises`; an exception of another class is a fault.

    `seeds` were written by the real writer. `verifies`: it never reads another value than those of the seeds;
    `miss` is what it may give instead. `costs` how many times as much as most: so much rarer it is tried.
    """

    name: str
    read: Callable[[bytes], Any]
    seeds: tuple[bytes, ...]
    raises: tuple[type[Exception], ...] = ()
    verifies: bool = False
    miss: Any = NEVER
    costs: int = 1
    values: list[Any] = field(default_factory=list)

    def fault(self, data: bytes) -> str:
        """What is wrong with how `data` is read; "" where nothing is."""
        began = time.process_time()
        try:
            value = self.read(data)
        except self.raises:
            value = self.miss
        except Exception as error:  # the faults that are looked for
            return f"{self.name}: {type(error).__name__}: {str(error)[:200]}, of {shown(data)}"
        taken = time.process_time() - began
        if taken > SECONDS:
            return f"{self.name}: took {taken:.1f} s, of {shown(data)}"
        if self.verifies and value is not self.miss and value not in self.originals():
            return f"{self.name}: another value, of {shown(data)}"
        return ""

    def originals(self) -> list[Any]:
        """The values of the seeds: a splice may be one of the others."""
        if not self.values:
            self.values.extend(map(self.read, self.seeds))
        return self.values


def reader(
    name: str,
    read: Callable[[bytes], Any],
    seeds: Iterable[bytes],
    *raises: type[Exception],
    verifies: bool = False,
    miss: Any = NEVER,
    costs: int = 1,
) -> Reader:
    return Reader(name, read, tuple(seeds), raises, verifies, miss, costs)


def shown(data: bytes) -> str:
    return repr(data) if len(data) < 2000 else f"{data[:1000]!r} … {data[-100:]!r} ({len(data)} bytes)"


def grown() -> int:
    """The most bytes that this process ever had."""
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
