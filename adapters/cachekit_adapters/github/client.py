"""GitHub's REST and GraphQL APIs over httpx, by the one road for answers that have validators."""

from __future__ import annotations

import functools
import importlib
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Final

from cachekit import UsageError
from cachekit_adapters._revalidating.accounts import account
from cachekit_adapters._revalidating.answers import Answer
from cachekit_adapters._revalidating.road import Question, Road
from cachekit_adapters._revalidating.tags import Tags
from cachekit_adapters._wire.headers import counts, sealed
from cachekit_adapters.github import nouns
from cachekit_adapters.github.queries import Query, query_of

_HEADERS: Final = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
TOKENS: Final = ("GH_TOKEN", "GITHUB_TOKEN", "GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN")
"""Variables that hold a token: two for github.com and ghe.com, two for a server of one's own."""

_MOVED: Final = frozenset({301, 302, 307, 308})
_HOPS: Final = 5
_NOTHING: Final[Mapping[str, str]] = {}


def token_of(host: str, environment: Mapping[str, str]) -> str:
    """The token that the environment has for a host, by gh's rules; "" for none."""
    public = host == "github.com" or host.endswith(".ghe.com")
    names = TOKENS[:2] if public else TOKENS[2:]
    return next((environment[name] for name in names if environment.get(name)), "")


