"""The few RPC calls that tell whether the private node lives: they must work before, and without, any client."""

from __future__ import annotations

import http.client
import json
import socket as sockets
from pathlib import Path
from typing import Any, Final

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
