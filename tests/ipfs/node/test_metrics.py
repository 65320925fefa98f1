"""What is told to Prometheus, read by Prometheus's own parser."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cachekit import configure, distributed_cache, flush
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.node.daemon import NodeStatus
from cachekit.ipfs.node.exposition import Family, exposed, gauge
from cachekit.ipfs.node.metrics import Place, gathered
from cachekit.ipfs.node.process import rpc
from cachekit.ipfs.outbox.queue import Outbox
from cachekit.model import Key, Record
from cachekit.tiers.ledger import Ledger

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
NOBODY = NodeStatus(False, "", "", 0, Path("repo"), "not running")
SECRET = "hunter2-in-an-argument"


def parsed(text: str) -> Samples:
    """(name, labels) → value, as Prometheus's own parser reads it."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation and family.type in ("counter", "gauge") for family in families)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def told(directory: Path, node: NodeStatus = NOBODY) -> Samples:
    return parsed(exposed(gathered(node, Place(directory, 1 << 20), Deadline(10))))


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def running(api: str) -> NodeStatus:
    return NodeStatus(True, api, str(rpc(api, "version")["Version"]), 1, Path("repo"), "answers")


def total(directory: Path, counters: Mapping[str, float], function: str = "f") -> None:
    directory.mkdir(exist_ok=True)
    ledger = Ledger(directory)
    ledger.add_totals({function: counters})
    ledger.close()


def test_labels_are_quoted() -> None:
    """What stands in a label comes out of Prometheus's parser as it went in."""
    odd = 'a\\n"b"\n{c="d"} 1 é'
    assert parsed(exposed([gauge("odd", "Odd", 2.5, label=odd)])) == {("odd", (("label", odd),)): 2.5}


@pytest.mark.parametrize("number", [0, 1, 1.5, 1e300, 2**60, 1e-9])
def test_numbers_are_kept(number: float) -> None:
    """A value is read as the number that it was."""
    assert parsed(exposed([Family("n", "gauge", "N", [({}, number)])])) == {("n", ()): float(number)}


def test_looking_makes_nothing(tmp_path: Path) -> None:
    """A cache directory that is not there counts nothing, and is not there afterwards."""
    samples = told(tmp_path / "none")
    assert value(samples, "cachekit_calls_total") == 0 and value(samples, "cachekit_node_up") == 0
    assert not (tmp_path / "none").exists()


def test_totals_of_the_machine_are_summed(tmp_path: Path) -> None:
    """Counters are sums over all functions, by tier, and errors by their reason."""
    total(tmp_path, {"calls": 5, "hits.disk": 2, "misses": 3, "stores": 3, "errors.ipfs.timeout": 1}, "f")
    total(tmp_path, {"calls": 1, "hits.disk": 1, "errors.ipfs.timeout": 2, "bypasses.mocked": 4}, "g")
    samples = told(tmp_path)
    assert value(samples, "cachekit_calls_total") == 6
    assert value(samples, "cachekit_hits_total", tier="disk") == 3
    assert value(samples, "cachekit_misses_total") == value(samples, "cachekit_stores_total") == 3
    assert value(samples, "cachekit_errors_total", tier="ipfs", reason="timeout") == 3
    assert value(samples, "cachekit_bypasses_total") == 4


def test_reasons_without_end_are_not_told_without_end(tmp_path: Path) -> None:
    """Of a thousand reasons the most frequent have samples of their own, the rest are one."""
    total(tmp_path, {f"errors.origin.r{number}": number for number in range(1000)})
    errors = {labels: amount for (name, labels), amount in told(tmp_path).items() if name == "cachekit_errors_total"}
    assert len(errors) < 60 and sum(errors.values()) == sum(range(1000))


def test_a_real_cache_is_told_of_without_its_arguments(tmp_path: Path, kubo_api: str) -> None:
    """Hits, pins, bytes and what waits are those of a cache in use; no argument, value or credential is among them."""
    directory = tmp_path / "used"
    with configure(dir=directory, ipfs="rw", ipfs_api=kubo_api, namespace=SECRET):

        @distributed_cache(pin=True)
        def told_of(word: str) -> str:
            return word

        before = value(told(directory, running(kubo_api)), "cachekit_node_pins")
        told_of(SECRET), told_of(SECRET)
        flush(30)
        text = exposed(gathered(running(kubo_api), Place(directory, 1 << 20), Deadline(10)))
    samples = parsed(text)
    assert value(samples, "cachekit_calls_total") == 2 and value(samples, "cachekit_hits_total", tier="memory") == 1
    assert value(samples, "cachekit_node_pins") == before + 1
    assert value(samples, "cachekit_node_repo_bytes") > 0 and value(samples, "cachekit_disk_bytes") > 0
    assert value(samples, "cachekit_outbox_pending") == 0 and value(samples, "cachekit_node_peers") == 0
    assert not any(amount for (name, _), amount in samples.items() if name == "cachekit_scrape_failed")
    assert SECRET not in text and "told_of" not in text and "ck1." not in text


def test_what_waits_is_told(tmp_path: Path) -> None:
    """What stands in the outbox counts, and how long the oldest has waited."""
    outbox = Outbox(tmp_path / "outbox.db")
    outbox.add(Key("n", bytes(32)), Record("json", b"1", created=1))
    outbox.close()
    samples = told(tmp_path)
    assert value(samples, "cachekit_outbox_pending") == 1 and value(samples, "cachekit_outbox_oldest_seconds") > 1e9


def test_a_part_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    """A file that cannot be read, another version's for one, costs its own samples, and is named; the others are there."""
    total(tmp_path, {"calls": 1})
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as connection:
        connection.execute("CREATE TABLE queue (other)")
    samples = told(tmp_path)
    assert value(samples, "cachekit_scrape_failed", part="outbox") == 1
    assert value(samples, "cachekit_calls_total") == 1 and ("cachekit_outbox_pending", ()) not in samples


def test_time_that_is_over_costs_parts_only(tmp_path: Path, kubo_api: str) -> None:
    """Once the time for a scrape is over the node is not asked any more, and what is known is told."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "one").touch()
    late = exposed(gathered(running(kubo_api), Place(tmp_path, 1), Deadline(0)))
    samples = parsed(late)
    missing = {dict(labels)["part"] for (name, labels), failed in samples.items() if "failed" in name and failed}
    assert missing == {"artifacts", "peers", "repo", "pins"} and value(samples, "cachekit_node_up") == 1
