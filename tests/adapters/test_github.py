"""GitHub's REST and GraphQL APIs through `GitHub()`, against a labelled stand-in that speaks their shapes over TLS."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from peers.github import Service, github_service

import cachekit
from cachekit_adapters.github import GitHub, RateLimited, nouns

ISSUES = "/repos/octo/hello/issues"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with github_service(tmp_path) as running:
        monkeypatch.setenv("SSL_CERT_FILE", str(running.certificate))
        running.documents = {"/repos/octo/hello": {"id": 7}, ISSUES: [{"number": 1}], "/repos/octo/other": {"id": 8}}
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[GitHub]:
    with GitHub("alice-1", service.host) as made:
        yield made


@pytest.fixture
def hasty(service: Service) -> Iterator[GitHub]:
    """A client for which everything is past its TTL at once."""
    with GitHub("alice-1", service.host, ttl=0) as made:
        yield made


def test_a_read_is_kept(service: Service, client: GitHub) -> None:
    """The second read asks nobody, and has the same status, headers and body."""
    first, second = client.get("/repos/octo/hello"), client.get("repos/octo/hello/")
    assert first == second
    assert (first.status, first.json(), "etag" in first.headers) == (200, {"id": 7}, True)
    assert len(service.asked()) == 1


def test_parameters_count(service: Service, client: GitHub) -> None:
    """Another query, another Accept are other questions; their order and how they are given are not."""
    client.get(ISSUES, {"state": "open", "page": 1})
    client.get(f"{ISSUES}?page=1&state=open")
    client.get(ISSUES, {"state": "closed", "page": 1})
    client.get(ISSUES, {"state": "closed", "page": 1}, headers={"Accept": "application/vnd.github.raw+json"})
    assert len(service.asked()) == 3


def test_a_304_renews_what_is_kept(service: Service, hasty: GitHub) -> None:
    """Past the TTL the ETag is sent; what is still so comes without its body, what is not anew."""
    first = hasty.get("/repos/octo/hello")
    assert hasty.get("/repos/octo/hello") == first
    service.documents["/repos/octo/hello"] = {"id": 70}
    assert hasty.get("/repos/octo/hello").json() == {"id": 70}
    sent = [each.headers.get("if-none-match") for each in service.asked()]
    assert sent == [None, first.headers["etag"], first.headers["etag"]]


def test_a_304_begins_a_new_ttl(service: Service, hasty: GitHub, client: GitHub) -> None:
    """After a 304 the next read is a hit again, for as long as the noun says."""
    hasty.get("/repos/octo/hello")
    client.get("/repos/octo/hello")
    client.get("/repos/octo/hello")
    assert ["if-none-match" in each.headers for each in service.asked()] == [False, True]


@pytest.mark.parametrize(
    "refusal",
    [
        (429, {}, {"message": "slow down"}),
        (403, {"Retry-After": "30"}, {"message": "secondary rate limit"}),
        (
            403,
            {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "9999999999"},
            {"message": "API rate limit exceeded"},
        ),
        (500, {}, {"message": "oh"}),
        (502, {}, None),
    ],
)
def test_a_refusal_brings_what_was_kept(
    service: Service, hasty: GitHub, refusal: tuple[int, dict[str, str], object]
) -> None:
    """A rate limit or a failure serves the old answer, and is itself never kept."""
    first = hasty.get("/repos/octo/hello")
    service.refusals.append(refusal)
    assert hasty.get("/repos/octo/hello") == first
    other = GitHub("bob-1", service.host)
    service.refusals.append(refusal)
    assert other.get("/repos/octo/hello").status == refusal[0]
    other.close()


def test_no_network_brings_what_was_kept(service: Service, hasty: GitHub) -> None:
    """Where GitHub cannot be reached the old answer stands in; without one httpx's own exception passes."""
    first = hasty.get("/repos/octo/hello")

    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no route", request=request)

    with httpx.Client(transport=httpx.MockTransport(unreachable)) as cut:
        client = GitHub("alice-1", service.host, client=cut, ttl=0)
        assert client.get("/repos/octo/hello") == first
        with pytest.raises(httpx.ConnectError):
            client.get("/repos/octo/other")


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_plain_refusal_passes(service: Service, hasty: GitHub, status: int) -> None:
    """What is gone or forbidden is said, and what was kept of it does not come back when GitHub fails next."""
    hasty.get("/repos/octo/hello")
    service.refusals.append((status, {}, {"message": "no"}))
    assert hasty.get("/repos/octo/hello").status == status
    service.refusals.append((500, {}, None))
    assert hasty.get("/repos/octo/hello").status == 500


