"""The way to a real Kubo: with its credentials, after it moved, and after it hung."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import refusing
from stopping import stop

import cachekit
from cachekit.cache.default import default
from cachekit.config.resolve import data_dir
from cachekit.errors import TierUnavailable
from cachekit.ipfs import sharing
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.node import daemon, install
from cachekit.ipfs.node.binary import environment
from cachekit.ipfs.node.repo import configure, create, recorded_api

_LONG = 20.0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A node whose RPC asks for a credential."""
    home = tmp_path_factory.mktemp("guarded")
    binary = Path(install.install(home).path)
    create(binary, home)
    repo = home / "repo"
    configure(repo, "/ip4/127.0.0.1/tcp/0")
    config = json.loads((repo / "config").read_text())
    secrets = {"one": "bearer:t0ken:with:colons", "two": "basic:me:open:sesame"}
    config["API"]["Authorizations"] = {
        name: {"AuthSecret": secret, "AllowedPaths": ["/api/v0"]} for name, secret in secrets.items()
    }
    (repo / "config").write_text(json.dumps(config))
    with subprocess.Popen(
        [binary, f"--repo-dir={repo}", "daemon"], env=environment(repo), stdout=subprocess.DEVNULL
    ) as node:
        _await(lambda: bool(recorded_api(repo)))
        yield recorded_api(repo)
        node.terminate()


@pytest.mark.parametrize("auth", ["bearer:t0ken:with:colons", "basic:me:open:sesame", "me:open:sesame"])
def test_kubo_takes_every_documented_credential(guarded: str, auth: str) -> None:
    """As its own configuration writes it, and as people do."""
    kubo = KuboTransport(guarded, auth=auth)
    assert kubo.version()
    assert kubo.add(b"let in", timeout=_LONG)


@pytest.mark.parametrize("auth", [None, "bearer:other", "basic:me:other"])
def test_kubo_refuses_others(guarded: str, auth: str | None) -> None:
    """The credentials above are looked at."""
    with pytest.raises(TierUnavailable) as caught:
        KuboTransport(guarded, auth=auth).version()
    assert caught.value.reason == "forbidden"


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], daemon.NodeStatus]]:
    """Starts this machine's private node, which is found by itself."""
    binary = Path(install.install(data_dir()).path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield lambda: daemon.start(data_dir(), binary=binary, timeout=60)
    daemon.stop(data_dir())


def test_a_node_that_moved_is_found_again(private: Callable[[], daemon.NodeStatus], tmp_path: Path) -> None:
    """It comes back at another port, and the process goes on with it; what was queued meanwhile is sent there."""
    before = private()
    with cachekit.configure(dir=tmp_path / "own", ipfs="rw", ipfs_timeout=5):
        cachekit.store(b"before")
        daemon.stop(data_dir())
        after = private()
        assert after.api != before.api
        with pytest.raises(TierUnavailable):
            cachekit.store(b"while it was away")
        _await(lambda: _allowed())
        assert cachekit.fetch(cachekit.store(b"after")) == b"after"
        assert after.api in cachekit.status()["ipfs"].reason


@pytest.mark.parametrize("recorded", [True, False])
def test_what_a_killed_node_left_hides_no_other(
    private: Callable[[], daemon.NodeStatus],
    kubo_api: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recorded: bool,
) -> None:
    """The user's own daemon is found behind what it wrote down; so is one at Kubo's address behind two such traces."""
    killed = private()
    os.kill(killed.pid, signal.SIGKILL)
    _await(lambda: not daemon.status(data_dir()).pid)
    assert recorded_api(killed.repo) == killed.api
    monkeypatch.setenv("IPFS_PATH", str(tmp_path))
    (tmp_path / "api").write_text(kubo_api if recorded else killed.api)
    monkeypatch.setattr(sharing, "DEFAULT_API", refusing() if recorded else kubo_api)
    with cachekit.configure(dir=tmp_path / "own", ipfs="rw", ipfs_timeout=5):
        assert cachekit.fetch(cachekit.store(b"found")) == b"found"
        assert kubo_api in cachekit.status()["ipfs"].reason


def test_a_node_that_hung_is_back_within_five_seconds(private: Callable[[], daemon.NodeStatus], tmp_path: Path) -> None:
    """A hang of some probes' length: from its end on it takes one more."""
    node = private()
    with cachekit.configure(dir=tmp_path / "own", ipfs="rw", ipfs_timeout=0.5):
        cachekit.store(b"before")
        stop(node.pid)
        try:
            with pytest.raises(TierUnavailable):
                cachekit.store(b"meanwhile", timeout=0.5)
            breaker: Any = default().team.breaker  # type: ignore[union-attr]
            probed: list[float] = []
            probe = breaker._probe
            breaker._probe = lambda: (probed.append(0.0), probe())
            assert not _allowed()
            _await(lambda: len(probed) >= 3, 30.0)
        finally:
            os.kill(node.pid, signal.SIGCONT)
        _await(_allowed, 5.0)


def _allowed() -> bool:
    team = default().team
    assert team is not None
    return team.breaker.allows()


def _await(condition: Callable[[], bool], seconds: float = _LONG) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
