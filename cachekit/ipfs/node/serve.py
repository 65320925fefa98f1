"""The private node as a service: kept running until somebody ends it, and told of to those who watch."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cachekit.errors import TierError, UsageError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.node import daemon
from cachekit.ipfs.node.daemon import NodeStatus
from cachekit.ipfs.node.endpoint import Answer, Endpoint
from cachekit.ipfs.node.exposition import CONTENT_TYPE, counter, exposed, gauge
from cachekit.ipfs.node.metrics import SCRAPE_SECONDS, Place, gathered
from cachekit.ipfs.node.process import own_pid

STOP_SECONDS: Final = 20.0


@dataclass(frozen=True)
class Pace:
    """Seconds: how often the node is looked for, the first pause before it is started again and the longest one.

    After `tries` ends or failures in a row it is given up; one that ran for `settled` begins a new row.
    """

    look: float = 0.5
    first: float = 1.0
    longest: float = 60.0
    tries: int = 8
    settled: float = 120.0


class Keeper:
    """Keeps the node of `data_dir` running; `launch` starts it, and `say` hears what happened, a line each."""

    def __init__(
        self, data_dir: Path, launch: Callable[[], NodeStatus], say: Callable[[str], None], pace: Pace
    ) -> None:
        self._data_dir = data_dir
        self._launch = launch
        self._say = say
        self._pace = pace
        self._row = 0
        self._since = 0.0
        self._why = ""
        self.ours = False
        self.restarts = 0

    def begin(self) -> NodeStatus:
        """The node, running: started here, or by somebody else before. Raises UsageError where it cannot be."""
        now = daemon.status(self._data_dir)
        self.ours = not now.running
        self._since = time.monotonic()
        return self._launch() if self.ours else now

    def keep(self, ended: threading.Event) -> None:
        """Starts the node again whenever it ends, until `ended`. Raises TierError where it is given up."""
        while not ended.wait(self._pace.look):
            if not self._lives():
                self._restart(ended)

    def end(self) -> None:
        """Ends the node where it was started here."""
        if self.ours:
            daemon.stop(self._data_dir, STOP_SECONDS)

    def health(self) -> tuple[NodeStatus, str]:
        """The node, and why it is not well, '' where it is."""
        now = daemon.status(self._data_dir)
        return now, "" if now.running else self._why or now.reason

    def _lives(self) -> bool:
        # The pid is one small file; only where it is gone is the daemon asked.
        return bool(own_pid(self._data_dir / "node")) or daemon.status(self._data_dir).running

    def _restart(self, ended: threading.Event) -> None:
        self._why = "the node ended"
        if time.monotonic() - self._since >= self._pace.settled:
            self._row = 0
        while True:
            if self._row >= self._pace.tries:
                raise TierError(f"{self._why}; given up after {self._row} times in a row", reason="node")
            pause = min(self._pace.first * 2**self._row, self._pace.longest)
            self._row += 1
            self._say(f"{self._why}; starting it again in {pause:g} s")
            if ended.wait(pause) or self._started():
                return

    def _started(self) -> bool:
        try:
            now = self._launch()
        except UsageError as error:
            self._why = f"the node cannot be started: {error}"
            return False
        self.ours, self._why, self._since = True, "", time.monotonic()
        self.restarts += 1
        self._say(f"Kubo {now.version} {now.reason} (pid {now.pid})")
        return True


def serve(keeper: Keeper, place: Place, say: Callable[[str], None], metrics: tuple[str, int] | None = None) -> None:
    """Runs the node until SIGTERM or SIGINT; in the main thread. `metrics` is where `/healthz` and `/metrics` answer.

    Raises UsageError where the node or the endpoint cannot be begun, TierError where the node is given up.
    """
    with _until_told() as ended, contextlib.ExitStack() as stack:
        if metrics is not None:
            answers = {"/healthz": lambda: _health(keeper), "/metrics": lambda: _metrics(keeper, place)}
            endpoint = stack.enter_context(contextlib.closing(Endpoint(metrics, answers)))
            say(f"metrics at {endpoint.url}/metrics")
        stack.callback(keeper.end)
        now = keeper.begin()
        say(f"Kubo {now.version} {now.reason} (pid {now.pid}){'' if keeper.ours else '; it ran before, and runs on'}")
        _notify("READY=1")
        keeper.keep(ended)
        _notify("STOPPING=1")


@contextlib.contextmanager
def _until_told() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in place of what they did before."""
    ended = threading.Event()
    before = {number: signal.signal(number, lambda *_: ended.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _notify(state: str) -> None:
    """Tells the service manager, where there is one: sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name in the abstract namespace is written with an @.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


# -- what is told --------------------------------------------------------------------------------


def _health(keeper: Keeper) -> Answer:
    now, why = keeper.health()
    said: dict[str, Any] = {"status": "unavailable" if why else "ok", "restarts": keeper.restarts}
    said |= {"reason": why} if why else {"kubo": now.version}
    return Answer(503 if why else 200, "application/json", json.dumps(said).encode() + b"\n")


def _metrics(keeper: Keeper, place: Place) -> Answer:
    from importlib.metadata import version  # slow to import, and wanted here only

    began, deadline = time.monotonic(), Deadline(SCRAPE_SECONDS)
    now, _ = keeper.health()
    families = [
        gauge("cachekit_info", "What serves this", 1, version=version("cachekit-ipfs")),
        *gathered(now, place, deadline),
        counter("cachekit_node_restarts_total", "How often the node was started again here", keeper.restarts),
        gauge("cachekit_scrape_seconds", "What it took to gather this", time.monotonic() - began),
    ]
    return Answer(200, CONTENT_TYPE, exposed(families).encode())
