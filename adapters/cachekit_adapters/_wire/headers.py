"""Which headers of a request may change its answer: those that say neither who asks, nor how it travels, nor who traces it.

A secret that is no API's own key, such as a gateway's, may lead to another tenant: it counts as a digest.
"""

from __future__ import annotations

import functools
import hmac
from collections.abc import Iterable
from typing import Final

FRAMING: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type"),
        *("inference-header-content-length", "transfer-encoding"),
    }
)
"""How a request and its answer travel."""

NEUTRAL: Final = FRAMING | {
    *("host", "user-agent", "idempotency-key", "traceparent", "tracestate", "baggage", "x-request-id"),
    *("x-correlation-id", "anthropic-user-profile-id"),  # the last: whom Anthropic bills the request to
}
_KEYS: Final = frozenset(
    {
        *("authorization", "proxyauthorization", "apikey", "xapikey", "xgoogapikey", "ocpapimsubscriptionkey"),
        *("key", "accesstoken", "xauthtoken", "xamzsignature", "xamzsecuritytoken", "xamzcredential"),
    }
)
"""By these an API knows who asks it; a rotated one asks the same question."""
_SECRET: Final = (
    *("apikey", "accesskey", "secretkey", "subscriptionkey", "token", "auth", "authorization", "password", "passwd"),
    *("secret", "signature", "credential", "credentials", "cookie"),
)


@functools.lru_cache(1024)
def counts(name: str) -> bool:
    """Whether a header of this name, in lower case, may change the answer. One that nobody knows does."""
    return not (name in NEUTRAL or name.startswith("x-stainless") or _plain(name) in _KEYS)


def identifying(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers that may change the answer, by lower-case name, as they stand in a key."""
    return {name.lower(): sealed(name, text) for name, text in pairs if counts(name.lower())}


def sealed(name: str, value: str) -> str:
    """What stands in a key for the value of a header or parameter: a digest of a secret, anything else as it is."""
    return hmac.digest(b"cachekit header v1", value.encode(), "sha256").hex() if is_secret(name) else value


@functools.lru_cache(1024)
def is_secret(name: str) -> bool:
    """Whether a header or parameter of this name proves who asks: case, `-` and `_` do not matter."""
    plain = _plain(name)
    return plain in _KEYS or plain.endswith(_SECRET)


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
