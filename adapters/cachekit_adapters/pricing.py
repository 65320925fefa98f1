"""Which price table counts what a hit saves. One for the process: costs are only counted, they decide nothing."""

from __future__ import annotations

import os

from cachekit_adapters.prices import Prices

_chosen: list[Prices] = []


def use_prices(table: str | os.PathLike[str] | Prices | None) -> None:
    """Counts `cost_saved` by this table from now on: a file in LiteLLM's JSON format, or None for no costs.

    Raises ValueError for a file that is no such table.
    """
    found = table if isinstance(table, Prices) or table is None else Prices.load(table)
    _chosen[:] = [] if found is None else [found]


def current() -> Prices | None:
    return _chosen[0] if _chosen else None
