"""A machine's way into a team: the address that others dial, the node as one of a swarm, and the credential's place."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cachekit.errors import UsageError
from cachekit.files.secret_files import read_or_create
from cachekit.ipfs.node import daemon
from cachekit.ipfs.node.process import rpc
from cachekit.ipfs.node.team import NodeTeam, read_team, write_team

PORT: Final = 4001
_SOMEWHERE: Final = ("192.0.2.1", 9)
"""Of a network that is nobody's: to ask which address would be used, nothing is sent."""
_ASK: Final = (
    "say where others reach this machine: --address HOST or HOST:PORT (for one behind ssh, the forwarded port)"
)


def founded(data_dir: Path, binary: Path, place: str, name: str) -> tuple[NodeTeam, str]:
    """This machine's team, made where there is none, its node running in it; and the node's multiaddr for others.

    They dial `place`, as `place_of` gives it. Raises UsageError where the node cannot be started.
    """
    known = read_team(data_dir)
    if known is None:
        team = NodeTeam.found(f"/ip4/0.0.0.0/tcp/{place.rpartition('/')[2]}", (place,), name)
    else:
        team = replace(known, dialled=(place,))
    running = entered(data_dir, binary, team)
    return team, f"{team.dialled[0]}/p2p/{rpc(running.api, 'id')['ID']}"


def entered(data_dir: Path, binary: Path, team: NodeTeam) -> daemon.NodeStatus:
    """The node, running as one of `team`; started anew where it ran otherwise."""
    if read_team(data_dir) != team:
        write_team(data_dir, team)
        daemon.stop(data_dir)
    return daemon.start(data_dir, binary=binary, timeout=60)


def listening(peers: Sequence[str]) -> str:
    """The multiaddr at which the node of a new member listens: as theirs do, on loopback where all of theirs are."""
    local = bool(peers) and all(peer.startswith("/ip4/127.") for peer in peers)
    return f"/ip4/{'127.0.0.1' if local else '0.0.0.0'}/tcp/{_free(PORT)}"  # noqa: S104 - a private swarm, for its members


def keep_credential(path: Path, text: str) -> Path | None:
    """Make `text` the credential in `path`; where another one's stood there, it is set aside, and where is returned."""
    aside = None
    if path.exists():
        if read_or_create(path, lambda: text) == text:
            return None
        aside = path.with_name(f"{path.name}.before-{time.strftime('%Y%m%d-%H%M%S')}")
        os.replace(path, aside)
    read_or_create(path, lambda: text)
    return aside


def place_of(data_dir: Path, address: str | None) -> str:
    """The multiaddr of HOST or HOST:PORT; of where this machine was dialled before, or is found to be, for None.

    Raises UsageError where it cannot be found, or is none.
    """
    known = read_team(data_dir)
    if address is None and known is not None and known.dialled:
        return known.dialled[0]
    host, port = _split(_own_host() if address is None else address, known)
    return f"/{_family(host)}/{host}/tcp/{port}"


def _split(address: str, known: NodeTeam | None) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+|[0-9a-fA-F:]{3,})(?::(\d{1,5}))?", address)
    if found is None or int(found[2] or 1) not in range(1, 65536):
        raise UsageError(f"--address {address!r} is no HOST or HOST:PORT; {_ASK}")
    if known is not None:
        return found[1].strip("[]"), int(found[2] or known.listen.rpartition("/")[2])
    free = _free(int(found[2] or PORT))
    if found[2] and free != int(found[2]):
        raise UsageError(f"another program of this machine listens at port {found[2]}; choose another, or leave it out")
    return found[1].strip("[]"), free


def _own_host() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(_SOMEWHERE)
            host = str(asking.getsockname()[0])
        except OSError:
            host = "127.0.0.1"
    if host.startswith("127.") or host == "0.0.0.0":  # noqa: S104 - compared, not bound
        raise UsageError(f"this machine has no address that others could dial; {_ASK}")
    return host


def _family(host: str) -> str:
    for family, name in ((socket.AF_INET, "ip4"), (socket.AF_INET6, "ip6")):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return name
    return "dns"


def _free(port: int) -> int:
    """`port` where nobody listens at it, else one at which nobody does."""
    for wanted in (port, 0):
        with socket.socket() as trying:
            try:
                trying.bind(("", wanted))
            except OSError:
                continue
            return int(trying.getsockname()[1])
    return port
