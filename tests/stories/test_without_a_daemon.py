"""Two machines that share a directory and nothing else: no daemon, no server of ours.

A machine is a cache directory and a configuration directory of its own; they have one credential. Python's web server
stands for any static one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from webbing import served

import cachekit
from cachekit import TierError, distributed_cache, persist_artifact
from cachekit.cache.default import default
from cachekit.cli import main
from cachekit.errors import TierFull
from cachekit.ipfs.content.cids import file_cid
from cachekit.ipfs.directory import files
from cachekit.ipfs.directory.collecting import UNUSED_SECONDS

MIB = 1 << 20
LONG = 30.0
CALLS: list[str] = []


@distributed_cache(tags=["answers"])
def answer(question: str) -> str:
    CALLS.append(question)
    return f"the answer to {question}"


@distributed_cache(ttl=None, pin=True)
def kept(text: str) -> str:
    CALLS.append(text)
    return text * 10


@persist_artifact(scratch="work", version="1")
def weights(seed: str, work: Path | None = None) -> Path:
    CALLS.append(seed)
    assert work is not None
    (work / "model.bin").write_bytes(_content(seed))
    return work / "model.bin"


def _content(seed: str) -> bytes:
    return (seed.encode() * (5 * MIB))[: 5 * MIB]


class Machines:
    """`on(name)` is a machine until the block ends; `root` the shared directory."""

    def __init__(self, root: Path, home: Path, patch: pytest.MonkeyPatch) -> None:
        self.root = root
        self._home = home
        self._patch = patch

    def on(self, name: str, **settings: Any) -> Any:
        self._patch.setenv("XDG_CONFIG_HOME", str(self._home / f"config {name}"))
        common = {"ipfs": "rw", "ipfs_timeout": 5, "store": self.root.as_uri()}
        return cachekit.configure(dir=self._home / name, **{**common, **settings})


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    CALLS.clear()
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    (tmp_path / "mnt").mkdir()
    return Machines(tmp_path / "mnt", tmp_path, monkeypatch)


def _blocks(team: Machines) -> list[Path]:
    return [path for path in (team.root / "blocks").rglob("*") if path.is_file()]


def test_a_value_is_computed_once(team: Machines) -> None:
    """What one machine computed is a hit on the other; nobody who sees the directory reads it."""
    with team.on("one"):
        assert answer("life") == "the answer to life"
        cachekit.flush(LONG)
    with team.on("two"):
        assert answer("life") == "the answer to life"
        assert cachekit.stats().as_dict()["hits"]["ipfs"] == 1
    assert CALLS == ["life"]
    everything = b"".join(path.read_bytes() for path in team.root.rglob("*") if path.is_file())
    assert b"life" not in everything
    assert b"answers" not in everything


@pytest.mark.parametrize("how", ["tag", "clear", "one"])
def test_an_invalidation_reaches_the_other(team: Machines, how: str) -> None:
    """By tag, by `clear()` and by `f.invalidate`: hits in its memory and on its disk end too."""
    with team.on("one"):
        answer("life")
        cachekit.flush(LONG)
    with team.on("two"):
        answer("life")
    with team.on("one"):
        {"tag": lambda: cachekit.invalidate(tag="answers"), "clear": cachekit.clear}.get(
            how, lambda: answer.invalidate("life")
        )()
        cachekit.flush(LONG)
    with team.on("two"):
        cachekit.sync()
        answer("life")
    assert CALLS == ["life", "life"]


def test_an_artifact_of_5_mib_comes_sealed(team: Machines) -> None:
    """The other machine builds nothing, and no block shows what it is made of."""
    with team.on("one"):
        weights("w")
        cachekit.flush(LONG)
    with team.on("two"):
        assert weights("w").read_bytes() == _content("w")
    assert CALLS == ["w"]
    assert len(_blocks(team)) >= 6
    assert not any(b"wwwwwwww" in path.read_bytes() for path in _blocks(team))


def test_pins_outlive_a_collection(team: Machines) -> None:
    """A month after the last use `gc` takes what is not pinned; after `unpin` the rest."""
    with team.on("one"):
        kept("k")
        answer("life")
        cachekit.flush(LONG)
        (pin,) = cachekit.pins()
        for path in _blocks(team):
            os.utime(path, (time.time() - UNUSED_SECONDS - 60,) * 2)
        assert cachekit.gc()["leftovers"] == 1
    with team.on("two"):
        kept("k")
        answer("life")
        assert CALLS == ["k", "life", "life"]
        assert cachekit.unpin(pin["cid"])
        cachekit.flush(LONG)
    with team.on("one"):
        cachekit.sync()
        assert cachekit.unpin(pin["cid"]) or True
        cachekit.flush(LONG)
        for path in _blocks(team):
            os.utime(path, (time.time() - UNUSED_SECONDS - 60,) * 2)
        assert cachekit.gc()["leftovers"] >= 1
    assert not [path for path in _blocks(team) if path.name == pin["cid"]]


def test_bytes_by_hand(team: Machines, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`store`, `fetch`, `pins` and `unpin`, from Python and from the command line, on either machine."""
    data = os.urandom(3 * MIB)
    (tmp_path / "file").write_bytes(data)
    with team.on("one"):
        assert main(["store", "--pin", str(tmp_path / "file"), "--json"]) == 0
        cid = json.loads(capsys.readouterr().out)["cid"]
        assert cid == file_cid(data)
        assert cid in capsys_of(capsys, "pins")
    with team.on("two"):
        assert cachekit.fetch(cid) == data
        assert main(["fetch", cid, "--output", str(tmp_path / "copy")]) == 0
    assert (tmp_path / "copy").read_bytes() == data
    with team.on("one"):
        assert main(["unpin", cid]) == 0
        cachekit.flush(LONG)
        assert cachekit.pins() == []
    assert not [path for path in (team.root / "pins").rglob("*") if path.is_file()]


