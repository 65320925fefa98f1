"""The few RPC calls that tell whether the private node lives: they must work before, and without, any client.

What tells processes of each other's private node: a lock while it is started or ended, and its recorded pid.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket as sockets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cachekit.errors import UsageError
from cachekit.files.locks import NO_LOCKS, has_locks, try_lock

_PROBE_SECONDS: Final = 2.0


def rpc(api: str, call: str) -> Any:
    """What a call without arguments answers. Raises OSError, HTTPException or ValueError."""
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


def answering_version(repo: Path, api: str) -> str:
    """Kubo's version, where it is `repo`'s own daemon that answers at `api`; else raises ValueError, or as `rpc`."""
    # The port in a leftover `api` file may belong to somebody else's node by now.
    own = json.loads((repo / "config").read_text())["Identity"]["PeerID"]
    if rpc(api, "id")["ID"] != own:
        raise ValueError(f"another node answers at {api}")
    return str(rpc(api, "version")["Version"])


def asked_to_shut_down(api: str) -> bool:
    """Whether the daemon took the request."""
    try:
        rpc(api, "shutdown")
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return True


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


_POLL_SECONDS: Final = 0.05


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file `path`, waiting at most `timeout` seconds for it; else raise UsageError."""
    if not has_locks():
        raise UsageError(NO_LOCKS)
    deadline = time.monotonic() + timeout
    with path.open("a") as file:
        while not try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise UsageError(f"{path} is held by another cachekit; wait for it to finish, then try again.")
            time.sleep(_POLL_SECONDS)
        yield


def own_pid(node: Path) -> int:
    """The recorded pid if that process is the daemon of this repository, else 0."""
    try:
        pid = int((node / "pid").read_text())
    except (OSError, ValueError):
        return 0
    return pid if f"--repo-dir={node / 'repo'}" in command_line(pid) else 0


def command_line(pid: int) -> str:
    """How the process was started, empty where there is none."""
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
