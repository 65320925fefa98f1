"""The readers of the table under atheris, which finds its inputs by what they reach. Linux; by hand, never in CI.

pip install atheris
python tests/stories/faults/foreign/guided.py DIRECTORY [part of a reader's name] [-max_total_time=600 …]

DIRECTORY keeps what was found worth keeping from one run to the next. An input that is a fault ends the run, and is left
in the working directory.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[4]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "adapters"), str(ROOT)]

with atheris.instrument_imports(include=["cachekit", "cachekit_adapters"]):
    from stories.faults.foreign.table import readers

    from cachekit import configure


def main() -> None:
    """The first byte of an input says which reader gets the rest."""
    kept, *words = sys.argv[1:]
    wanted = words.pop(0) if words and not words[0].startswith("-") else ""
    place = Path(tempfile.mkdtemp())
    table = [reader for reader in readers(place) if wanted in reader.name]
    configure(dir=place / "cache", ipfs="off")
    corpus = Path(kept)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, reader in enumerate(table):
        for at, seed in enumerate(reader.seeds):
            (corpus / f"seed-{number}-{at}").write_bytes(bytes([number]) + seed)

    def one(data: bytes) -> None:
        fault = table[data[0] % len(table)].fault(data[1:]) if data else ""
        if fault:
            raise AssertionError(fault)

    atheris.Setup([sys.argv[0], kept, *words], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
