"""The process of a private Kubo daemon: started, found again, ended."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cachekit.errors import TierError, UsageError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.node.binary import environment, last_line
from cachekit.ipfs.node.process import answering_version, asked_to_shut_down, clear_socket, locked, own_pid
from cachekit.ipfs.node.repo import api_address, clear_traces, configure, create, recorded_api
from cachekit.ipfs.node.team import read_team

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class NodeStatus:
    """What the private node is doing; `pid` is 0 and `api`, `version` are empty where unknown."""

    running: bool
    api: str
    version: str
    pid: int
    repo: Path
    reason: str


def start(
    data_dir: Path, *, binary: Path, socket: bool | Path = False, storage_max: int | None = None, timeout: float = 30
) -> NodeStatus:
    """Start the private node, or return the status of the one that runs.

    `socket` puts the RPC on a unix socket instead of a loopback port: in the node's directory, or at a path of yours,
    where the group may use it too. `storage_max` has the node collect what is not pinned before its repository has so
    many bytes. Neither has an effect on a node that runs already. `timeout` is in seconds, for the whole call.

    Raises UsageError when the node cannot be started, naming the remedy.
    """
    deadline = Deadline(timeout)
    data_dir = data_dir.absolute()
    node = data_dir / "node"
    node.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(node / "lock", timeout):
        now = _settled(data_dir, deadline)
        if now.running:
            return now
        api = api_address(node, socket)
        create(binary, node)
        configure(node / "repo", api, read_team(data_dir), storage_max=storage_max)
        clear_traces(node)
        clear_socket(api)
        now = _launch(data_dir, binary, deadline, () if storage_max is None else ("--enable-gc",))
        if isinstance(socket, Path):
            # A place of one's own is for others of the group: the directory says who reaches it.
            socket.chmod(0o660)
        return now


def stop(data_dir: Path, timeout: float = 10) -> NodeStatus:
    """End the private node, politely first and with SIGKILL after `timeout` seconds.

    Raises UsageError when the node is being started or stopped by somebody else all that time, or
    runs on without a pid to signal.
    """
    data_dir = data_dir.absolute()
    node = data_dir / "node"
    if not node.is_dir():
        return status(data_dir)
    with locked(node / "lock", timeout):
        before = status(data_dir)
        if before.pid or before.running:
            _end(before, data_dir, timeout)
        clear_traces(node)
    return status(data_dir)


def status(data_dir: Path) -> NodeStatus:
    """Say whether the private node runs and answers; takes at most about 4 seconds."""
    node = data_dir.absolute() / "node"
    repo = node / "repo"
    pid = own_pid(node)
    api = recorded_api(repo)
    try:
        version = answering_version(repo, api)
    except TierError as error:
        return NodeStatus(False, "", "", pid, repo, _why_silent(node, pid, error))
    return NodeStatus(True, api, version, pid, repo, f"answers at {api}")


# -- the process -------------------------------------------------------------------------------


def _settled(data_dir: Path, deadline: Deadline) -> NodeStatus:
    """The status, once a daemon whose starter died while it came up had the time to answer."""
    node = data_dir / "node"
    _in_time(lambda: not own_pid(node) or status(data_dir).running, deadline)
    now = status(data_dir)
    if now.pid and not now.running:
        raise UsageError(f"the node (pid {now.pid}) does not answer; run `cachekit node stop`, then start it again.")
    return now


def _launch(data_dir: Path, binary: Path, deadline: Deadline, options: tuple[str, ...]) -> NodeStatus:
    node = data_dir / "node"
    process = _spawn(node, binary, options)
    try:
        _in_time(lambda: process.poll() is not None or status(data_dir).running, deadline)
        now = status(data_dir)
        if not now.running:
            raise _silent(node / "daemon.log", ended=process.poll() is not None)
    except BaseException:
        # Interrupted or not: a daemon nobody heard from would hold the repository.
        process.kill()
        process.wait()
        clear_traces(node)
        raise
    # Reaps the daemon when it ends before this process does.
    threading.Thread(target=process.wait, daemon=True, name="cachekit-node").start()
    return now


def _spawn(node: Path, binary: Path, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
    repo = node / "repo"
    # The option, not IPFS_PATH alone, makes the process recognisable by its command line.
    command = [str(binary.absolute()), f"--repo-dir={repo}", "daemon", "--migrate=true", *options]
    with (node / "daemon.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                env=environment(repo) | ({"LIBP2P_FORCE_PNET": "1"} if (repo / "swarm.key").exists() else {}),
                cwd=node,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        except OSError as error:
            raise UsageError(f"{binary} cannot be run ({error}); run `cachekit node install` first.") from error
    (node / "pid").write_text(f"{process.pid}\n")
    return process


def _silent(log: Path, *, ended: bool) -> UsageError:
    if ended:
        return UsageError(
            f"the node ended while starting ({last_line(log.read_text(errors='replace'))}); {log} says more."
        )
    return UsageError(f"the node did not answer in time; read {log}, or start it with a longer timeout.")


def _end(node: NodeStatus, data_dir: Path, timeout: float) -> None:
    if not (node.running and asked_to_shut_down(node.api)):
        _signal(node.pid, signal.SIGTERM)
    if _in_time(lambda: not _alive(data_dir), Deadline(timeout)):
        return
    if not node.pid:
        raise UsageError(f"the node at {node.api} does not end and its pid is not recorded; end that process yourself.")
    _signal(node.pid, signal.SIGKILL)
    _in_time(lambda: not own_pid(data_dir / "node"), Deadline(math.inf))


def _in_time(condition: Callable[[], bool], deadline: Deadline) -> bool:
    """Waits for `condition`; whether it came true."""
    while not condition():
        if not deadline.rest:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _alive(data_dir: Path) -> bool:
    return bool(own_pid(data_dir / "node")) or status(data_dir).running


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _why_silent(node: Path, pid: int, error: TierError) -> str:
    if pid:
        return f"pid {pid} runs but does not answer ({error})"
    if not (node / "repo").is_dir():
        return "never started; `cachekit node start` starts it"
    return "not running; `cachekit node start` starts it"
