"""What it costs that keys follow the code: the first key of a process, and hits of functions that reach others."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from harness import Figure, Scale, added, beside, cache, directory, rounds
from time_hits import repeated

MODULES, FUNCTIONS = 20, 10

HELPER = '''
def helper_{at}(text: str, depth: int = 0) -> str:
    """Tidies the text, and passes it on."""
    words = [word for word in text.lower().split() if len(word) > LIMIT]
    if not words:
        return NAMES.get(text, str(depth + {at}))
    return {after}(" ".join(words), depth + {at})
'''
FIRST_KEY = """
import sys, time
import cachekit, main
cachekit.status()  # the cache is open
begin = time.perf_counter()
main.{name}.peek("a text")  # its key, and a look at memory and disk
print((time.perf_counter() - begin) * 1000)
main.{name}("a text")
"""
HITS = """
import cachekit
WORDS = {f"name{number}": f"a short text {number}" for number in range(10)}
@cachekit.distributed_cache(share=False)
def alone(number: int) -> int:
    return number
@cachekit.distributed_cache(share=False)
def words(number: int) -> int:
    return number + len(WORDS)
"""


def write_project(place: Path) -> None:
    """`main.far` reaches 200 functions in 20 modules, each of which reads a number and a dict; `main.near` reaches none."""
    for module in range(MODULES):
        following = f"import helpers_{module + 1}\n" if module + 1 < MODULES else ""
        text = f'{following}LIMIT = {module}\nNAMES = {{"a": "{module}"}}\n'
        for at in range(FUNCTIONS):
            last = at + 1 == FUNCTIONS
            after = f"helper_{at + 1}" if not last else f"helpers_{module + 1}.helper_0" if following else "print"
            text += HELPER.format(at=at, after=after)
        (place / f"helpers_{module}.py").write_text(text)
    (place / "main.py").write_text(
        textwrap.dedent('''
            import cachekit, helpers_0
            @cachekit.distributed_cache(share=False)
            def far(text: str) -> str:
                return helpers_0.helper_0(text)
            @cachekit.distributed_cache(share=False)
            def near(text: str, times: int = 2) -> str:
                """Repeats the longer words."""
                words = [word for word in text.lower().split() if len(word) > 3]
                return " ".join(words) * times
        ''')
    )


def first_key(name: str, project: Path, kept: Path) -> float:
    """Milliseconds of a new process's first key, with what is imported for it; cachekit itself was imported, and its cache opened."""
    root = Path(__file__).parent.parent
    environ = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        "PYTHONPATH": os.pathsep.join([str(root), str(project)]),
        "PYTHONPYCACHEPREFIX": str(project / "compiled"),
        "CACHEKIT_DIR": str(kept),
        "CACHEKIT_IPFS": "off",
    }
    command = [sys.executable, "-c", FIRST_KEY.format(name=name)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environ, cwd=project).stdout)


def time_first_keys(scale: Scale) -> list[Figure]:
    taken: dict[str, list[float]] = {"far": [], "far, left": [], "near": [], "near, left": []}
    with directory() as place:
        write_project(place)
        for number in range(scale.imports + 1):
            for name in ("far", "near"):
                kept = place / f"{name}{number}"
                each = first_key(name, place, kept), first_key(name, place, kept)
                if number:
                    taken[name].append(each[0])
                    taken[f"{name}, left"].append(each[1])
    return [
        Figure("first key, 200 functions in 20 modules", median(taken["far"]), 10, "ms"),
        Figure("the same, digests left by another process", median(taken["far, left"]), 2, "ms"),
        Figure("first key, no helpers", median(taken["near"]), unit="ms"),
        Figure("the same, digests left by another process", median(taken["near, left"]), unit="ms"),
    ]


@contextmanager
def _hits(place: Path) -> Iterator[dict[str, Any]]:
    """Functions that reach nothing, a dict, 50 functions of their own module, and 50 of ten others."""
    fifty = "".join(f"def g{number}(x: int) -> int:\n    return x + {number}\n" for number in range(50))
    calls = " + ".join(f"g{number}(number)" for number in range(50))
    text = (
        HITS + fifty + f"@cachekit.distributed_cache(share=False)\ndef fifty(number: int) -> int:\n    return {calls}\n"
    )
    spread = " + ".join(f"m{number % 10}.g{number // 10}(number)" for number in range(50))
    text += "".join(f"import m{number}\n" for number in range(10))
    text += f"@cachekit.distributed_cache(share=False)\ndef spread(number: int) -> int:\n    return {spread}\n"
    for number in range(10):
        (place / f"m{number}.py").write_text(fifty[: fifty.index("def g5(")])
    (place / "hits_of_keys.py").write_text(text)
    sys.path.insert(0, str(place))
    try:
        module = importlib.import_module("hits_of_keys")
        yield {name: getattr(module, name) for name in ("alone", "words", "fifty", "spread")}
    finally:
        sys.path.remove(str(place))
        for name in ("hits_of_keys", *(f"m{number}" for number in range(10))):
            sys.modules.pop(name, None)


def time_followed_hits(scale: Scale) -> list[Figure]:
    """What a memory hit takes longer than one of a function that reaches nothing."""
    with cache() as place, _hits(place) as functions:
        bodies = {name: repeated(function, {"number": 1}, 20 * scale.calls) for name, function in functions.items()}
        for function in functions.values():
            for _ in range(64):
                function(number=1)
        taken = rounds(bodies, 2 * scale.rounds)
    return [
        Figure(name, added(taken, body, "alone"), bound, "us", note=beside(taken, body, "alone"))
        for name, body, bound in (
            ("a hit that follows a dict of 10 texts, added", "words", 0.3),
            ("a hit that follows 50 functions, added", "fifty", 0.5),
            ("the 50 in ten other modules, added", "spread", None),
        )
    ]


ALL = [time_first_keys, time_followed_hits]
