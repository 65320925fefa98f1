"""How many tokens an answer took, in one shape for all vendors, and what they cost by a table of prices in LiteLLM's format.

No table is bundled: prices change, people know theirs. There is one for the process: costs are only counted, they decide
nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from cachekit import Saving

DATE = re.compile(r"[-@](\d{4}-\d{2}-\d{2}|\d{8})$")
TIER = re.compile(r"_above_(\d+)k_tokens$")
INPUT, OUTPUT = "input_cost_per_token", "output_cost_per_token"
CACHE_READ, CACHE_WRITE = "cache_read_input_token_cost", "cache_creation_input_token_cost"
CACHE_WRITE_1H = "cache_creation_input_token_cost_above_1hr"


@dataclass(frozen=True)
class Prices:
    """Prices per token, by model; `vendors` has each model's `litellm_provider`."""

    entries: Mapping[str, Mapping[str, float]]
    vendors: Mapping[str, str]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prices:
        """Read a table. Raises ValueError, naming the file, if it cannot be read or holds no prices.

        A model without prices per token (images, seconds of audio) counts as unknown.
        """
        try:
            table = _table(Path(path))
            entries = {model: prices for model, entry in table.items() if INPUT in (prices := _numbers(entry))}
        except OverflowError as error:
            raise ValueError(f"{path} has a price that no float holds") from error
        if not entries:
            raise ValueError(f"{path} holds no prices: no model in it has an {INPUT}. LiteLLM's format is expected.")
        vendors = {model: table[model].get("litellm_provider") for model in entries}
        return cls(entries, {model: vendor for model, vendor in vendors.items() if isinstance(vendor, str)})

    def cost(self, model: str, usage: Usage, provider: str = "") -> float | None:
        """What `usage` costs, in the table's currency (US dollars). None where the table does not know.

        Looks for `provider/model`, then `model`, then both without the date of a snapshot. With a provider, the price
        of another vendor's model of the same name does not count.
        """
        for name in _names(model, provider):
            if name in self.entries and provider in self.vendors.get(name, provider):
                return _cost(self.entries[name], usage)
        return None


def _cost(entry: Mapping[str, float], usage: Usage) -> float | None:
    """None if something was used that has no price. What caching has no price for costs what other input costs."""
    fresh = usage.input - usage.cached_input - usage.cache_write_5m - usage.cache_write_1h
    counts = [
        (max(fresh, 0), (INPUT,)),
        (usage.output, (OUTPUT,)),
        (usage.cached_input, (CACHE_READ, INPUT)),
        (usage.cache_write_5m, (CACHE_WRITE, INPUT)),
        (usage.cache_write_1h, (CACHE_WRITE_1H, CACHE_WRITE, INPUT)),
    ]
    total = 0.0
    for count, names in counts:
        price = next((cost for name in names if (cost := _price(entry, name, usage.input)) is not None), None)
        if count and price is None:
            return None
        total += count * (price or 0.0)
    return total


def _price(entry: Mapping[str, float], name: str, prompt: int) -> float | None:
    """The price of the highest tier that a prompt of so many tokens reaches: `…_above_200k_tokens`."""
    reached = {0: entry[name]} if name in entry else {}
    for other, price in entry.items():
        tier = TIER.search(other)
        if tier and other[: tier.start()] == name and prompt > int(tier[1]) * 1000:
            reached[int(tier[1])] = price
    return reached[max(reached)] if reached else None


def _names(model: str, provider: str) -> Iterator[str]:
    for name in dict.fromkeys((model, DATE.sub("", model))):
        if provider:
            yield f"{provider}/{name}"
        yield name


def _table(path: Path) -> dict[str, dict[str, Any]]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as a table of prices: {error}") from error
    if not isinstance(table, dict):
        raise ValueError(f"{path} is no table of prices: a mapping from models to prices is expected.")
    return {model: entry for model, entry in table.items() if isinstance(entry, dict)}


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    numbers = {name: value for name, value in entry.items() if isinstance(value, (int, float))}
    return {
        name: float(value)
        for name, value in numbers.items()
        if not isinstance(value, bool) and math.isfinite(value) and value >= 0
    }


class Usage(NamedTuple):
    """Tokens of one answer.

    `input` is all of the prompt and excludes nothing: `cached_input` (read from the vendor's prompt cache) and the two
    `cache_write`s (written to it, to live minutes or hours) are parts of it. `output` includes reasoning.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0


def tokens(counts: Any, *names: str) -> int:
    """The first whole, positive number under one of `names`; 0 where there is none, or `counts` is no mapping."""
    for name in names:
        count = counts.get(name) if isinstance(counts, dict) else None
        if isinstance(count, int) and not isinstance(count, bool) and count > 0:
            return count
    return 0


def counted(headers: Mapping[str, str], name: str) -> int:
    """The whole number that the header `name`, in lower case, tells; 0 where it tells none."""
    text = next((text for header, text in headers.items() if header.lower() == name), "")
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else 0


_DIGITS: Final = 15
"""Longer ones count nothing, and the longest are not read by Python."""
_chosen: list[Prices] = []


def use_prices(table: str | os.PathLike[str] | Prices | None) -> None:
    """Counts `cost_saved` by this table from now on: a file in LiteLLM's JSON format, or None for no costs.

    Raises ValueError for a file that is no such table.
    """
    prices = table if isinstance(table, Prices) or table is None else Prices.load(table)
    _chosen[:] = [] if prices is None else [prices]


def saving(usage: Usage, model: str, provider: str) -> Saving:
    """What serving the answer again saves; the cost by the table that `use_prices` named, else nothing."""
    cost = _chosen[0].cost(model, usage, provider) if _chosen else None
    return Saving(usage.input, usage.output, cost or 0.0)
