"""The Hugging Face Hub: HfApi's metadata kept for as long as its kind says, and snapshots that a team-mate has already.

    api = hub.wrap(HfApi())
    info = api.model_info("org/name")                      # kept for an hour, then confirmed by its commit
    directory = hub.snapshot("org/name", api=api)          # from this machine, from the team, else from the Hub

Downloads are huggingface_hub's own.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from cachekit import UsageError, persist_artifact
from cachekit_adapters._revalidating.accounts import account
from cachekit_adapters._revalidating.answers import Answer, RateLimited
from cachekit_adapters._revalidating.road import Question, Road
from cachekit_adapters._revalidating.tags import Tags
from cachekit_adapters._wire.headers import identifying
from cachekit_adapters.hub import operations
from cachekit_adapters.hub.operations import READS, Reading
from cachekit_adapters.hub.values import Unkept, dumped, loaded

__all__ = ["RateLimited", "snapshot", "wrap"]

_HOW: Final = frozenset({"token", "timeout"})
_COMMIT: Final = 40


def wrap(api: Any, **keywords: Any) -> Any:
    """A copy of an HfApi whose metadata is cached: infos, files, commits, refs, and searches with a `limit`.

    Past the TTL an info or a list of files is confirmed by the repo's commit, so its downloads and likes may be older. A
    method that changes something is always sent, and ends what is kept of its repo. `keywords` are those of
    `distributed_cache`. While the Hub wants to be left alone, what is not kept raises RateLimited; other exceptions are
    the SDK's own. Raises UsageError for what is no HfApi.
    """
    if not hasattr(api, "model_info") or not hasattr(api, "_build_hf_headers"):
        raise UsageError(f"hub.wrap() knows HfApi, not {type(api).__qualname__}")
    metadata, new = Metadata(api, Road("hub.metadata", **keywords)), copy.copy(api)
    for name in dir(api):
        real = getattr(api, name)
        if name.startswith("_") or not inspect.ismethod(real) or name in operations.THROUGH:
            continue
        how = {"read": metadata.read, "change": metadata.change}.get(operations.does(name))
        call = real if how is None else functools.wraps(real)(functools.partial(how, name, real))
        setattr(new, name, call)
    return new


class Metadata(NamedTuple):
    """The kept metadata of one HfApi; `api` is the one that was wrapped, which asks the Hub."""

    api: Any
    road: Road

    def read(self, name: str, real: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What the method gives, kept or asked."""
        reading, arguments = READS[name], _bound(real, args, kwargs)
        limit = arguments.get("limit")
        if reading.bounded and not (isinstance(limit, int) and limit <= operations.LARGEST):
            return real(*args, **kwargs)
        asking = _Asking(self, reading, arguments, functools.partial(real, *args, **kwargs))
        value = asking.value(self.road.ask(self._question(name, reading, arguments), asking.send))
        return iter(value) if reading.several else value

    def change(self, name: str, real: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What the method gives; it is always called, and ends what is kept of its repo."""
        repo = _bound(real, args, kwargs).get("repo_id")
        ends = self._tags.changed([str(repo or "")])
        given = self.road.changing(ends, functools.partial(real, *args, **kwargs))
        if isinstance(given, Future):  # of `run_as_future`: it changes the repo later
            given.add_done_callback(lambda _done: self.road.changing(ends, lambda: None))
        return given

    @property
    def _tags(self) -> Tags:
        return Tags("hub", urlsplit(self.api.endpoint).netloc.lower())

    def _question(self, name: str, reading: Reading, arguments: Mapping[str, Any]) -> Question:
        headers = dict(self.api._build_hf_headers(token=arguments.get("token")))
        who = self._account(headers, arguments.get("token"))
        asked = {key: _listed(value) for key, value in arguments.items() if key not in _HOW}
        identity = {"endpoint": self.api.endpoint, "account": who, "method": name, "arguments": asked}
        if others := identifying(headers.items()):
            identity["headers"] = others
        area = self._tags.area(str(arguments.get("repo_id") or ""))
        return Question(identity, reading.ttl, f"{self._tags.host} {who}".strip(), area, self._tags.all)

    def _account(self, headers: Mapping[str, str], token: Any) -> str:
        def who() -> Answer:
            try:
                told = self.api.whoami(token=token)
            except _refusals() as error:
                return _refused(error)
            return Answer(200, {}, json.dumps({"login": told["name"], "id": told.get("id", "")}).encode())

        return account(self._tags.host, headers.get("authorization", "").encode(), who)

    def validator(self, reading: Reading, arguments: dict[str, Any]) -> str:
        """By what an answer to these arguments is known to be still so; "" where nothing says."""
        if not reading.confirmed or not operations.confirmable(arguments):
            return ""
        kind = reading.kind or arguments.get("repo_type") or "model"
        how = {name: arguments[name] for name in ("revision", "token") if name in arguments}
        return operations.validator(
            getattr(self.api, f"{kind}_info")(arguments["repo_id"], expand=operations.FIELDS[kind], **how)
        )


class _Asking:
    """One read under way; what the SDK gave or raised is what its caller gets."""

    def __init__(
        self, metadata: Metadata, reading: Reading, arguments: dict[str, Any], real: Callable[[], Any]
    ) -> None:
        self._metadata, self._reading, self._arguments, self._real = metadata, reading, arguments, real
        self._given: Any = None
        self._error: Exception | None = None
        self._fresh = False

    def send(self, conditions: Mapping[str, str]) -> Answer:
        """What the Hub says, as an Answer whose ETag is the validator."""
        self._fresh, self._error = False, None
        try:
            # Before the answer: a commit in between makes the validator too old, and never too new.
            known = self._metadata.validator(self._reading, self._arguments) if self._asks_first(conditions) else ""
            if known and conditions.get("If-None-Match") == known:
                return Answer(304, {"etag": known}, b"")
            given = self._real()
        except _refusals() as error:
            self._error = error
            return _refused(error)
        if not self._asks_first(conditions) and operations.confirmable(self._arguments):
            known = operations.validator(given)
        self._given, self._fresh = list(given) if self._reading.several else given, True
        try:
            return Answer(200, {"etag": known} if known else {}, dumped(self._given))
        except Unkept:
            return Answer(200, {"cache-control": "no-store"}, b"")

    def _asks_first(self, conditions: Mapping[str, str]) -> bool:
        """Whether the commit must be asked for: an info says its own."""
        return bool(conditions) or not self._reading.kind

    def value(self, answer: Answer) -> Any:
        """The value of what the road gave. Raises what the SDK raised."""
        if answer.status != 200 and self._error is not None:
            raise self._error
        if self._fresh:
            return self._given
        try:
            if answer.status == 200:
                return loaded(answer.body)
        except (Unkept, ValueError, KeyError, TypeError):  # kept by an SDK with other classes
            pass
        # Or another thread was told no at the same time, by an exception that is not known here.
        given = self._real()
        return list(given) if self._reading.several else given


def _bound(real: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, defaults applied. Raises TypeError as the method itself would."""
    bound = inspect.signature(real).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _listed(value: Any) -> Any:
    """A one-time iterable would be read by the key."""
    return list(value) if isinstance(value, (set, frozenset, tuple)) else value


def _refusals() -> Any:
    return importlib.import_module("huggingface_hub.errors").HfHubHTTPError


def _refused(error: Any) -> Answer:
    response = error.response
    headers = {name.lower(): text for name, text in response.headers.items()}
    return Answer(response.status_code, headers, b"", str(error).encode())


def snapshot(
    repo_id: str,
    *,
    revision: str | None = None,
    repo_type: str = "model",
    allow_patterns: str | list[str] | None = None,
    ignore_patterns: str | list[str] | None = None,
    api: Any = None,
) -> Path:
    """A read-only directory with a repo's files at one commit: from this machine, else from a team-mate, else the Hub.

    A `revision` that is no commit is looked up, by `api` (a wrapped HfApi keeps that); a commit needs no network where
    somebody has it. Downloads go to huggingface_hub's own cache first. Raises what huggingface_hub raises.
    """
    hf = importlib.import_module("huggingface_hub")
    api = hf.HfApi() if api is None else api
    commit = revision or ""
    if len(commit) != _COMMIT or not set(commit) <= set("0123456789abcdef"):
        commit = getattr(api, f"{repo_type}_info")(repo_id, revision=revision).sha
    return _snapshot(repo_id, commit, repo_type, allow_patterns, ignore_patterns, api.endpoint, api=api)


def _downloaded(
    repo_id: str,
    commit: str,
    repo_type: str,
    allow_patterns: Any,
    ignore_patterns: Any,
    endpoint: str,
    *,
    api: Any,
) -> Path:
    """What huggingface_hub downloads: a directory of links into its own cache."""
    patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
    return Path(api.snapshot_download(repo_id, revision=commit, repo_type=repo_type, **patterns))


_downloaded.__module__, _downloaded.__qualname__ = "cachekit_adapters", "hub.snapshot"
_snapshot: Final = persist_artifact(version="1", ignore=("api",))(_downloaded)
