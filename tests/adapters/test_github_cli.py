"""The real `gh` through `github.gh([...])`, driven against a labelled stand-in for GitHub on loopback."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from peers.github import Service, gh_program, github_service, proxy_to

import cachekit
from cachekit_adapters import github
from cachekit_adapters.github import nouns
from cachekit_adapters.github.commands import command_of
from cachekit_adapters.github.queries import query_of

REQUIRED = os.environ.get("CACHEKIT_REQUIRE", "").split(",")
Gh = Callable[..., "subprocess.CompletedProcess[Any]"]
QUERY = (
    'query($n: Int!) { viewer { login } repository(owner: "octo", name: "hello") { issues(first: $n) { totalCount } } }'
)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in [name for name in os.environ if name.startswith(("GH_", "GITHUB_"))]:
        monkeypatch.delenv(name)
    with github_service(tmp_path) as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        monkeypatch.setenv("GH_HOST", running.host)
        monkeypatch.setenv("GH_CONFIG_DIR", str(tmp_path / "gh"))
        monkeypatch.setenv("GH_ENTERPRISE_TOKEN", "alice-1")
        monkeypatch.chdir(tmp_path)
        running.documents = {"/repos/octo/hello": {"id": 7}, "/repos/octo/hello/issues": [{"number": 1}, {"number": 2}]}
        yield running


@pytest.fixture
def gh(service: Service) -> Gh:
    program = gh_program()
    if program is None:
        assert "peers" not in REQUIRED, "no gh: `make peers`, or Debian's package gh"
        pytest.skip("no gh here: `make peers`, or Debian's package gh")

    def call(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[Any]:
        return github.gh(list(arguments), **{"text": True, "gh": program, **keywords})

    return call


def test_a_read_is_kept(service: Service, gh: Gh) -> None:
    """The second call runs no gh, and gives what `subprocess.run` gave: arguments, status, output, error output."""
    first, second = gh("api", "repos/octo/hello"), gh("api", "repos/octo/hello")
    assert (first.returncode, first.stdout, first.stderr) == (second.returncode, second.stdout, second.stderr)
    assert (first.args, json.loads(first.stdout)) == (["gh", "api", "repos/octo/hello"], {"id": 7})
    assert len(service.asked()) == 1


def test_output_is_gh_s_own(service: Service, gh: Gh) -> None:
    """What comes back is byte by byte what gh itself prints, with the headers that we asked for taken away."""
    for arguments in (["api", "repos/octo/hello"], ["api", "repos/octo/hello", "--jq", ".id"], ["api", "nothing"]):
        bare = subprocess.run([str(gh_program()), *arguments], capture_output=True, check=False)
        done = gh(*arguments, text=False)
        assert (done.returncode, done.stdout, done.stderr) == (bare.returncode, bare.stdout, bare.stderr)


def test_a_304_renews_what_is_kept(service: Service, gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the TTL gh asks with the ETag; the output is the same, filters included."""
    monkeypatch.setitem(nouns.TTLS, "repos", 0.0)
    outputs = [gh("api", "repos/octo/hello", "-q", ".id").stdout for _ in range(3)]
    assert outputs == ["7\n"] * 3
    sent = ["if-none-match" in each.headers for each in service.asked()]
    assert sent == [False, True, True]


def test_a_rate_limit_brings_what_was_kept(service: Service, gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal serves the old output, holds for the account, and for what is not kept it is said with exit status 1."""
    monkeypatch.setitem(nouns.TTLS, "repos", 0.0)
    first = gh("api", "repos/octo/hello")
    service.refusals.append(
        (403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, {"message": "limit"})
    )
    assert [gh("api", "repos/octo/hello").stdout for _ in range(2)] == [first.stdout] * 2
    refused = gh("api", "repos/octo/hello/issues")
    assert (refused.returncode, refused.stdout, len(service.asked())) == (1, "", 2)
    assert "left alone" in refused.stderr


def test_a_429_is_never_kept(service: Service, gh: Gh) -> None:
    """A refusal reaches the caller as gh told it, where nothing was kept, and the next call may be made at once."""
    service.refusals.append((429, {"Retry-After": "0"}, {"message": "slow down"}))
    refused = gh("api", "repos/octo/hello")
    assert (refused.returncode, "429" in refused.stderr) == (1, True)
    assert gh("api", "repos/octo/hello").returncode == 0


def test_a_new_token_of_the_account_hits(service: Service, gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login is learnt once a token, and counts in its place."""
    for token, asked in (("alice-1", 1), ("alice-2", 1), ("bob-1", 2), ("bob-1", 2)):
        monkeypatch.setenv("GH_ENTERPRISE_TOKEN", token)
        gh("api", "repos/octo/hello")
        assert len(service.asked()) == asked
    assert len(service.asked("/user")) == 3


def test_no_token_is_written(service: Service, gh: Gh, own_cache: Path) -> None:
    """No file below the cache directory holds a token."""
    gh("api", "repos/octo/hello")
    gh("api", "repos/octo/hello", "-H", "Authorization: token sesame-open")
    written = b"".join(path.read_bytes() for path in own_cache.rglob("*") if path.is_file())
    assert b"octo" in written or b'{"id"' in written
    assert not [secret for secret in (b"alice-1", b"sesame-open") if secret in written]


def test_any_token_may_be_the_one(service: Service, gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which variable gh takes its token from is gh's business: another one anywhere asks anew whose it is."""
    gh("api", "repos/octo/hello")
    monkeypatch.setenv("GITHUB_ENTERPRISE_TOKEN", "bob-1")
    monkeypatch.delenv("GH_ENTERPRISE_TOKEN")
    gh("api", "repos/octo/hello")
    assert len(service.asked()) == 2


def test_callers_at_the_same_time_are_each_told(service: Service, gh: Gh) -> None:
    """Whoever waited for another caller's gh gets what gh says, and not an error of ours."""
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: gh("api", "nothing"), range(4)))
    assert {(done.returncode, done.stderr) for done in told} == {(1, "gh: Not Found (HTTP 404)\n")}


