"""StorageWrapper and the functions of a backend beside it: on a real Kubo, and where there is none."""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import TierError, UsageError, configure
from cachekit.cache.default import ROOT
from cachekit.ipfs.content.cids import binary_cid, directory_block, file_cid, raw_cid
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit_adapters import storage
from cachekit_adapters.storage import StorageWrapper, get_storage_wrapper, reset_storage_wrapper

NOBODY = "/ip4/127.0.0.1/tcp/9"
MIB = 1 << 20
VENDORS = {
    "GitHub Actions": {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_RUN_ID": "1658821493", "RUNNER_OS": "Linux"},
    "GitLab CI": {"CI": "true", "GITLAB_CI": "true", "CI_JOB_ID": "50", "CI_SERVER_NAME": "GitLab"},
    "Jenkins": {
        "BUILD_ID": "22",
        "BUILD_NUMBER": "22",
        "JENKINS_URL": "https://jenkins.example/",
        "EXECUTOR_NUMBER": "0",
    },
    "CircleCI": {"CI": "true", "CIRCLECI": "true", "CIRCLE_BUILD_NUM": "7", "CIRCLE_JOB": "build"},
    "Travis CI": {
        "CI": "true",
        "TRAVIS": "true",
        "CONTINUOUS_INTEGRATION": "true",
        "HAS_JOSH_K_SEAL_OF_APPROVAL": "true",
    },
    "Azure Pipelines": {"TF_BUILD": "True", "BUILD_BUILDID": "3", "AGENT_OS": "Linux"},
    "Buildkite": {"CI": "true", "BUILDKITE": "true", "BUILDKITE_BUILD_ID": "4735ba57-80d0-46e2-8fa0-b28223a86586"},
    "any other": {"CI": "1"},
}


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    reset_storage_wrapper()


@pytest.fixture
def daemon(kubo_api: str) -> Iterator[KuboTransport]:
    """A real Kubo, to which the settings lead."""
    configure(ipfs="rw", ipfs_api=kubo_api, ipfs_timeout=10)
    transport = KuboTransport(kubo_api)
    yield transport
    transport.close()


def held(daemon: KuboTransport, cid: str) -> bytes | None:
    return daemon.cat(cid, size=len(daemon.block_get(cid, timeout=10) or b""), timeout=10)


# -- with a daemon ---------------------------------------------------------------------------------------------


def test_the_cid_is_that_of_what_the_daemon_holds(daemon: KuboTransport) -> None:
    """What was written unencrypted stands in Kubo under the CID that came back, as it is."""
    cid = StorageWrapper(encrypt=False).write_file(b"weights", "model.bin")
    assert cid == raw_cid(b"weights")
    assert held(daemon, cid) == b"weights"


def test_contents_are_sealed_unless_it_is_said_otherwise(daemon: KuboTransport) -> None:
    """By default the daemon holds other bytes, under their own CID, and the wrapper gives the ones that were written."""
    wrapper = StorageWrapper()
    cid = wrapper.write_file(b"a secret", "note")
    block = daemon.block_get(cid, timeout=10)
    assert block is not None
    assert raw_cid(block) == cid
    assert b"a secret" not in block
    assert wrapper.read_file(cid) == wrapper.read_file("note") == b"a secret"


@pytest.mark.parametrize("encrypt", [True, False], ids=["sealed", "plain"])
def test_another_machine_reads_by_cid_and_by_name(daemon: KuboTransport, tmp_path: Path, encrypt: bool) -> None:
    """A second cache directory with the same credential has neither copy, and gets both from the daemon."""
    cid = StorageWrapper(encrypt=encrypt).write_file(b"w" * (MIB + 7), "model.bin")
    cachekit.flush()
    with configure(dir=tmp_path / "other"):
        wrapper = StorageWrapper()
        assert wrapper.read_file(cid) == wrapper.read_file("model.bin") == b"w" * (MIB + 7)


def test_a_stranger_is_not_given_ciphertext(daemon: KuboTransport, tmp_path: Path) -> None:
    """With another credential a sealed content is nothing, and counted."""
    cid = StorageWrapper().write_file(b"ours", "x")
    with configure(dir=tmp_path / "other", secret_file=tmp_path / "strange"):
        assert StorageWrapper().read_file(cid) is None
        assert cachekit.stats().as_dict()["errors"]["ipfs"] == {"unsealable": 1}


def test_pinned_contents_survive_until_they_are_deleted(daemon: KuboTransport) -> None:
    """`pin=True` is a pin of this daemon, and `delete` ends it at the next flush."""
    wrapper = StorageWrapper(encrypt=False)
    cid = wrapper.write_file(b"pinned here", "p", pin=True)
    assert daemon.pinned(cid, timeout=10)
    assert wrapper.delete("p")
    cachekit.flush()
    assert daemon.pinned(cid, timeout=10) is None
    assert wrapper.read_file("p") is None


def test_one_of_two_names_keeps_the_pin(daemon: KuboTransport) -> None:
    """A CID that another name still has is not let go of."""
    wrapper = StorageWrapper(encrypt=False)
    cid = wrapper.write_file(b"twice", "one", pin=True)
    wrapper.write_file(b"twice", "two", pin=True)
    wrapper.delete("one")
    cachekit.flush()
    assert daemon.pinned(cid, timeout=10)
    assert wrapper.read_file("two") == wrapper.read_file(cid) == b"twice"


def test_reading_with_pin_pins(daemon: KuboTransport) -> None:
    """`read_file(cid, pin=True)` has the daemon keep what it read."""
    wrapper = StorageWrapper(encrypt=False)
    cid = wrapper.write_file(b"later", "l")
    assert daemon.pinned(cid, timeout=10) is None
    assert wrapper.read_file(cid, pin=True) == b"later"
    assert daemon.pinned(cid, timeout=10)


def test_a_flag_in_code_wins_over_ci(kubo_api: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """`enable_distributed=True` writes to the daemon although CI keeps IPFS off, and only through this wrapper."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    ROOT.replace({"dir": own_cache, "ipfs_api": kubo_api})
    assert not StorageWrapper().is_distributed
    wrapper = StorageWrapper(enable_distributed=True, encrypt=False)
    assert wrapper.is_distributed
    assert wrapper.write_file(b"in CI", "x") == raw_cid(b"in CI")
    assert not cachekit.status()["ipfs"].on
    assert StorageWrapper(auto_detect_ci=False).is_distributed


def test_a_read_only_daemon_is_not_written_to(kubo_api: str) -> None:
    """Under CACHEKIT_IPFS=ro what is written stays here."""
    with configure(ipfs="ro", ipfs_api=kubo_api):
        assert Path(StorageWrapper().write_file(b"here", "x")).is_file()


# -- without one -----------------------------------------------------------------------------------------------


def test_without_a_daemon_the_same_bytes_come_back(own_cache: Path) -> None:
    """The fallback is a path below the cache directory; path and name read what was written."""
    wrapper = StorageWrapper()
    path = wrapper.write_file(b"\x00\xff", "a/b.bin")
    assert Path(path).is_relative_to(own_cache)
    assert Path(path).read_bytes() == wrapper.read_file(path) == wrapper.read_file("a/b.bin") == b"\x00\xff"
    assert wrapper.exists("a/b.bin")
    assert wrapper.list_files() == ["a/b.bin"]


def _hung(monkeypatch: pytest.MonkeyPatch) -> None:
    configure(ipfs="rw", ipfs_api=NOBODY)


TRIGGERS: Mapping[str, Callable[[pytest.MonkeyPatch], Any]] = {
    "CI": lambda patch: patch.setenv("CI", "1"),
    "IPFS_KIT_DISABLE": lambda patch: patch.setenv("IPFS_KIT_DISABLE", "1"),
    "STORAGE_FORCE_LOCAL": lambda patch: patch.setenv("STORAGE_FORCE_LOCAL", "yes"),
    "no network": _hung,
    "ipfs=off": lambda _patch: configure(ipfs="off"),
    "no credential": lambda patch: configure(ipfs="rw", secret_file="/dev/null/none"),
}


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_every_trigger_falls_back(trigger: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    """Where IPFS cannot or shall not be had, the wrapper says why and keeps the bytes here; nothing is raised."""
    ROOT.replace({"dir": own_cache, "ipfs_api": NOBODY})
    TRIGGERS[trigger](monkeypatch)
    if trigger in ("CI", "IPFS_KIT_DISABLE", "STORAGE_FORCE_LOCAL"):
        ROOT.replace(ROOT.overrides)
    wrapper = StorageWrapper()
    status = wrapper.backend_status
    assert not wrapper.is_distributed
    assert status["backend"] == "local"
    assert status["reason"]
    wrapper.write_file({}.__repr__() + " text", "key")
    assert wrapper.read_file("key") == b"{} text"


@pytest.mark.parametrize("vendor", VENDORS)
def test_every_vendors_ci_is_recognised(
    vendor: str, kubo_api: str, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    """With the variables that this vendor really sets, and a daemon at hand, nothing goes into it."""
    for name, value in VENDORS[vendor].items():
        monkeypatch.setenv(name, value)
    ROOT.replace({"dir": own_cache, "ipfs_api": kubo_api})
    wrapper = StorageWrapper(encrypt=False)
    assert not wrapper.is_distributed
    assert Path(wrapper.write_file(vendor.encode(), "x")).is_relative_to(own_cache)


def test_force_fallback_wins_over_everything(daemon: KuboTransport, own_cache: Path) -> None:
    """`force_fallback=True` stays here although `enable_distributed=True` is said beside it."""
    wrapper = StorageWrapper(enable_distributed=True, force_fallback=True)
    assert not wrapper.is_distributed
    assert Path(wrapper.write_file(b"here", "x")).is_relative_to(own_cache)


# -- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../../escaped", "/etc/hostname", "..", "a\0b", "C:\\x", "n" * 4096, Path("/etc/passwd")]
)
def test_a_name_is_only_a_name(name: Any, tmp_path: Path) -> None:
    """Whatever it looks like, it is written below the directory, read back from there, and never looked up on disk."""
    directory = tmp_path / "files"
    wrapper = StorageWrapper(cache_dir=directory, force_fallback=True)
    assert wrapper.read_file(name) is None
    path = wrapper.write_file(b"mine", name)
    assert Path(path).resolve().is_relative_to(directory)
    assert wrapper.read_file(name) == b"mine"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"files", "config", "cache"}


def test_a_path_of_somebody_else_is_not_read(tmp_path: Path) -> None:
    """A path that only begins like ours leads nowhere."""
    wrapper = StorageWrapper(cache_dir=tmp_path / "files", force_fallback=True)
    path = Path(wrapper.write_file(b"mine", "x"))
    (path.parent / "other").write_bytes(b"foreign")
    for foreign in (
        path.parent / "other",
        path.parent / ".." / ".." / "secret",
        f"{path.parent}/../contents/{path.name}",
    ):
        assert wrapper.read_file(foreign) is None


@pytest.mark.parametrize(
    ("arguments", "name", "content"),
    [
        ((b"data", "name"), "name", b"data"),
        (("name", b"data"), "name", b"data"),
        ((Path("models/m.bin"), bytearray(b"data")), "models/m.bin", b"data"),
        (("key-1", '{"answer": 1}'), "key-1", b'{"answer": 1}'),
        (("some text", "name"), "name", b"some text"),
        (("first", "second"), "second", b"first"),
        (("first one", "second one"), "second one", b"first one"),
        (("{}", "k"), "k", b"{}"),
    ],
)
def test_data_and_name_come_in_either_order(arguments: tuple[Any, Any], name: str, content: bytes) -> None:
    """Bytes are the data; of two strings the one with whitespace or braces; where that says nothing the first."""
    wrapper = StorageWrapper(force_fallback=True)
    wrapper.write_file(*arguments)
    assert wrapper.list_files() == [name]
    assert wrapper.read_file(name) == content


@pytest.mark.parametrize("arguments", [(b"one", b"two"), (None, None), (Path("x"), None), (1, "x"), (b"data", 5)])
def test_what_is_no_data_is_refused(arguments: tuple[Any, Any]) -> None:
    """Two contents, none, or a path alone are the caller's mistake."""
    with pytest.raises(UsageError, match="name"):
        StorageWrapper(force_fallback=True).write_file(*arguments)


def test_the_last_write_of_a_name_counts(own_cache: Path) -> None:
    """The content before it is gone from the disk."""
    wrapper = StorageWrapper(force_fallback=True)
    first = wrapper.write_file(b"first", "x")
    wrapper.write_file(b"second", "x")
    assert wrapper.read_file("x") == b"second"
    assert wrapper.read_file(first) is None
    assert not Path(first).exists()


def test_altered_contents_are_not_given(own_cache: Path) -> None:
    """A file that somebody changed on disk is no answer, by name or by path."""
    wrapper = StorageWrapper(force_fallback=True)
    path = Path(wrapper.write_file(b"original", "x"))
    path.write_bytes(b"altered!")
    assert wrapper.read_file("x") is wrapper.read_file(path) is None


def test_flags_are_not_another_callers(tmp_path: Path) -> None:
    """`get_storage_wrapper` gives one wrapper for one combination of flags, and other flags another one."""
    one = get_storage_wrapper(cache_dir=tmp_path / "a")
    assert get_storage_wrapper(cache_dir=str(tmp_path / "a")) is one
    assert get_storage_wrapper(cache_dir=tmp_path / "b").get_cache_dir() == tmp_path / "b"


def test_two_threads_that_write_one_name_leave_one_whole_content() -> None:
    """Readers meanwhile get one of the contents that were written, never half of one and never none."""
    wrapper = StorageWrapper(force_fallback=True)
    contents = [bytes([letter]) * 50_000 for letter in b"ab"]
    wrapper.write_file(contents[0], "x")
    writers = [
        threading.Thread(target=lambda content=content: [wrapper.write_file(content, "x") for _ in range(20)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert wrapper.read_file("x") in contents
    for writer in writers:
        writer.join()


# -- what the seeds print --------------------------------------------------------------------------------------

COMPONENT = """
import logging
logger = logging.getLogger(__name__)
try:
    from .common.storage_wrapper import get_storage_wrapper
    HAVE_STORAGE_WRAPPER = True
except ImportError:
    HAVE_STORAGE_WRAPPER = False
    get_storage_wrapper = None

class MyComponent:
    def __init__(self):
        self._storage_wrapper = None
        if HAVE_STORAGE_WRAPPER:
            try:
                self._storage_wrapper = get_storage_wrapper(auto_detect_ci=True)
                if self._storage_wrapper.is_distributed:
                    logger.info("Using distributed storage")
            except Exception as e:
                logger.debug(f"Storage wrapper init skipped: {e}")

    def save_data(self, data, filename):
        if self._storage_wrapper and self._storage_wrapper.is_distributed:
            try:
                cid = self._storage_wrapper.write_file(data, filename, pin=True)
                logger.info(f"Saved to distributed storage: {cid}")
                return cid
            except Exception as e:
                logger.debug(f"Distributed storage failed, using local: {e}")

        with open(filename, 'w') as f:
            f.write(data)
        return filename

try:
    from .common.storage_wrapper import StorageWrapper
    DISTRIBUTED_STORAGE_AVAILABLE = True
except ImportError:
    DISTRIBUTED_STORAGE_AVAILABLE = False
    StorageWrapper = None

if DISTRIBUTED_STORAGE_AVAILABLE:
    try:
        storage = StorageWrapper()
    except:
        storage = None
else:
    storage = None

def answer(cache_key, api_call):
    if storage:
        try:
            cached = storage.read_file(cache_key, pin=False)
            if cached:
                return json.loads(cached)
        except:
            pass
    response = api_call()
    if storage:
        try:
            storage.write_file(cache_key, json.dumps(response), pin=False)
        except:
            pass
    return response

def converted(model_path, model_data):
    if storage:
        try:
            storage.write_file(model_path, model_data, pin=True)
        except:
            pass
    with open(model_path, 'wb') as f:
        f.write(model_data)

def loaded(cache_path):
    if storage:
        try:
            model_data = storage.read_file(cache_path, pin=False)
            if model_data:
                return model_data
        except:
            pass
    with open(cache_path, 'rb') as f:
        return f.read()
"""


@pytest.fixture
def component(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The examples of the user's documents in a package that has our wrapper where theirs was."""
    package = tmp_path / "seeded"
    (package / "common").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "common" / "__init__.py").touch()
    (package / "common" / "storage_wrapper.py").write_text("from cachekit_adapters.storage import *\n")
    (package / "component.py").write_text(f"import json\n{COMPONENT}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield importlib.import_module("seeded.component")
    for name in [name for name in sys.modules if name.partition(".")[0] == "seeded"]:
        del sys.modules[name]


def test_the_documents_component_saves_to_ipfs(daemon: KuboTransport, component: Any) -> None:
    """`save_data` returns the CID of what is in the daemon, pinned."""
    cid = component.MyComponent().save_data("text to keep", "notes.txt")
    assert daemon.pinned(cid, timeout=10)
    assert get_storage_wrapper().read_file(cid) == b"text to keep"
    assert not Path("notes.txt").exists()


def test_the_documents_component_falls_back_to_a_file(component: Any) -> None:
    """Without a daemon the file is written where it was asked for, as before."""
    assert component.MyComponent().save_data("text to keep", "notes.txt") == "notes.txt"
    assert Path("notes.txt").read_text() == "text to keep"


def test_the_documents_api_cache_hits(daemon: KuboTransport, component: Any) -> None:
    """The second call with one key is answered from storage, in a distributed and in a local one."""
    calls = []
    for _ in range(2):
        assert component.answer("groq-4f", lambda: calls.append(1) or {"text": "hello"}) == {"text": "hello"}
    assert len(calls) == 1


def test_the_documents_converted_model_is_found_again(daemon: KuboTransport, component: Any) -> None:
    """A model written under its path is read by that path although the file itself is gone."""
    component.converted("model.gguf", b"GGUF" * 1000)
    Path("model.gguf").unlink()
    assert component.loaded("model.gguf") == b"GGUF" * 1000


# -- the functions of a backend --------------------------------------------------------------------------------


def test_bytes_and_blocks_have_kubos_cids(daemon: KuboTransport) -> None:
    """`add_bytes` and `block_put` give the CIDs under which Kubo has them, and `cat` and `block_get` the bytes."""
    large = bytes(range(256)) * 8192
    assert storage.add_bytes(large) == file_cid(large)
    assert storage.cat(file_cid(large)) == large
    assert storage.block_get(storage.block_put(b"block")) == b"block"
    assert daemon.pinned(file_cid(large), timeout=10)
    with pytest.raises(UsageError, match="1 MiB"):
        storage.block_put(large)


def test_directories_travel(daemon: KuboTransport, tmp_path: Path) -> None:
    """A directory becomes one that Kubo lists, and comes back with the same files, empty directories included."""
    tree = tmp_path / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "empty").mkdir()
    (tree / "a.bin").write_bytes(b"a" * (2 * MIB + 1))
    (tree / "deep" / "er" / "b").write_bytes(b"")
    cid = storage.add_path(tree)
    (listed,) = daemon.ask("ls", {"arg": cid}, 10)["Objects"]
    assert [entry["Name"] for entry in listed["Links"]] == ["a.bin", "deep", "empty"]
    back = storage.get_to_path(cid, tmp_path / "back")
    assert (back / "a.bin").read_bytes() == b"a" * (2 * MIB + 1)
    assert (back / "deep" / "er" / "b").read_bytes() == b""
    assert (back / "empty").is_dir()
    assert storage.add_path(back, pin=False) == cid


def test_what_is_pinned_is_unpinned(daemon: KuboTransport) -> None:
    """`pin` keeps what was stored without one, until `unpin` and the next flush."""
    cid = storage.add_bytes(b"kept for a while", pin=False)
    storage.pin(cid)
    assert daemon.pinned(cid, timeout=10)
    assert storage.unpin(cid)
    cachekit.flush()
    assert daemon.pinned(cid, timeout=10) is None


def test_a_directory_whose_names_lead_out_is_refused(daemon: KuboTransport, tmp_path: Path) -> None:
    """Nothing is written where an entry is called `..`, or has a separator in its name."""
    inner = raw_cid(b"evil")
    daemon.import_blocks([(binary_cid(inner), b"evil")], timeout=10)
    for name in ("..", "a/b", "../x"):
        cid, block, _ = directory_block([(name, inner, 4)])
        daemon.import_blocks([(binary_cid(cid), block)], timeout=10)
        with pytest.raises(TierError) as refused:
            storage.get_to_path(cid, tmp_path / "out" / "here")
        assert refused.value.reason == "bad_manifest"
        assert not (tmp_path / "out" / "here").exists()


def test_a_directory_with_two_entries_of_one_name_is_refused(daemon: KuboTransport, tmp_path: Path) -> None:
    """That is the directory's fault, and not said to be the caller's."""
    inner = raw_cid(b"once")
    cid, block, _ = directory_block([("same", inner, 4), ("same", inner, 4)])
    daemon.import_blocks([(binary_cid(inner), b"once"), (binary_cid(cid), block)], timeout=10)
    with pytest.raises(TierError, match="two entries") as refused:
        storage.get_to_path(cid, tmp_path / "out")
    assert refused.value.reason == "bad_manifest"


def test_what_stands_at_the_place_is_not_lost(daemon: KuboTransport, tmp_path: Path) -> None:
    """A directory with something in it and a pipe are refused and stay; a file, a link and an empty directory give way."""
    cid = storage.add_bytes(b"new", pin=False)
    full, pipe, empty, link = (tmp_path / name for name in ("full", "pipe", "empty", "link"))
    full.mkdir()
    (full / "precious").write_text("mine")
    os.mkfifo(pipe)
    for place in (full, pipe):
        with pytest.raises(UsageError, match="no file"):
            storage.get_to_path(cid, place)
    assert (full / "precious").read_text() == "mine"
    assert pipe.is_fifo()
    empty.mkdir()
    link.symlink_to(full)
    for place in (empty, link, link):
        assert storage.get_to_path(cid, place).read_bytes() == b"new"
    assert [one.name for one in full.iterdir()] == ["precious"]


@pytest.mark.parametrize("wrong", [5, None, b"bafk", ["x"], "bafkqaaa", ""])
def test_what_is_no_cid_is_refused(wrong: Any) -> None:
    """Whatever it is, the error names the remedy; nothing is asked for it."""
    for ask in (storage.fetch, storage.block_get, storage.pin):
        with pytest.raises(UsageError, match="CID"):
            ask(wrong)


# -- gateways --------------------------------------------------------------------------------------------------


class Gateway(ThreadingHTTPServer):
    """A stand-in for a trustless gateway: answers `blocks`, by CID; counts what it was asked for."""

    def __init__(self, blocks: Mapping[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _GatewayHandler)
        self.blocks = blocks
        self.asked: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _GatewayHandler(BaseHTTPRequestHandler):
    server: Gateway

    def do_GET(self) -> None:
        cid = self.path.removeprefix("/ipfs/").partition("?")[0]
        self.server.asked.append(cid)
        block = self.server.blocks.get(cid)
        self.send_response(404 if block is None else 200)
        self.send_header("Content-Length", str(len(block or b"")))
        self.end_headers()
        self.wfile.write(block or b"")

    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[Callable[[Mapping[str, bytes]], Gateway]]:
    made: list[Gateway] = []

    def make(blocks: Mapping[str, bytes]) -> Gateway:
        made.append(Gateway(blocks))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
        one.server_close()


def test_wrong_bytes_from_a_gateway_are_refused(gateway: Callable[[Mapping[str, bytes]], Gateway]) -> None:
    """Bytes that are not those of the CID are counted, and the next gateway is asked."""
    cid = raw_cid(b"right")
    liar, honest = gateway({cid: b"wrong"}), gateway({cid: b"right"})
    assert storage.fetch(cid, gateways=[liar.url, honest.url]) == b"right"
    assert cachekit.stats().as_dict()["errors"]["ipfs"] == {"gateway_wrong_bytes": 1}
    with pytest.raises(TierError, match=cid):
        storage.fetch(cid, gateways=[liar.url])


def test_a_gateway_stands_in_for_the_daemon(
    daemon: KuboTransport, gateway: Callable[[Mapping[str, bytes]], Gateway]
) -> None:
    """What neither our daemon nor its peers have is asked of the gateway; what the daemon has is not."""
    ours = storage.add_bytes(b"the daemon's")
    server = gateway({raw_cid(b"a gateway's"): b"a gateway's", ours: b"the daemon's"})
    assert storage.fetch(raw_cid(b"a gateway's"), gateways=[server.url], timeout=4) == b"a gateway's"
    assert storage.fetch(ours, gateways=[server.url]) == b"the daemon's"
    assert server.asked == [raw_cid(b"a gateway's")]


def test_the_wrapper_asks_the_gateways_of_the_settings(gateway: Callable[[Mapping[str, bytes]], Gateway]) -> None:
    """CACHEKIT_GATEWAYS is enough: there need not be a daemon."""
    cid = raw_cid(b"far away")
    with configure(gateways=[gateway({cid: b"far away"}).url]):
        assert StorageWrapper().read_file(cid) == b"far away"


def test_a_gateways_answer_is_bounded(gateway: Callable[[Mapping[str, bytes]], Gateway]) -> None:
    """More than a block is not read to its end."""
    cid = raw_cid(b"small")
    with pytest.raises(TierError):
        storage.fetch(cid, gateways=[gateway({cid: b"x" * (4 * MIB)}).url])
    assert cachekit.stats().as_dict()["errors"]["ipfs"] == {"gateway_failed": 1}


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ipfs.io", "http://", "https://x/?a=b"])
def test_what_is_no_gateway_is_refused(url: str) -> None:
    """Only http and https URLs of a host are asked for anything."""
    with pytest.raises(UsageError, match="gateways"):
        storage.fetch(raw_cid(b"x"), gateways=[url])


def test_entries_are_plain_json(own_cache: Path) -> None:
    """What is known of a name can be read by anybody with the directory, and says its digest."""
    StorageWrapper(force_fallback=True).write_file(b"x", "name")
    (entry,) = (own_cache / "storage" / "entries").iterdir()
    assert json.loads(entry.read_text())["name"] == "name"


def test_a_link_or_pipe_where_a_copy_stood_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    """What somebody else put in a content's or an entry's place is a miss, even where the bytes are the same."""
    storage = StorageWrapper(cache_dir=tmp_path / "ours", enable_distributed=False)
    outside = tmp_path / "outside"
    outside.write_bytes(b"same")
    content = Path(storage.write_file(b"same", "linked"))
    content.unlink()
    content.symlink_to(outside)
    assert storage.read_file("linked") is None
    Path(storage.write_file(b"pipe", "piped"))
    (entry,) = [one for one in (tmp_path / "ours" / "entries").iterdir() if b'"piped"' in one.read_bytes()]
    entry.unlink()
    os.mkfifo(entry)
    found = list[object]()
    again = StorageWrapper(cache_dir=tmp_path / "ours", enable_distributed=False)
    reader = threading.Thread(target=lambda: found.extend((again.read_file("piped"), again.list_files())), daemon=True)
    reader.start()
    reader.join(10)
    assert found == [None, ["linked"]]


@pytest.mark.parametrize("part", ["contents", "entries"])
def test_nothing_is_written_or_read_through_a_linked_directory(tmp_path: Path, part: str) -> None:
    """A link where one of the storage's own directories belongs leads nowhere: what is behind it stays as it is."""
    ours, outside = tmp_path / "ours", tmp_path / "outside"
    StorageWrapper(cache_dir=ours, enable_distributed=False).write_file(b"data", "name")
    (ours / part).rename(outside)
    (ours / part).symlink_to(outside)
    before = sorted(outside.iterdir())
    storage = StorageWrapper(cache_dir=ours, enable_distributed=False)
    assert storage.read_file("name") is None
    with pytest.raises(OSError):
        storage.write_file(b"more", "other")
    assert sorted(outside.iterdir()) == before
