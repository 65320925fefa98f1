"""Decorate a function; the next identical call, here or on a team-mate's machine, is a verified hit."""

TYPE_CHECKING = False
if TYPE_CHECKING:  # whoever only has a command's outcome again pays for no module that it does not need
    from cachekit.artifacts.progress import on_progress
    from cachekit.artifacts.store import Progress
    from cachekit.cache.by_cid import fetch, fetch_to, pin, store
    from cachekit.cache.default import add_listener, configure, current_mode, reset_stats, stats, status, tell
    from cachekit.cache.exporting import export_car
    from cachekit.cache.importing import import_car
    from cachekit.cache.operations import clear, flush, gc, invalidate, pins, restore, sync, unpin, warm
    from cachekit.calls.answers.answers import Answers
    from cachekit.calls.answers.asking import Wanted
    from cachekit.calls.answers.parts import together
    from cachekit.calls.cached import Cached
    from cachekit.calls.decorators import distributed_cache, persist_artifact
    from cachekit.calls.prepare import driven
    from cachekit.commands.library import Outcome, run_command
    from cachekit.errors import CachekitError, CacheMiss, IntegrityError, TierError, TierUnavailable, UsageError
    from cachekit.keys.code.function import env
    from cachekit.keys.outline import Explanation
    from cachekit.model import MISS, Adapter, Event, Key, Reply, Retry, Saving
    from cachekit.plan.gate import bypass, mode, sample
    from cachekit.plan.steps import CallOrigin, Do, Failed

_HOMES = {
    "artifacts.progress": ("Progress", "on_progress"),
    "cache.default": ("add_listener", "configure", "current_mode", "reset_stats", "stats", "status", "tell"),
    "cache.by_cid": ("fetch", "fetch_to", "pin", "store"),
    "cache.exporting": ("export_car",),
    "cache.importing": ("import_car",),
    "cache.operations": ("clear", "flush", "gc", "invalidate", "pins", "restore", "sync", "unpin", "warm"),
    "calls.answers.answers": ("Answers",),
    "calls.answers.asking": ("Wanted",),
    "calls.answers.parts": ("together",),
    "calls.cached": ("Cached",),
    "calls.decorators": ("distributed_cache", "persist_artifact"),
    "calls.prepare": ("driven",),
    "commands.library": ("Outcome", "run_command"),
    "errors": ("CacheMiss", "CachekitError", "IntegrityError", "TierError", "TierUnavailable", "UsageError"),
    "keys.code.function": ("env",),
    "keys.outline": ("Explanation",),
    "model": ("MISS", "Adapter", "Event", "Key", "Reply", "Retry", "Saving"),
    "plan.gate": ("bypass", "mode", "sample"),
    "plan.steps": ("CallOrigin", "Do", "Failed"),
}
"""Where each public name comes from, by the module that is imported when the name is first used."""

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
    "Outcome",
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
    "export_car",
    "fetch",
    "fetch_to",
    "flush",
    "gc",
    "import_car",
    "invalidate",
    "mode",
    "on_progress",
    "persist_artifact",
    "pin",
    "pins",
    "reset_stats",
    "restore",
    "run_command",
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


def __getattr__(name: str) -> object:
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            found: object = getattr(importlib.import_module(f"cachekit.{home}"), name)
            globals()[name] = found
            return found
    if name == "__version__":
        from importlib.metadata import version

        return version("cachekit-ipfs")
    raise AttributeError(f"module 'cachekit' has no attribute {name!r}")


def __dir__() -> list[str]:
    """What `cachekit.<TAB>` shows: the public names, not the rooms behind them."""
    return sorted({*__all__, "__version__", *(name for name in globals() if name.startswith("__"))})