def test_fields_make_a_change(service: Service, gh: Gh) -> None:
    """Fields without -X are a POST, and end what is kept of the repository; with -X GET they are a query."""
    for _ in range(2):
        gh("api", "repos/octo/hello/issues", "-X", "GET", "-f", "state=open")
    assert len(service.asked("/repos/octo/hello/issues")) == 1
    for _ in range(2):
        assert gh("api", "repos/octo/hello/issues", "-f", "title=x").returncode == 0
    gh("api", "repos/octo/hello/issues", "-X", "GET", "-f", "state=open")
    assert len(service.asked("/repos/octo/hello/issues", "POST")) == 2
    assert len(service.asked("/repos/octo/hello/issues")) == 2


def test_the_input_is_passed_on(service: Service, gh: Gh) -> None:
    """`--input -` sends what `input=` has, as a POST."""
    assert gh("api", "repos/octo/hello/issues", "--input", "-", input='{"title": "y"}').returncode == 0
    assert json.loads(service.asked("/repos/octo/hello/issues", "POST")[0].body) == {"title": "y"}


def test_pages(service: Service, gh: Gh) -> None:
    """`--paginate` is kept as one output, and is another call than the first page."""
    service.documents["/repos/octo/hello/issues"] = [{"number": number} for number in range(3)]
    for _ in range(2):
        done = gh("api", "repos/octo/hello/issues?per_page=2", "--paginate", "--jq", ".[].number")
        assert done.stdout.split() == ["0", "1", "2"]
    assert gh("api", "repos/octo/hello/issues?per_page=2", "--jq", ".[].number").stdout.split() == ["0", "1"]
    assert len(service.asked()) == 3


def test_headers_of_one_exchange_are_not_kept(service: Service, gh: Gh) -> None:
    """`--include` shows headers of the moment, so it is asked each time."""
    for _ in range(2):
        assert gh("api", "-i", "repos/octo/hello").stdout.startswith("HTTP/")
    assert len(service.asked()) == 2


def test_queries(service: Service, gh: Gh, tmp_path: Path) -> None:
    """A GraphQL query is kept however it is written, from a file too; its variables count."""
    (tmp_path / "query.graphql").write_text(f"# a comment\n{QUERY}\n", encoding="utf-8")
    for query in (f"query={QUERY}", "query=" + QUERY.replace(" { ", "\n{\n  "), "query=@query.graphql"):
        assert json.loads(gh("api", "graphql", "-F", query, "-F", "n=1").stdout)["data"]["viewer"]["login"] == "alice"
    assert len(service.asked()) == 1
    gh("api", "graphql", "-F", f"query={QUERY}", "-F", "n=2")
    assert len(service.asked()) == 2


def test_partial_answers_and_mutations_are_not_kept(service: Service, gh: Gh) -> None:
    """An answer with errors is asked again, and so is a mutation, which ends what is kept of the host."""
    gh("api", "repos/octo/hello")
    service.graphql = lambda query, variables: {"data": {"viewer": None}, "errors": [{"message": "no"}]}
    for _ in range(2):
        assert gh("api", "graphql", "-f", "query={ viewer { login } }").returncode == 1
    assert len(service.asked("/graphql", "POST")) == 2
    service.graphql = lambda query, variables: {"data": {"addStar": {"clientMutationId": None}}}
    for _ in range(2):
        gh("api", "graphql", "-f", 'query=mutation { addStar(input: {starrableId: "x"}) { clientMutationId } }')
    assert len(service.asked("/graphql", "POST")) == 4
    gh("api", "repos/octo/hello")
    assert len(service.asked("/repos/octo/hello")) == 2


