"""What every test starts from: a cache directory of its own, no daemon unless it asks for one, no setting left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from peers.fixtures import *  # noqa: F403 - fixtures are found by name

from cachekit.cache.default import ROOT, configure
from cachekit.ipfs.node import daemon, install

pytest.register_assert_rewrite("tiers.conformance")

# A test edits a file and starts another Python within the same second: that one would believe the .pyc of a source of
# equal length, as Python does.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"

REQUIRED = os.environ.get("CACHEKIT_REQUIRE", "").split(",")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory, a credential and a default cache for this test alone; the machine's settings do not reach it."""
    for name in [name for name in os.environ if name.startswith("CACHEKIT_") or name in ("CI", "GITHUB_ACTIONS")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    directory = tmp_path / "cache"
    before = ROOT.overrides
    configure(dir=directory, ipfs="off")
    yield directory
    monkeypatch.undo()
    ROOT.listeners.clear()
    ROOT.replace(before)


@pytest.fixture(scope="session")
def kubo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `kubo_api` has its node."""
    return tmp_path_factory.mktemp("node")


@pytest.fixture
def run_ipfs(kubo_api: str, kubo_data: Path) -> Callable[..., Any]:
    """Runs the `ipfs` command against `kubo_api`; its standard output, as bytes with `binary`."""
    path = install.install(kubo_data).path

    def run(*words: object, binary: bool = False) -> Any:
        command = [path, f"--api={kubo_api}", *map(str, words)]
        done = subprocess.run(command, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout if binary else done.stdout.decode()

    return run


@pytest.fixture(scope="session")
def kubo_api(kubo_data: Path) -> Iterator[str]:
    """The multiaddr of a private, real Kubo node."""
    data = kubo_data
    try:
        binary = install.install(data).path
    except Exception as error:
        if "ipfs" in REQUIRED:
            raise
        pytest.skip(f"no Kubo to be had here: {error}")
    status = daemon.start(data, binary=binary, timeout=60)
    yield status.api
    daemon.stop(data)
