"""Which names carry a secret, and what stands for one in canonical bytes.

An HMAC takes the place of a secret's bytes, so that two tenants never share an answer, and no key shows a secret.
"""

from __future__ import annotations

import hmac
import re
from typing import Any, Final

from cachekit.errors import CannotKey
from cachekit.files.digests import frame

_SECRET_ENDINGS: Final = (
    *("apikey", "accesskey", "privatekey", "secretkey", "token", "authorization", "password", "passwd", "passphrase"),
    *("secret", "credential", "credentials", "cookie"),
)
_PASSWORD: Final = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_SECRET_DOMAIN: Final = b"cachekit secret v1"

_TOKEN: Final = re.compile(r"(?:sk|pk|rk|gsk|hf|ghp|gho|ghs|glpat|xox[abp]|AKIA|ASIA|eyJ)[-_A-Za-z0-9.]{16,}")
"""The beginnings that services give their tokens, so that people recognise one."""


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


def looks_secret(text: str) -> bool:
    """Whether a text holds something of the form of a well-known token."""
    return _TOKEN.search(text) is not None


def hides_next(item: Any) -> bool:
    """Whether an item of a command line is an option whose value, the next item, is a secret: `--token`."""
    return type(item) is str and item.startswith("-") and "=" not in item and is_secret_name(item)


def without_secrets(text: str) -> str:
    """A text without the password of a URL, and without the value of an option that carries a secret."""
    option, equals, _ = text.partition("=")
    if equals and " " not in option and is_secret_name(option):
        return f"{option}=<secret>"
    return _PASSWORD.sub(r"\1<secret>@", text) if "://" in text else text


def cannot_key(where: str, value: Any, why: str = "cannot be keyed") -> CannotKey:
    """The refusal of a value in the argument `where`: it shows the type and the remedies, never the value."""
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    remedy = f"leave it out with ignore=({where!r},), say what identifies the call with key="
    remedy += ", or give the class a __cachekit_key__ method"
    return CannotKey(f"{where!r} holds a value of type {name} that {why}: {remedy}", where)
