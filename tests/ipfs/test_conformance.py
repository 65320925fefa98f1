"""The IPFS tier over a real Kubo and a directory: the suite of all tiers, through a cache as a program opens it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiers.conformance import Place, TierConformance

import cachekit
from cachekit.cache.default import default


@pytest.fixture(params=["kubo", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A cache and a credential of this test's own; `own_cache` closes the cache."""
    (tmp_path / "store").mkdir()
    where = {"store": (tmp_path / "store").as_uri()}
    if request.param == "kubo":
        where = {"ipfs_api": request.getfixturevalue("kubo_api")}
    cachekit.configure(dir=tmp_path / "tier", ipfs="rw", ipfs_timeout=5, **where)
    return Place(default().tiers["ipfs"], cachekit.flush)


class TestIpfs(TierConformance):
    """IPFS, as every tier."""
