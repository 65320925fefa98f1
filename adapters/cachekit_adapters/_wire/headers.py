"""Which headers of a request may change its answer: those that say neither who asks, nor how it travels, nor who traces it."""

from __future__ import annotations

import functools
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
_SECRET: Final = (
    *("apikey", "accesskey", "secretkey", "subscriptionkey", "token", "auth", "authorization", "password", "passwd"),
    *("secret", "signature", "credential", "credentials", "cookie"),
)


@functools.lru_cache(1024)
def counts(name: str) -> bool:
    """Whether a header of this name, in lower case, may change the answer. One that nobody knows does."""
    return not (name in NEUTRAL or name.startswith("x-stainless") or is_secret(name))


def is_secret(name: str) -> bool:
    """Whether a header or parameter of this name proves who asks: case, `-` and `_` do not matter."""
    plain = name.lower().replace("-", "").replace("_", "")
    return plain == "key" or plain.endswith(_SECRET)
