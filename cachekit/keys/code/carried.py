"""What code that goes to another process by value leaves behind: its text, and where it came from.

cloudpickle sends a script's function as code, without its file. Here is what a worker then needs in order to find the same
source, and to tell own code from the standard library's, so that its keys are those of the process that sent it.
"""

from __future__ import annotations

import functools
import linecache
import os
import types
import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

# Nested, no-free, future-import and (types.coroutine) iterable flags are not of the definition itself.
_FLAGS: Final = 0x2AF
_LIMIT: Final = 64
_MOST_FOREIGN: Final = 4096
_texts: dict[str, None] = {}
_foreign: set[str] = set()


class Carried(NamedTuple):
    """`texts` are packed, `foreign` the digests of code that is nobody's own, though it came with what is."""

    texts: tuple[bytes, ...]
    foreign: frozenset[str]


def gathered(
    functions: Iterable[tuple[str, types.CodeType]], by_value: Callable[[str], bool], is_own_file: Callable[[str], bool]
) -> Carried:
    """What goes along with functions, each with its module, of which those that go `by_value` lose their files."""
    codes = [code for module, code in functions if by_value(module)]
    files = {code.co_filename for code in codes}
    found = ["".join(linecache.getlines(file)) for file in sorted(files)]
    # What came from another process goes on with all that came with it.
    text = [one for one in found if one] + ([] if all(found) else texts())
    foreign = {_digest(code) for code in codes if not _counts(code, is_own_file)}
    carried = Carried(tuple(_packed(one) for one in text), frozenset(foreign) | _foreign)
    take(carried)  # cloudpickle brings a class back, with methods as the worker has them
    return carried


def take(carried: Carried) -> None:
    """Keeps what came; of many texts the newest."""
    for one in carried.texts:
        text = zlib.decompress(one).decode("utf-8", "surrogatepass")
        _texts.pop(text, None)
        _texts[text] = None
    while len(_texts) > _LIMIT:
        del _texts[next(iter(_texts))]
    if len(_foreign) > _MOST_FOREIGN:
        _foreign.clear()
    _foreign.update(carried.foreign)


def texts() -> list[str]:
    """The texts that came, the newest first."""
    return list(reversed(_texts))


def is_foreign(code: types.CodeType) -> bool:
    """Whether code without a file is known to be nobody's own."""
    return bool(_foreign) and not os.path.exists(code.co_filename) and _digest(code) in _foreign


def _counts(code: types.CodeType, is_own_file: Callable[[str], bool]) -> bool:
    # What dataclasses and namedtuple write themselves is compiled from text.
    return is_own_file(code.co_filename) and not code.co_filename.startswith("<string>")


@functools.lru_cache(maxsize=_LIMIT)
def _packed(text: str) -> bytes:
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def _digest(code: types.CodeType) -> str:
    from cachekit.keys.code.text import text_digest

    return text_digest(ascii(code_shape(code)))


def code_shape(code: types.CodeType) -> tuple[Any, ...]:
    """Everything a code object does, and nothing of where it stands."""
    return (
        *(code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
        *(code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _FLAGS),
        getattr(code, "co_exceptiontable", b""),
        tuple(_constant(constant) for constant in code.co_consts),
    )


def _constant(value: Any) -> tuple[Any, ...]:
    if isinstance(value, types.CodeType):
        return ("code", *code_shape(value))
    if isinstance(value, tuple):
        return ("tuple", *map(_constant, value))
    if isinstance(value, frozenset):
        return ("frozenset", *sorted(map(_constant, value), key=ascii))
    return (type(value).__name__, hex(value) if type(value) is int else ascii(value))