LABELS = {
    "data": {
        "repository": {
            "labels": {
                "totalCount": 1,
                "nodes": [{"name": "bug", "color": "ff0000", "description": ""}],
                "pageInfo": {"hasNextPage": False, "endCursor": ""},
            }
        }
    }
}


def test_commands_of_gh(service: Service, gh: Gh) -> None:
    """`gh label list --json` is kept, what it prints is gh's own, and a change in the repository ends it."""
    service.graphql = lambda query, variables: LABELS
    repo = f"{service.host}/octo/hello"
    for _ in range(2):
        done = gh("label", "list", "-R", repo, "--json", "name", "--jq", ".[].name")
        assert (done.returncode, done.stdout) == (0, "bug\n")
    assert len(service.asked("/graphql", "POST")) == 1
    gh("api", "-X", "PATCH", "repos/octo/hello", "-f", "description=x")
    gh("label", "list", "-R", repo, "--json", "name", "--jq", ".[].name")
    assert len(service.asked("/graphql", "POST")) == 2


@pytest.fixture
def example(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host without a port, as gh takes it from a git remote, which is the stand-in behind a proxy."""
    with proxy_to(service) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("GH_HOST", "git.example")
        yield "git.example"


def test_the_directory_s_repository_counts(service: Service, gh: Gh, example: str, tmp_path: Path) -> None:
    """Without --repo the same command in another repository is another call, and so is one after a new remote."""
    service.graphql = lambda query, variables: LABELS
    arguments = ("label", "list", "--json", "name")
    for name in ("one", "two"):
        remote = f"https://{example}/octo/{name}.git"
        subprocess.run(["git", "init", "-q", name], check=True, cwd=tmp_path)
        subprocess.run(["git", "remote", "add", "origin", remote], check=True, cwd=tmp_path / name)
    for asked, name in enumerate(("one", "two"), 1):
        for _ in range(2):
            assert gh(*arguments, cwd=tmp_path / name).returncode == 0
        assert len(service.asked("/graphql", "POST")) == asked
    remote = f"https://{example}/octo/three.git"
    subprocess.run(["git", "remote", "set-url", "origin", remote], check=True, cwd=tmp_path / "one")
    gh(*arguments, cwd=tmp_path / "one")
    names = [json.loads(each.body)["variables"]["repo"] for each in service.asked("/graphql", "POST")]
    assert names == ["one", "two", "three"]


def test_another_repository_by_the_environment(service: Service, gh: Gh, monkeypatch: pytest.MonkeyPatch) -> None:
    """GH_REPO is part of the call, and so is what shapes the output."""
    service.graphql = lambda query, variables: LABELS
    for name, value in (
        ("GH_REPO", f"{service.host}/octo/one"),
        ("GH_REPO", f"{service.host}/octo/two"),
        ("NO_COLOR", "1"),
    ):
        monkeypatch.setenv(name, value)
        gh("label", "list")
    assert len(service.asked("/graphql", "POST")) == 3


def test_a_new_gh_asks_again(service: Service, gh: Gh, tmp_path: Path) -> None:
    """The program counts: what another version printed is not served."""
    other = tmp_path / "gh-other"
    other.write_text(f'#!/bin/sh\nexec {gh_program()} "$@"\n', encoding="utf-8")
    other.chmod(0o755)
    gh("api", "repos/octo/hello")
    gh("api", "repos/octo/hello", gh=str(other))
    assert len(service.asked()) == 2


def test_check_and_bytes(service: Service, gh: Gh) -> None:
    """`check` raises as subprocess does, and without `text` the output is bytes."""
    with pytest.raises(subprocess.CalledProcessError):
        gh("api", "nothing", check=True)
    assert gh("api", "repos/octo/hello", text=False).stdout == b'{"id": 7}'


def test_one_text_is_no_list(service: Service) -> None:
    """A text in place of a list is refused with the list that was meant."""
    with pytest.raises(cachekit.UsageError, match=r"\['pr', 'list'\]"):
        github.gh("pr list")


def test_no_gh(service: Service) -> None:
    """Without gh it is said which program is missing."""
    with pytest.raises(FileNotFoundError, match="no-such-gh"):
        github.gh(["api", "user"], gh="no-such-gh")


@pytest.mark.parametrize(
    ("arguments", "does", "repo"),
    [
        ("pr list -R o/r", "read", "o/r"),
        ("pr -R o/r list", "read", "o/r"),
        ("pr list --search -R --repo=x/y", "read", ""),
        ("pr view 5 --repo=h.example/O/R", "read", "o/r"),
        ("pr merge 5 -R o/r", "change", "o/r"),
        ("pr merge 5", "change", ""),
        ("pr view --web", "nothing", ""),
        ("pr view --web=true", "nothing", ""),
        ("pr view -wR o/r", "nothing", ""),
        ("run list -w ci.yml -R o/r", "read", "o/r"),
        ("run view -w -R o/r", "nothing", ""),
        ("pr list -Roctowhy/hello", "read", "octowhy/hello"),
        ("codespace delete", "change", ""),
        ("pr list -R o/r --state all --json number", "read", "o/r"),
        ("run watch 5", "nothing", ""),
        ("secret set X -R o/r", "change", "o/r"),
        ("co 5", "change", ""),
        ("-R o/r pr merge 5", "change", ""),
        ("issue transfer 5 other/name -R o/r", "change", ""),
        ("pr merge https://github.com/other/name/pull/5 -R o/r", "change", ""),
        ("pr view https://h.example/o/r/pull/5", "nothing", ""),
        ("repo view h.example/o/r", "nothing", ""),
        ("repo view o/r", "read", ""),
        ("extension exec anything", "change", ""),
        ("auth token", "nothing", ""),
        ("--version", "nothing", ""),
        ("api repos/o/r -XDELETE", "change", "o/r"),
        ("api repos/o/r -X=PATCH", "change", "o/r"),
        ("api repos/o/r --method PUT", "change", "o/r"),
        ("api repos/{owner}/{repo}/issues", "read", ""),
        ("api repos/o/r --cache 1h", "nothing", ""),
        ("api repos/o/r -iq.id", "nothing", ""),
        ("api repos/o/r -X HEAD", "nothing", ""),
        ("api repos/o/r -X GET -F body=@file", "nothing", ""),
        ("api repos/o/r?access_token=x", "nothing", ""),
        ("api repos/o/r -X GET -f client_secret=x", "nothing", ""),
        ("api repos/o/r --new-flag", "change", ""),
        ("api rate_limit", "nothing", ""),
        ("api graphql -f query=query{viewer{login}}", "read", ""),
        ("api graphql -f query=subscription{x}", "nothing", ""),
        ("api graphql -f query=not{graphql", "change", ""),
    ],
)
def test_what_a_command_does(arguments: str, does: str, repo: str) -> None:
    """Reads, changes and neither, by one table; what it does not know counts as a change."""
    command = command_of(arguments.split(" "), Path())
    assert (command.does, command.repo if command.does != "nothing" else "") == (does, repo)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("{ a(x: 1, y: 2) }", "query\n{ a ( x:1 y:2 ) # c\n}", False),
        ("{ a(x: 1, y: 2) }", "{a(x:1 y:2)}", True),
        ('{ a(x: "b  c") }', '{ a(x: "b c") }', False),
        ('{ a(x: """b # c""") }', '{ a(x: """b""") # c\n}', False),
        ("{ ab }", "{ a b }", False),
        ("{ a }", "\ufeff{ a, }", True),
    ],
)
def test_one_text_for_all_ways_of_writing(one: str, other: str, same: bool) -> None:
    """Space, commas and comments do not count; what stands in strings does."""
    assert (query_of(one).text == query_of(other).text) is same


