"""What a client's own settings put into each of its requests: where it asks, for whom, with which headers and query.

Whoever put a part in counts alike: the SDK, `default_headers=`, `with_options`, or the `http_client=` that was passed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from cachekit_adapters._sdk.values import headers_of
from cachekit_adapters._wire.headers import counts, identifying, is_secret, sealed

_NOT_ASKED: Final = frozenset({"websocket_base_url"})


class Settings(NamedTuple):
    """`place` is the part of an identity that they make, headers and query among it; `scope` whose rate limit counts."""

    place: dict[str, Any]
    scope: str


class ClientSettings:
    """The Settings of one client, read again after somebody changed them."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._known: tuple[dict[str, Any], Any, Any, Settings] | None = None

    def now(self) -> Settings:
        state, http, known = vars(self._client), self._client._client, self._known
        headers, query = http.headers.raw, http.params
        if known is not None and state == known[0] and headers == known[1] and query is known[2]:
            return known[3]
        settings = _settings(self._client)
        kept = {name: dict(value) if type(value) is dict else value for name, value in state.items()}
        self._known = (kept, headers, query, settings)
        return settings


def placed(settings: Settings, options: Any) -> dict[str, Any]:
    """The place of one request, whose headers and query go before those of the client."""
    place = dict(settings.place)
    headers = identifying(headers_of(options).items())
    if headers:
        # Some SDKs add to a header of the client, others replace it: both stand here.
        before = place.get("headers", {})
        place["headers"] = {**before, **{name: _beside(before.get(name), text) for name, text in headers.items()}}
    if options.params:
        place["query"] = {**place.get("query", {}), **_queried(options.params)}
    return place


def _beside(before: str | None, text: str) -> str:
    return text if before in (None, text) else f"{before}, {text}"


def _settings(client: Any) -> Settings:
    http = client._client
    base, tenant = str(client.base_url), _tenant(client)
    headers = identifying([*http.headers.multi_items(), *_cookies(http), *_texts(client.default_headers.items())])
    query = _queried({**http.params, **client.default_query})
    place: dict[str, Any] = {"base": base, "tenant": tenant}
    place |= {"headers": headers} if headers else {}
    place |= {"query": query} if query else {}
    return Settings(place, f"{base} {json.dumps(tenant, sort_keys=True)}")


def _tenant(client: Any) -> dict[str, str]:
    """What a client says of itself beside its URL: an organization, a project, a region."""
    return {
        name: value
        for name, value in vars(client).items()
        if type(value) is str and name[0] != "_" and name not in _NOT_ASKED and not _proves(name)
    }


def _proves(name: str) -> bool:
    return is_secret(name) or name.endswith("key")


def _cookies(http: Any) -> Iterable[tuple[str, str]]:
    """Those that somebody gave the client; a server's own have a domain, and come and go."""
    given = sorted(f"{cookie.name}={cookie.value}" for cookie in http.cookies.jar if not cookie.domain)
    return [("cookie", "; ".join(given))] if given else []


def _texts(pairs: Iterable[tuple[Any, Any]]) -> list[tuple[str, str]]:
    """Those that reach the wire: an SDK's `Omit` does not."""
    return [(str(name), str(value)) for name, value in pairs if isinstance(value, (str, int))]


def _queried(query: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: sealed(name, str(value)) if is_secret(name) else value
        for name, value in query.items()
        if counts(name.lower())
    }
