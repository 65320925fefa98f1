"""What counted in a call, as it can be remembered and compared: names, short digests, and texts where they may be shown.

A part is one thing that the code reached. A trait is what is remembered of a part, or of one leaf of an argument: a digest
that says whether it is the same, and a text that says what it was. No text is of anything that carries a secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from cachekit.keys.plain import LEAVES, from_json, plain
from cachekit.keys.secrets import hidden, names_secret, seal, without_secrets
from cachekit.model import Key

if TYPE_CHECKING:
    from cachekit.keys.code.function import Code

_DIGEST: Final = 6
"""Bytes of a trait's digest: it only says what to tell people, and identifies nothing."""
_LEAVES: Final = 64
_DEPTH: Final = 8
_TEXT: Final = 1_000
"""Characters that are remembered of a text."""
_LARGEST: Final = 1 << 14
"""Bytes of arguments up to which their texts are remembered."""
_SHORT: Final = 60
"""Characters up to which a value is told whole."""
DATA: Final = ("constant", "closure", "environment")
"""Kinds of parts that are values; the others are code."""
_UNITS: Final = ("code", "class")


class Part(NamedTuple):
    """One thing that counted: its kind and name, where it stands (`file:line` of code), its value, and its digest.

    `home` is the module whose name it is. `unit` numbers what code it is, or stands in; `above` what reached it first.
    """

    kind: str
    name: str
    place: str = ""
    value: Any = None
    digest: str = ""
    home: str = ""
    unit: int = 0
    above: int = 0

    @property
    def is_code(self) -> bool:
        return self.kind not in DATA


class Trait(NamedTuple):
    """What is remembered of one thing: whether it is the same, and what to show of it. `whole`: all of a plain text."""

    digest: str
    text: str = ""
    whole: bool = False


Traits = Mapping[str, Trait]
Settings = tuple[str | None, str, int]
"""What else is said of a call: version, namespace, sample."""
Encode = Callable[[Any], bytes]
"""The bytes of a value that is the same exactly when they are."""


def masked(value: Any, name: str = "") -> Any:
    """A tree of JSON with `<secret>` for what may be one."""
    if names_secret(name):
        return "<secret>"
    if type(value) is str:
        return without_secrets(value)
    if type(value) is dict:
        return {one: masked(item, one) for one, item in value.items()}
    if type(value) is list:
        secret = hidden(value)
        return ["<secret>" if at in secret else masked(item) for at, item in enumerate(value)]
    return value


def short(data: bytes) -> str:
    """The digest of a trait, in hex."""
    return hashlib.blake2b(data, digest_size=_DIGEST).hexdigest()


def is_unit(kind: str) -> bool:
    """Whether a part is code that reaches parts of its own."""
    return kind in _UNITS


def of_part(part: Part) -> Trait:
    """What is remembered of a part."""
    text = shown(part.name.rpartition(".")[2], part.value) if not part.is_code else str(part.value or "")
    return Trait(part.digest, text[:_TEXT])


def shown(name: str, value: Any) -> str:
    """A short text for people; `<secret>` for what may be one."""
    from cachekit.keys.readable import readable

    try:
        return "<secret>" if names_secret(name) else readable(value)
    except Exception:  # a proxy outside of its context raises whatever it is asked; its class is all that counts
        return f"<{type(value).__name__}>"


def of_arguments(identifying: Mapping[str, Any], encode: Encode) -> dict[str, Trait]:
    """What is remembered of the arguments: up to 64 leaves, by their paths (`argument messages[3].content`)."""
    found: dict[str, Trait] = {}
    for name, value in identifying.items():
        for path, leaf, is_secret in _leaves(f"argument {name}", value, names_secret(name), 0):
            if len(found) == _LEAVES:
                return found
            found[path] = _leaf(leaf, encode(leaf), is_secret=is_secret)
    return found