@pytest.mark.parametrize(
    ("document", "operation", "kind"),
    [
        ("{ a }", None, "query"),
        ("query A { a } mutation B { b }", "A", "query"),
        ("query A { a } mutation B { b }", "B", "mutation"),
        ("query A { a } mutation B { b }", None, ""),
        ("fragment F on T { mutation } query { ...F }", None, "query"),
        ("subscription { a }", None, "subscription"),
        ("query A($x: In = {mutation: 1}) @d(y: {z: 1}) { a }", None, "query"),
        ("{ a", None, ""),
        ("{ a ? }", None, ""),
        ("", None, ""),
    ],
)
def test_which_operation_is_asked(document: str, operation: str | None, kind: str) -> None:
    """The kind of the operation that is asked for; none where that cannot be told."""
    assert query_of(document, operation).kind == kind


@pytest.mark.parametrize(
    ("arguments", "host"),
    [
        ("pr merge https://h.example/o/r/pull/5", "h.example"),
        ("repo delete h.example/o/r", "h.example"),
        ("api -X DELETE https://api.github.com/repos/o/r", "github.com"),
    ],
)
def test_a_change_ends_what_is_kept_of_the_host_that_it_names(arguments: str, host: str) -> None:
    """By an address, too, which gh takes in place of a number."""
    assert command_of(arguments.split(" "), Path())[:4] == ("change", 0.0, "", host)
