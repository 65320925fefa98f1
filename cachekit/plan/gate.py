"""What a context manager says about the calls inside it: their mode, whether the cache is passed by, which sample.

One ContextVar holds all of it, so that a call pays for one read; it follows `await` and new tasks, and other threads
and tasks never see it.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

from cachekit.errors import UsageError
from cachekit.model import Mode


@dataclass(frozen=True, slots=True)
class Overrides:
    """None means that no context said anything, and the call or the settings decide."""

    mode: Mode | None = None
    bypass: bool = False
    sample: int | None = None


_NOTHING: Final = Overrides()
CURRENT: Final[ContextVar[Overrides | None]] = ContextVar("cachekit_overrides", default=None)


class Scope:
    """A `with` block that adds to what the blocks around it said. No decorator: it would miss a coroutine's body."""

    __slots__ = ("_change", "_mine", "_token")

    def __init__(self, **change: Any) -> None:
        self._change = change
        self._mine = _NOTHING
        self._token: Token[Overrides | None] | None = None

    def __enter__(self) -> None:
        if self._token is not None:
            msg = "this block is entered already; write a new mode(…), bypass() or sample(…) for each `with`"
            raise UsageError(msg)
        self._mine = replace(CURRENT.get() or _NOTHING, **self._change)
        self._token = CURRENT.set(self._mine)

    def __exit__(self, *_exc: object) -> None:
        token, self._token = self._token, None
        if token is None:
            return
        try:
            CURRENT.reset(token)
        except ValueError:
            # Entered in another context: an async fixture, a generator closed by another task. Undo our own word only.
            if CURRENT.get() is self._mine:
                CURRENT.set(None if token.old_value is Token.MISSING else token.old_value)


def mode(name: Mode) -> Scope:
    """A `with` block whose calls run in the mode `name`, whatever the settings say.

    on, off (always call, store nothing), refresh (always call, store), read-only (store nothing), or replay (never call;
    CacheMiss where nothing is stored). Raises UsageError for any other name.
    """
    if name not in get_args(Mode):
        msg = f"mode({name!r}): accepted: {', '.join(get_args(Mode))}"
        raise UsageError(msg)
    return Scope(mode=name)


def bypass() -> Scope:
    """A `with` block whose calls go straight to the decorated function; an inner `mode()` does not change that."""
    return Scope(bypass=True)


def sample(n: int) -> Scope:
    """A `with` block whose calls keep several answers to one question apart: `n` (0, 1, …) is a part of their keys.

    Raises UsageError where `n` is no integer from 0.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        msg = f"sample({n!r}): accepted: an integer from 0"
        raise UsageError(msg)
    return Scope(sample=n)


def current() -> Overrides | None:
    """What the blocks around this call say together; None outside of any."""
    return CURRENT.get()


def decide(settings_mode: Mode, overrides: Overrides | None) -> Mode:
    """The mode of one call: a context wins over the settings, and `bypass()` over both."""
    if overrides is None:
        return settings_mode
    if overrides.bypass:
        return "off"
    return overrides.mode or settings_mode


def why_off() -> str:
    """The reason under which a call that goes straight to the origin is counted."""
    context = current()
    if context is not None and context.bypass:
        return "bypass"
    return "mode_off" if context is None or context.mode is None else "mode_off_in_context"
