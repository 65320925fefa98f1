"""What a command of `gh` does: reads, changes, or neither; and what its flags say. One table, and no guess.

What the table does not know is run and not kept, and ends what is kept of the host: an alias or an extension may change
anything. A change in one repository ends what is kept of that.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cachekit_adapters._wire.headers import is_secret
from cachekit_adapters.github import nouns
from cachekit_adapters.github.queries import Query, query_of

READS: Final = {
    "pr": {**dict.fromkeys(("list", "view", "status", "diff"), "pulls"), "checks": "checks"},
    "issue": dict.fromkeys(("list", "view", "status"), "issues"),
    "repo": dict.fromkeys(("list", "view"), "repos"),
    "release": dict.fromkeys(("list", "view"), "releases"),
    "run": dict.fromkeys(("list", "view"), "runs"),
    "workflow": dict.fromkeys(("list", "view"), "workflows"),
    "label": {"list": "labels"},
    "secret": {"list": "secrets"},
    "variable": dict.fromkeys(("list", "get"), "variables"),
    "cache": {"list": "caches"},
    "gist": dict.fromkeys(("list", "view"), "gists"),
    "search": dict.fromkeys(("code", "commits", "issues", "prs", "repos"), "search"),
    "ruleset": dict.fromkeys(("list", "view", "check"), "rulesets"),
    "project": dict.fromkeys(("list", "view", "field-list", "item-list"), "projects"),
    "org": {"list": "orgs"},
    "ssh-key": {"list": "keys"},
    "gpg-key": {"list": "keys"},
}
"""The verbs of each noun that read, and what their answers are about."""

HARMLESS: Final = frozenset(
    {
        *("", "alias", "attestation", "auth", "browse", "completion", "config", "extension", "help", "licenses"),
        *("preview", "status", "version", "gist clone", "pr checkout", "release download", "release verify"),
        *("release verify-asset", "repo clone", "repo set-default", "run download", "run watch"),
    }
)
"""What neither reads for us nor changes what is kept."""

_ANYWHERE: Final = frozenset({"gist", "gpg-key", "org", "search", "ssh-key"})
"""Nouns that ask the same from every directory."""

_SHOWING: Final = frozenset({"--web", "--watch", "--help", "--exit-status"})
_NAMED: Final = ("method", "field", "raw-field", "header", "hostname", "input", "jq", "template", "cache", "preview")
_SHORT: Final = {
    "X": "method",
    "F": "field",
    "f": "raw-field",
    "H": "header",
    "q": "jq",
    "t": "template",
    "p": "preview",
}
_BARE: Final = frozenset({"paginate", "slurp", "silent", "allow-escape-sequences"})
_ADDRESS: Final = re.compile(r"(?:[a-z+]+://)(?:[^@/]*@)?([^/]+)", re.IGNORECASE)
_WHOLE: Final = re.compile(r"([^/\s-][^/\s]*)/[^/\s]+/[^/\s]+$")
_PLACEHOLDER: Final = re.compile(r"\{(?:owner|repo|branch)\}|:(?:owner|repo|branch)\b")


class Command(NamedTuple):
    """`does` is read, change or nothing. A read has a `ttl` and the `resource` whose rate limit it counts against.

    `repo` is `owner/name` where that is certain, `host` where it is said. `located`: what it is about depends on the
    directory's repository. `api`: it is `gh api`, `single`: of one request, whose headers gh can show. `query` is its GraphQL.
    """

    does: str
    ttl: float = 0.0
    repo: str = ""
    host: str = ""
    located: bool = True
    api: bool = False
    single: bool = False
    resource: str = "graphql"
    query: Query | None = None


NOTHING: Final = Command("nothing", located=False)


def command_of(arguments: Sequence[str], directory: Path) -> Command:
    """What `gh` with these arguments does, called in `directory`."""
    if not arguments or arguments[0] in ("--help", "-h", "--version"):
        return NOTHING
    if arguments[0].startswith("-"):  # gh takes the flags of a verb before its noun too
        return Command("change")
    if arguments[0] == "api":
        return _api(arguments[1:], directory)
    host, repo, verb, certain = _spoken(arguments[1:])
    words = f"{arguments[0]} {verb}"
    if words in HARMLESS or (arguments[0] in HARMLESS and words != "extension exec"):
        return NOTHING
    about, elsewhere = READS.get(arguments[0], {}).get(verb), _elsewhere(arguments)
    if about is None:
        # What has a slash may name another repository, which changes too (`issue transfer`).
        alone = certain and sum("/" in argument for argument in arguments) == 1
        return Command("change", repo=repo if alone else "", host=elsewhere or host)
    if elsewhere:
        return NOTHING
    if any(_shows(argument) for argument in arguments[1:] if (arguments[0], verb) != ("run", "list")):
        return NOTHING
    resource = "search" if about == "search" else "graphql"
    located = not certain and arguments[0] not in _ANYWHERE
    return Command("read", nouns.TTLS[about], repo if certain else "", host, located, resource=resource)


def _elsewhere(arguments: Sequence[str]) -> str:
    """The host that an argument names by itself: an address, or `HOST/OWNER/REPO`, which `gh repo` takes."""
    for before, argument in itertools.pairwise(arguments):
        if before in ("-R", "--repo") or argument.startswith(("-R", "--repo=")):
            continue
        found = _ADDRESS.match(argument) or (_WHOLE.match(argument) if arguments[0] == "repo" else None)
        if found:
            return found[1].lower().removeprefix("api.").removeprefix("www.")
    return ""


def _shows(argument: str) -> bool:
    """Whether a flag opens a browser, or waits: by its name, or among other letters. `gh run list -w` names a workflow."""
    if argument.startswith("--"):
        return argument.partition("=")[0] in _SHOWING
    return argument.startswith("-") and argument[1:2] != "R" and ("w" in argument or "h" in argument)


def _spoken(arguments: Sequence[str]) -> tuple[str, str, str, bool]:
    """Host and repository of `--repo`, the verb, and whether the repository is certain: no flag's value looks like it."""
    repos, verb = list[str](), ""
    certain, at = True, 0
    while at < len(arguments):
        flag, equals, value = arguments[at].partition("=")
        if flag in ("-R", "--repo") or (flag.startswith("-R") and not flag.startswith("--")):
            certain = certain and not (at and arguments[at - 1].startswith("-") and "=" not in arguments[at - 1])
            if not equals and flag in ("-R", "--repo"):
                at += 1
                value = arguments[at] if at < len(arguments) else ""
            repos.append(value or flag[2:])
        elif not verb and not flag.startswith("-"):
            verb = arguments[at]
        at += 1
    if len(repos) != 1:
        return "", "", verb, False
    return *named(repos[0]), verb, certain


