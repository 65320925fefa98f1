"""HfApi's metadata and snapshots, of the real huggingface_hub, against a labelled stand-in for the Hub."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from peers.hub import Hub, Repo, hub_service
from peers.scripted import Reply

import cachekit
from cachekit import UsageError, persist_artifact
from cachekit_adapters import hub, wrap
from cachekit_adapters.hub import operations
from cachekit_adapters.hub.values import Unkept, dumped, loaded

NAME = "org/model"


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    constants: Any = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    with hub_service() as running:
        running.repos[NAME] = Repo({"config.json": b"{}", "data/weights.bin": b"w" * 100})
        yield running
    importlib.import_module("huggingface_hub").close_session()


@pytest.fixture
def real(service: Hub) -> HfApi:
    return HfApi(endpoint=service.url, token="hf_alice-1")


@pytest.fixture
def api(real: HfApi) -> Any:
    return wrap(real)


@pytest.fixture
def hasty(real: HfApi) -> Any:
    """An API for which everything is past its TTL at once."""
    return hub.wrap(real, ttl=0)


CALLS: list[Callable[[Any], Any]] = [
    lambda api: api.model_info(NAME),
    lambda api: api.model_info(NAME, revision="main"),
    lambda api: api.dataset_info(NAME),
    lambda api: api.space_info(NAME),
    lambda api: api.list_repo_files(NAME),
    lambda api: list(api.list_repo_tree(NAME, recursive=True)),
    lambda api: api.list_repo_commits(NAME),
    lambda api: list(api.list_models(search="x", limit=5)),
]


@pytest.mark.parametrize("call", CALLS)
def test_reads_are_kept(service: Hub, real: HfApi, api: Any, call: Callable[[Any], Any]) -> None:
    """The second call asks nobody, and gives what the SDK itself gives: equal, and of its own types."""
    expected, first = call(real), call(api)
    asked = len(service.asked())
    second = call(api)
    assert (first, second) == (expected, expected)
    assert [type(each) for each in (first, second)] == [type(expected)] * 2
    assert repr(second) == repr(expected)
    assert len(service.asked()) == asked


def test_the_client_passed_in_stays_as_it_was(service: Hub, real: HfApi, api: Any) -> None:
    """Only the copy is cached, and it is an HfApi."""
    assert isinstance(api, HfApi)
    api.model_info(NAME)
    for _ in range(2):
        real.model_info(NAME)
    assert len([each for each in service.asked() if "expand" not in each]) == 3


def test_how_arguments_are_given_does_not_count(service: Hub, api: Any) -> None:
    """By position, by name or left out, it is the same call; timeouts are none of it."""
    api.model_info(NAME)
    asked = len(service.asked())
    api.model_info(repo_id=NAME, revision=None, timeout=7)
    assert len(service.asked()) == asked
    api.model_info(NAME, files_metadata=True)
    assert len(service.asked()) > asked


def test_a_commit_confirms_what_is_kept(service: Hub, hasty: Any) -> None:
    """Past the TTL only the commit is asked; downloads that grew are no other answer, a new commit is."""
    first = hasty.model_info(NAME)
    service.repos[NAME].downloads = 6
    asked = len(service.asked())
    assert hasty.model_info(NAME) == first
    assert ["expand" in each for each in service.asked()[asked:]] == [True]
    service.repos[NAME].commits += 1
    assert (hasty.model_info(NAME).downloads, hasty.model_info(NAME).sha) == (6, service.repos[NAME].sha)


def test_a_repo_made_private_is_another_answer(service: Hub, hasty: Any) -> None:
    """What changes without a commit, and says who may read, is asked for too."""
    hasty.model_info(NAME)
    service.repos[NAME].private = True
    assert hasty.model_info(NAME).private is True


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_brings_what_was_kept(service: Hub, hasty: Any, status: int) -> None:
    """A rate limit or a failure of the Hub serves the old answer, and is itself never kept."""
    first = hasty.model_info(NAME)
    service.refusals.append(Reply(status, b"{}"))
    assert hasty.model_info(NAME) == first


def test_a_refusal_passes_untouched(service: Hub, hasty: Any) -> None:
    """What is gone raises the SDK's own exception, and what was kept of it does not come back."""
    hasty.model_info(NAME)
    repo = service.repos.pop(NAME)
    with pytest.raises(RepositoryNotFoundError):
        hasty.model_info(NAME)
    service.repos[NAME] = repo
    service.refusals.append(Reply(500, b"{}"))
    with pytest.raises(HfHubHTTPError):
        hasty.model_info(NAME)


