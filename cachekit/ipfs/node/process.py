"""The private node as a process among others: what its RPC answers, its lock, and its recorded pid."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cachekit.errors import TierError, UsageError
from cachekit.files import sqlite
from cachekit.ipfs.kubo.answers import boundary
from cachekit.ipfs.kubo.http import Address, Dialer, KeptConnection, allowed

_PROBE_SECONDS: Final = 2.0
_CONNECT_SECONDS: Final = 0.5
_ANSWER_BYTES: Final = 1 << 20


def rpc(api: str, call: str, options: Mapping[str, str] | None = None) -> Any:
    """What a call of the RPC at the multiaddr `api` answers, within 2 s. Raises TierError."""
    with boundary():
        body = answered(api, call, options or {}, seconds=_PROBE_SECONDS, limit=_ANSWER_BYTES)
        return json.loads(body) if body else None


def answered(api: str, call: str, options: Mapping[str, str], *, seconds: float, limit: int) -> bytes:
    """The bytes of that answer: at most `limit`, within `seconds`. Raises TierError."""
    with boundary(), contextlib.closing(KeptConnection(Dialer(Address.parse(api), {}))) as kept:
        return kept.post(call, options, timeout=seconds, limit=limit)


def listens(api: str) -> bool:
    """Whether somebody takes connections at the multiaddr `api`; at most half a second passes."""
    try:
        with boundary(), allowed(_CONNECT_SECONDS, 0):
            Dialer(Address.parse(api), {}).dial().close()
    except TierError:  # refused, or no address
        return False
    return True


def clear_socket(api: str) -> None:
    """Removes what a daemon that was killed left at the multiaddr `api`, where that is a unix socket.

    Raises UsageError where somebody listens there, where it is no socket, and where it cannot be removed.
    """
    if not api.startswith("/unix/"):
        return
    path = Path(Address.parse(api).path)
    try:
        if not path.exists():
            return
        if not path.is_socket() or listens(api):
            raise UsageError(f"{path} is somebody else's; name another path for the socket")
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be used for the socket ({error}); name another path") from error


def answering_version(repo: Path, api: str) -> str:
    """Kubo's version, where it is `repo`'s own daemon that answers at `api`; else raises TierError."""
    with boundary():
        # The port in a leftover `api` file may belong to somebody else's node by now.
        own = json.loads((repo / "config").read_text())["Identity"]["PeerID"]
        if rpc(api, "id")["ID"] != own:
            raise TierError(f"another node answers at {api}")
        return str(rpc(api, "version")["Version"])


def asked_to_shut_down(api: str) -> bool:
    """Whether the daemon took the request."""
    try:
        rpc(api, "shutdown")
    except TierError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path, timeout: float) -> Iterator[None]:
    """Hold the lock file `path`, waiting at most `timeout` seconds for it; else raise UsageError."""
    with contextlib.ExitStack() as lock:
        try:
            lock.enter_context(sqlite.locked(path, time.monotonic() + timeout))
        except TierError as error:
            raise UsageError(str(error)) from error
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