def _leaves(path: str, value: Any, is_secret: bool, depth: int) -> Iterator[tuple[str, Any, bool]]:
    if depth < _DEPTH and value and type(value) is dict and not is_secret:
        for name, item in value.items():
            inner = f"{path}.{name}" if type(name) is str and name.isidentifier() else f"{path}[{shown('', name)}]"
            yield from _leaves(inner, item, names_secret(name), depth + 1)
    elif depth < _DEPTH and value and type(value) in (list, tuple) and not is_secret:
        items: Any = value
        secret = hidden(items)
        for index, item in enumerate(items[:_LEAVES]):
            yield from _leaves(f"{path}[{index}]", item, index in secret, depth + 1)
        if len(items) > _LEAVES:
            yield f"{path}[{_LEAVES}:]", items[_LEAVES:], _LEAVES in secret
    else:
        yield path, value, is_secret


def _leaf(value: Any, data: bytes, *, is_secret: bool) -> Trait:
    if is_secret:
        return Trait(short(seal(data)), "<secret>")
    if type(value) is str:
        if (text := without_secrets(looked := value[: 4 * _TEXT])) != looked:
            return Trait(short(seal(data)), text[:_TEXT])
        return Trait(short(data), value[:_TEXT], whole=len(value) <= _TEXT)
    text = repr(value) if type(value) in LEAVES and type(value) is not int else shown("", value)
    return Trait(short(data), text[:_TEXT])


def differences(old: Traits, new: Traits) -> list[str]:
    """What is another one now, a line each; first what is in both. Names are those of the traits."""
    changed = [
        f"{name} {_change(old[name], new[name])}" for name in new if name in old and old[name][0] != new[name][0]
    ]
    come = [f"{name} is new{_being(new[name])}" for name in new if name not in old]
    gone = [f"{name} counts no more" for name in old if name not in new]
    return changed + come + gone


def _change(was: Trait, now: Trait) -> str:
    if was.text == now.text:
        return "changed"
    if max(len(was.text), len(now.text)) <= _SHORT or not (was.whole or now.whole):
        return f"was {_told(was)}, is {_told(now)}"
    alike = zip(was.text, now.text, strict=False)
    place = next((i for i, (a, b) in enumerate(alike) if a != b), min(len(was.text), len(now.text)))
    return f"differs at character {place}: was {_cut(was.text, place)}, is {_cut(now.text, place)}"


def _cut(text: str, place: int) -> str:
    end = place + _SHORT // 2
    return f"{'…' if place else ''}{text[place:end]!r}{'…' if len(text) > end else ''}"


def _told(trait: Trait) -> str:
    text = trait.text if len(trait.text) <= _SHORT else trait.text[: _SHORT - 1] + "…"
    return repr(text) if trait.whole else text


def _being(trait: Trait) -> str:
    return f": {_told(trait)}" if trait.text else ""


class Sketch:
    """One call, cheap to take: its texts are made of a copy of its arguments when somebody asks.

    `code_id` is equal for the same code, `arguments_id` for the same arguments. `encode` is for what is not plain.
    """

    __slots__ = ("_arguments", "_code", "_settings", "arguments_id", "code_id", "key")

    def __init__(self, key: Key, code: Code, said: bytes | dict[str, Trait], settings: Settings) -> None:
        self.key, self.code_id, self._code, self._settings = key, code.traits_id, code.traits, settings
        data = said if isinstance(said, bytes) else "".join(trait.digest for trait in said.values()).encode()
        self.arguments_id = short(data)
        self._arguments: bytes | dict[str, Trait] | None = said if len(data) <= _LARGEST else None

    @property
    def code(self) -> Traits:
        """What it is by besides its arguments."""
        return self._code

    @property
    def call(self) -> Traits | None:
        """What it is by in its arguments, and its settings; None where that was too much, or is forgotten."""
        if self._arguments is None:
            return None
        found = self._arguments
        call = of_arguments(from_json(found), _plainly) if isinstance(found, bytes) else dict(found)
        settings = zip(("version", "namespace", "sample"), self._settings, strict=True)
        texts = {name: str(one) for name, one in settings if one}
        return call | {name: Trait(short(text.encode()), text) for name, text in texts.items()}

    def forget(self) -> None:
        """Keeps the digests only."""
        self._arguments = None

    def against(self, code: Traits, call: Traits | None) -> list[str]:
        """What is another one than in an earlier call, a line each; None for arguments that were the same."""
        return differences(code, self.code) + ([] if call is None else differences(call, self.call or {}))


def _plainly(value: Any) -> bytes:
    return plain(value) or b""
