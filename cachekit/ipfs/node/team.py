"""What makes the private node one of a team's: the swarm's key, where others dial it, and whom it dials."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from cachekit.errors import UNREADABLE, UsageError
from cachekit.files.temporary import replacing

KEY_BYTES: Final = 32
_ANSWERED_BYTES: Final = 16 << 10
"""A block up to this size is sent to who asks whether it is there: one round instead of two, 19 ms instead of 40."""


@dataclass(frozen=True)
class NodeTeam:
    """`swarm_key` is 32 bytes. `listen` is a multiaddr; `dialled` those at which others reach it; `peers` whom it dials.

    `name` is what the team calls this machine, '' for its host's name.
    """

    swarm_key: bytes = field(repr=False)
    listen: str
    dialled: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    name: str = ""

    @classmethod
    def found(cls, listen: str, dialled: tuple[str, ...], name: str) -> NodeTeam:
        """A new team of one."""
        return cls(secrets.token_bytes(KEY_BYTES), listen, dialled, (), name)


def read_team(data_dir: Path) -> NodeTeam | None:
    """The private node's team; None where it has none. Raises UsageError for a file that cannot be read."""
    path = _file(data_dir)
    try:
        said: dict[str, Any] = json.loads(path.read_text())
        key = bytes.fromhex(said["swarm_key"])
        if len(key) != KEY_BYTES:
            raise ValueError(len(key))
        return NodeTeam(key, said["listen"], tuple(said["dialled"]), tuple(said["peers"]), said["name"])
    except FileNotFoundError:
        return None
    except (OSError, *UNREADABLE) as error:
        raise UsageError(f"{path} cannot be read ({error}); remove it and join the team again") from error


def write_team(data_dir: Path, team: NodeTeam) -> None:
    """Keep it for the node's next start."""
    path = _file(data_dir)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path) as new:
        new.touch(mode=0o600)  # the key lets everybody in
        new.write_text(json.dumps({**asdict(team), "swarm_key": team.swarm_key.hex()}, indent=2))


def settings_of(team: NodeTeam) -> dict[str, Any]:
    """What Kubo's configuration says besides that of a node that is alone."""
    return {
        "Addresses.Swarm": [team.listen],
        "Addresses.AppendAnnounce": [address.rpartition("/p2p/")[0] or address for address in team.dialled],
        "Peering.Peers": [{"ID": peer, "Addrs": addresses} for peer, addresses in _by_peer(team.peers).items()],
        "Pubsub.Enabled": True,
        "Ipns.UsePubsub": True,
        "Internal.Bitswap.WantHaveReplaceSize": _ANSWERED_BYTES,
        "Swarm.Transports.Network.QUIC": False,
        "Swarm.Transports.Network.WebTransport": False,
        "Swarm.Transports.Network.WebRTCDirect": False,
        "Swarm.Transports.Network.Websocket": False,
    }


def swarm_key(team: NodeTeam) -> str:
    """The text of Kubo's `swarm.key`."""
    return f"/key/swarm/psk/1.0.0/\n/base16/\n{team.swarm_key.hex()}\n"


def _by_peer(addresses: tuple[str, ...]) -> dict[str, list[str]]:
    peers = dict[str, list[str]]()
    for address in addresses:
        where, _, peer = address.rpartition("/p2p/")
        peers.setdefault(peer, []).append(where)
    return peers


def _file(data_dir: Path) -> Path:
    return data_dir / "node" / "team.json"
