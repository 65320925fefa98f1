"""A question and its answer: while they are on their way, and as they are kept.

A kept body begins with one line of JSON, the head: what of the headers and of the request the bytes behind it need.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")
JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"


class ClientRequest(NamedTuple):
    """A request on its way. `sent` is what the client sends: its own request, or the URL.

    `path` is the wire module's route, `body` the request's JSON, `about` what is known of the server.
    """

    sent: Any
    path: str
    body: Any
    is_async: bool
    about: Mapping[str, str] = {}


class ClientAnswer(NamedTuple):
    """What the client was given for it."""

    value: Any
    request: ClientRequest


class Exchange(NamedTuple):
    """Both, taken apart; of a stream without `content`. `kind` is the content type, `about` what is known besides the
    answer, `read` the content's JSON where somebody has it.
    """

    path: str
    body: Any
    content: bytes
    kind: str = JSON
    headers: Mapping[str, str] = {}
    about: Mapping[str, str] = {}
    read: Any = None


class Head(NamedTuple):
    """What is kept before an answer. `kind` is its content type, `request` what judging a stream needs of the question."""

    path: str
    kind: str
    headers: Mapping[str, str]
    about: Mapping[str, str]
    request: Any = None
    verdict: str = ""

    def packed(self) -> bytes:
        return dumped(self._asdict()) + b"\n"


UNREADABLE: Final = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError, MemoryError, AssertionError),
)
"""What Python raises where something is made of what anybody may have written."""


def refusing(read: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """`read`, which raises ValueError, and nothing else, for what it can make nothing of."""

    @functools.wraps(read)
    def made(*args: _Given.args, **kwargs: _Given.kwargs) -> _Made:
        try:
            return read(*args, **kwargs)
        except ValueError:
            raise
        except UNREADABLE as error:
            raise ValueError(f"not to be read: {type(error).__name__}: {error}") from error

    return made


@refusing
def opened(data: bytes) -> tuple[Head, bytes]:
    """Head and answer of a kept body. Raises ValueError for what is none."""
    line, end, body = data.partition(b"\n")
    if not end:
        raise ValueError("the head is cut off")
    return Head(**json.loads(line)), body


def dumped(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


# -- JSON that anybody may have written --------------------------------------------------------


@refusing
def parsed(text: str | bytes) -> Any:
    """JSON. Raises ValueError for anything else, also where it is nested too deep to read."""
    return json.loads(text.decode() if isinstance(text, bytes) else text)


def readable(text: str | bytes) -> Any:
    """JSON, or None."""
    try:
        return parsed(text)
    except ValueError:
        return None


def mapping(value: Any) -> dict[str, Any]:
    """`value`. Raises ValueError where it is no mapping."""
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__} where a mapping should be")
    return value


def texts(table: object, **names: str) -> dict[str, str]:
    """The texts that a table has, by the names they have here: `texts(info, model="model_id")`."""
    values = {name: table.get(place) for name, place in names.items()} if isinstance(table, Mapping) else {}
    return {name: text for name, text in values.items() if isinstance(text, str) and text}
