"""A private Kubo daemon: its own repository, loopback only, talking to nobody."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import signal
import socket as sockets
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachekit.errors import UsageError

_PROBE_SECONDS = 2.0
_POLL_SECONDS = 0.05
# sockaddr_un holds 104 bytes on macOS, 108 on Linux, the closing NUL included.
_SOCKET_PATH_BYTES = 103

_PRIVATE: dict[str, Any] = {
    "Routing.Type": "none",
    "Routing.DelegatedRouters": [],
    "AutoConf.Enabled": False,
    "AutoTLS.Enabled": False,
    "Discovery.MDNS.Enabled": False,
    "Swarm.RelayClient.Enabled": False,
    # Kubo refuses to start with the relay service on and its transport off.
    "Swarm.RelayService.Enabled": False,
    "Swarm.Transports.Network.Relay": False,
    # Without the relay client Kubo >= 0.43 refuses to start while hole punching is on.
    "Swarm.EnableHolePunching": False,
    "Provide.Enabled": False,
    "Version.SwarmCheckEnabled": False,
    "Bootstrap": [],
    "DNS.Resolvers": {},
    "Ipns.DelegatedPublishers": [],
    "Addresses.Gateway": [],
    "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"],
}


@dataclass(frozen=True)
class NodeStatus:
    """What the private node is doing; `pid` is 0 and `api`, `version` are empty where unknown."""

    running: bool
    api: str
    version: str
    pid: int
    repo: Path
    reason: str


def start(data_dir: Path, *, binary: Path, socket: bool = False, timeout: float = 30) -> NodeStatus:
    """Start the private node, or return the status of the one that runs.

    `socket` puts the RPC on a unix socket instead of a loopback port; it has no effect on a node
    that runs already. `timeout` is in seconds, for the whole call.
    Raises UsageError when the node cannot be started, naming the remedy.
    """
    deadline = time.monotonic() + timeout
    data_dir = data_dir.absolute()
    node = data_dir / "node"
    node.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(node / "lock", timeout):
        now = _awaited_leftover(data_dir, deadline)
        if now.running:
            return now
        api = _api_address(node, socket)
        _create_repo(binary, node)
        _configure(node / "repo", api)
        _clear_traces(node)
        return _launch(data_dir, binary, deadline)


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
        _clear_traces(node)
    return status(data_dir)


def status(data_dir: Path) -> NodeStatus:
    """Say whether the private node runs and answers; takes at most about 4 seconds."""
    node = data_dir.absolute() / "node"
    repo = node / "repo"
    pid = _own_pid(node)
    api = _recorded_api(repo)
    try:
        version = _answering_version(repo, api)
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        return NodeStatus(False, "", "", pid, repo, _why_silent(node, pid, error))
    return NodeStatus(True, api, version, pid, repo, f"answers at {api}")


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file `path`, waiting at most `timeout` seconds for it; else raise UsageError."""
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise UsageError(f"{path} is held by another cachekit; wait for it to finish, then try again.")
            time.sleep(_POLL_SECONDS)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


# -- the repository ----------------------------------------------------------------------------


