"""Machines of a team on this one: each with a real Kubo of its own in one private swarm, its own directories, and a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cachekit.ipfs.node import daemon, install
from cachekit.ipfs.node.process import rpc
from cachekit.ipfs.node.team import NodeTeam, write_team
from cachekit.ipfs.trust.credential import Credential

ROOT = Path(__file__).parents[1]
BOUND = 30.0
PROGRAM = """
import json, sys, time
import cachekit
from cachekit import distributed_cache, flush, invalidate, stats, sync
from cachekit.cache.default import default

@distributed_cache(ttl=None, tags=("word:{text}",))
def answer(text, by=""):
    return {"answer": text * 100, "by": by}

@distributed_cache(ttl=None, namespace="other")
def other(text):
    return text

def seconds(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def swarm():
    return default().ready().team.tier.swarm

for line in sys.stdin:
    try:
        said = eval(line)
    except BaseException as error:
        said = "raised " + repr(error)
    print(json.dumps(said, default=repr), flush=True)
"""


def free_port() -> int:
    """One at which nobody listens now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Talking:
    """A process of a machine that evaluates lines, and answers each with JSON."""

    def __init__(self, environ: dict[str, str], program: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, os.fspath(program)],
            env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, line: str) -> Any:
        """What the expression gives; EOFError where the process ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise EOFError(f"it ended with {self.process.wait()}")
        return json.loads(answer)

    def until(self, line: str, wanted: Callable[[Any], object], bound: float = BOUND) -> Any:
        """What it gives once that is `wanted`; AssertionError after `bound` seconds."""
        end = time.monotonic() + bound
        while not wanted(said := self.ask(line)):
            assert time.monotonic() < end, f"{line} still gives {said!r}"
            time.sleep(0.02)
        return said

    def kill(self) -> None:
        """kill -9, and returns when it is dead."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Machine:
    """One machine; `start` its node before anything else."""

    def __init__(self, home: Path, secret: str) -> None:
        self.home = home
        self.secret = secret
        self.data = home / "data" / "cachekit"
        self.node: daemon.NodeStatus | None = None
        self._talking: list[Talking] = []
        home.mkdir()

    def start(self, team: NodeTeam) -> None:
        """Its node, as one of `team`."""
        write_team(self.data, team)
        self.resume()

    def resume(self) -> None:
        """Its node as it was configured."""
        self.node = daemon.start(self.data, binary=install.install(self.data).path, timeout=60)

    def stop(self) -> None:
        """Its node."""
        daemon.stop(self.data)

    def addresses(self) -> tuple[str, ...]:
        """Those on loopback at which the others dial its node."""
        assert self.node is not None
        return tuple(one for one in rpc(self.node.api, "id")["Addresses"] if one.startswith("/ip4/127."))

    def rpc(self, call: str, **options: str) -> Any:
        """What its daemon answers."""
        assert self.node is not None
        return rpc(self.node.api, call, options)

    def process(self, **variables: str) -> Talking:
        """A new process that uses the cache."""
        program = self.home.parent / "program.py"
        program.write_text(PROGRAM)  # one source for all: a function is the same on each machine
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "XDG_"))}
        environ = {
            **kept, "CACHEKIT_DIR": str(self.home / "cache"), "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_DATA_HOME": str(self.home / "data"), "CACHEKIT_IPFS": "rw", "CACHEKIT_SECRET": self.secret,
            "CACHEKIT_IPFS_TIMEOUT": "2", "PYTHONPATH": str(ROOT), **variables,
        }  # fmt: skip
        talking = Talking(environ, program)
        self._talking.append(talking)
        talking.ask("swarm().leads()")  # now it listens, or another process of the machine does
        return talking

    def quit(self) -> None:
        """All its processes."""
        for talking in self._talking:
            if talking.process.poll() is None:
                talking.kill()
        self._talking.clear()


def team_of(count: int, place: Path) -> Iterator[list[Machine]]:
    """`count` machines whose nodes run and know the first one's address; ended when the iterator is."""
    secret = Credential.create().to_text()
    machines = [Machine(place / f"m{number}", secret) for number in range(count)]
    alone = NodeTeam.found("", (), "m0")
    try:
        for number, machine in enumerate(machines):
            peers = machines[0].addresses() if number else ()
            listen = f"/ip4/127.0.0.1/tcp/{free_port()}"  # which it keeps when it is started again
            machine.start(replace(alone, listen=listen, peers=peers, name=machine.home.name))
        yield machines
    finally:
        for machine in machines:
            machine.quit()
            machine.stop()