def test_callers_at_the_same_time_are_each_told(service: Hub, api: Any) -> None:
    """Whoever waited for another caller's answer gets the SDK's exception for it too."""
    release, waiting = threading.Event(), service.answer

    def slow(request: Any) -> Reply:
        release.wait(10)
        return waiting(request)

    service.answer = slow  # type: ignore[method-assign]
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(api.model_info, "org/none") for _ in range(4)]
        release.set()
        assert [type(each.exception(20)) for each in asking] == [RepositoryNotFoundError] * 4


def test_after_a_rate_limit_the_hub_is_left_alone(service: Hub, api: Any, hasty: Any) -> None:
    """A 429 that says how long keeps the account silent; what is not kept says so."""
    first = hasty.model_info(NAME)
    service.refusals.append(Reply(429, b"{}", {"RateLimit": '"api";r=0;t=120'}))
    assert [hasty.model_info(NAME) for _ in range(2)] == [first] * 2
    asked = len(service.asked())
    with pytest.raises(hub.RateLimited) as refused:
        api.list_repo_commits(NAME)
    assert 100 < refused.value.seconds <= 120
    assert len(service.asked()) == asked


def test_the_account_counts_and_not_its_token(service: Hub, api: Any) -> None:
    """Another token of the account hits, another account asks; a token given with the call counts as one of the API."""
    api.model_info(NAME)
    asked = len(service.asked())
    hub.wrap(HfApi(endpoint=service.url, token="hf_alice-2")).model_info(NAME)
    api.model_info(NAME, token="hf_alice-2")
    assert len(service.asked()) == asked
    api.model_info(NAME, token="hf_bob-1")
    api.model_info(NAME, token=False)
    assert len(service.asked()) > asked + 1


def test_no_token_is_written(service: Hub, api: Any, own_cache: Path) -> None:
    """No file below the cache directory holds a token."""
    api.model_info(NAME)
    written = b"".join(path.read_bytes() for path in own_cache.rglob("*") if path.is_file())
    assert b"alice" in written  # so that the search is known to see something
    assert b"hf_alice-1" not in written


def test_a_change_ends_reads_of_its_repo(service: Hub, api: Any) -> None:
    """A method that changes something is always sent, and ends what is kept of its repo and of searches."""
    other = "org/other"
    service.repos[other] = Repo({})
    reads: list[Callable[[], Any]] = [
        lambda: api.list_repo_commits(NAME),
        lambda: list(api.list_models(limit=5)),
        lambda: api.list_repo_commits(other),
    ]
    for read in reads:
        read()
    for _ in range(2):
        api.create_tag(NAME, tag="v1")
    asked = len(service.asked())
    for read in reads:
        read()
    again = service.asked()[asked:]
    assert len(again) == 2
    assert not [each for each in again if other in each]
    assert len([each for each in service.asked() if each.startswith("POST")]) == 2


class Later(HfApi):
    """With a method whose change is under way until `done` is, as with the SDK's `run_as_future`."""

    def change_later(self, repo_id: str, done: Future[None]) -> Future[None]:
        return done


def test_a_change_that_is_made_later_ends_reads_once_it_is_made(service: Hub) -> None:
    """What is read while it is under way may be of before."""
    api, done = wrap(Later(endpoint=service.url, token="hf_alice-1")), Future[None]()
    assert api.change_later(NAME, done) is done
    api.list_repo_commits(NAME)
    asked = len(service.asked())
    done.set_result(None)
    api.list_repo_commits(NAME)
    assert len(service.asked()) > asked


