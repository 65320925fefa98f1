"""Every state of a machine that a user can be in and mend: `cachekit doctor` says the remedy and ends with 1."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from faults import Exchange, black_hole, refusing, serving
from programs import HEAD, environment, small_disk, told, without_privileges
from stopping import stop

from cachekit.ipfs.outbox.queue import Outbox
from cachekit.model import Mark

SQUARE = """
@distributed_cache(version="1")
def square(x): return [x * x]
@distributed_cache(version="1")
def big(x, n): return bytes([x]) * n
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No node and no repository of the user's is in sight."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("IPFS_PATH", raising=False)


def failed(directory: Path, *, within: Sequence[str] = (), **settings: object) -> dict[str, str]:
    """What failed: check → remedy and text. The exit status says so too."""
    done = subprocess.run(
        [*within, sys.executable, "-m", "cachekit", "doctor", "--json"],
        env=environment(directory, **settings),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr, done.stderr
    checks = json.loads(done.stdout)["checks"]
    found = {check["check"]: f"{check['remedy']} ({check['text']})" for check in checks if check["state"] == "failed"}
    assert done.returncode == bool(found), done.stdout
    assert all(check["remedy"] for check in checks if check["state"] != "ok")
    return found


def gc(directory: Path, **settings: object) -> None:
    command = [sys.executable, "-m", "cachekit", "gc"]
    subprocess.run(command, env=environment(directory, **settings), check=True, timeout=60, capture_output=True)


# -- the directory and its disk ---------------------------------------------------------------------------------------


def test_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    """Little is left; the remedy is room, or another place."""
    assert "make room" in failed(tmp_path / "disk" / "cache", within=small_disk(tmp_path))["space"]


def test_a_disk_without_room_for_the_directory(tmp_path: Path) -> None:
    """Nothing can be made there at all: the same remedy."""
    fill = 'head -c 10m /dev/zero > "$0" 2>/dev/null; exec "$@"'
    full = (*small_disk(tmp_path), "sh", "-c", fill, str(tmp_path / "disk" / "ballast"))
    found = failed(tmp_path / "disk" / "cache", within=full)
    assert found["directory"].startswith("make room")
    assert "space" in found


def test_a_directory_that_may_not_be_read(own_cache: Path) -> None:
    """Its mode lets nobody in."""
    told(SQUARE + "square(1)", own_cache)
    own_cache.chmod(0)
    found = failed(own_cache, within=without_privileges())
    own_cache.chmod(0o700)
    assert "CACHEKIT_DIR" in found["directory"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user(own_cache: Path) -> None:
    """It is left alone, and another one asked for."""
    own_cache.mkdir()
    os.chown(own_cache, 12345, 12345)
    assert "another user" in failed(own_cache)["directory"]


@pytest.mark.skipif(os.name != "posix", reason="no such limit")
def test_a_process_that_may_open_few_files(own_cache: Path) -> None:
    """Calls pass by where no descriptor is left: the limit is named."""
    within = ("sh", "-c", 'ulimit -n 64; exec "$@"', "sh")
    assert "ulimit -n" in failed(own_cache, within=within)["descriptors"]


def test_a_clock_that_was_ahead(own_cache: Path) -> None:
    """Files from the future: entries made then are not believed."""
    told(SQUARE + "square(1)", own_cache)
    os.utime(own_cache / "cache.db", (time.time() + 3600,) * 2)
    assert "set the clock" in failed(own_cache)["clock"]


HOLD = """
import fcntl
square(1)
name = sys.argv[1]
if name.endswith(".lock"):
    held = (HERE / name).open("a")
    fcntl.flock(held, fcntl.LOCK_EX)
else:
    held = sqlite3.connect(HERE / name, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
say("held")
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("name", "check"), [("cache.db", "disk file"), ("ledger.db", "disk file"), ("outbox.lock", "outbox")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says when a process stands")
def test_a_stopped_process_that_holds_a_file(own_cache: Path, name: str, check: str) -> None:
    """The file is named, and the process where SQLite's lock tells it."""
    command = [sys.executable, "-c", HEAD + SQUARE + HOLD, name]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    told(SQUARE + "square(1); flush()", own_cache)
    with subprocess.Popen(command, env=environment(own_cache), text=True, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        stop(process.pid)
        found = failed(own_cache)[check]
        process.kill()
    assert name in found
    assert "let it go on" in found
    assert name.endswith(".lock") or str(process.pid) in found
    assert failed(own_cache) == {}


def test_a_log_that_a_reader_keeps(own_cache: Path) -> None:
    """Who reads for long keeps it from shrinking; when that is over, gc shrinks it."""
    told(SQUARE + "square(1)", own_cache)
    reader = sqlite3.connect(own_cache / "cache.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM Cache").fetchone()
    told(SQUARE + "for x in range(400): big(x % 200, 90_000 + x // 200)", own_cache)
    assert "gc" in failed(own_cache)["disk file"]
    reader.close()
    gc(own_cache)
    assert failed(own_cache) == {}


def test_a_cache_over_its_limit(own_cache: Path) -> None:
    """A smaller limit than what stands there: gc makes it so."""
    told(SQUARE + "for x in range(60): big(x, 300_000)", own_cache)
    assert failed(own_cache) == {}
    assert "gc" in failed(own_cache, size_limit="1MB")["limit"]
    gc(own_cache, size_limit="1MB")
    assert failed(own_cache, size_limit="1MB") == {}


# -- what is corrupt --------------------------------------------------------------------------------------------------

STORY = """
@distributed_cache(version="1")
def size(path: Path): return path.stat().st_size
big_file = HERE.parent / "file"
if not big_file.exists(): big_file.write_bytes(os.urandom(2 << 20))
square(5), size(big_file)
flush(30)
say(stats().as_dict()["misses"])
"""


@pytest.mark.parametrize("name", ["cache.db", "ledger.db", "index.db", "outbox.db", "digests"])
def test_what_is_corrupt_is_named_set_aside_and_deleted(own_cache: Path, kubo_api: str, name: str) -> None:
    """Doctor names it and the remedy; calls go on and the next process hits; gc deletes it, and doctor is content."""
    shared = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 10, "namespace": f"n{os.urandom(8).hex()}"}
    told(SQUARE + STORY, own_cache, **shared)
    assert failed(own_cache, **shared) == {}
    for path in own_cache.glob(f"{name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (own_cache / name).write_bytes(b"no database, no directory " * 1000)
    assert "delete it" in failed(own_cache, **shared)["disk file"]
    told(SQUARE + STORY, own_cache, **shared)
    (aside,) = own_cache.glob(f"{name}.corrupt-*")
    assert str(aside) in failed(own_cache, **shared)["disk file"]
    assert told(SQUARE + STORY, own_cache, **shared) == ["0"]
    gc(own_cache, **shared)
    assert not aside.exists()
    assert failed(own_cache, **shared) == {}


def test_the_values_of_a_file_that_was_set_aside_are_collected(own_cache: Path) -> None:
    """The space of a corrupt cache.db and of the value files that it named is given back by gc, after an hour."""
    told(SQUARE + "for x in range(4): big(x, 300_000)", own_cache)
    for path in own_cache.glob("cache.db*"):
        path.write_bytes(b"no database " * 1000)
    told(SQUARE + "square(1)", own_cache)
    values = list(own_cache.glob("??/*/*.val"))
    assert len(values) == 4
    for path in values:
        os.utime(path, (time.time() - 7200,) * 2)
    gc(own_cache)
    assert not list(own_cache.glob("??/*/*.val"))
    assert not list(own_cache.glob("*.corrupt-*"))


# -- the daemon -------------------------------------------------------------------------------------------------------


def kubo(version: str) -> Callable[[Exchange], bool]:
    """STAND-IN: says its version, and that nothing is there."""

    def script(exchange: Exchange) -> bool:
        if "/version" in exchange.line:
            return exchange.json({"Version": version})
        return exchange.json({"Message": "file does not exist"}, 500)

    return script


def test_a_daemon_that_hangs(own_cache: Path) -> None:
    """Even where any daemon will do: it is there, and answers nobody."""
    with black_hole() as api:
        assert "start it again" in failed(own_cache, ipfs="auto", ipfs_api=api)["daemon"]


@pytest.mark.parametrize(
    ("script", "remedy"),
    [
        (lambda exchange: exchange.answer(403, b"403 - Forbidden", "text/plain"), "CACHEKIT_IPFS_AUTH"),
        (lambda exchange: exchange.answer(200, b"<html>", "text/html"), "CACHEKIT_IPFS_API"),
        (kubo("0.20.0"), "node install"),
    ],
)
def test_a_daemon_that_cannot_be_used(own_cache: Path, script: Callable[[Exchange], bool], remedy: str) -> None:
    """A wrong credential, another program, a Kubo too old: each has its own remedy."""
    with serving(script) as server:
        assert remedy in failed(own_cache, ipfs="auto", ipfs_api=server.api)["daemon"]


def test_a_version_with_a_builders_word_in_it_is_fine(own_cache: Path) -> None:
    """`0.43.0-custom` counts as 0.43.0."""
    with serving(kubo("0.43.0-custom")) as server:
        assert failed(own_cache, ipfs="rw", ipfs_api=server.api) == {}


def test_a_daemon_that_moved_from_where_it_was_set(own_cache: Path, tmp_path: Path) -> None:
    """The setting names a port where nobody is, the daemon wrote down another: that one is named."""
    (tmp_path / ".ipfs").mkdir()
    with serving(kubo("0.43.0")) as server:
        (tmp_path / ".ipfs" / "api").write_text(server.api)
        assert server.api in failed(own_cache, ipfs="auto", ipfs_api=refusing())["daemon"]
        assert failed(own_cache, ipfs="rw") == {}


def test_what_waits_for_too_long(own_cache: Path) -> None:
    """An item of an hour ago was not sent: flush does it, or says what hinders."""
    told(SQUARE + "square(1)", own_cache)
    outbox = Outbox(own_cache / "outbox.db")
    outbox.add_mark(Mark("default", "tag", "old", time.time_ns() - 3600 * 10**9))
    outbox.close()
    with serving(kubo("0.43.0")) as server:
        assert "flush" in failed(own_cache, ipfs="rw", ipfs_api=server.api)["outbox"]
        assert failed(own_cache, ipfs="ro", ipfs_api=server.api) == {}
