"""What a call of tritonclient's `infer` asks: its identity, and whether the answer depends on the call alone."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from cachekit import Wanted
from cachekit_adapters._wire.headers import FRAMING, counts, sealed
from cachekit_adapters.ovms import wire

PLACES: Final = (
    *("model_name", "inputs", "model_version", "outputs", "request_id", "sequence_id", "sequence_start"),
    *("sequence_end", "priority", "timeout", "headers", "query_params", "request_compression_algorithm"),
    *("response_compression_algorithm", "parameters"),
)
"""The parameters of `infer`, in their order."""

NEUTRAL: Final = wire.NEUTRAL | {
    *("request_id", "request_compression_algorithm", "response_compression_algorithm"),
}
"""Those that do not change the answer."""


@dataclass(frozen=True, slots=True)
class Inference:
    """One call of `infer`. `versions` are those that the server says it serves, None where nobody asked it.

    `place` is the part of `identity` that says which model of which server; `metadata` the arguments to ask for it.
    """

    identity: dict[str, Any]
    place: dict[str, Any]
    metadata: dict[str, Any]
    request_id: str
    versions: tuple[str, ...] | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(False, self.request_id, str(self.place["base"]))

    @property
    def model(self) -> tuple[Any, Any]:
        return self.place["model"], self.place["version"]

    def at(self, versions: tuple[str, ...]) -> Inference:
        return replace(self, versions=versions, identity={**self.identity, "serves": versions})

    def surprised_by(self, version: str | None) -> bool:
        """Whether an answer's version is another than the server told of: the model was redeployed in between."""
        return self.versions is not None and version not in self.versions


ASKED_BY: Final[WeakKeyDictionary[Any, Inference]] = WeakKeyDictionary()
"""By what call a live result came: the result itself does not say."""


def call_of(client: Any, base: str, args: Any, kwargs: Any) -> Inference | None:
    """None for what only the server can answer (sequences, shared memory), and for what the SDK itself refuses."""
    given = dict(zip(PLACES, args, strict=False))
    if len(args) > len(PLACES) or not given.keys().isdisjoint(kwargs):
        return None
    given |= kwargs
    try:
        return _identified(client, base, given) if _plain(given) else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # no tensors of tritonclient: the SDK says so better


def endpoint(client: Any) -> str:
    """Scheme, host, port and path, without the name and password that a URL may have."""
    url = urlsplit(client._url if hasattr(client, "_url") else str(client._parsed_url))
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    return f"{url.scheme}://{url.hostname}:{port}{url.path.rstrip('/')}"


def _plain(given: Mapping[str, Any]) -> bool:
    """Whether the answer depends on the call alone."""
    inputs, outputs = given["inputs"], given.get("outputs")
    if isinstance(inputs, Iterator) or isinstance(outputs, Iterator):
        return False  # the SDK's alone to read
    reserved = wire.NEUTRAL.intersection(given.get("parameters") or ())
    return not reserved and wire.cacheable(inputs, outputs, given.get("sequence_id", 0))


def _identified(client: Any, base: str, given: Mapping[str, Any]) -> Inference:
    model, version = given["model_name"], given.get("model_version", "")
    headers, query = dict(given.get("headers") or {}), dict(given.get("query_params") or {})
    question = wire.identity(model, version, given["inputs"], given.get("outputs"), given.get("parameters"))
    question["inputs"] = [_digested(tensor) for tensor in cast("list[dict[str, Any]]", question["inputs"])]
    place = {"base": base, "model": model, "version": version, "query": query}
    place["headers"] = _counting(_going_out(client, headers))
    # What this version of the SDK does not have yet counts.
    unknown = {name: value for name, value in given.items() if name not in PLACES}
    metadata = {
        "model_name": model,
        "model_version": version,
        # `infer` itself leaves some of these in the caller's dict.
        "headers": {name: value for name, value in headers.items() if str(name).lower() not in FRAMING} or None,
        "query_params": query or None,
    }
    return Inference({**place, **question, **unknown}, place, metadata, given.get("request_id") or "")


def _digested(tensor: dict[str, Any]) -> dict[str, Any]:
    """With a digest for its bytes: a call of plain text and numbers is recognised without building its key again."""
    if not isinstance(tensor["data"], bytes):
        return tensor
    return {**tensor, "data": None, "sha256": hashlib.sha256(tensor["data"]).hexdigest()}


def _going_out(client: Any, headers: dict[str, Any]) -> dict[str, Any]:
    """The headers as they go out: a plugin of the client may add some."""
    plugin = client.plugin()
    if plugin is None:
        return headers
    request = importlib.import_module("tritonclient._request").Request(dict(headers))
    plugin(request)
    return dict(request.headers or {})


def _counting(headers: Mapping[str, Any]) -> dict[str, str]:
    """Those that may change the answer. Host counts: KServe's ingress finds the model by it."""
    sent = {str(name).lower(): str(value) for name, value in headers.items()}
    return {name: sealed(name, value) for name, value in sent.items() if name == "host" or counts(name)}
