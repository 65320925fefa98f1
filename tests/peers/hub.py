"""A STAND-IN for the Hugging Face Hub, not the Hub: plain HTTP on loopback that answers as its API does.

What it has: infos (whole, and of named fields), trees, commits, searches, accounts by token, and files to download. A
test commits, refuses, and counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

from .scripted import Reply, Request, Scripted, scripted_server

TOKENS = {"hf_alice-1": "alice", "hf_alice-2": "alice", "hf_bob-1": "bob"}
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repo:
    """One repository: `files` by path at its newest commit; each `commit()` gives it another SHA."""

    files: dict[str, bytes]
    commits: int = 1
    downloads: int = 5
    private: bool = False

    @property
    def sha(self) -> str:
        return hashlib.sha1(str(self.commits).encode()).hexdigest()

    def info(self, name: str, fields: list[str]) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in self.files]
        whole = {
            **{
                "id": name,
                "modelId": name,
                "sha": self.sha,
                "private": self.private,
                "gated": False,
                "disabled": False,
            },
            **{"downloads": self.downloads, "likes": 1, "tags": ["x"], "siblings": siblings, "createdAt": DATE},
            **{"lastModified": DATE, "cardData": {"license": "mit", "tags": ["x"]}, "author": name.partition("/")[0]},
            **{"config": {"model_type": "bert"}, "safetensors": {"parameters": {"F32": 10}, "total": 10}},
        }
        return {key: whole[key] for key in ("id", *fields) if key in whole} if fields else whole


@dataclass
class Hub:
    """The running stand-in. `refusals` are answered first, one each."""

    server: Scripted
    repos: dict[str, Repo] = field(default_factory=dict)
    refusals: list[Reply] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url

    def asked(self) -> list[str]:
        """What was asked, method and path with its query, without the questions for the account."""
        return [f"{each.method} {each.path}" for each in self.server.requests if "whoami" not in each.path]

    def answer(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        if url.path == "/api/whoami-v2":
            name = TOKENS.get(request.headers.get("authorization", "").rpartition(" ")[2])
            return _json({"name": name, "id": name, "type": "user"}) if name else _refused(401, "no such token")
        if self.refusals:
            return self.refusals.pop(0)
        if request.method == "POST":
            return _json({"url": f"{self.url}/made"})
        parts = url.path.strip("/").split("/")
        if parts[0] != "api":
            return self._file(parts, whole=request.method == "GET")
        name = "/".join(parts[2:4])
        if not name:
            return _json([repo.info(name, []) for name, repo in self.repos.items()])
        repo = self.repos.get(name)
        if repo is None:
            return _refused(404, "Repository not found", {"X-Error-Code": "RepoNotFound"})
        return _json(self._about(name, repo, parts[4:], parse_qs(url.query)))

    def _about(self, name: str, repo: Repo, what: list[str], query: dict[str, list[str]]) -> Any:
        if what[:1] == ["tree"]:
            return [
                {"type": "file", "path": path, "size": len(data), "oid": _oid(data)}
                for path, data in repo.files.items()
            ]
        if what[:1] == ["commits"]:
            authors = [{"user": "alice"}]
            return [{"id": repo.sha, "title": "t", "message": "", "date": DATE, "authors": authors}]
        return repo.info(name, query.get("expand", []))

    def _file(self, parts: list[str], *, whole: bool) -> Reply:
        repo, path = self.repos["/".join(parts[:2])], "/".join(parts[4:])
        data = repo.files[path]
        headers = {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": repo.sha, "X-Linked-Size": str(len(data))}
        return Reply(200, data if whole else b"", headers, kind="application/octet-stream")


@contextlib.contextmanager
def hub_service() -> Iterator[Hub]:
    """Run the stand-in."""
    running: list[Hub] = []
    with scripted_server(lambda request: running[0].answer(request)) as server:
        running.append(Hub(server))
        yield running[0]


def _json(value: Any) -> Reply:
    return Reply(200, json.dumps(value).encode())


def _refused(status: int, why: str, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps({"error": why}).encode(), {"X-Error-Message": why, **(headers or {})})


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
