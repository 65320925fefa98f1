"""What `wrap(client)` costs: added to a miss, to a streamed chunk and to the first of them, and a hit beside other caches.

Everything within one run, against one local server in a process of its own; the bare client of the same SDK is the base.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "adapters"))

from chat_peers import Peers
from chat_server import SDKS, ChatServer
from harness import Figure, Measure, Scale, added, cache, middle, ratio, turns
from inputs import chat

from cachekit_adapters import wrap
from cachekit_adapters._sdk import values
from cachekit_adapters._sdk.rebuilding import Templates

CHUNKS = 500
_numbers = itertools.count()


def _clients(url: str, stack: contextlib.ExitStack | None = None) -> Iterator[tuple[str, Any]]:
    """The SDKs that are installed; each client is open while it is looked at, or as long as `stack`."""
    for name, (kind, prefix) in SDKS.items():
        try:
            sdk: Any = importlib.import_module(name)
        except ImportError:
            print(f"  {name} is not installed and left out")
            continue
        client = getattr(sdk, kind)(api_key="k", base_url=url + prefix, max_retries=0)
        with client if stack is None else contextlib.nullcontext():
            yield name, client if stack is None else stack.enter_context(client)


def _question(**more: Any) -> dict[str, Any]:
    """A chat of 2 kB that was never asked before."""
    call = {**chat(), "temperature": 0, **more}
    call["messages"] = [*call["messages"][:-1], {"role": "user", "content": f"question {next(_numbers)}"}]
    return call


def _beside_bare(label: str, measure: Callable[[Any], float], count: int, parts: int = 1, **how: Any) -> list[Figure]:
    """What `wrap` adds to `measure` of a client, per part: one call of each in turn, the median of the differences."""
    figures = []
    with ChatServer() as server:
        for name, client in _clients(server.url):
            with cache():
                each = {"wrapped": functools.partial(measure, wrap(client)), "bare": functools.partial(measure, client)}
                taken = turns(each, count)
            note = f"{middle(taken, 'wrapped') / parts:.1f} us beside {middle(taken, 'bare') / parts:.1f}"
            value = added(taken, "wrapped", "bare") / parts
            figures.append(Figure(f"wrap({name}): {label} - bare", value, unit="us", note=note, **how))
    return figures


def time_miss(scale: Scale) -> list[Figure]:
    """The wrapped call stores its answer on the disk."""
    return _beside_bare("miss", _asked, max(2, scale.rounds * scale.calls // 20), bound=300)


def time_chunks(scale: Scale) -> list[Figure]:
    """A stream of 500 chunks, all there as soon as the client reads; the storing at its end is in the figure."""
    return _beside_bare("a chunk", _streamed, max(2, scale.rounds * scale.calls // 100), CHUNKS, bound=20)


def time_first_chunk(scale: Scale) -> list[Figure]:
    """The server rests 20 ms behind its first chunk: whoever waited for a second one would be that late."""
    return _beside_bare("first chunk", _first, max(2, scale.rounds * scale.calls // 100))


def _asked(client: Any) -> float:
    call = _question()
    begin = perf_counter_ns()
    client.chat.completions.create(**call)
    return (perf_counter_ns() - begin) / 1e3


def _streamed(client: Any) -> float:
    call = _question(stream=True, user=str(CHUNKS))
    begin = perf_counter_ns()
    for _chunk in client.chat.completions.create(**call):
        pass
    return (perf_counter_ns() - begin) / 1e3


def _first(client: Any) -> float:
    """Microseconds from the call to its first chunk; the rest of the stream is read outside of them."""
    call = _question(stream=True, user="first-20")
    begin = perf_counter_ns()
    chunks = iter(client.chat.completions.create(**call))
    next(chunks)
    micros = (perf_counter_ns() - begin) / 1e3
    for _chunk in chunks:
        pass
    return micros


def _again(client: Any, call: dict[str, Any], calls: int) -> float:
    begin = perf_counter_ns()
    for _ in range(calls):
        client.chat.completions.create(**call)
    return (perf_counter_ns() - begin) / 1e3 / calls


def _once(client: Any, questions: list[dict[str, Any]]) -> float:
    """Each answer's first hit in a process: the SDK itself builds the value."""
    values._templates = Templates()
    begin = perf_counter_ns()
    for call in questions:
        client.chat.completions.create(**call)
    return (perf_counter_ns() - begin) / 1e3 / len(questions)


def time_chat_hit(scale: Scale) -> list[Figure]:
    """A hit of 2 kB through the SDK's type; the peers answer the same question, each from its own cache."""
    call, few = {**chat(), "temperature": 0}, max(2, scale.calls // 10)
    questions = [_question() for _ in range(few)]
    ours: dict[str, Measure] = {}
    firsts: dict[str, Measure] = {}
    with ChatServer() as server, cache() as place, Peers(server.url, place) as peers, contextlib.ExitStack() as stack:
        for name, client in _clients(server.url, stack):
            wrapped = wrap(client)
            for each in (call, call, *questions):
                wrapped.chat.completions.create(**each)
            ours[f"wrap({name})"] = functools.partial(_again, wrapped, call, scale.calls)
            firsts[f"wrap({name}), an answer's first hit"] = functools.partial(_once, wrapped, questions)
        theirs: dict[str, Measure] = {name: functools.partial(peers.ask, name, few) for name in peers.names}
        taken = turns({**ours, **firsts, **theirs}, scale.rounds)
        absent = peers.absent
    for name, reason in absent.items():
        print(f"  {name} is left out: {reason}")
    figures = [Figure(f"{name}: hit, 2 kB", middle(taken, name), 60, "us") for name in ours]
    figures += [Figure(name, middle(taken, name), unit="us") for name in firsts]
    slower = max(ours, key=lambda name: middle(taken, name), default="")
    return figures + [
        Figure(f"{name} / {slower}", ratio(taken, name, slower), 1, floor=True, note=f"{middle(taken, name):.1f} us")
        for name in theirs
        if slower
    ]


ALL = [time_miss, time_chunks, time_first_chunk, time_chat_hit]
