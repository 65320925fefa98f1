"""One checkout's end of compare.py, by public names only, so that it runs with whatever checkout PYTHONPATH begins with.

`compare_worker.py CHECKOUT` makes its first call and prints milliseconds; `compare_worker.py CHECKOUT SDK URL` answers
each line `FIGURE CALLS` with microseconds per call. Nothing that cachekit might import is imported before it.
"""

from __future__ import annotations

import sys
from time import perf_counter_ns

if False:  # typing.TYPE_CHECKING, without the import of typing
    from collections.abc import Callable, Iterator
    from typing import Any


def decorated() -> Any:
    """A fresh decorated function with the signature of a chat client; its answer is about as long as its question."""
    import cachekit

    @cachekit.distributed_cache(version="1", share=False)
    def complete(model: str, messages: list[dict[str, str]], temperature: float = 1.0, seed: int = 0) -> object:
        return {"model": model, "seed": seed, "choices": [{"index": 0, "message": message} for message in messages]}

    return complete


def followed() -> Any:
    """A fresh decorated function whose code says what it is, and which reaches no other."""
    import cachekit

    @cachekit.distributed_cache(share=False)
    def tidied(text: str, times: int = 2) -> str:
        """Repeats the longer words."""
        words = [word for word in text.lower().split() if len(word) > 3]
        return " ".join(words) * times

    return tidied


def first_key() -> None:
    """Prints the milliseconds from nothing to the first key of a function whose code is read."""
    begin, waited = perf_counter_ns(), _waited()
    followed().key_for("what does the cache say?")
    waited = _waited() - waited
    print((perf_counter_ns() - begin - waited) / 1e6)


def first_call() -> None:
    """Prints the milliseconds from nothing to cachekit's import, and those to the end of the first call."""
    begin, waited = perf_counter_ns(), _waited()
    from cachekit import distributed_cache  # noqa: F401 - the package alone imports nothing

    # In this order a wait between the two is counted as time; the other way it would be taken off without having been.
    imported = perf_counter_ns() - begin - (_waited() - waited)
    messages = [{"role": "user", "content": "what does the cache say? " * 80}]
    decorated()("llama-3.3-70b-versatile", messages, temperature=0.2)
    waited = _waited() - waited
    print(imported / 1e6, (perf_counter_ns() - begin - waited) / 1e6, sep="\n")


def _waited() -> int:
    """Nanoseconds in which this thread could have run and no CPU was free for it, where the system counts them."""
    try:
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1])
    except OSError:
        return 0


def timed(function: Any, calls: list[dict[str, Any]]) -> float:
    """Microseconds per call."""
    begin = perf_counter_ns()
    for call in calls:
        function(**call)
    return (perf_counter_ns() - begin) / 1e3 / len(calls)


def disk_hits(call: dict[str, Any], size: int) -> Iterator[float]:
    """Of keys new to the cache and to the function: once all that are stored were asked for, both are made anew."""
    import os

    import cachekit

    stored = [{**call, "seed": -1 - number} for number in range(10 * size)]
    timed(decorated(), stored)
    while True:
        cachekit.configure(dir=os.environ["CACHEKIT_DIR"])
        function = decorated()
        function(**call)
        for at in range(0, len(stored), size):
            yield timed(function, stored[at : at + size])


def figures(sdk: str, url: str) -> dict[str, Callable[[int], float]]:
    """What does so many calls and returns microseconds per call, by the figure's name."""
    from functools import cache, partial
    from itertools import count

    from inputs import chat

    call, numbers = {**chat(), "temperature": 0}, count()  # wrap() caches no sampled answers
    complete, create = decorated(), wrapped(sdk, url) if sdk else None
    unread = cache(partial(disk_hits, call))

    def again(function: Any, calls: int) -> float:
        function(**call)
        return timed(function, [call] * calls)

    def new(function: Any, calls: int) -> float:
        return timed(function, [{**call, "seed": next(numbers)} for _ in range(calls)])

    tidied, text = followed(), {"text": "what does the cache say?"}

    def tidy(calls: int) -> float:
        tidied(**text)
        return timed(tidied, [text] * calls)

    ours = {
        "memory hit": partial(again, complete),
        "memory hit, by its code": tidy,
        "miss + store": partial(new, complete),
    }
    theirs = {"wrapped SDK, hit": partial(again, create), "wrapped SDK, miss": partial(new, create)}
    return {**ours, **theirs, "disk hit": lambda calls: next(unread(calls))}


def wrapped(sdk: str, url: str) -> Any:
    """The method of a wrapped client that asks the stand-in at `url`."""
    from importlib import import_module

    from chat_server import SDKS

    import cachekit_adapters

    kind, prefix = SDKS[sdk]
    client = getattr(import_module(sdk), kind)(api_key="k", base_url=url + prefix, max_retries=0)
    return cachekit_adapters.wrap(client).chat.completions.create


def check(checkout: str) -> None:
    """Ends the process where another cachekit than that of `checkout` was imported, such as the installed one."""
    from pathlib import Path

    for name in ("cachekit", "cachekit_adapters"):
        found = getattr(sys.modules.get(name), "__file__", None)
        if found and not Path(found).resolve().is_relative_to(Path(checkout).resolve()):
            sys.exit(f"{name} was imported from {found}, which is not in {checkout}")


def serve(checkout: str, sdk: str, url: str) -> None:
    import gc

    bodies = figures(sdk, url)
    check(checkout)
    gc.disable()
    print(0.0, flush=True)  # ready
    for line in sys.stdin:
        name, _, calls = line.rpartition(" ")
        gc.collect()
        gc.freeze()  # the next collection looks at what came after this one, not at a whole SDK again
        print(bodies[name](int(calls)), flush=True)


if __name__ == "__main__":
    if sys.argv[2:] == ["key"]:
        first_key()
        check(sys.argv[1])
    elif len(sys.argv) > 2:
        serve(*sys.argv[1:])
    else:
        first_call()
        check(sys.argv[1])