def _create_repo(binary: Path, node: Path) -> None:
    if (node / "repo" / "config").is_file():
        return
    # Initialised aside and renamed: an init that was killed never leaves half a repository.
    half = Path(tempfile.mkdtemp(prefix="repo-", dir=node))
    try:
        made = _kubo(binary, half, "init", "--profile=test")
        if made.returncode != 0:
            raise UsageError(
                f"`{binary} init` failed ({_last_line(made.stderr)}); `cachekit node install` gets another."
            )
        os.replace(half, node / "repo")
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _kubo(binary: Path, repo: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(binary.absolute()), f"--repo-dir={repo}", *arguments]
    try:
        return subprocess.run(command, env=_environment(repo), capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{binary} cannot be run ({error}); run `cachekit node install` first.") from error


def _environment(repo: Path) -> dict[str, str]:
    return {**os.environ, "IPFS_PATH": str(repo), "IPFS_TELEMETRY": "off"}


def _configure(repo: Path, api: str) -> None:
    path = repo / "config"
    config = json.loads(path.read_text())
    for name, value in {**_PRIVATE, "Addresses.API": [api]}.items():
        *parents, last = name.split(".")
        section = config
        for parent in parents:
            # Kubo writes null for a section it has no default for.
            section[parent] = section.get(parent) or {}
            section = section[parent]
        section[last] = value
    new = path.with_name("config.new")
    # The file holds the node's private key.
    new.touch(mode=0o600)
    new.write_text(json.dumps(config, indent=2))
    os.replace(new, path)


def _api_address(node: Path, socket: bool) -> str:
    if not socket:
        return "/ip4/127.0.0.1/tcp/0"
    path = (node / "api.sock").absolute()
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise UsageError(f"{path} is too long for a unix socket; choose a shorter data directory or a port.")
    return f"/unix{path}"


def _clear_traces(node: Path) -> None:
    for trace in (node / "repo" / "api", node / "api.sock", node / "pid"):
        trace.unlink(missing_ok=True)


# -- the process -------------------------------------------------------------------------------


def _launch(data_dir: Path, binary: Path, deadline: float) -> NodeStatus:
    process = _spawn(data_dir / "node", binary)
    try:
        now = _awaited(data_dir, process, deadline)
    except BaseException:
        # Interrupted or not: a daemon nobody heard from would hold the repository.
        process.kill()
        process.wait()
        _clear_traces(data_dir / "node")
        raise
    # Reaps the daemon when it ends before this process does.
    threading.Thread(target=process.wait, daemon=True, name="cachekit-node").start()
    return now


def _spawn(node: Path, binary: Path) -> subprocess.Popen[bytes]:
    repo = node / "repo"
    # The option, not IPFS_PATH alone, makes the process recognisable by its command line.
    command = [str(binary.absolute()), f"--repo-dir={repo}", "daemon"]
    with (node / "daemon.log").open("wb") as log:
        try:
            process = subprocess.Popen(
                command,
                env=_environment(repo),
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


def _awaited(data_dir: Path, process: subprocess.Popen[bytes], deadline: float) -> NodeStatus:
    log = data_dir / "node" / "daemon.log"
    while time.monotonic() < deadline:
        now = status(data_dir)
        if now.running:
            return now
        if process.poll() is not None:
            said = _last_line(log.read_text(errors="replace"))
            raise UsageError(f"the node ended while starting ({said}); {log} says more.")
        time.sleep(_POLL_SECONDS)
    raise UsageError(f"the node did not answer in time; read {log}, or start it with a longer timeout.")


def _awaited_leftover(data_dir: Path, deadline: float) -> NodeStatus:
    """Give a daemon whose starter died while it came up the time to answer."""
    now = status(data_dir)
    while now.pid and not now.running:
        if time.monotonic() >= deadline:
            raise UsageError(
                f"the node (pid {now.pid}) does not answer; run `cachekit node stop`, then start it again."
            )
        time.sleep(_POLL_SECONDS)
        now = status(data_dir)
    return now


def _end(node: NodeStatus, data_dir: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    if not (node.running and _asked_to_shut_down(node.api)):
        _signal(node.pid, signal.SIGTERM)
    while _alive(data_dir):
        if time.monotonic() >= deadline:
            break
        time.sleep(_POLL_SECONDS)
    else:
        return
    if not node.pid:
        raise UsageError(f"the node at {node.api} does not end and its pid is not recorded; end that process yourself.")
    _signal(node.pid, signal.SIGKILL)
    while _own_pid(data_dir / "node"):
        time.sleep(_POLL_SECONDS)


def _alive(data_dir: Path) -> bool:
    return bool(_own_pid(data_dir / "node")) or status(data_dir).running


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _own_pid(node: Path) -> int:
    """The recorded pid if that process is the daemon of this repository, else 0."""
    try:
        pid = int((node / "pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if f"--repo-dir={node / 'repo'}" in _command_line(pid) else 0


def _command_line(pid: int) -> str:
    proc = Path("/proc")
    try:
        if (proc / "self" / "cmdline").exists():
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="surrogateescape")
        shown = subprocess.run(
            ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout


# -- the RPC -----------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(api: str, timeout: float) -> http.client.HTTPConnection:
    if api.startswith("/unix/"):
        return _UnixConnection(api.removeprefix("/unix"), timeout)
    _, family, host, protocol, port = api.split("/")
    if family not in ("ip4", "ip6") or protocol != "tcp":
        raise ValueError(f"not an address of an RPC: {api}")
    return http.client.HTTPConnection(host, int(port), timeout=timeout)


def _rpc(api: str, call: str) -> Any:
    connection = _connection(api, _PROBE_SECONDS)
    try:
        connection.request("POST", f"/api/v0/{call}")
        response = connection.getresponse()
        body = response.read(1 << 20)
    finally:
        connection.close()
    if response.status != 200:
        raise http.client.HTTPException(f"{call}: status {response.status}")
    return json.loads(body) if body else None


def _answering_version(repo: Path, api: str) -> str:
    # The port in a leftover `api` file may belong to somebody else's node by now.
    own = json.loads((repo / "config").read_text())["Identity"]["PeerID"]
    if _rpc(api, "id")["ID"] != own:
        raise ValueError(f"another node answers at {api}")
    return str(_rpc(api, "version")["Version"])


def _asked_to_shut_down(api: str) -> bool:
    try:
        _rpc(api, "shutdown")
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


def _recorded_api(repo: Path) -> str:
    try:
        return (repo / "api").read_text().strip()
    except OSError:
        return ""


def _why_silent(node: Path, pid: int, error: Exception) -> str:
    if pid:
        return f"pid {pid} runs but does not answer ({error})"
    if not (node / "repo").is_dir():
        return "never started; `cachekit node start` starts it"
    return "not running; `cachekit node start` starts it"


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
