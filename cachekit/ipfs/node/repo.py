"""The repository of the private node: made once, configured to talk to nobody before every start."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

from cachekit.errors import UNREADABLE, UsageError
from cachekit.files.temporary import replacing
from cachekit.ipfs.node.binary import Unavailable, environment, run
from cachekit.ipfs.node.team import NodeTeam, settings_of, swarm_key

# sockaddr_un holds 104 bytes on macOS, 108 on Linux, the closing NUL included.
_SOCKET_PATH_BYTES: Final = 103
GC_PERIOD: Final = "5m"
"""How often a node with a quota looks whether it nears it: Kubo's hour is time enough to fill a disk."""
_PRIVATE: Final[dict[str, Any]] = {
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
    # A migration that a binary does not bring along is fetched as the binary was; else a public node would look for it.
    "Migration.DownloadSources": ["HTTPS"],
    "Bootstrap": [],
    "DNS.Resolvers": {},
    "Ipns.DelegatedPublishers": [],
    "Addresses.Gateway": [],
    "Addresses.Swarm": ["/ip4/127.0.0.1/tcp/0"],
    "Addresses.AppendAnnounce": [],
    "Peering.Peers": [],
    "Pubsub.Enabled": False,
    "Ipns.UsePubsub": False,
}


def create(binary: Path, node: Path) -> None:
    """Makes `node`/repo with `binary`, unless it is there. UsageError where the binary fails, naming the remedy."""
    if (node / "repo" / "config").is_file():
        return
    # Initialised aside and renamed: an init that was killed never leaves half a repository.
    half = Path(tempfile.mkdtemp(prefix="repo-", dir=node))
    try:
        command = [str(binary.absolute()), f"--repo-dir={half}", "init", "--profile=test"]
        run(command, node, 60, environment(half))
        os.replace(half, node / "repo")
    except Unavailable as error:
        raise UsageError(f"{binary} cannot be used ({error}); `cachekit node install` gets another.") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)


def configure(repo: Path, api: str, team: NodeTeam | None = None, *, storage_max: int | None = None) -> None:
    """Closes every way out but those to `team`, and puts the RPC at the multiaddr `api`.

    `storage_max`, in bytes, is what a daemon that is started with --enable-gc keeps to. UsageError for a configuration
    that is none.
    """
    key = repo / "swarm.key"
    if team is None:
        key.unlink(missing_ok=True)
    else:
        with replacing(key) as new:
            new.touch(mode=0o600)
            new.write_text(swarm_key(team))
    shared = {} if team is None else settings_of(team)
    quota = {} if storage_max is None else {"Datastore.StorageMax": f"{storage_max}B", "Datastore.GCPeriod": GC_PERIOD}
    path = repo / "config"
    try:
        config = json.loads(path.read_text())
        for name, value in {**_PRIVATE, **shared, **quota, "Addresses.API": [api]}.items():
            _set(config, name.split("."), value)
    except UNREADABLE as error:
        raise UsageError(f"{path} cannot be read ({error}); move {repo} away, and a new node is made") from error
    with replacing(path) as new:
        # The file holds the node's private key.
        new.touch(mode=0o600)
        new.write_text(json.dumps(config, indent=2))


def _set(config: Any, names: list[str], value: Any) -> None:
    *parents, last = names
    for parent in parents:
        # Kubo writes null for a section it has no default for.
        config[parent] = config.get(parent) or {}
        config = config[parent]
    config[last] = value


def api_address(node: Path, socket: bool | Path) -> str:
    """The multiaddr to listen at. UsageError where the path is too long for a unix socket."""
    if not socket:
        return "/ip4/127.0.0.1/tcp/0"
    path = (node / "api.sock" if socket is True else socket).absolute()
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise UsageError(f"{path} is too long for a unix socket; choose a shorter data directory or a port.")
    return f"/unix{path}"


def recorded_api(repo: Path) -> str:
    """The multiaddr that the daemon wrote down, empty where there is none."""
    try:
        return (repo / "api").read_text(errors="replace").strip()
    except OSError:
        return ""


def clear_traces(node: Path) -> None:
    """Removes what a daemon that ended left behind."""
    for trace in (node / "repo" / "api", node / "api.sock", node / "pid"):
        trace.unlink(missing_ok=True)
