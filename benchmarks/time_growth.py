"""Does a disk hit stay as fast when the cache grows a hundredfold? Two processes, read in turn."""

from __future__ import annotations

import statistics

from harness import Figure, Scale, cache
from worker import Worker


def time_growth(scale: Scale) -> list[Figure]:
    with cache() as place:
        with Worker(place / "few") as few, Worker(place / "many") as many:
            few.ask(f"fill {scale.small}")
            filling = many.ask(f"fill {scale.large}")
            figures, last = [], (0.0, 0.0)
            for number in range(scale.rounds + 1):
                last = (
                    few.ask(f"read {scale.small} {5 * scale.calls}"),
                    many.ask(f"read {scale.large} {5 * scale.calls}"),
                )
                if number:
                    figures.append(last[1] / last[0])
        size = sum(file.stat().st_size for file in (place / "many").rglob("*") if file.is_file())
    note = f"last round {last[1]:.1f} us beside {last[0]:.1f}; filled at {filling:.0f} us a call"
    return [
        Figure(f"disk hit, {scale.small:,} -> {scale.large:,} entries", statistics.median(figures), 1.3, note=note),
        Figure("bytes on disk per 2 kB entry", size / scale.large, unit="B"),
    ]


ALL = [time_growth]