def capsys_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_a_web_server_gives_hits_and_takes_nothing(team: Machines) -> None:
    """Values and artifacts come over HTTP; what is computed there stays there, and nothing waits to be sent."""
    with team.on("one"):
        answer("life")
        weights("w")
        cachekit.flush(LONG)
    with served(team.root) as url, team.on("ci", store=url):
        assert answer("life") == "the answer to life"
        assert weights("w").read_bytes() == _content("w")
        assert CALLS == ["life", "w"]
        answer("something new")
        cachekit.flush(LONG)
        cache = default()
        assert cache.team is not None
        assert cache.team.tier.pending() == 0
        assert "web directory 1" in cachekit.status()["ipfs"].reason
        with pytest.raises(TierError) as caught:
            cachekit.store(b"by hand")
        assert caught.value.reason == "read_only"
        assert cachekit.stats().as_dict()["errors"].get("ipfs", {}) == {}


def test_a_corrupt_block_is_a_miss(team: Machines) -> None:
    """Counted under its reason; the function is called, and its answer repairs the store."""
    with team.on("one"):
        answer("life")
        cachekit.flush(LONG)
        (block,) = _blocks(team)
        good = block.read_bytes()
    block.write_bytes(bytes(reversed(good)))
    with team.on("two"):
        assert answer("life") == "the answer to life"
        assert cachekit.stats().as_dict()["errors"]["ipfs"] == {"wrong_bytes": 1}
        cachekit.flush(LONG)
    assert CALLS == ["life", "life"]
    assert block.read_bytes() == good


def test_a_missing_mount_costs_nothing_but_the_sharing(team: Machines) -> None:
    """Calls go through, what they store waits; when the mount is back it is sent."""
    team.root.rmdir()
    with team.on("one"):
        assert [answer("life"), answer("life")] == ["the answer to life"] * 2
        assert CALLS == ["life"]
        assert cachekit.stats().as_dict()["errors"]["ipfs"] == {"no_store": 1}
        assert "is it mounted" in cachekit.status()["ipfs"].reason
        team.root.mkdir()
        _await(lambda: default().team.breaker.allows())  # type: ignore[union-attr]
        cachekit.flush(LONG)
    with team.on("two"):
        answer("life")
    assert CALLS == ["life"]


