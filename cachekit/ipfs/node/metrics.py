"""What the private node and this machine's cache have counted, gathered within a bound; what cannot be had is said so.

Nothing here names a function, an argument or a secret: the sums are the machine's, and labels are words of ours.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cachekit.artifacts.store import ArtifactStore
from cachekit.errors import TierError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.kubo.answers import boundary
from cachekit.ipfs.node.daemon import NodeStatus
from cachekit.ipfs.node.exposition import Family, counter, gauge
from cachekit.ipfs.node.process import answered
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.model import NANOSECONDS
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.ledger import Ledger

SCRAPE_SECONDS: Final = 5.0
"""What a scrape takes at most, besides what SQLite waits; Prometheus gives up after 10."""
_CALL_SECONDS: Final = 2.0
_ANSWER_BYTES: Final = 1 << 20
_PINS_BYTES: Final = 16 << 20
_MOST_REASONS: Final = 50
_PLAIN: Final = (
    ("calls", "Calls of decorated functions"),
    ("misses", "Calls that the origin answered"),
    ("stores", "Values stored"),
    ("coalesced", "Calls that got what another one computed meanwhile"),
    ("stale", "Calls answered past their TTL"),
)


@dataclass(frozen=True)
class Place:
    """The cache directory that is told of, and its limit in bytes."""

    directory: Path
    limit: int


def gathered(node: NodeStatus, place: Place, deadline: Deadline) -> Iterator[Family]:
    """Everything there is to tell of `node`, as it was just now, and of `place`, until the deadline."""
    failed = list[str]()
    parts: dict[str, Callable[[], Iterable[Family]]] = {
        "totals": lambda: _totals(place.directory),
        "outbox": lambda: _outbox(place.directory / "outbox.db"),
        "disk": lambda: _disk(place),
        "artifacts": lambda: _artifacts(place.directory / "artifacts", deadline),
    }
    yield gauge("cachekit_node_up", "Whether the private node answers", node.running)
    if node.running:
        yield gauge("cachekit_node_info", "What the private node runs", 1, kubo=node.version)
        parts["peers"] = lambda: _peers(node.api, deadline)
        parts["repo"] = lambda: _repo(node.api, deadline)
        parts["pins"] = lambda: _pins(node.api, deadline)
    for name, part in parts.items():
        try:
            yield from list(part())
        except (TierError, OSError):
            failed.append(name)
    said = [({"part": name}, float(name in failed)) for name in parts]
    yield Family("cachekit_scrape_failed", "gauge", "Whether a part could not be had this time", said)


# -- the cache directory -------------------------------------------------------------------------


def _totals(directory: Path) -> Iterator[Family]:
    counted: dict[str, dict[str, float]] = {}
    if (directory / "ledger.db").is_file():  # looking makes nothing
        ledger = Ledger(directory)
        counted = ledger.totals()
        ledger.close()
    sums: defaultdict[str, float] = defaultdict(float)
    for counters in counted.values():
        for name, amount in counters.items():
            sums[name] += amount
    for name, text in _PLAIN:
        yield counter(f"cachekit_{name}_total", text, sums[name])
    hits = [({"tier": tier}, sums[f"hits.{tier}"]) for tier in ("memory", "disk", "ipfs")]
    yield Family("cachekit_hits_total", "counter", "Calls that a tier answered", hits)
    bypassed = sum(amount for name, amount in sums.items() if name.startswith("bypasses."))
    yield counter("cachekit_bypasses_total", "Calls in which the cache took no part", bypassed)
    yield counter("cachekit_saved_seconds_total", "What the origin would have taken", sums["seconds.saved"])
    yield Family("cachekit_errors_total", "counter", "What failed and was stepped over", _errors(sums))


def _errors(sums: Mapping[str, float]) -> list[tuple[Mapping[str, str], float]]:
    found = [(name.split(".", 2), amount) for name, amount in sums.items() if name.startswith("errors.")]
    found = sorted((one for one in found if len(one[0]) == 3), key=lambda one: (-one[1], one[0]))
    # An adapter may have any number of reasons; a label with any number of values is what Prometheus cannot bear.
    rest = sum(amount for _, amount in found[_MOST_REASONS:])
    told = [({"tier": words[1], "reason": words[2]}, amount) for words, amount in found[:_MOST_REASONS]]
    return [*told, *([({"tier": "", "reason": "others"}, rest)] if rest else [])]


def _outbox(path: Path) -> Iterator[Family]:
    waiting, oldest = 0, 0
    if path.is_file():
        outbox = Outbox(path)
        waiting, oldest = outbox.pending(), outbox.oldest()
        outbox.close()
    age = max(0.0, (time.time_ns() - oldest) / NANOSECONDS) if oldest else 0.0
    yield gauge("cachekit_outbox_pending", "Entries and invalidations that wait to be sent", waiting)
    yield gauge("cachekit_outbox_oldest_seconds", "How long the oldest of them has waited", age)


def _disk(place: Place) -> Iterator[Family]:
    used = 0
    if (place.directory / "cache.db").is_file():
        tier = DiskTier(place.directory, place.limit)
        used = tier.volume()
        tier.close()
    yield gauge("cachekit_disk_bytes", "What entries take on disk", used)
    yield gauge("cachekit_disk_limit_bytes", "CACHEKIT_SIZE_LIMIT", place.limit)


def _artifacts(directory: Path, deadline: Deadline) -> Iterator[Family]:
    used = ArtifactStore(directory).volume(deadline.left)
    yield gauge("cachekit_artifacts_bytes", "What artifacts take on disk", used)


# -- the node ------------------------------------------------------------------------------------


def _peers(api: str, deadline: Deadline) -> Iterator[Family]:
    with boundary():
        peers = json.loads(_asked(api, "swarm/peers", {}, deadline))["Peers"] or ()
        yield gauge("cachekit_node_peers", "Daemons that are connected", len(peers))


def _repo(api: str, deadline: Deadline) -> Iterator[Family]:
    with boundary():
        said = json.loads(_asked(api, "repo/stat", {"size-only": "true"}, deadline))
        yield gauge("cachekit_node_repo_bytes", "What the node's repository takes", int(said["RepoSize"]))
        yield gauge("cachekit_node_storage_max_bytes", "Datastore.StorageMax", int(said["StorageMax"]))


def _pins(api: str, deadline: Deadline) -> Iterator[Family]:
    asked = {"type": "recursive", "stream": "true", "quiet": "true"}
    # One line a pin: counted, not read.
    lines = _asked(api, "pin/ls", asked, deadline, _PINS_BYTES).count(b"\n")
    yield gauge("cachekit_node_pins", "What the node keeps until it is unpinned", lines)


def _asked(api: str, call: str, options: Mapping[str, str], deadline: Deadline, limit: int = _ANSWER_BYTES) -> bytes:
    return answered(api, call, options, seconds=min(_CALL_SECONDS, deadline.left()), limit=limit)
