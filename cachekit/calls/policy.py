"""What somebody said of a function, checked and with its units normalised once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from cachekit.config.durations import seconds
from cachekit.errors import UsageError
from cachekit.model import Adapter, Policy, Retry


def policy_of(**said: Any) -> Policy:
    """The Policy of the keywords of `distributed_cache`; those left out have its defaults.

    Raises UsageError for a value that is not accepted, and for a keyword that does not exist.
    """
    unknown = said.keys() - _RULES.keys()
    if unknown:
        raise UsageError(f"there is no {min(unknown)}=; accepted: {', '.join(sorted(_RULES))}")
    policy = Policy(**{name: _RULES[name](value, name) for name, value in said.items()})
    neutral = policy.adapter.neutral if policy.adapter is not None else frozenset()
    neutral |= {name for name in (policy.output, policy.scratch) if name}
    return replace(policy, ignore=policy.ignore | neutral) if neutral else policy


ARTIFACT: Final[Mapping[str, Any]] = {"pin": True, "ttl": None, "codec": "path"}
"""What `persist_artifact` says of a function that nobody said otherwise."""


def _window(value: Any, name: str) -> float:
    found = seconds(value, name)
    return float("inf") if found is None else found


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name}= takes a string, not {type(value).__name__}")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(item, str) for item in found):
        raise UsageError(f"{name}= takes strings")
    return found


def _callable(value: Any, name: str) -> Any:
    if value is not None and not callable(value):
        raise UsageError(f"{name}= takes a callable, not {type(value).__name__}")
    return value


def _retry(value: Any, _name: str) -> Retry | None:
    if value is not None and not isinstance(value, Retry):
        raise UsageError("retry= takes a cachekit.Retry(on=..., attempts=..., max_wait=...)")
    return value


def _index(value: Any, _name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError("sample= takes an index: 0, 1, 2, …")
    return value


def _pace(value: Any, _name: str) -> Any:
    if value not in ("immediate", "recorded"):
        raise UsageError('pace= takes "immediate" or "recorded"')
    return value


def _adapter(value: Any, _name: str) -> Adapter | None:
    if value is not None and not isinstance(value, Adapter):
        raise UsageError("adapter= takes a cachekit.Adapter, such as cachekit_adapters.groq.CHAT")
    return value


def _ttl(value: Any, name: str) -> Any:
    return "default" if value == "default" else seconds(value, name)


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}= takes True or False, not {value!r}")
    return value


def _as_it_is(value: Any, _name: str) -> Any:
    return value


_RULES: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    **dict.fromkeys(("pin", "share", "encrypt", "cache_truncated", "cache_sampled"), _flag),
    **dict.fromkeys(("stale_while_revalidate", "stale_if_error"), _window),
    **dict.fromkeys(("namespace", "version", "output", "scratch"), _text),
    **dict.fromkeys(("key", "cacheable"), _callable),
    "ignore": lambda value, name: frozenset(_texts(value, name)),
    "tags": _texts,
    "ttl": _ttl,
    "retry": _retry,
    "codec": _as_it_is,
    "sample": _index,
    "pace": _pace,
    "adapter": _adapter,
}