def test_what_a_change_reads_is_asked(service: Hub, api: Any) -> None:
    """A method that changes something never goes by what is kept."""
    api.list_repo_files(NAME)
    assert api.upload_folder.__wrapped__.__self__ is not api


def test_searches_without_a_limit_are_not_kept(service: Hub, api: Any) -> None:
    """They may have no end, so they come as the SDK gives them."""
    for _ in range(2):
        assert len(list(api.list_models(search="x"))) == 1
    assert len(service.asked()) == 2


@pytest.mark.parametrize(
    ("name", "does"),
    [
        ("model_info", "read"),
        ("repo_exists", "look"),
        ("hf_hub_download", "look"),
        ("upload_file", "change"),
        ("update_collection_metadata", "change"),
        ("delete_repo", "change"),
    ],
)
def test_what_a_method_does(name: str, does: str) -> None:
    """Reads by a table; what is not known to look only counts as a change."""
    assert operations.does(name) == does


def test_every_read_is_a_method_of_the_sdk() -> None:
    """The table names nothing that HfApi does not have."""
    assert not [name for name in operations.READS if not callable(getattr(HfApi, name, None))]


@pytest.mark.parametrize("value", [object(), {"$": 1}, {1: 2}, Path("x"), b"x"])
def test_what_is_not_the_sdk_s_is_not_kept(value: object) -> None:
    """A value that would not come back the same is refused."""
    with pytest.raises(Unkept):
        dumped([value])


@pytest.mark.parametrize("name", ["os:system", "huggingface_hub:HfApi", "huggingface_hub.hf_api:os", "builtins:dict"])
def test_a_payload_chooses_no_class(name: str) -> None:
    """Only data classes of huggingface_hub are rebuilt, and never by running them."""
    content = f'{{"$": "{name}", "items": null, "fields": {{}}}}'.encode()
    if name == "huggingface_hub:HfApi":
        assert vars(loaded(content)) == {}
        return
    with pytest.raises(Unkept):
        loaded(content)


def test_no_hf_api(real: HfApi) -> None:
    """Anything else is refused with a sentence."""
    with pytest.raises(UsageError, match="knows HfApi"):
        hub.wrap(object())


def test_a_snapshot_is_an_artifact(service: Hub, real: HfApi, tmp_path: Path) -> None:
    """huggingface_hub's directory of links into its cache is taken as the files that it stands for."""

    @persist_artifact(version="1")
    def model() -> str:
        return str(real.snapshot_download(NAME))

    directory = model()
    assert (Path(directory, "data/weights.bin").read_bytes(), Path(directory, "config.json").is_symlink()) == (
        b"w" * 100,
        False,
    )


def test_a_snapshot_comes_from_where_it_is(service: Hub, api: Any, tmp_path: Path) -> None:
    """A snapshot at a commit asks the Hub once; then neither the Hub nor its cache directory is needed."""
    commit = service.repos[NAME].sha
    first = hub.snapshot(NAME, api=api)
    asked = len(service.asked())
    assert hub.snapshot(NAME, revision=commit, api=api) == first
    assert hub.snapshot(NAME, api=api) == first
    assert len(service.asked()) == asked
    assert (first / "data/weights.bin").read_bytes() == b"w" * 100


def test_a_team_mate_s_snapshot_comes_first(service: Hub, api: Any, kubo_api: str, tmp_path: Path) -> None:
    """What another machine has published is had from there, and the Hub is not asked for a file."""
    commit = service.repos[NAME].sha
    common: dict[str, Any] = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 5, "namespace": "hub-team"}
    with cachekit.configure(dir=tmp_path / "one", **common):
        hub.snapshot(NAME, revision=commit, api=api)
        cachekit.flush()
    asked = len(service.asked())
    with cachekit.configure(dir=tmp_path / "two", **common):
        directory = hub.snapshot(NAME, revision=commit, api=api)
        assert (directory / "config.json").read_bytes() == b"{}"
    assert len(service.asked()) == asked
