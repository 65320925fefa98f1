"""Adapters: what cachekit knows about the SDKs people call models with. No SDK is imported before it is used."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final, TypeVar

from cachekit import Adapter, UsageError
from cachekit_adapters._wire.prices import use_prices

__all__ = ["use_prices", "wrap"]

C = TypeVar("C")

_HOMES: Final = {
    "groq": "groq",
    "openai": "openai",
    "anthropic": "claude",
    "huggingface_hub": "huggingface",
    "tritonclient": "ovms",
    "httpx": "http",
    "httpx2": "http",
    "requests": "http",
}


def wrap(
    client: C, *, adapter: Adapter | None = None, prices: str | os.PathLike[str] | None = None, **keywords: Any
) -> C:
    """A client of the same class whose calls are cached; the one passed in stays as it was.

    `keywords` are keywords of `distributed_cache`, `cache_sampled` and `cache_truncated` among them. `adapter` says what a
    plain HTTP client is used for, such as `tei.EMBED`. `prices` is a table in LiteLLM's format, for `cost_saved`.
    An installed package that has an entry point of the group `cachekit.adapters`, named like the client's package, wraps
    its clients. Raises UsageError for a client that no adapter knows.
    """
    if prices is not None:
        use_prices(prices)
    if adapter is not None:
        keywords["adapter"] = adapter
    from importlib.metadata import entry_points  # slower to import than all the rest

    for kind in type(client).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in _HOMES:
            module = importlib.import_module(f"cachekit_adapters.{_HOMES[package]}")
            return module.wrap(client, **keywords)  # type: ignore[no-any-return]
        for entry in entry_points(group="cachekit.adapters", name=package):
            return entry.load().wrap(client, **keywords)  # type: ignore[no-any-return]
    raise UsageError(
        f"wrap() knows clients of {', '.join(sorted(_HOMES))}, not {type(client).__qualname__}; decorate a function that "
        "calls it with @distributed_cache"
    )
