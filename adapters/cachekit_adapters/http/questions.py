"""What identifies a request of a plain HTTP client: where it goes, what it asks, and what its headers say besides."""

from __future__ import annotations

import functools
import json
from typing import Any, Final, NamedTuple

from cachekit_adapters._wire.exchange import EVENTS, JSON, ClientRequest
from cachekit_adapters._wire.headers import counts, sealed
from cachekit_adapters._wire.operation import Operation
from cachekit_adapters._wire.versions import Version

_ANY: Final = frozenset({"*/*", JSON, EVENTS})


class Question(NamedTuple):
    """A request that the cache takes part in. `identity` lacks the body where the request is `divisible`.

    `server` is the URL before the route, `scope` names whose rate limit the request counts against.
    """

    request: ClientRequest
    identity: dict[str, Any]
    divisible: bool
    server: str
    scope: str


def question_of(operation: Operation, request: Any, base: str, *, is_async: bool) -> Question | None:
    """None for a request that is none of this operation's. `base` is the path of the client's base URL."""
    route = operation.route(request.url.path, base) if request.method == "POST" else None
    body = None if route is None else _body(request)
    if route is None or body is None:
        return None
    prefix, path = route
    identified = operation.identity(path, body)
    if identified is None:
        return None
    place, identifying = identified
    origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
    identity = {"base": origin, "path": prefix + place, "tenant": None, **_besides(request)}
    parts = None if operation.batches is None else operation.batches.split(path, body)
    divisible = parts is not None and parts != [identifying]
    if not divisible:
        identity["body"] = identifying
    return Question(ClientRequest(request, path, body, is_async), identity, divisible, origin + prefix, origin + prefix)


def versioned(question: Question, version: Version) -> Question:
    """The same, of this version of the model only."""
    identity = {**question.identity, "version": version.text}
    return question._replace(request=question.request._replace(about=version.about), identity=identity)


def _body(request: Any) -> Any:
    """The JSON of a request, None where it has none."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        return None
    try:
        return json.loads(request.content)
    except (ValueError, RecursionError, RuntimeError):  # the last: a body that can be read only once
        return None


def _besides(request: Any) -> dict[str, Any]:
    """Headers and query that may change the answer; of what may be a secret a digest, and never an API's own key."""
    headers: list[list[str]] = []
    for raw, value in request.headers.raw:
        name = _counting(raw)
        if name and (name != "accept" or _particular(value)):
            headers.append([name, sealed(name, value.decode("latin-1"))])
    besides: dict[str, Any] = {"headers": sorted(headers)} if headers else {}
    if request.url.query:
        query = [[name, sealed(name, text)] for name, text in request.url.params.multi_items() if counts(name.lower())]
        besides |= {"query": sorted(query)} if query else {}
    return besides


@functools.lru_cache(1024)
def _counting(raw: bytes) -> str:
    """The name of a header that may change the answer, else ""."""
    name = raw.decode("latin-1").lower()
    return name if name == "accept" or counts(name) else ""


@functools.lru_cache(256)
def _particular(accepted: bytes) -> bool:
    """Whether an `Accept` asks for something else than what the server gives anyway."""
    parts = accepted.decode("latin-1").split(",")
    return not _ANY.issuperset(part.partition(";")[0].strip() for part in parts)
