"""The IPFS tier against a real Kubo: the suite of all tiers, through a cache as a program opens it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiers.conformance import Place, TierConformance

import cachekit
from cachekit.cache.default import default


@pytest.fixture
def place(kubo_api: str, tmp_path: Path) -> Place:
    """A directory and a credential of this test's own; `own_cache` closes the cache."""
    cachekit.configure(dir=tmp_path / "tier", ipfs="rw", ipfs_api=kubo_api, ipfs_timeout=5)
    return Place(default().tiers["ipfs"], cachekit.flush)


class TestIpfs(TierConformance):
    """IPFS, as every tier."""
