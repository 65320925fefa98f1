"""One list of the headers that change no answer, and one rule for the names of secrets, whatever the client."""

from __future__ import annotations

import pytest

from cachekit_adapters._wire.headers import counts, is_secret, sealed


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
        *("x-auth-token", "x-amz-signature", "x-amz-security-token"),
        *("api_key", "apiKey", "accessToken", "access_token", "key", "X-Amz-Credential"),
    ],
)
def test_an_apis_own_key_is_a_secret_that_does_not_count(name: str) -> None:
    """Headers and parameters by which a server knows its caller: a rotated one asks the same question."""
    assert is_secret(name)
    assert not counts(name.lower())


@pytest.mark.parametrize("name", ["helicone-auth", "cookie", "x-client-secret", "x-portkey-api-key", "X-Tenant-Token"])
def test_a_secret_of_somebody_between_counts_as_a_digest(name: str) -> None:
    """A gateway's key may lead to another tenant: two of them never share an answer, and neither stands in a key."""
    assert counts(name.lower())
    assert sealed(name, "first") != sealed(name, "second")
    assert "first" not in sealed(name, "first")
    assert sealed("x-tenant", "first") == "first"


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
