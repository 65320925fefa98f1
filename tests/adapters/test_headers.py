"""One list of the headers that change no answer, and one rule for the names of secrets, whatever the client."""

from __future__ import annotations

import pytest

from cachekit_adapters._wire.headers import counts, is_secret


@pytest.mark.parametrize(
    "name",
    [
        *(
            "authorization",
            "proxy-authorization",
            "x-api-key",
            "api-key",
            "x-goog-api-key",
            "ocp-apim-subscription-key",
        ),
        *("x-auth-token", "helicone-auth", "cookie", "x-amz-signature", "x-amz-security-token", "x-client-secret"),
        *("api_key", "apiKey", "accessToken", "access_token", "key", "X-Amz-Credential"),
    ],
)
def test_what_proves_who_asks_is_a_secret(name: str) -> None:
    """Headers and parameters by which a server knows its caller: a rotated one asks the same question."""
    assert is_secret(name)
    assert not counts(name.lower())


@pytest.mark.parametrize(
    "name",
    [
        *("accept", "content-length", "transfer-encoding", "inference-header-content-length", "host", "user-agent"),
        *("traceparent", "tracestate", "baggage", "x-request-id", "x-correlation-id", "idempotency-key"),
        *("anthropic-user-profile-id", "x-stainless-retry-count"),
    ],
)
def test_carriage_and_tracing_do_not_count(name: str) -> None:
    """How a request travels, and who follows it, changes no answer."""
    assert not counts(name)
    assert not is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("x-tenant", "x-author", "openai-organization", "groq-beta", "anthropic-beta", "x-portkey-provider"),
        *("x-portkey-virtual-key", "x-routing-key", "x-token-limit", "x-max-tokens", "keyword", "x-auth-user"),
    ],
)
def test_what_nobody_knows_counts(name: str) -> None:
    """A header may name a tenant, a route or a beta; that a word in it looks like a secret's is no reason to forget it."""
    assert counts(name)
    assert not is_secret(name)