class GitHub:
    """A client of one host's API in the name of one account. Reads are kept for as long as their noun says.

    Args:
        token: an account's token; None for the one in the environment, "" to ask as nobody.
        host: github.com, a tenant of ghe.com, or the host of an Enterprise Server, with its port if it has one.
        client: an httpx.Client of your own for proxies and certificates, else one is made, and closed with this.
        keywords: keywords of `distributed_cache` for reads, `ttl`, `stale_if_error`, `share` and `namespace` among them;
            entries stay on this machine unless `share=True`.

    Nothing is asked before the first call. Safe from any thread.
    """

    def __init__(
        self, token: str | None = None, host: str = "github.com", *, client: Any = None, **keywords: Any
    ) -> None:
        self.host = host.lower().strip("/")
        self._token = token_of(self.host, os.environ) if token is None else token
        self._client, self._owns = client, client is None
        self._tags = Tags("github", self.host)
        self._rest, self._graphql = (
            Road(f"github.{kind}", **{"share": False, **keywords}) for kind in ("rest", "graphql")
        )

    def get(
        self, path: str, params: Mapping[str, Any] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """What `GET path` says, kept or asked: `status`, `headers`, `body`, `json()`. A status that is no 200 is not kept.

        Follows up to 5 redirects on the host. Raises RateLimited while the account is to be left alone and nothing is
        kept; httpx's own exceptions pass.
        """
        answer = self._got(path, params or {}, headers or {})
        for _ in range(_HOPS):
            there = answer.headers.get("location", "")
            if answer.status not in _MOVED or not there.startswith(self._base):
                break
            answer = self._got(there[len(self._base) :], {}, headers or {})
        return answer

    def pages(self, path: str, params: Mapping[str, Any] | None = None) -> Iterator[Answer]:
        """`get(path)` and all pages that follow it, each kept by itself; it ends at the first that is no 200."""
        answer = self.get(path, params)
        yield answer
        while answer.status == 200 and (there := _next(answer)).startswith(self._base):
            answer = self.get(there[len(self._base) :])
            yield answer

    def graphql(
        self, query: str, variables: Mapping[str, Any] | None = None, *, operation: str | None = None
    ) -> dict[str, Any]:
        """What the API says to a query: a dict with `data`, and `errors` where it has some, which is not kept.

        Mutations are always sent, and end what is kept of the host. Raises RateLimited as `get` does, UsageError where
        the answer is no JSON.
        """
        told = query_of(query, operation)
        body = {"query": query, "variables": dict(variables or {}), "operationName": operation}
        send = functools.partial(self._send, "POST", self._graphql_url, json.dumps(body).encode())
        if told.kind == "query":
            answer = self._graphql.ask(self._queried(told, body), lambda _: send(_NOTHING))
        elif told.kind == "subscription":
            answer = send(_NOTHING)
        else:
            answer = self._graphql.changing(self._tags.changed(()), lambda: send(_NOTHING))
        try:
            return dict(answer.json())
        except (ValueError, TypeError):
            raise UsageError(f"{self.host} answered {answer.status} and no JSON; is it a GitHub host?") from None

    def post(self, path: str, json: Any = None) -> Answer:
        """`POST path`: always sent; it ends what is kept of its repository, and of what reaches over several."""
        return self._changed("POST", path, json)

    def patch(self, path: str, json: Any = None) -> Answer:
        """`PATCH path`, as `post`."""
        return self._changed("PATCH", path, json)

    def put(self, path: str, json: Any = None) -> Answer:
        """`PUT path`, as `post`."""
        return self._changed("PUT", path, json)

    def delete(self, path: str, json: Any = None) -> Answer:
        """`DELETE path`, as `post`."""
        return self._changed("DELETE", path, json)

    @property
    def account(self) -> str:
        """Login and number of the account, "" for nobody; asked once a token and day."""
        url = f"{self._base}user"
        return account(self.host, self._token.encode(), lambda: self._send("GET", url, None, _NOTHING))

    def close(self) -> None:
        """Closes the connections that this opened."""
        if self._owns and self._client is not None:
            self._client.close()
            self._client = None

    def __enter__(self) -> GitHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _base(self) -> str:
        if self.host == "github.com" or self.host.endswith(".ghe.com"):
            return f"https://api.{self.host}/"
        return f"https://{self.host}/api/v3/"

    @property
    def _graphql_url(self) -> str:
        return self._base.removesuffix("v3/") + "graphql"

    def _got(self, path: str, params: Mapping[str, Any], headers: Mapping[str, str]) -> Answer:
        place, said = nouns.path_of(path), {name.lower(): text for name, text in headers.items()}
        query = _query(path, params)
        url = self._base + place + (f"?{urllib.parse.urlencode(query)}" if query else "")
        ttl = nouns.ttl_of(place)
        if ttl is None:
            return self._send("GET", url, None, said)
        who = self.account
        identity = {
            **{
                "host": self.host,
                "account": who,
                "path": place,
                "query": sorted([name, sealed(name, text)] for name, text in query),
            },
            "headers": {name: sealed(name, text) for name, text in said.items() if counts(name) or name == "accept"},
        }
        question = Question(identity, ttl, self._scope(who, nouns.resource(place)), *self._tagged(nouns.repo_of(place)))
        return self._rest.ask(question, lambda conditions: self._send("GET", url, None, {**said, **conditions}))

    def _queried(self, told: Query, body: Mapping[str, Any]) -> Question:
        who = self.account
        identity = {
            "host": self.host,
            "account": who,
            "query": told.text,
            "variables": body["variables"],
            "operation": body["operationName"],
        }
        ttl = nouns.TTLS["runners" if told.names & {"runners", "runnerGroups"} else "graphql"]
        return Question(identity, ttl, self._scope(who, "graphql"), *self._tagged(""), judge=judged)

    def _changed(self, method: str, path: str, body: Any) -> Answer:
        place, query = nouns.path_of(path), _query(path, {})
        url = self._base + place + (f"?{urllib.parse.urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        act = functools.partial(self._send, method, url, content, _NOTHING)
        answer: Answer = self._rest.changing(self._tags.changed([nouns.repo_of(place)]), act)
        return answer

    def _scope(self, who: str, resource: str) -> str:
        return f"{self.host} {who} {resource}"

    def _tagged(self, repo: str) -> tuple[str, str]:
        return self._tags.area(repo), self._tags.all

    def _send(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Answer:
        if self._client is None:
            self._client = _httpx().Client(timeout=30.0)
        sent = {**_HEADERS, **headers}
        if self._token:
            sent["authorization"] = f"Bearer {self._token}"
        if content is not None:
            sent["content-type"] = "application/json"
        response = self._client.request(method, url, content=content, headers=sent)
        return Answer(
            response.status_code, {name.lower(): text for name, text in response.headers.items()}, response.content
        )


def judged(answer: Answer) -> Answer:
    """What a GraphQL answer means: one with errors is none to keep, and one that names a rate limit is a refusal."""
    if answer.status != 200:
        return answer
    try:
        said = answer.json()
    except ValueError:
        return answer._replace(headers={**answer.headers, "cache-control": "no-store"})
    errors = said.get("errors") if isinstance(said, dict) else None
    if isinstance(errors, list) and any(isinstance(one, dict) and one.get("type") == "RATE_LIMITED" for one in errors):
        return answer._replace(status=429)
    if errors or not isinstance(said, dict) or not isinstance(said.get("data"), dict):
        return answer._replace(headers={**answer.headers, "cache-control": "no-store"})
    return answer._replace(headers={**answer.headers, **_limit(said["data"].get("rateLimit"))})


def _limit(told: Any) -> dict[str, str]:
    """The headers that say what `rateLimit { remaining resetAt }` says."""
    if not isinstance(told, dict) or told.get("remaining") != 0:
        return {}
    try:
        reset = datetime.fromisoformat(str(told["resetAt"]).replace("Z", "+00:00")).timestamp()
    except (KeyError, ValueError):
        return {}
    return {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(reset))}


def _query(path: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = urllib.parse.parse_qsl(path.partition("?")[2], keep_blank_values=True)
    for name, value in params.items():
        several: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
        pairs += [(name, str(one).lower() if isinstance(one, bool) else str(one)) for one in several if one is not None]
    return pairs


def _next(answer: Answer) -> str:
    """Where the next page is, "" after the last."""
    for part in answer.headers.get("link", "").split(","):
        url, _, relation = part.strip().partition(">")
        if 'rel="next"' in relation:
            return url.removeprefix("<")
    return ""


def _httpx() -> Any:
    try:
        return importlib.import_module("httpx")
    except ImportError:
        raise UsageError("GitHub() asks over httpx: pip install 'cachekit-ipfs[github]'") from None
