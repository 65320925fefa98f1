"""Slower, never broken: whatever the daemon or the disk does, the caller gets the right value, and the reason is counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults import black_hole, refusing, serving
from stopping import stop

import cachekit
from cachekit import distributed_cache, stats
from cachekit.cache.default import ROOT
from cachekit.ipfs.node import daemon, install

CALLS: list[int] = []


@distributed_cache
def square(x: int) -> int:
    CALLS.append(x)
    return x * x


@pytest.fixture(autouse=True)
def no_calls() -> None:
    CALLS.clear()


def through(api: str, own_cache: Path, **settings: Any) -> Any:
    return cachekit.configure(dir=own_cache, ipfs="rw", ipfs_api=api, **settings)


def assert_right_and_paid_once(own_cache: Path, api: str) -> None:
    """Right values; after the first failure the breaker keeps every call from asking."""
    with through(api, own_cache):
        assert [square(x) for x in range(6)] == [0, 1, 4, 9, 16, 25]
        found = stats(square).as_dict()
        assert sum(found["errors"]["ipfs"].values()) == 1, "one call pays for the discovery, no more"
        assert found["bypasses"]["ipfs: unreachable"] >= 5
        assert [square(x) for x in range(6)] == [0, 1, 4, 9, 16, 25]
        assert len(CALLS) == 6


def test_a_refused_connection(own_cache: Path) -> None:
    """Nobody listens."""
    assert_right_and_paid_once(own_cache, refusing())


def test_a_black_hole(own_cache: Path) -> None:
    """The connection is never accepted."""
    with black_hole() as api:
        assert_right_and_paid_once(own_cache, api)


@pytest.mark.parametrize("fault", ["silence", "drip", "html", "error"])
def test_a_server_that_is_not_well(own_cache: Path, fault: str) -> None:
    """Silent, dripping a byte at a time, a proxy's page, 500 for everything (a scripted stand-in)."""

    def script(exchange: Any) -> Any:
        if fault == "silence":
            return exchange.silence()
        if fault == "drip":
            return exchange.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"x")
        if fault == "html":
            return exchange.answer(200, b"<html><body>Please log in</body></html>", kind="text/html")
        return exchange.answer(502, b"bad gateway", kind="text/plain")

    with serving(script) as server, through(server.api, own_cache):
        assert [square(x) for x in range(4)] == [0, 1, 4, 9]
        assert len(CALLS) == 4
        assert sum(stats(square).as_dict()["errors"]["ipfs"].values()) >= 1


def test_a_stopped_daemon(own_cache: Path, tmp_path: Path, kubo_api: str) -> None:
    """SIGSTOP of the real node: right values, one failure; after SIGCONT nothing is lost."""
    data = tmp_path / "own-node"
    status = daemon.start(data, binary=install.install(data).path, timeout=60)
    try:
        with through(status.api, own_cache):
            square(1)
            cachekit.flush(30)
            stop(status.pid)
            try:
                assert [square(x) for x in range(2, 8)] == [x * x for x in range(2, 8)]
                assert sum(stats(square).as_dict()["errors"]["ipfs"].values()) == 1
            finally:
                os.kill(status.pid, signal.SIGCONT)
            cachekit.flush(30)
            assert ROOT.cache().ready().team.tier.pending() == 0  # type: ignore[union-attr]
    finally:
        daemon.stop(data)


SHARED = """
import json, sys
from cachekit import distributed_cache, flush, stats

@distributed_cache(ttl="1h")
def square(x):
    return {"square": x * x}

values = [square(x) for x in range(5)]
flush(30)
print(json.dumps({"values": values, **stats(square).as_dict()}))
"""


