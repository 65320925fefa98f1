"""A process in which other libraries answer the same chat again: `NAME CALLS` gives microseconds a call.

Runs under the interpreter that has them (`BENCH_PEERS_PYTHON`, else this one): some want other versions of the SDKs
than cachekit is tested with. A peer that is not installed, or asks the server again, says so and is left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns
from typing import Any

Ask = Callable[[], Any]
"""Asks the question once."""


class Peers:
    """The parent's end. `absent` says of each peer that is left out why."""

    def __init__(self, url: str, place: Path) -> None:
        python = os.environ.get("BENCH_PEERS_PYTHON", sys.executable)
        environ = {**os.environ, "HOME": str(place), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        environ |= {
            "DSPY_CACHEDIR": str(place / "dspy"),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": str(Path(__file__).parent),
        }
        self._process = subprocess.Popen(
            [python, __file__, url, str(place)], env=environ, cwd=place,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        told = [self._line().partition("\t") for _ in PEERS]
        self.absent = {name: reason for name, _, reason in told if reason}
        self.names = [name for name, _, reason in told if not reason]

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.communicate(timeout=60)

    def ask(self, name: str, calls: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\t{calls}\n")
        self._process.stdin.flush()
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of the peers ended with {self._process.wait()}")
        return line.rstrip("\n")


_open = contextlib.ExitStack()


def _litellm(url: str, place: Path, call: dict[str, Any]) -> Ask:
    library: Any = importlib.import_module("litellm")
    caching: Any = importlib.import_module("litellm.caching.caching")
    # Without the limit, no conversation of more than four messages would be cached at all.
    library.cache = caching.Cache(type="disk", disk_cache_dir=str(place / "litellm"), max_messages=None)
    said = {**call, "model": f"openai/{call['model']}", "api_base": url, "api_key": "k", "caching": True}
    return lambda: library.completion(**said)


def _dspy(url: str, place: Path, call: dict[str, Any]) -> Ask:
    library: Any = importlib.import_module("dspy")
    library.configure_cache(enable_disk_cache=True, enable_memory_cache=True, disk_cache_dir=str(place / "dspy"))
    model = library.LM(f"openai/{call['model']}", api_base=url, api_key="k", temperature=0, cache=True)
    return lambda: model(messages=call["messages"])


def _hishel(url: str, place: Path, call: dict[str, Any]) -> Ask:
    hishel: Any = importlib.import_module("hishel")
    transports: Any = importlib.import_module("hishel.httpx")
    httpx: Any = importlib.import_module("httpx")

    class AsPost(httpx.HTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            request.method = "POST"
            answer = super().handle_request(request)
            request.method = "GET"
            return answer

    class ByBody(transports.CacheTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            # It never answers a POST, and its own key would leave the body out.
            key = hashlib.sha256(request.url.raw_path + request.content).hexdigest()
            request.method, request.extensions = "GET", {**request.extensions, "caching": {"key": key}}
            return super().handle_request(request)

    storage = hishel.SqliteStorage(database_path=str(place / "hishel.db"))
    client = httpx.Client(transport=ByBody(AsPost(), storage=storage))
    return _groq(url, call, http_client=client)


def _vcrpy(url: str, place: Path, call: dict[str, Any]) -> Ask:
    library: Any = importlib.import_module("vcr")
    # The question how often the server was asked is none of the calls.
    said = {"before_record_request": lambda request: None if request.method == "GET" else request}
    recorder = library.VCR(match_on=["method", "uri", "body"], **said)
    cassette = str(place / "cassette.yaml")
    with recorder.use_cassette(cassette, record_mode="once"):
        _groq(url, call)()
    # For as long as the process lives: the patches end with the context manager.
    _open.enter_context(recorder.use_cassette(cassette, record_mode="none", allow_playback_repeats=True))
    return _groq(url, call)


def _groq(url: str, call: dict[str, Any], **said: Any) -> Ask:
    client = importlib.import_module("groq").Groq(api_key="k", base_url=url, max_retries=0, **said)
    return lambda: client.chat.completions.create(**call)


# The cassette's patches hold for the whole process, so it comes last and is measured last.
PEERS: dict[str, Callable[[str, Path, dict[str, Any]], Ask]] = {
    "DSPy, memory and disk": _dspy,
    "LiteLLM, disk cache": _litellm,
    "groq over hishel, SQLite": _hishel,
    "groq under vcrpy": _vcrpy,
}


def _made(name: str, url: str, place: Path) -> Ask | str:
    from chat_server import asked
    from inputs import chat

    try:
        ask = PEERS[name](url, place, {**chat(), "temperature": 0})
        ask()
        before = asked(url)
        ask()
        ask()
        again = asked(url) - before
    except ImportError as error:
        return f"not installed ({error.name})"
    except Exception as error:  # a peer of another version: what it says is printed in place of a figure
        return f"{type(error).__name__}: {error}".replace("\n", " ").replace("\t", " ")[:120]
    return f"asked the server {again} times of 2" if again else ask


def main(url: str, place: Path) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # some peers print
    found = {name: _made(name, url, place) for name in PEERS}
    for name, ask in found.items():
        print(f"{name}\t{ask if isinstance(ask, str) else ''}", file=answers, flush=True)
    for line in sys.stdin:
        name, _, calls = line.rstrip("\n").partition("\t")
        ask: Any = found[name]
        begin = perf_counter_ns()
        for _ in range(int(calls)):
            ask()
        print((perf_counter_ns() - begin) / 1e3 / int(calls), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
