"""What caches make of edited code: `python benchmarks/edits.py [EDITS] [PEER ...]`, 1000 edits of random projects.

Each edit is run for real, before and after, each in a process of its own and with a store of its own. A *wrong hit* is an
answer that the code does not give any more; a *needless miss* a call that is run again though nothing it reaches was
touched. The projects are those of tests/keys/code/generated.py. Peers that are not installed are left out:
`pip install joblib checkpointer cachau cachier`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from keys.code.generated import Generated

A_PROJECT = 10
"""Edits of one project before the next one is made."""
LONGEST = 60
"""Seconds that one call may take, a process and its imports included."""

Wrap = Callable[[Any, Path], Any]
"""Decorates the function; the path is a directory it may use."""


def _cachekit(function: Any, place: Path) -> Any:
    import cachekit

    cachekit.configure(dir=place, ipfs="off")
    return cachekit.distributed_cache(function)


def _joblib(function: Any, place: Path) -> Any:
    return importlib.import_module("joblib").Memory(str(place), verbose=0).cache(function)


def _checkpointer(function: Any, place: Path) -> Any:
    return importlib.import_module("checkpointer").Checkpointer(directory=place, capture=True, verbosity=0)(function)


def _cachau(function: Any, place: Path) -> Any:
    return importlib.import_module("cachau").cache(persist=str(place))(function)


def _cachier(function: Any, place: Path) -> Any:
    return importlib.import_module("cachier").cachier(cache_dir=str(place))(function)


def _memoize(function: Any, place: Path) -> Any:
    return importlib.import_module("diskcache").Cache(str(place)).memoize()(function)


PEERS: dict[str, Wrap] = {
    "cachekit": _cachekit,
    "joblib": _joblib,
    "checkpointer": _checkpointer,
    "cachau": _cachau,
    "cachier": _cachier,
    "diskcache": _memoize,
}


class Seen(NamedTuple):
    """One call: whether the function ran, and whether the answer is the one that the code gives."""

    ran: bool
    right: bool


def write(place: Path, generated: Generated) -> None:
    for name, text in generated.modules().items():
        (place / f"{name}.py").write_text(
            text.replace("from cachekit import distributed_cache", "from edited import *")
        )


def called(peer: str, place: Path, store: Path) -> Seen:
    """What a process of its own sees that calls `ask` of the project at `place` behind one peer."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 9
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - this process ends at once
            code = _call(peer, place, store)
        finally:
            os.write(writing, b"%d" % code)
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as answer:
        code = int(answer.read() or "9")
    if code == 9:
        raise RuntimeError(f"{peer} raised in {place}")
    return Seen(bool(code & 1), bool(code & 2))


def _call(peer: str, place: Path, store: Path) -> int:
    import types

    ran: list[bool] = []
    raw: list[Any] = []

    def distributed_cache(function: Any) -> Any:
        raw.append(function)
        return PEERS[peer](function, store)

    edited = types.ModuleType("edited")
    vars(edited).update(distributed_cache=distributed_cache, __all__=["distributed_cache"])
    sys.modules["edited"] = edited
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(place))
    main = importlib.import_module("main")
    code = raw[0].__code__
    sys.setprofile(lambda frame, event, _: ran.append(True) if event == "call" and frame.f_code is code else None)
    answer = main.ask(*main.CALL)
    sys.setprofile(None)
    return bool(ran) | (answer == raw[0](*main.CALL)) << 1


def judge(peers: list[str], edits: int, root: Path) -> dict[str, Counter[str]]:
    """By peer: wrong hits, needless misses, and how many edits touched what is reached."""
    found = {peer: Counter[str]() for peer in peers}
    for seed in range(edits // A_PROJECT):
        generated, place = Generated(seed), root / f"p{seed}"
        place.mkdir()
        write(place, generated)
        for number in range(A_PROJECT):
            stores = {peer: root / "stores" / f"{peer}-{seed}-{number}" for peer in peers}
            for peer, store in stores.items():
                called(peer, place, store)
            touched = generated.edit()
            write(place, generated)
            for peer, store in stores.items():
                seen = called(peer, place, store)
                found[peer]["touched"] += touched
                found[peer]["wrong hits"] += not seen.right
                found[peer]["needless misses"] += seen.ran and not touched
                found[peer]["lazy"] += seen.ran and not touched and bool(generated.lazy)
    return found


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    edits = int(arguments[0]) if arguments else 1000
    peers = arguments[1:] or [peer for peer in PEERS if importlib.util.find_spec(peer)]
    with tempfile.TemporaryDirectory() as root:
        # checkpointer takes for own code what stands below the directory that it was imported in.
        os.chdir(root)
        for peer in peers:
            importlib.import_module(peer)
        found = judge(peers, edits, Path(root))
        touched = found[peers[0]]["touched"]
        print(f"{edits} edits, {touched} of them of what the call reaches\n")
        print(
            "| cache | wrong hits | needless misses | of these beside a module imported inside functions only |\n|---|---|---|---|"
        )
        for peer, counts in found.items():
            print(f"| {peer} | {counts['wrong hits']} | {counts['needless misses']} | {counts['lazy']} |")
        os.chdir(ROOT)


if __name__ == "__main__":
    main(sys.argv[1:])
