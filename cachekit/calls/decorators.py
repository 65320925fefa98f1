"""The public decorators, with the types that keep a function's own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, overload

from cachekit.calls.cached import Cached, cached
from cachekit.calls.policy import ARTIFACT, RULES, policy_of
from cachekit.errors import UsageError

if TYPE_CHECKING:
    from typing import ParamSpec, TypeVar

    from typing_extensions import Unpack

    from cachekit.calls.policy import AnswerKeywords, ArtifactKeywords

    P = ParamSpec("P")
    R = TypeVar("R")

    class Decorator(Protocol):
        """What a decorator becomes when its keywords are said."""

        def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


@overload
def distributed_cache(function: Callable[P, R], /, **keywords: Unpack[AnswerKeywords]) -> Cached[P, R]: ...
@overload
def distributed_cache(**keywords: Unpack[AnswerKeywords]) -> Decorator: ...
def distributed_cache(function: Callable[..., Any] | None = None, /, **keywords: Any) -> Any:
    """Serves the next identical call from memory, disk or IPFS; bare (`@distributed_cache`) or called.

    Args:
        pin: keep in IPFS until unpinned, and exempt from eviction on disk; or for as long: seconds, a timedelta, "30d".
        ttl: seconds, a timedelta or "30m", "24h", "7d"; None for ever; left out, `CACHEKIT_TTL` (1 h).
        stale_while_revalidate: how long past `ttl` the old value is served while one caller refreshes it.
        stale_if_error: how long past `ttl` the old value is served when the origin raises.
        namespace: part of the key, and the unit of `clear()`; left out, `CACHEKIT_NAMESPACE`.
        depends: what else the answer depends on: names of distributions, modules, functions or classes of installed
            packages, `cachekit.env("NAME")`, a Path (by content).
        version: replaces all that the function's code says in the key.
        ignore: names of arguments (or closure variables) left out of the key: clients, loggers, timeouts.
        key: takes a mapping of argument names to values, defaults applied; its result replaces the arguments.
        tags: strings, or templates over arguments such as "user:{user_id}", for `invalidate(tag=)`.
        cacheable: takes the value; a falsy answer is returned to the caller and not stored.
        retry: retries of the origin, for the exceptions named in it.
        codec: auto, json, bytes, text, ndarray, safetensors, or an object with `dump` and `load`.
        previous: name of the argument that gets the value past its TTL, for a conditional request; not part of the key.
        sample: which of several sampled answers this function asks for.
        share: False keeps entries on this machine.
        encrypt: False publishes payloads in IPFS as they are.
        coalesce: "team": of several machines that want one value at once, one calls the function; "machine": each does;
            "auto": "team" where the function took a second or more last time.
        pace: of a generator function's hit: "immediate", or "recorded" to replay its values as they once came.
        adapter: knowledge about the SDK's call that the function makes; its answers replace the defaults above.
        cache_truncated: with an adapter, also keep answers that were cut off at a limit.
        cache_sampled: with an adapter, False keeps only answers that asking again would give again.

    Raises:
        UsageError: a value is not accepted, or `function` is none that can be cached.
        TypeError: a keyword does not exist.
    """
    unknown = keywords.keys() - RULES.keys()
    if unknown:
        raise TypeError(f"distributed_cache() got an unexpected keyword argument {min(unknown)!r}")
    policy = policy_of(**keywords)
    if function is None:
        return functools.partial(cached, policy=policy)
    if not callable(function) and not isinstance(function, (classmethod, staticmethod)):
        raise UsageError(f"@distributed_cache takes keyword arguments only, not {type(function).__name__}")
    return cached(function, policy)


@overload
def persist_artifact(function: Callable[P, R], /, **keywords: Unpack[ArtifactKeywords]) -> Cached[P, R]: ...
@overload
def persist_artifact(**keywords: Unpack[ArtifactKeywords]) -> Decorator: ...
def persist_artifact(function: Callable[..., Any] | None = None, /, **keywords: Any) -> Any:
    """Builds a file or a directory once: the next identical call gets the same content, here or on a team-mate's machine.

    The function returns a path. What it gives is kept until unpinned and never expires, unless `pin=` or `ttl=` says
    otherwise; a hit is a read-only path, or `output` with the content there. The same flow as `distributed_cache`, whose
    other keywords it takes.

    Args:
        codec: for a function that returns an object instead of a path: an object with `save(value, path)`, which writes
            a file or a directory, and `load(path)`, which reads it.
        output: name of the argument that says where the result must appear; not part of the key.
        scratch: name of the argument that gets a temporary directory, removed whatever happens; not part of the key.

    Raises:
        UsageError: a value is not accepted; at a call, the function returned no path, or what it built holds an entry
            that cannot be kept (a device, a link that leaves the tree, a name that other systems refuse).
    """
    policy = policy_of(**{**ARTIFACT, **keywords})
    if function is None:
        return functools.partial(cached, policy=policy)
    return cached(function, policy)
