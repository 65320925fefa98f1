"""What can be said of a function: the keywords of the decorators, each checked and its units normalised once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, get_args

from cachekit.config.durations import LONGEST_NAME, seconds
from cachekit.errors import UsageError
from cachekit.model import Adapter, Coalesce, Policy, Retry

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from cachekit.keys.code.function import Env
    from cachekit.model import ArtifactCodec, Codec

    Duration = float | str | timedelta
    Dependency = str | Path | Env | ModuleType | type | Callable[..., Any]

    class Keywords(TypedDict, total=False):
        """What both decorators take."""

        pin: Duration | bool
        ttl: Duration | Literal["default"] | None
        stale_while_revalidate: Duration
        stale_if_error: Duration
        namespace: str | None
        version: str | None
        depends: Iterable[Dependency] | Dependency
        ignore: Iterable[str]
        key: Callable[[Mapping[str, Any]], Any] | None
        tags: Iterable[str]
        cacheable: Callable[[Any], bool] | None
        retry: Retry | None
        codec: ArtifactCodec | Codec | str
        sample: int
        share: bool
        encrypt: bool
        coalesce: Coalesce

    class AnswerKeywords(Keywords, total=False):
        pace: Literal["immediate", "recorded"]
        adapter: Adapter | None
        cache_truncated: bool
        cache_sampled: bool
        previous: str | None

    class ArtifactKeywords(Keywords, total=False):
        output: str | None
        scratch: str | None


def policy_of(**keywords: Any) -> Policy:
    """The Policy of the keywords of either decorator; those left out have its defaults.

    Raises UsageError for a value that is not accepted, and for a keyword that does not exist.
    """
    rules = {**RULES, **_RULES_OF_ARTIFACTS}
    unknown = keywords.keys() - rules.keys()
    if unknown:
        raise UsageError(f"there is no {min(unknown)}=; accepted: {', '.join(sorted(rules))}")
    policy = Policy(**{name: rules[name](value, name) for name, value in keywords.items()})
    if policy.previous and not max(policy.stale_while_revalidate, policy.stale_if_error):
        raise UsageError("previous= gets a value past its TTL: say how long one is kept, such as stale_if_error='1d'")
    if policy.coalesce == "team" and not policy.share:
        raise UsageError(
            'coalesce="team" needs share=True: the others wait for an entry that never leaves this machine'
        )
    neutral = policy.adapter.neutral if policy.adapter is not None else frozenset()
    neutral |= {name for name in (policy.output, policy.scratch, policy.previous) if name}
    return replace(policy, ignore=policy.ignore | neutral) if neutral else policy


ARTIFACT: Final[Mapping[str, Any]] = {"pin": True, "ttl": None, "codec": "path"}
"""What `persist_artifact` says of a function that nobody said otherwise."""


def _window(value: Any, name: str) -> float:
    duration = seconds(value, name)
    return float("inf") if duration is None else duration


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{name}= takes a string, not {type(value).__name__}")
    return value


def _texts(value: Any, name: str) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"{name}= takes a string, or several, not {type(text).__name__}")
        _check_length(text, name)
    return texts


def _namespace(value: Any, name: str) -> str | None:
    text = _text(value, name)
    if text and not text.isprintable():
        raise UsageError(f"{name}= takes one line of printable text, not {text[:40]!r}")
    _check_length(text or "", name)
    return text


def _check_length(text: str, name: str) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise UsageError(f"{name}= takes at most {LONGEST_NAME} bytes; {text[:40]!r}… is longer")


def _dependencies(value: Any, _name: str) -> tuple[Any, ...]:
    from cachekit.keys.code.function import check

    several = tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)
    for dependency in several:
        check(dependency)
    return several


def _callable(value: Any, name: str) -> Any:
    if value is not None and not callable(value):
        raise UsageError(f"{name}= takes a callable, not {type(value).__name__}")
    return value


def _retry(value: Any, _name: str) -> Retry | None:
    if value is None:
        return None
    if not isinstance(value, Retry):
        raise UsageError("retry= takes a cachekit.Retry(on=..., attempts=..., max_wait=...)")
    classes = value.on if isinstance(value.on, tuple) else (value.on,)
    if not classes or not all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        raise UsageError(f"Retry(on=...) takes a class of exceptions, or a tuple of classes, not {value.on!r}")
    if isinstance(value.attempts, bool) or not isinstance(value.attempts, int) or value.attempts < 1:
        raise UsageError(
            f"Retry(attempts=...) takes how often the function is called at most: 1, 2, …, not {value.attempts!r}"
        )
    if isinstance(value.max_wait, bool) or not isinstance(value.max_wait, (int, float)) or not value.max_wait >= 0:
        raise UsageError(f"Retry(max_wait=...) takes seconds, 0 or more, not {value.max_wait!r}")
    return value


def _index(value: Any, _name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError("sample= takes an index: 0, 1, 2, …")
    return value


def _pace(value: Any, _name: str) -> Any:
    if value not in ("immediate", "recorded"):
        raise UsageError('pace= takes "immediate" or "recorded"')
    return value


def _coalesce(value: Any, _name: str) -> Coalesce:
    if value not in get_args(Coalesce):
        raise UsageError(
            f'coalesce= takes "team" (one machine of the team calls the function, the others wait for its value), "machine" '
            f'(the others are not asked) or "auto" ("team" where it took a second or more last time), not {value!r}'
        )
    return value  # type: ignore[no-any-return]


def _adapter(value: Any, _name: str) -> Adapter | None:
    if value is not None and not isinstance(value, Adapter):
        raise UsageError("adapter= takes a cachekit.Adapter, such as cachekit_adapters.groq.CHAT")
    return value


def _ttl(value: Any, name: str) -> Any:
    return "default" if value == "default" else seconds(value, name)


def _pin(value: Any, name: str) -> float:
    """True, or seconds."""
    if isinstance(value, bool):
        return value
    length = None if value is None else seconds(value, f"{name}= takes True (until unpinned), False, or how long")
    if length is None:
        raise UsageError(f"{name}= takes True (until unpinned), False, or how long, such as '30d', not {value!r}")
    return length or False


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{name}= takes True or False, not {value!r}")
    return value


def _as_it_is(value: Any, _name: str) -> Any:
    return value


RULES: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "pin": _pin,
    **dict.fromkeys(("share", "encrypt", "cache_truncated", "cache_sampled"), _flag),
    **dict.fromkeys(("stale_while_revalidate", "stale_if_error"), _window),
    "version": _text,
    "namespace": _namespace,
    **dict.fromkeys(("key", "cacheable"), _callable),
    "ignore": lambda value, name: frozenset(_texts(value, name)),
    "depends": _dependencies,
    "tags": _texts,
    "ttl": _ttl,
    "retry": _retry,
    "codec": _as_it_is,
    "sample": _index,
    "pace": _pace,
    "coalesce": _coalesce,
    "adapter": _adapter,
    "previous": _text,
}
"""How a value is checked and normalised, for each keyword of `distributed_cache`."""

_RULES_OF_ARTIFACTS: Final = {"output": _text, "scratch": _text}
