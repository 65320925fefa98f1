"""What GitHub's paths are about: how long an answer is good, and which reads a change ends."""

from __future__ import annotations

import re
from typing import Final

TTLS: Final = {
    **dict.fromkeys(("runners", "events", "notifications"), 30.0),
    **dict.fromkeys(("runs", "jobs", "artifacts", "checks", "check-runs", "check-suites", "status", "statuses"), 60.0),
    **dict.fromkeys(("pulls", "issues", "comments", "reviews", "branches", "caches", "deployments"), 60.0),
    **dict.fromkeys(("search", "graphql", "projects", "rulesets", "code-scanning", "dependabot"), 60.0),
    **dict.fromkeys(("repos", "orgs", "users", "user", "gists", "releases", "tags", "workflows", "labels"), 300.0),
    **dict.fromkeys(("milestones", "commits", "contents", "git", "secrets", "variables", "keys", "teams"), 300.0),
}
"""Seconds for which an answer is good, by what a path is about; the shortest of its nouns holds."""

OTHERS: Final = 60.0
NEVER: Final = frozenset({"rate_limit", "applications", "app-manifests", "login"})
"""What a path begins with whose answer is of the moment, or a secret."""

_SECRET: Final = re.compile(r"access_tokens|registration-token|remove-token|generate-jitconfig|/scim/")
_REPO: Final = re.compile(r"repos/([^/]+)/([^/]+)(?:/|$)")
_FREE: Final = re.compile(r"/(?:contents|git/refs?|git/matching-refs|compare|branches|tags|commits)/.*$")


def path_of(text: str) -> str:
    """The path of an endpoint as people write it, with neither slashes around it nor the query."""
    return text.partition("?")[0].strip("/")


def ttl_of(path: str) -> float | None:
    """Seconds for which an answer is good; None for one that is not kept."""
    if path.partition("/")[0] in NEVER or _SECRET.search(f"/{path}"):
        return None
    nouns = _FREE.sub(lambda found: "/".join(found[0].split("/")[:2]), path).split("/")
    return min((TTLS[noun] for noun in nouns if noun in TTLS), default=OTHERS)


def repo_of(path: str) -> str:
    """`owner/name` in lower case, as GitHub takes them; "" for what is not in one repository."""
    found = _REPO.match(path)
    return "" if found is None else f"{found[1]}/{found[2]}".lower()


def resource(path: str) -> str:
    """Which of an account's rate limits a request counts against."""
    top = path.partition("/")[0]
    return top if top in ("search", "graphql") else "core"