def test_after_a_rate_limit_the_account_is_left_alone(service: Service, hasty: GitHub) -> None:
    """While the account cools down nothing is sent: what is kept is served, and for the rest RateLimited says how long."""
    first = hasty.get("/repos/octo/hello")
    service.refusals.append((429, {"Retry-After": "120"}, None))
    assert [hasty.get("/repos/octo/hello") for _ in range(3)] == [first] * 3
    with pytest.raises(RateLimited) as refused:
        hasty.get("/repos/octo/other")
    assert 100 < refused.value.seconds <= 120
    assert len(service.asked()) == 2
    with GitHub("bob-1", service.host) as other:
        assert other.get("/repos/octo/other").status == 200
        assert other.get("/search/issues").status == 404


def test_a_limit_that_is_used_up_is_heeded(service: Service, hasty: GitHub) -> None:
    """An answer that says that none is left keeps the account silent until the reset."""
    service.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 300)}
    assert hasty.get("/repos/octo/hello").status == 200
    with pytest.raises(RateLimited):
        hasty.get("/repos/octo/other")


def test_other_processes_leave_it_alone_too(service: Service, client: GitHub, own_cache: Path) -> None:
    """A rate limit that another process met holds here."""
    code = (
        "import cachekit; from cachekit_adapters.github import GitHub; import sys\n"
        f"cachekit.configure(dir={str(own_cache)!r}, ipfs='off')\n"
        f"with GitHub('alice-2', {service.host!r}) as client: print(client.get('/repos/octo/hello').status)\n"
    )
    service.refusals.append((429, {"Retry-After": "90"}, None))
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{root}:{root / 'adapters'}", "SSL_CERT_FILE": str(service.certificate)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "429"
    with pytest.raises(RateLimited):
        client.get("/repos/octo/hello")


def test_other_processes_hit(service: Service, client: GitHub, own_cache: Path) -> None:
    """What another process asked with another token of the account is kept for this one."""
    code = (
        "import cachekit; from cachekit_adapters.github import GitHub\n"
        f"cachekit.configure(dir={str(own_cache)!r}, ipfs='off')\n"
        f"with GitHub('alice-2', {service.host!r}) as client: client.get('/repos/octo/hello')\n"
    )
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root}:{root / 'adapters'}", "SSL_CERT_FILE": str(service.certificate)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert client.get("/repos/octo/hello").json() == {"id": 7}
    assert len(service.asked()) == 1


def test_without_a_cache(service: Service, tmp_path: Path) -> None:
    """Where the cache is off reads and changes go through, whatever stands in the place of its directory."""
    (tmp_path / "file").touch()
    with cachekit.configure(mode="off", dir=tmp_path / "file"), GitHub("alice-1", service.host) as client:
        assert [client.get("/repos/octo/hello").status, client.post(ISSUES, {}).status] == [200, 201]


def test_modes(service: Service, client: GitHub) -> None:
    """Bypassed it is asked each time; in replay only what is kept is told."""
    with cachekit.bypass():
        client.get("/repos/octo/hello")
        client.get("/repos/octo/hello")
    assert len(service.asked()) == 2
    client.get("/repos/octo/hello")
    with cachekit.mode("replay"):
        assert client.get("/repos/octo/hello").json() == {"id": 7}
        with pytest.raises(cachekit.CacheMiss):
            client.get("/repos/octo/other")


def test_a_new_token_of_the_account_hits(service: Service, client: GitHub) -> None:
    """The account counts, not its token; another account asks for itself, and so does nobody."""
    client.get("/repos/octo/hello")
    for token, asked in (("alice-2", 1), ("bob-1", 2), ("", 3), ("app", 4), ("app", 4)):
        with GitHub(token, service.host) as other:
            assert other.get("/repos/octo/hello").status == 200
        assert len(service.asked()) == asked, token
    assert len(service.asked("/user")) == 4


