"""Prints every gate with its bound, the figure and pass or MISS, and the peers: `make bench`, or `run.py hits ipfs`.

`--quick` does a quarter of the rounds. Ends with status 0 whatever the figures: a shared machine must not fail a build.
"""

from __future__ import annotations

import importlib
import logging
import os
import platform
import sys
from dataclasses import replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from harness import Figure, Scale

GROUPS = {
    "hits": "time_hits",
    "keys": "time_keys",
    "store": "time_store",
    "growth": "time_growth",
    "ipfs": "time_ipfs",
    "artifacts": "time_artifacts",
    "commands": "time_commands",
    "adapters": "time_adapters",
    "storage": "time_storage",
    "gh": "time_gh",
    "peers": "time_peers",
}


def figures(group: str, scale: Scale) -> list[Figure]:
    """Every figure of one group, printed as it comes."""
    found: list[Figure] = []
    print(f"\n{group}")
    for benchmark in importlib.import_module(GROUPS[group]).ALL:
        for figure in benchmark(scale):
            print(f"  {figure.line()}", flush=True)
            found.append(figure)
    return found


def main(arguments: list[str]) -> int:
    logging.disable(logging.WARNING)
    scale = Scale()
    if "--quick" in arguments:
        scale = replace(scale, rounds=5, large=20_000, imports=3)
    groups = [name for name in arguments if not name.startswith("-")] or list(GROUPS)
    unknown = set(groups) - set(GROUPS)
    if unknown:
        print(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}", file=sys.stderr)
        return 2
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.platform()}")
    found = [figure for group in groups for figure in figures(group, scale)]
    gates = [figure for figure in found if figure.verdict]
    missed = [figure.name for figure in gates if figure.verdict == "MISS"]
    print(
        f"\n{len(gates) - len(missed)} of {len(gates)} gates pass"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
