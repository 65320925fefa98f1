"""What a plan may ask for, and the request that it decides about: one call, everything resolved, nothing looked up.

A step says what, never how: the drivers know how, and the errand knows where. A flow is a generator of steps: a plan, or
a plan with a tail that says what else becomes of its value. It is the same for functions and coroutine functions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from cachekit.errors import TierError
from cachekit.model import Coalesce, Codec, Event, Key, Mode, Record
from cachekit.plan.waiting import MULTIPLE

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""No keyword arguments."""


class Read(NamedTuple):
    """Answer: Record or None. A TierError is thrown into the plan.

    `patience`: seconds that a far tier may take beyond its own time, if the origin took as long.
    """

    tier: str
    patience: float = 0.0


class Write(NamedTuple):
    """Answer: None. A TierError is thrown into the plan."""

    tier: str
    record: Record


class CallOrigin(NamedTuple):
    """Calls `origin`, and awaits what it returns where the flow runs on an event loop; None: the errand's own.

    Answer: Returned, with the `value` and the `seconds` it took. Exceptions are raised to the flow's caller and do not
    enter the flow; of a `fallback`, a class of exceptions, the answer is Failed instead, with the `error`. `given` are
    keyword arguments for the origin.
    """

    fallback: type[BaseException] | tuple[()] = ()
    origin: Callable[..., Any] | None = None
    given: Mapping[str, Any] = NOTHING


class Do(NamedTuple):
    """Calls `work` in the caller's context, on another thread where the flow runs on an event loop.

    Answer: what it returns. `held`: a caller who is cancelled waits until it is done, because the work uses what goes
    with the call.
    """

    work: Callable[[], Any]
    held: bool = False


class Begin(NamedTuple):
    """The steps that follow are this errand's, and the one before has ended. None: no plan is under way."""

    errand: Any


class Join(NamedTuple):
    """Answer: LEAD, ALONE, or the Record that the leader shared. With `wait=False` also BUSY.

    `patience`: seconds to wait for a leader of whom it is in doubt whether it waits for the caller. `flight`: the one that
    a batch's errand waits for.
    """

    wait: bool = True
    patience: float = math.inf
    flight: Any = None


class Share(NamedTuple):
    """Hands the record to everybody who joined; None sends each of them to the origin alone."""

    record: Record | None


class Lease(NamedTuple):
    """Answer: whether this process may do the work that another process on the machine could be doing.

    It was waited for `seconds` already; then it may beside a process that started it, and that waits for it perhaps.
    """

    seconds: float = 0.0


class Claim(NamedTuple):
    """Answer: BUSY where another machine of the team computes the key; LEAD where this one does; ALONE where nobody is
    to be waited for, and nobody waits.

    `announce`: the team is told that this machine does. It is said at once, and counts if the answer is LEAD once more,
    some time later. `late`: the caller waited long enough for who computes it.
    """

    announce: bool = False
    late: bool = False


class Waive(NamedTuple):
    """The claim is the plan's no more: nobody computes the key, or a stream goes on (`lasting`) and another errand ends it."""

    lasting: bool = False


class Pause(NamedTuple):
    """Waits `seconds` for another process or machine."""

    seconds: float


class Revalidate(NamedTuple):
    """Starts one refresh in the background, unless one is under way; `given` as in CallOrigin."""

    given: Mapping[str, Any] = NOTHING


class Tell(NamedTuple):
    """Tells the listeners."""

    event: Event


class Returned(NamedTuple):
    """The origin's value, and how many seconds it took."""

    value: Any
    seconds: float


class Failed(NamedTuple):
    """The origin raised what there is something to be put in the place of."""

    error: BaseException


class Standing(Enum):
    """A caller's place among those who want the same key."""

    LEAD = "lead"
    ALONE = "alone"
    BUSY = "busy"


LEAD: Final = Standing.LEAD
ALONE: Final = Standing.ALONE
BUSY: Final = Standing.BUSY

Steps = Generator[Any, Any, Any]


STREAMING: Final = "streaming"
"""What `judge` says of a stream that has just begun: nothing can be kept yet, and nothing is wrong."""


def nothing(*_: Any) -> None:
    """What is to be done by default."""


def _always() -> bool:
    return True


@dataclass(slots=True)  # nobody changes one, but to freeze it costs a miss three microseconds
class Request:
    """One call, with everything resolved: `ttl` and the windows in seconds, tiers by name, fastest first.

    `missed` is called before the origin, `noted` with what was stored of it, or why nothing was; both are quick.

    `judge` says why a value is not worth keeping, "" if it is; `changed`, that the key was built of something that is no
    longer so; `news`, that somebody stored something since the near tiers were looked at; `streamed`, that a Reply is
    wanted as a stream. `patience` is how many seconds it waits for others in doubt, `nested` whether others may wait for
    it meanwhile. `previous` names the argument that gets the value past its TTL. `coalesce` is the policy's, `took` gives
    how many seconds the function's origin took last time, 0 where that is not known.
    """

    key: Key
    codec: Codec
    near: tuple[str, ...]
    far: tuple[str, ...]
    clock: Callable[[], int]
    mode: Mode = "on"
    ttl: float | None = None
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    cacheable: Callable[[Any], bool] | None = None
    tags: Callable[[], tuple[str, ...]] = tuple
    pin: float = False
    leases: bool = True
    explain: Callable[[], str] = str
    streamed: bool = False
    changed: Callable[[], bool] = bool
    news: Callable[[], bool] = _always
    judge: Callable[[Any], str] | None = None
    missed: Callable[[], None] = nothing
    noted: Callable[[Record | None, str], None] = nothing
    patience: float = math.inf
    nested: bool = False
    previous: str | None = None
    coalesce: Coalesce = "machine"
    took: Callable[[], float] = float

    @property
    def grace(self) -> float:
        """Seconds past its TTL for which a value is kept."""
        return max(self.stale_while_revalidate, self.stale_if_error)

    @property
    def recalled(self) -> float:
        """Seconds past its TTL for which the origin is given the value."""
        return 0.0 if self.previous is None else self.grace

    def given(self, old: Found | None) -> Mapping[str, Any]:
        """What the origin gets beside its arguments, so that it need ask only whether the old value is still so."""
        return NOTHING if old is None or self.previous is None else {self.previous: old.value}

    def patient(self, stale: list[Record]) -> float:
        """Seconds that it waits for others in doubt, who may take as long as once."""
        return max([self.patience, *(MULTIPLE * record.seconds for record in stale)])

    def decode(self, record: Record) -> Found | None:
        """The record with its value; None where this codec cannot read it."""
        try:
            return Found(record, self.codec.load(record.codec, record.payload))
        except TierError:
            return None

    def newest(self, stale: list[Record], window: float) -> Found | None:
        """The newest stale record, if it is at most `window` seconds past its TTL and can be decoded."""
        if not stale or not window:
            return None
        newest = max(stale, key=lambda record: record.created)
        return self.decode(newest) if newest.usable(self.clock(), window) else None


class Found(NamedTuple):
    """A record and the value that it decodes to."""

    record: Record
    value: Any
