"""Decorate a function; the next identical call, here or on a team-mate's machine, is a verified hit."""

from typing import TYPE_CHECKING, Any

from cachekit.cache.by_cid import fetch, fetch_to, pin, store
from cachekit.cache.default import add_listener, configure, current_mode, reset_stats, stats, status, tell
from cachekit.cache.operations import clear, flush, gc, invalidate, pins, restore, sync, unpin, warm
from cachekit.calls.cached import Cached
from cachekit.calls.decorators import distributed_cache, persist_artifact
from cachekit.errors import CachekitError, CacheMiss, IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.model import MISS, Adapter, Event, Key, Reply, Retry, Saving
from cachekit.plan.gate import bypass, mode, sample

if TYPE_CHECKING:
    from cachekit.artifacts.progress import on_progress
    from cachekit.artifacts.store import Progress
    from cachekit.calls.answers.answers import Answers
    from cachekit.calls.answers.asking import Wanted
    from cachekit.calls.answers.parts import together
    from cachekit.calls.prepare import driven
    from cachekit.keys.code.function import env
    from cachekit.keys.outline import Explanation
    from cachekit.plan.steps import CallOrigin, Do, Failed

__all__ = [
    "MISS",
    "Adapter",
    "Answers",
    "CacheMiss",
    "Cached",
    "CachekitError",
    "CallOrigin",
    "Do",
    "Event",
    "Explanation",
    "Failed",
    "IntegrityError",
    "Key",
    "Progress",
    "Reply",
    "Retry",
    "Saving",
    "TierError",
    "TierUnavailable",
    "UsageError",
    "Wanted",
    "add_listener",
    "bypass",
    "clear",
    "configure",
    "current_mode",
    "distributed_cache",
    "driven",
    "env",
    "fetch",
    "fetch_to",
    "flush",
    "gc",
    "invalidate",
    "mode",
    "on_progress",
    "persist_artifact",
    "pin",
    "pins",
    "reset_stats",
    "restore",
    "sample",
    "stats",
    "status",
    "store",
    "sync",
    "tell",
    "together",
    "unpin",
    "warm",
]


_LATER = {
    "Answers": "calls.answers.answers",
    "CallOrigin": "plan.steps",
    "Do": "plan.steps",
    "Explanation": "keys.outline",
    "Failed": "plan.steps",
    "Wanted": "calls.answers.asking",
    "driven": "calls.prepare",
    "together": "calls.answers.parts",
    "env": "keys.code.function",
    "Progress": "artifacts.progress",
    "on_progress": "artifacts.progress",
}
"""Names whose modules only some programs want: importing them all would take as long as everything else."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LATER:
        return getattr(importlib.import_module(f"cachekit.{_LATER[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("cachekit-ipfs")
    raise AttributeError(f"module 'cachekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What `cachekit.<TAB>` shows: the public names, not the rooms behind them."""
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