def test_a_mount_that_hangs_costs_one_call_its_time(team: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """STAND-IN: reading comes back when the test says so. Later calls do not wait; then it is used again."""
    with team.on("one"):
        answer("before")
        cachekit.flush(LONG)
    back, reading = threading.Event(), files.Files.read

    def hanging(*arguments: Any, **options: Any) -> Any:
        back.wait(LONG)
        return reading(*arguments, **options)

    with team.on("two", ipfs_timeout=0.5):
        with monkeypatch.context() as patch:
            patch.setattr(files.Files, "read", hanging)
            begun = time.monotonic()
            for number in range(20):
                answer(f"question {number}")
            assert time.monotonic() - begun < 5
            assert cachekit.stats().as_dict()["errors"]["ipfs"]["timeout"] >= 1
            back.set()
        _await(lambda: default().team.breaker.allows())  # type: ignore[union-attr]
        calls = len(CALLS)
        assert answer("before") == "the answer to before"
        assert len(CALLS) == calls


def test_a_full_disk_costs_nothing_but_the_sharing(team: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hits from there go on; what is new waits until there is room."""
    with team.on("one"):
        answer("before")
        cachekit.flush(LONG)
    with team.on("two"):
        with monkeypatch.context() as patch:

            def full(*_: Any) -> None:
                raise TierFull("no room in the store")

            patch.setattr(files.Files, "put", full)
            answer("before")
            answer("after")
            assert CALLS == ["before", "after"]
            with pytest.raises(TierFull):
                cachekit.flush(2.0)
        cachekit.flush(LONG)
    with team.on("one"):
        answer("after")
    assert CALLS == ["before", "after"]


_KILLED = """
import sys
import cachekit
from cachekit import distributed_cache

@distributed_cache
def square(x):
    return {"x": x, "square": x * x}

print("ready", flush=True)
for x in range(int(sys.argv[1])):
    square(x)
    if x % 3 == 2:
        cachekit.flush(30)
        print(x, flush=True)
cachekit.flush(30)
"""


def test_a_killed_machine_never_shows_half_an_entry(team: Machines, tmp_path: Path) -> None:
    """SIGKILL while it publishes, several times: what others find is right, and in the end all of it is there."""
    script = tmp_path / "squares.py"
    script.write_text(_KILLED)
    environ = {
        **os.environ,
        "CACHEKIT_STORE": team.root.as_uri(),
        "CACHEKIT_IPFS": "rw",
        "CACHEKIT_IPFS_TIMEOUT": "5",
        "CACHEKIT_DIR": str(tmp_path / "killed"),
        "XDG_CONFIG_HOME": str(tmp_path / "config killed"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    for lines in (1, 3, 5):
        with subprocess.Popen([sys.executable, script, "60"], env=environ, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for _ in range(1 + lines):
                child.stdout.readline()
            child.send_signal(signal.SIGKILL)
        _look(script, environ, tmp_path / f"reader {lines}", most=60)
    subprocess.run([sys.executable, script, "60"], env=environ, check=True, timeout=60, stdout=subprocess.DEVNULL)
    _look(script, environ, tmp_path / "the last reader", most=0)


def _look(script: Path, environ: dict[str, str], place: Path, *, most: int) -> None:
    """Another machine asks for all of them, and computes at most `most`."""
    code = script.read_text().partition("print(")[0] + (
        "assert all(square(x) == {'x': x, 'square': x * x} for x in range(60))\n"
        "told = cachekit.stats().as_dict(); assert not told['errors'].get('ipfs'), told\n"
        "print(60 - told['hits'].get('ipfs', 0))\n"
    )
    (place.parent / "looking").mkdir(exist_ok=True)
    looking = place.parent / "looking" / script.name
    looking.write_text(code)
    own = {**environ, "CACHEKIT_DIR": str(place), "XDG_CONFIG_HOME": f"{place} config", "CACHEKIT_IPFS": "ro"}
    done = subprocess.run([sys.executable, looking], env=own, check=True, timeout=60, capture_output=True, text=True)
    assert int(done.stdout) <= most


def test_status_and_doctor_name_it(team: Machines, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is, what it is, and what to do where it is not there."""
    with team.on("one"):
        answer("life")
        cachekit.flush(LONG)
        assert f"directory 1 at {team.root.as_uri()}" in cachekit.status()["ipfs"].reason
    found = _doctor(team, capsys, team.root)
    assert found["store"]["state"] == "ok"
    assert "there are entries" in found["namespaces"]["text"]
    missing = _doctor(team, capsys, team.root / "elsewhere")
    assert missing["store"]["state"] == "failed"
    assert "mount it" in missing["store"]["remedy"]


def _doctor(team: Machines, capsys: pytest.CaptureFixture[str], root: Path) -> dict[str, Any]:
    with team.on("one", store=root.as_uri()), pytest.MonkeyPatch.context() as patch:
        for name, value in (("STORE", root.as_uri()), ("IPFS", "rw"), ("DIR", str(default().settings.dir))):
            patch.setenv(f"CACHEKIT_{name}", value)
        capsys.readouterr()
        main(["doctor", "--json"])
        return {one["check"]: one for one in json.loads(capsys.readouterr().out)["checks"]}


def _await(condition: Callable[[], bool], seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