def named(text: str) -> tuple[str, str]:
    """Host, "" where it is not said, and `owner/name` of a repository as `--repo` and GH_REPO take it."""
    parts = text.lower().removeprefix("https://").removesuffix(".git").strip("/").split("/")
    return ("" if len(parts) < 3 else parts[-3]), "/".join(parts[-2:])


class _Unclear(Exception):
    """A flag that `gh api` has and this does not know."""


def _api(arguments: Sequence[str], directory: Path) -> Command:
    try:
        options = list(_options(arguments))
    except _Unclear:
        return Command("change", api=True)
    said = dict(options)
    paths = [value for name, value in options if name == ""]
    located = any(_PLACEHOLDER.search(value) for _, value in options)
    host, fields = said.get("hostname", "").lower(), [value for name, value in options if name.endswith("field")]
    method = said.get("method", "POST" if fields or "input" in said else "GET").upper()
    if len(paths) != 1 or "help" in said:
        return NOTHING
    if paths[0].strip("/") == "graphql":
        return _graphql(host, located, options, directory)
    if paths[0].startswith("http"):  # of a host that it names itself
        return Command("change" if method != "GET" else "nothing", host=_elsewhere(("api", paths[0])))
    place = nouns.path_of(paths[0])
    if method not in ("GET", "HEAD", "OPTIONS"):
        return Command("change", repo="" if located else nouns.repo_of(place), host=host, located=located, api=True)
    ttl = nouns.ttl_of(place)
    if ttl is None or method != "GET" or _unkept(options):
        return NOTHING
    repo = "" if located else nouns.repo_of(place)
    return Command("read", ttl, repo, host, located, True, "paginate" not in said, nouns.resource(place))


def _graphql(host: str, located: bool, options: Sequence[tuple[str, str]], directory: Path) -> Command:
    said, rest = dict[str, str](), list[tuple[str, str]]()
    for name, value in options:
        field, _, text = value.partition("=")
        if name.endswith("field") and field in ("query", "operationName"):
            said[field] = _read(directory, text[1:]) if name == "field" and text.startswith("@") else text
        else:
            rest.append((name, value))
    query = query_of(said.get("query", ""), said.get("operationName"))
    if query.kind != "query" or _unkept(rest):
        return Command("nothing" if query.kind in ("query", "subscription") else "change", host=host, api=True)
    single = not any(name == "paginate" for name, _ in rest)
    return Command("read", nouns.TTLS["graphql"], "", host, located, True, single, query=query)


def _read(directory: Path, name: str) -> str:
    """The document in a file, "" where there is none to be had."""
    try:
        return (directory / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _unkept(options: Sequence[tuple[str, str]]) -> bool:
    """Whether a request is none to keep: gh's own cache, headers of one exchange, a body or a secret that is not seen."""
    for name, value in options:
        header = value.partition(":")[0].strip().lower()
        if name in ("cache", "include", "verbose", "input"):
            return True
        if name.endswith("field") and is_secret(value.partition("=")[0]):
            return True
        if name == "" and any(is_secret(field.partition("=")[0]) for field in value.partition("?")[2].split("&")):
            return True
        if name == "field" and value.partition("=")[2].startswith("@"):
            return True
        if name == "header" and (is_secret(header) or header.startswith("if-")):
            return True
    return False


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and value of each flag of `gh api`; of an argument that is no flag the name is ""."""
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            yield from (("", rest) for rest in waiting)
            return
        if argument.startswith("--"):
            name, equals, value = argument[2:].partition("=")
            if name in _NAMED:
                yield name, value if equals else _value(waiting)
            elif name in _BARE | {"include", "verbose", "help"} and not equals:
                yield name, ""
            else:
                raise _Unclear(name)
        elif argument.startswith("-") and argument != "-":
            yield from _short(argument[1:], waiting)
        else:
            yield "", argument


def _short(letters: str, waiting: list[str]) -> Iterator[tuple[str, str]]:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in _SHORT:
            yield _SHORT[letter], letters.removeprefix("=") if letters else _value(waiting)
            return
        if letter not in "ih":
            raise _Unclear(letter)
        yield ("include" if letter == "i" else "help"), ""


def _value(waiting: list[str]) -> str:
    if not waiting:
        raise _Unclear
    return waiting.pop(0)
