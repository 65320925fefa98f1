"""Costs by a table in LiteLLM's format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cachekit_adapters._wire.prices import Prices, Usage

TABLE: dict[str, Any] = {
    "sample_spec": {"input_cost_per_token": "a number", "litellm_provider": "one of …"},
    "gpt-x": {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6, "litellm_provider": "openai"},
    "gpt-x-2026-01-02": {"input_cost_per_token": 3e-6, "output_cost_per_token": 9e-6, "litellm_provider": "openai"},
    "claude-x": {
        "input_cost_per_token": 1.0, "output_cost_per_token": 10.0, "cache_read_input_token_cost": 0.125,
        "cache_creation_input_token_cost": 1.25, "cache_creation_input_token_cost_above_1hr": 2.0,
        "input_cost_per_token_above_200k_tokens": 4.0, "output_cost_per_token_above_200k_tokens": 20.0,
        "litellm_provider": "anthropic",
    },
    "groq/llama-x": {"input_cost_per_token": 1.0, "output_cost_per_token": 2.0, "litellm_provider": "groq"},
    "embed-x": {"input_cost_per_token": 1.0, "litellm_provider": "openai"},
    "whisper-x": {"input_cost_per_second": 1.0, "litellm_provider": "groq"},
    "broken-x": {"input_cost_per_token": -1.0},
}  # fmt: skip


@pytest.fixture
def prices(tmp_path: Path) -> Prices:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(TABLE))
    return Prices.load(path)


def test_input_and_output_have_their_prices(prices: Prices) -> None:
    """Tokens times the price of one."""
    assert prices.cost("gpt-x", Usage(1000, 100)) == pytest.approx(0.0028)
    assert prices.cost("gpt-x", Usage()) == 0


def test_what_the_vendors_prompt_cache_saved_is_not_saved_again(prices: Prices) -> None:
    """Read, written for minutes, written for an hour: each at its price, the rest of the prompt at its own."""
    assert prices.cost("claude-x", Usage(100, 1, 60, 20, 10)) == 10 * 1.0 + 10.0 + 60 * 0.125 + 20 * 1.25 + 10 * 2.0
    assert prices.cost("groq/llama-x", Usage(100, 0, 60)) == 100, "without a price of its own it costs what input does"


def test_a_long_prompt_costs_what_its_tier_does(prices: Prices) -> None:
    """Above 200k tokens, and for all tokens of that call."""
    assert prices.cost("claude-x", Usage(200_000, 1)) == 200_010
    assert prices.cost("claude-x", Usage(200_001, 1)) == 4 * 200_001 + 20


def test_the_vendor_tells_models_of_one_name_apart(prices: Prices) -> None:
    """`provider/model` first, then `model` if it is that vendor's."""
    assert prices.cost("llama-x", Usage(1), "groq") == 1
    assert prices.cost("llama-x", Usage(1)) is None
    assert prices.cost("gpt-x", Usage(1), "openai") == 2e-6
    assert prices.cost("gpt-x", Usage(1), "groq") is None


def test_a_dated_snapshot_has_its_own_price_or_its_aliass(prices: Prices) -> None:
    """A date at the end is left out only where the table does not have it."""
    assert prices.cost("gpt-x-2026-01-02", Usage(1)) == 3e-6
    assert prices.cost("gpt-x-2026-05-06", Usage(1)) == 2e-6
    assert prices.cost("claude-x-20260506", Usage(1), "anthropic") == 1
    assert prices.cost("gpt-x-mini", Usage(1)) is None


@pytest.mark.parametrize("model", ["unknown", "sample_spec", "whisper-x", "broken-x", ""])
def test_what_is_not_known_is_none_and_not_zero(prices: Prices, model: str) -> None:
    """Unknown models, prices per second, nonsense."""
    assert prices.cost(model, Usage(1, 1)) is None


def test_output_without_a_price_makes_the_cost_unknown(prices: Prices) -> None:
    """An embedding has none, and needs none."""
    assert prices.cost("embed-x", Usage(5)) == 5
    assert prices.cost("embed-x", Usage(5, 1)) is None


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"m": 1}', '{"m": {"input_cost_per_token": "x"}}', "[" * 100_000]
)
def test_a_broken_table_is_said_by_name(tmp_path: Path, text: str) -> None:
    """A sentence with the file in it."""
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="broken.json"):
        Prices.load(path)


def test_a_missing_or_binary_table_is_said_by_name(tmp_path: Path) -> None:
    """Also where nothing can be read at all."""
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.json", "missing.json"):
        with pytest.raises(ValueError, match=name):
            Prices.load(tmp_path / name)
