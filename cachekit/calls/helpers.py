"""What can be done with a decorated function besides calling it, and how type checkers see it: bound or not, the same.

The overloads tell apart what is awaited and what comes in pieces. The first of each is for functions without
annotations: `Any` fits every overload, and checkers would take the next one, a coroutine function's.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, final, overload

from cachekit.cache.default import ROOT

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.calls.target import Target
    from cachekit.keys.outline import Explanation
    from cachekit.model import Key, Missing

_frame = sys._getframe
P = ParamSpec("P")
R = TypeVar("R", covariant=True)
T = TypeVar("T")
Awaited = Coroutine[Any, Any, T]


@final
class _Unknown:
    """No function returns this: an overload for it is taken for `Any` alone."""


class Helpers(Generic[P, R]):
    """The helpers of a function with the parameters P that returns R; on a coroutine function the first four are awaited.

    `peek`, `put`, `invalidate` and `key_for` raise UsageError where the call cannot be keyed, and TypeError for arguments
    that the function does not take.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        __name__: str
        __qualname__: str

        @property
        def __wrapped__(self) -> Callable[P, R]: ...

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...

        _self_target: Target

        def _self_help(self, helper: str, args: Any, kwargs: Any, *value: Any) -> Any: ...

    else:

        @property
        def __class__(self) -> type:
            # A function to everybody, but not to who would send what is inside of it without us (cloudpickle).
            honest = _frame(1).f_code.co_name == "reducer_override"
            return type(self) if honest else self.__wrapped__.__class__

    def __dir__(self) -> list[str]:
        # wrapt shows the names of the wrapped function only.
        return sorted({*dir(self.__wrapped__), *(name for name in vars(Helpers) if not name.startswith("_"))})

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _memo: Any) -> Any:
        return self

    @property
    def cache(self) -> Cache:
        """The cache that this function's calls use."""
        return ROOT.cache()

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the origin and stores what it gives, whatever is stored already."""
        value: R = self._self_help("refresh", args, kwargs)
        return value

    @overload
    def peek(self: Helpers[P, _Unknown], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def peek(self: Helpers[P, Awaited[T]], /, *args: P.args, **kwargs: P.kwargs) -> Awaited[T | Missing]: ...
    @overload
    def peek(
        self: Helpers[P, AsyncIterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaited[list[T] | Missing]: ...
    @overload
    def peek(self: Helpers[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs) -> list[T] | Missing: ...
    @overload
    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> R | Missing: ...
    def peek(self, /, *args: Any, **kwargs: Any) -> Any:
        """The stored value (a generator function's: the list of its values), or `cachekit.MISS`; the origin is not called."""
        return self._self_help("peek", args, kwargs)

    @overload
    def put(self: Helpers[P, _Unknown], value: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def put(  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload]
        self: Helpers[P, Awaited[T]], value: T, /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaited[bool]: ...
    @overload
    def put(  # type: ignore[overload-overlap]
        self: Helpers[P, AsyncIterator[T]], value: Iterable[T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaited[bool]: ...
    @overload
    def put(self: Helpers[P, Iterator[T]], value: Iterable[T], /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    @overload
    def put(self: Helpers[P, T], value: T, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def put(self, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Stores `value` as the answer to the call. Raises UsageError where the mode forbids storing."""
        return self._self_help("put", args, kwargs, value)

    @overload
    def invalidate(self: Helpers[P, _Unknown], /, *args: P.args, **kwargs: P.kwargs) -> Any: ...
    @overload
    def invalidate(  # type: ignore[overload-overlap]
        self: Helpers[P, Awaited[Any] | AsyncIterator[Any]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Awaited[bool]: ...
    @overload
    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...
    def invalidate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Ends hits for this call, in every process; returns whether something was removed."""
        return self._self_help("invalidate", args, kwargs)

    def clear(self, /) -> bool:
        """Ends hits for every call of this function in its namespace, whoever stored them; returns whether there were any."""
        from cachekit.cache.operations import invalidate

        target = self._self_target
        return invalidate(function=target.name, namespace=target.policy.namespace or self.cache.settings.namespace)

    def key_for(self, /, *args: P.args, **kwargs: P.kwargs) -> Key:
        """The key of this call. Raises UsageError where it cannot be keyed."""
        key: Key = self._self_help("key_for", args, kwargs)
        return key

    def explain(self, /, *args: P.args, **kwargs: P.kwargs) -> Explanation:
        """What the key of this call consists of, and where an answer stands."""
        explanation: Explanation = self._self_help("explain", args, kwargs)
        return explanation
