"""A target is a function that somebody decorated, with what is derived from it once: name, key builder, codec.

Nothing is read when a target is made: source and annotations are looked at by the first call.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import types
import typing
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from cachekit.errors import CannotKey, UsageError
from cachekit.keys.binding import Unbound
from cachekit.keys.keyer import Keyer
from cachekit.model import ARTIFACT, Key, Policy

if TYPE_CHECKING:
    from cachekit.values.codecs import LoadingCodec

Kind = Literal["value", "coroutine", "generator", "async_generator"]
Call = tuple[tuple[Any, ...], dict[str, Any]]
Keyed = tuple[Key, bytes | None]
"""A call's key, and the JSON of the arguments that it was built of, where they are plain."""


class Target:
    """`wrapped` is what was decorated: a function, classmethod, staticmethod, partial or bound method."""

    def __init__(self, wrapped: Any, policy: Policy) -> None:
        self.policy = policy
        self.function, self._args, self._kwargs = _unwrapped(wrapped)
        self.kind = _kind(self.function)
        self.is_async = self.kind in ("coroutine", "async_generator")
        self.name = f"{self.function.__module__}.{self.function.__qualname__}"
        held = (self._args, self._kwargs) if self._args or self._kwargs else ()
        self.keyer = Keyer(self.function, policy=policy, held=held)
        self._codec: LoadingCodec | None = None
        self._warned: set[str] = set()

    @property
    def codec(self) -> LoadingCodec:
        if self._codec is None:
            self._codec = self._chosen_codec()
        return self._codec

    @property
    def keeps_files(self) -> bool:
        """Whether what the function builds is an artifact."""
        codec = self.policy.codec
        if isinstance(codec, str):
            return bool(codec == ARTIFACT)
        from cachekit.values.codecs import keeps_files

        return keeps_files(codec)

    def _chosen_codec(self) -> LoadingCodec:
        # Imported where they are wanted: most programs have no adapter, no artifact and no generator.
        if self.policy.adapter is not None:
            from cachekit.calls.answers.replies import ReplyCodec

            return ReplyCodec(self.policy.adapter)
        if self.keeps_files:
            from cachekit.artifacts.manifest import PathCodec

            return PathCodec()
        from cachekit.values.codecs import codec_for

        codec = codec_for(self.policy.codec, lambda: self.returns)
        if not self.kind.endswith("generator"):
            return codec
        from cachekit.calls.streams.recording import PiecesCodec

        return PiecesCodec(codec)

    def full(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The call as the function itself would get it, with what a partial or a bound method adds."""
        if not self._args and not self._kwargs:
            return args, kwargs
        return (*self._args, *args), {**self._kwargs, **kwargs}

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments by name, defaults applied; empty for a call that the function would not take."""
        try:
            return self.keyer.bind(*self.full(args, kwargs))
        except Unbound:
            return {}

    def asks_for(self, error: TypeError) -> str:
        """What a helper says that was not told which call is meant."""
        signature = inspect.signature(self.function, follow_wrapped=False)
        # Python 3.13's classmethod binds without asking the decorated function.
        remedy = "; put @classmethod below the decorator" if next(iter(signature.parameters), "") == "cls" else ""
        return (
            f"{self.name}: {error}{remedy}; the helper takes the arguments of the call that is meant: {signature}. "
            "For all calls of a tag or a namespace there is cachekit.invalidate(tag=, namespace=)"
        )

    def key(self, call: Call, namespace: str, sample: int) -> Keyed:
        """Raises CannotKey, or TypeError for a call that the function would not take either."""
        return self.keyer.said(call[0], call[1], namespace=namespace, sample=sample)

    def explained(self, call: Call, namespace: str, sample: int) -> Key:
        """Like `key`, with the readable parts."""
        return self.keyer.explain(call[0], call[1], namespace=namespace, sample=sample)

    def tags(self, call: Call) -> tuple[str, ...]:
        if not self.policy.tags:
            return ()
        return tuple(self.keyer.tags(self.keyer.bind(*call)))

    def warn_once(self, error: UsageError, *, about: str, paid: bool = False) -> None:
        """Says once per function and subject, at the caller's line, what keeps the cache from helping, and the remedy.

        Where warnings are exceptions it is one, but not behind an answer that is `paid` for: then it is logged.
        """
        if about in self._warned:
            return
        self._warned.add(about)
        try:
            _warn(f"{self.name}: {error}", self.function)
        except Warning:
            if not paid:
                raise
            logging.getLogger("cachekit").warning("%s: %s", self.name, error)

    @functools.cached_property
    def returns(self) -> object:
        """The annotation of what comes back; None where it says nothing."""
        try:
            return typing.get_type_hints(self.function, include_extras=False).get("return")
        except (NameError, TypeError, AttributeError):
            # A name that exists only for type checkers: no class can be rebuilt from it.
            return None


def _warn(sentence: str, function: Any) -> None:
    """At the line of own code that led here; a pool's or a loop's thread does not know it: at the function itself then."""
    from cachekit.keys.code.own import is_own_file

    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and (_module(frame) in _OURS or not is_own_file(frame.f_code.co_filename)):
        frame = None if _module(frame) in _LOOPS else frame.f_back
    code, names = function.__code__, function.__globals__
    if frame is not None:
        code, names = frame.f_code, frame.f_globals
    line = code.co_firstlineno if frame is None else frame.f_lineno
    registry = names.setdefault("__warningregistry__", {})
    warnings.warn_explicit(sentence, UserWarning, code.co_filename, line, str(names.get("__name__")), registry)


_OURS: Final = frozenset({"cachekit", "cachekit_adapters"})
_LOOPS: Final = frozenset({"asyncio", "concurrent", "threading", "trio"})


def _module(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def about(error: UsageError) -> str:
    """What a warning is about, so that it is said once for each."""
    return error.argument if isinstance(error, CannotKey) else type(error).__name__


def _unwrapped(wrapped: Any) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    if isinstance(wrapped, (classmethod, staticmethod)):
        return _unwrapped(wrapped.__func__)
    if isinstance(wrapped, functools.partial):
        function, args, kwargs = _unwrapped(wrapped.func)
        return function, (*args, *wrapped.args), {**kwargs, **wrapped.keywords}
    if isinstance(wrapped, types.MethodType):
        function, args, kwargs = _unwrapped(wrapped.__func__)
        return function, (wrapped.__self__, *args), kwargs
    if not isinstance(wrapped, types.FunctionType):
        raise UsageError(
            f"cachekit decorates functions and methods, and {type(wrapped).__name__} is neither; "
            "wrap it in a function of your own"
        )
    return wrapped, (), {}


def _kind(function: Callable[..., Any]) -> Kind:
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    if inspect.isasyncgenfunction(function):
        return "async_generator"
    return "generator" if inspect.isgeneratorfunction(function) else "value"
