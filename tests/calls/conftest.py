"""Every call in both ways: of a function, and of a coroutine function."""

from __future__ import annotations

import pytest
from calls.both_ways import Way


@pytest.fixture(params=["function", "coroutine function"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(["function", "coroutine function"].index(request.param))
