"""StorageWrapper: reading a name here, beside reading the file and taking its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from harness import Body, Figure, Scale, beside, cache, ratio, rounds

from cachekit_adapters.storage import StorageWrapper

SIZES = {"2 kB": 2_000, "64 kB": 64 << 10, "1 MiB": 1 << 20}


def time_reads(scale: Scale) -> list[Figure]:
    """A hit of each size; the floor verifies too, as a reader who trusts no disk would."""
    figures = []
    for label, size in SIZES.items():
        with cache() as place:
            wrapper, data = StorageWrapper(force_fallback=True), os.urandom(size)
            wrapper.write_file(data, "name")
            path = place / "plain"
            path.write_bytes(data)
            calls = max(1, scale.calls * 2_000 // size)
            bodies = {
                "wrapper": _times(calls, lambda wrapper=wrapper: wrapper.read_file("name")),
                "floor": _times(calls, lambda path=os.fspath(path): _digested(path)),
            }
            taken = rounds(bodies, scale.rounds)
        note = beside(taken, "wrapper", "floor")
        figures.append(
            Figure(
                f"StorageWrapper read, {label} / open().read() + SHA-256",
                ratio(taken, "wrapper", "floor"),
                1.2,
                note=note,
            )
        )
    return figures


def _digested(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def _times(count: int, call: Callable[[], object]) -> Body:
    def body() -> int:
        for _ in range(count):
            call()
        return count

    return body


ALL = [time_reads]