def run_machine(tmp_path: Path, name: str, api: str, **environ: str) -> Any:
    """One machine: its own HOME and cache directory."""
    import json

    home = tmp_path / name
    home.mkdir(exist_ok=True)
    script = home / "job.py"
    script.write_text(SHARED)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "CACHEKIT_DIR": str(home / "cache"),
        "CACHEKIT_IPFS": "rw",
        "CACHEKIT_IPFS_API": api,
        "CACHEKIT_IPFS_TIMEOUT": "5",
        "CACHEKIT_SECRET_FILE": str(tmp_path / "credential"),
        "PYTHONPATH": os.pathsep.join(sys.path),
        **environ,
    }
    done = subprocess.run([sys.executable, script], env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_machines_share(tmp_path: Path, kubo_api: str) -> None:
    """Two HOMEs, two cache directories, one credential, one Kubo: what one computed, the other gets."""
    first = run_machine(tmp_path, "first", kubo_api)
    second = run_machine(tmp_path, "second", kubo_api)
    assert first["misses"] == 5
    assert (second["misses"], second["hits"]["ipfs"]) == (0, 5)
    assert first["values"] == second["values"]
    third = run_machine(tmp_path, "second", kubo_api)
    assert third["hits"]["disk"] == 5, "what came from IPFS was filled back"


def test_another_secret_misses(tmp_path: Path, kubo_api: str) -> None:
    """Who has another credential neither finds nor is confused by the entries."""
    run_machine(tmp_path, "ours", kubo_api)
    theirs = run_machine(tmp_path, "theirs", kubo_api, CACHEKIT_SECRET_FILE=str(tmp_path / "other"))
    assert (theirs["misses"], theirs["hits"]["ipfs"]) == (5, 0)


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"IPFS_KIT_DISABLE": "1"}, "IPFS_KIT_DISABLE"),
        ({"STORAGE_FORCE_LOCAL": "1"}, "STORAGE_FORCE_LOCAL"),
        ({"GITHUB_ACTIONS": "true"}, "GITHUB_ACTIONS"),
        ({"CACHEKIT_IPFS": "off"}, "CACHEKIT_IPFS"),
    ],
)
def test_off_by_variable_is_counted_under_its_name(
    own_cache: Path, variables: Any, reason: str, monkeypatch: Any
) -> None:
    """CI, both legacy variables and our own: the call works, status names the variable, and so does the count."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ROOT.replace({"dir": own_cache})
    assert square(3) == 9
    assert reason in cachekit.status().as_dict()["ipfs"]["reason"]
    assert any(reason in name for name in stats(square).as_dict()["bypasses"])


def test_a_missing_client_library(own_cache: Path, kubo_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ipfshttpclient the call works and nothing is lost: the entry waits in the outbox."""
    monkeypatch.setitem(sys.modules, "ipfshttpclient", None)
    with through(kubo_api, own_cache):
        assert square(3) == 9
        with pytest.raises(cachekit.TierError, match="ipfshttpclient"):
            cachekit.flush(10)
        assert square(3) == 9


def test_a_failed_initialisation(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The credential cannot be made: the tier is off with that reason, and the call works."""

    def fail(*_: object) -> None:
        raise OSError("no room for a credential")

    monkeypatch.setattr("cachekit.ipfs.sharing.load_credential", fail)
    with through("/ip4/127.0.0.1/tcp/9", own_cache):
        assert square(3) == 9
        assert "no room" in cachekit.status().as_dict()["ipfs"]["reason"]
        assert ROOT.cache().stats.snapshot().as_dict()["errors"]["ipfs"] == {"init_failed": 1}


def test_strict_raises_what_would_be_stepped_over(own_cache: Path) -> None:
    """CACHEKIT_STRICT turns a failed tier into an exception."""
    with through(refusing(), own_cache, strict=True), pytest.raises(cachekit.TierError):
        square(3)


def test_a_full_disk(own_cache: Path) -> None:
    """The origin's value is returned, and the reason counted (a file size limit stands in for the full disk)."""
    code = """
import resource, signal, sys
from cachekit import distributed_cache, stats
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

@distributed_cache
def big(x):
    return b"x" * 3_000_000

big(0)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
assert len(big(1)) == 3_000_000
print(sorted(stats(big).as_dict()["errors"]["disk"]))
"""
    environ = {
        **os.environ,
        "CACHEKIT_DIR": str(own_cache),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['full']", done.stderr
