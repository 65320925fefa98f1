"""Which names carry a secret, and what stands for one in canonical bytes.

An HMAC takes the place of a secret's bytes, so that two tenants never share an answer, and no key shows a secret.
"""

from __future__ import annotations

import hmac
import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

from cachekit.errors import CannotKey
from cachekit.files.digests import frame

_SECRET_ENDINGS: Final = (
    *("apikey", "accesskey", "privatekey", "secretkey", "token", "authorization", "password", "passwd", "passphrase"),
    *("secret", "credential", "credentials", "cookie"),
)
_SECRET_DOMAIN: Final = b"cachekit secret v1"

_ENDS: Final = (
    r"(?:api[-_]?key|(?:access|private|secret)[-_]?key|token|authorization|passw(?:or)?d|passphrase|secret|credentials?"
    r"|cookie)"
)
_NAME: Final = rf"(?i:(?<![-\w])-{{0,2}}[-\w]{{0,40}}?{_ENDS})"
_OPTION: Final = rf"(?i:(?<![-\w])--?(?:[-\w]{{0,40}}?(?:{_ENDS}|bearer)|pass))"
_USER: Final = r"(?<![-\w])(?:-[uU]|--(?:proxy-)?user)"
_MASKED: Final = (  # each: the secret is its group
    # An argument that is an assignment, or an option, is a secret to its end.
    re.compile(rf"\A{_NAME}=(.+)", re.DOTALL),
    # The password of a URL.
    re.compile(r"://[^/\s:@]*:([^/\s?#]+)@"),
    # A header, or a field of JSON, to the end of its line or text.
    re.compile(_NAME + r"[\"']?[ \t]*:[ \t]*[\"']?([^\r\n\"']+)"),
    # A field of a query, an assignment, an option.
    re.compile(_NAME + r"[\"']?=[\"']?([^\s\"'&;]+)"),
    re.compile(_OPTION + r"\s+[\"']?(?!-)([^\s\"']+)"),
    re.compile(_USER + r"[ =]?[\"']?[^\s:\"']*:([^\s\"']+)"),
    re.compile(r"(?i:\bbearer)\s+([^\s\"',;<]{8,})"),
    re.compile(r"(?i:\bbasic)\s+(?=\S*[A-Z0-9])([A-Za-z0-9+/=]{8,})"),
    # The beginnings that services give their tokens, and we give ours, so that people recognise one.
    re.compile(
        r"(?<![A-Za-z0-9])((?:sk|pk|rk|gsk|hf|gh[opsur]|github_pat|glpat|xox[abeoprs]|npm|pypi|AKIA|ASIA|AIza|eyJ|ck[12]\.)"
        r"[-_A-Za-z0-9.]{16,})"
    ),
)


def framed_name(cls: type) -> bytes:
    """Which class it is: its module and its qualified name."""
    # In a spawned worker a script has another name than here.
    module = str(cls.__module__).replace("__mp_main__", "__main__")
    return frame(module.encode(), cls.__qualname__.encode())


def seal(data: bytes) -> bytes:
    """What stands in for a secret's canonical bytes: equal secrets agree on every machine, the text cannot be read."""
    return frame(b"secret", hmac.digest(_SECRET_DOMAIN, data, "sha256"))


def is_secret_name(name: str) -> bool:
    """Whether a parameter, header or field of this name carries a secret: case, `-` and `_` do not matter."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "").endswith(_SECRET_ENDINGS)


def names_secret(name: Any) -> bool:
    """The same for whatever a mapping has as its keys: text, bytes, or something that names no secret."""
    text = bytes(name).decode("latin-1") if type(name) is bytes else name
    return isinstance(text, str) and is_secret_name(text)


def hidden(items: Sequence[Any]) -> set[int]:
    """The places in a list that hold a secret because of what stands before them: a header's name, or an option."""
    if len(items) == 2 and names_secret(items[0]):
        return {1}
    return {at + 1 for at, (one, following) in enumerate(itertools.pairwise(items)) if _hides(one, following)}


def _hides(item: Any, following: Any) -> bool:
    if type(item) is not str or type(following) is not str:
        return False
    return bool(re.fullmatch(_OPTION, item)) or (":" in following and bool(re.fullmatch(_USER, item)))


def without_secrets(text: str) -> str:
    """A text for people: what its form, its name or its option says to be a secret is `<secret>`."""
    for pattern in _MASKED:
        text = pattern.sub(_mask, text)
    return text


def _mask(found: re.Match[str]) -> str:
    whole, begin = found.group(), found.start(1) - found.start()
    return f"{whole[:begin]}<secret>{whole[found.end(1) - found.start() :]}"


def cannot_key(where: str, value: Any, why: str = "cannot be keyed") -> CannotKey:
    """The refusal of a value in the argument `where`: it shows the type and the remedies, never the value."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    remedy = f"leave it out with ignore=({where!r},), say what identifies the call with key="
    remedy += ", or give the class a __cachekit_key__ method"
    return CannotKey(f"{where!r} holds a value of type {name} that {why}: {remedy}", where)