def test_no_token_is_written(service: Service, own_cache: Path) -> None:
    """No file below the cache directory holds a token, nor does a statistic or an explanation."""
    with GitHub("alice-1", service.host) as client:
        client.get("/repos/octo/hello", headers={"X-Gateway-Token": "sesame-open"})
        client.graphql("{ viewer { login } }")
    cachekit.flush()
    written = b"".join(path.read_bytes() for path in own_cache.rglob("*") if path.is_file())
    assert b"alice" in written  # so that the search is known to see something
    assert not [secret for secret in (b"alice-1", b"sesame-open") if secret in written]


def test_a_change_ends_reads_of_its_repository(service: Service, client: GitHub) -> None:
    """A POST below a repository ends what is kept of it, its parents, and lists over several; another repository stays."""
    service.documents["/search/issues"] = {"total_count": 0}
    paths = ["/repos/octo/hello", ISSUES, "/search/issues", "/repos/octo/other"]
    for path in paths:
        client.get(path)
    assert client.post("/repos/Octo/Hello/issues", {"title": "x"}).status == 201
    for path in paths:
        client.get(path)
    assert [len(service.asked(path)) for path in paths] == [2, 2, 2, 1]


@pytest.mark.parametrize("method", ["post", "patch", "put", "delete"])
def test_changes_are_always_sent(service: Service, client: GitHub, method: str) -> None:
    """A mutation is never kept, and ends the read of its own path."""
    service.documents["/repos/octo/hello/labels/x"] = {"name": "x"}
    if method == "post":
        service.documents["/repos/octo/hello/labels/x"] = []
    client.get("/repos/octo/hello/labels/x")
    for _ in range(2):
        getattr(client, method)("/repos/octo/hello/labels/x")
    client.get("/repos/octo/hello/labels/x")
    assert len(service.asked("/repos/octo/hello/labels/x", method.upper())) == 2
    assert len(service.asked("/repos/octo/hello/labels/x")) == 2


def test_a_change_that_failed_ends_reads_too(service: Service, client: GitHub) -> None:
    """A mutation whose answer is a failure may have been done."""
    client.get(ISSUES)
    service.refusals.append((502, {}, None))
    assert client.post(ISSUES, {}).status == 502
    client.get(ISSUES)
    assert len(service.asked(ISSUES)) == 2


def test_pages(service: Service, client: GitHub) -> None:
    """All pages of a list, each kept by itself."""
    service.documents[ISSUES] = [{"number": number} for number in range(5)]
    for _ in range(2):
        numbers = [issue["number"] for page in client.pages(ISSUES, {"per_page": 2}) for issue in page.json()]
        assert numbers == [0, 1, 2, 3, 4]
    assert len(service.asked()) == 3


def test_a_moved_repository_is_followed(service: Service, client: GitHub) -> None:
    """A redirect on the host is followed, and the answer is kept under its new name."""
    moved = (301, {"Location": f"https://{service.host}/api/v3/repos/octo/hello"}, {"message": "Moved"})
    service.refusals.append(moved)
    assert client.get("/repos/octo/old").json() == {"id": 7}
    assert client.get("/repos/octo/hello").json() == {"id": 7}
    assert len(service.asked("/repos/octo/hello")) == 1


def test_what_is_never_kept(service: Service, client: GitHub) -> None:
    """The state of the rate limit, and tokens that are handed out, are asked each time."""
    for path in ("/rate_limit", "/repos/octo/hello/actions/runners/registration-token"):
        service.documents[path] = {"token": "x"}
        client.get(path)
        client.get(path)
        assert len(service.asked(path)) == 2


@pytest.mark.parametrize(
    ("path", "seconds"),
    [
        ("repos/o/r", 300),
        ("repos/o/r/actions/runs", 60),
        ("repos/o/r/actions/runs/5/jobs", 60),
        ("orgs/o/actions/runners", 30),
        ("repos/o/r/contents/docs/runners/a.md", 300),
        ("something/new", 60),
    ],
)
def test_seconds_by_noun(path: str, seconds: float) -> None:
    """The shortest of a path's nouns holds; a file's own name is none."""
    assert nouns.ttl_of(path) == seconds


def test_hosts_do_not_answer_for_each_other(client: GitHub) -> None:
    """github.com, a tenant of ghe.com and a server of one's own are asked where their APIs are."""
    bases = [GitHub("", host)._base for host in ("github.com", "octo.ghe.com", "git.example:8443")]
    assert bases == ["https://api.github.com/", "https://api.octo.ghe.com/", "https://git.example:8443/api/v3/"]
