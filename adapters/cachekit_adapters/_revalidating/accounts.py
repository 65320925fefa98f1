"""Who asks: the login behind a token, learnt once a token, so that a new token of the same account finds what is kept.

A token stands in no key. What leads from it to its login is its HMAC. A token that is no user's (GitHub Apps, Actions)
has no login to be learnt, and is an account of its own under that HMAC.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable
from typing import Any, Final

from cachekit import distributed_cache
from cachekit_adapters._revalidating.answers import Answer, withheld

Who = Callable[[], Answer]
_REMEMBERED: Final = "1d"


class _Unknown(Exception):
    """The service does not say now who it is; never leaves this module."""


def mark(secret: bytes) -> str:
    """What stands for a secret: equal ones agree, and it cannot be read from it."""
    return hmac.digest(b"cachekit account v1", secret, "sha256").hex()


@functools.cache
def _learnt() -> Any:
    def account(host: str, mark: str, who: Who) -> str:
        answer = who()
        if answer.status != 200:
            if withheld(answer):
                raise _Unknown
            # No user's token, for good; while one that is refused may be accepted later.
            return "" if answer.status == 401 else f"token:{mark}"
        user = answer.json()
        # A login may be given up and taken by another; the number stays with the person.
        return f"{user['login']}#{user.get('id', '')}".lower()

    account.__module__, account.__qualname__ = "cachekit_adapters", "account"
    policy: dict[str, Any] = {"ttl": _REMEMBERED, "stale_if_error": "30d", "share": False, "version": "1"}
    return distributed_cache(ignore=("who",), cacheable=bool, **policy)(account)


def account(host: str, secret: bytes, who: Who) -> str:
    """The account behind a secret, "" for none. `who` asks the service, for a JSON with `login` and `id`; what it raises
    passes."""
    if not secret:
        return ""
    try:
        login = str(_learnt()(host, mark(secret), who))
    except (_Unknown, ValueError, KeyError, TypeError):  # no answer now, or none in the shape of a user
        login = ""
    return login or f"token:{mark(secret)}"
