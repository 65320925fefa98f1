"""The command line, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = ("stats ls show explain env doctor invalidate clear gc flush sync pins unpin store fetch").split()
PROGRAM = """
from cachekit import distributed_cache
@distributed_cache(tags=["t1"])
def f(x): return {"answer": x}
for x in (1, 2, 1): f(x)
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "XDG_"))}
    return {
        **kept,
        "HOME": str(tmp_path),
        "CACHEKIT_DIR": str(tmp_path / "cache"),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Run:
    def started(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cachekit", *arguments]
        return subprocess.run(
            command,
            env={**environ, **variables},
            cwd=tmp_path,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    return started


@pytest.fixture
def filled(environ: dict[str, str], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], env=environ, cwd=tmp_path, check=True, timeout=60)


def keys(run: Run) -> list[str]:
    found: list[dict[str, Any]] = json.loads(run("ls", "--json").stdout)
    return [entry["key"] for entry in found]


@pytest.mark.usefixtures("filled")
def test_stats_shows_what_another_process_counted(run: Run) -> None:
    """Totals of a process that ended are in the table and in the JSON."""
    counted = json.loads(run("stats", "--json").stdout)
    assert (counted["total"]["calls"], counted["total"]["misses"]) == (3, 2)
    assert any(name.endswith("f") for name in counted["functions"])
    assert "HIT RATE" in run("stats").stdout
    assert run("stats", "nobody").returncode == 1


@pytest.mark.usefixtures("filled")
def test_an_entry_is_shown_by_its_key_and_by_the_beginning_of_it(run: Run) -> None:
    """`show` and `explain` accept a full key and a unique prefix."""
    key = keys(run)[0]
    space, digits = key.split("/")
    for text in (key, f"{space}/{digits[:12]}", digits[:12]):
        assert json.loads(run("show", text, "--json").stdout)["key"] == key
    assert "answer" in run("show", key).stdout
    explained = run("explain", key)
    assert explained.returncode == 0
    assert "usable" in explained.stdout
    assert "CACHEKIT_IPFS=off" in explained.stdout


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize(
    "how", [["--tag", "t1"], ["--namespace", "default"], ["--tag", "t1", "--namespace", "default"]]
)
def test_invalidating_removes_once(run: Run, how: list[str]) -> None:
    """The first time answers yes, the second no, and nothing is left."""
    assert run("invalidate", *how).returncode == 0
    assert keys(run) == []
    assert run("invalidate", *how).returncode == 1


@pytest.mark.usefixtures("filled")
def test_invalidating_a_key_leaves_the_others(run: Run) -> None:
    """One key is removed, the other stays."""
    gone, stays = keys(run)
    assert run("invalidate", gone).returncode == 0
    assert keys(run) == [stays]
    assert run("explain", gone).returncode == 1


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("how", [["--tag", ""], ["--namespace", ""], ["--namespace", "*"], []])
def test_a_careless_invalidation_removes_nothing(run: Run, how: list[str]) -> None:
    """An empty word, a star and nothing at all are refused."""
    assert run("invalidate", *how).returncode == 2
    assert len(keys(run)) == 2


@pytest.mark.usefixtures("filled")
def test_clear_asks_before_it_clears(run: Run) -> None:
    """Without --yes and without a terminal nothing is cleared."""
    assert run("clear").returncode == 2
    assert len(keys(run)) == 2
    assert run("clear", "--yes").returncode == 0
    assert keys(run) == []


@pytest.mark.parametrize(
    "arguments", [["warm"], [], ["show", "banana"], ["show", "default/xyz"], ["flush", "--timeout", "soon"], ["node"]]
)
def test_a_wrong_command_is_refused_without_a_traceback(run: Run, arguments: list[str]) -> None:
    """Usage errors end with 2."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(run: Run) -> None:
    """The sentence names the variable and what is accepted; doctor reports it as a failed check."""
    done = run("env", CACHEKIT_MODE="banana")
    assert done.returncode == 2
    assert "CACHEKIT_MODE" in done.stderr
    assert "replay" in done.stderr
    assert run("doctor", CACHEKIT_MODE="banana").returncode == 1


def test_a_foreign_directory_is_left_alone(run: Run, tmp_path: Path) -> None:
    """A directory with somebody's files is refused in one sentence, and keeps them."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("mine")
    done = run("ls")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert run("doctor").returncode == 1
    assert os.listdir(tmp_path / "cache") == ["thesis.txt"]


def test_env_opens_nothing_and_tells_no_secret(run: Run, tmp_path: Path) -> None:
    """No directory appears, and neither the secret nor the password is printed."""
    done = run("env", "--explain", CACHEKIT_SECRET="hunter2hunter2", CACHEKIT_IPFS_AUTH="me:opensesame")
    assert done.returncode == 0
    assert "hunter2" not in done.stdout + done.stderr
    assert "opensesame" not in done.stdout + done.stderr
    assert not (tmp_path / "cache").exists()


def test_doctor_is_content_with_a_fresh_machine(run: Run) -> None:
    """Nothing fails where IPFS is off."""
    done = run("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"] is True


@pytest.mark.parametrize(("mode", "state", "status"), [("auto", "note", 0), ("ro", "failed", 1)])
def test_a_missing_daemon_is_a_failure_only_where_it_was_asked_for(
    run: Run, mode: str, state: str, status: int
) -> None:
    """Under `auto` it is a note, else a failed check."""
    done = run("doctor", "--json", CACHEKIT_IPFS=mode, CACHEKIT_IPFS_API="/ip4/127.0.0.1/tcp/1")
    checks = {check["check"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert (checks["daemon"], done.returncode) == (state, status)


@pytest.mark.usefixtures("filled")
def test_doctor_sees_a_corrupt_disk_file(run: Run, tmp_path: Path) -> None:
    """The file is named as the problem."""
    (tmp_path / "cache" / "cache.db").write_bytes(b"not a database" * 1000)
    done = run("doctor")
    assert done.returncode == 1
    assert "cache.db" in done.stdout


@pytest.mark.parametrize("arguments", [["pins"], ["sync"], ["store", __file__], ["fetch", "bafkqaaa"]])
def test_without_ipfs_the_reason_is_said(run: Run, arguments: list[str]) -> None:
    """A tier that is off answers with 1 and the variable that turned it off."""
    done = run(*arguments)
    assert done.returncode == 1
    assert "CACHEKIT_IPFS=off" in done.stderr


def test_gc_flush_and_the_node_answer_in_json(run: Run) -> None:
    """Nothing to do is no failure for gc and flush; a node that does not run is a no."""
    assert json.loads(run("gc", "--json").stdout) == {"dropped": 0}
    assert run("flush", "--json").returncode == 0
    status = run("node", "status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["running"] is False


def test_every_command_is_documented(run: Run) -> None:
    """docs/cli.md has each command that --help lists, and no command is listed that is not known here."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    listed = {
        line.split()[0] for line in run("--help").stdout.splitlines() if line.startswith("    ") and line[4] != " "
    }
    assert listed == {*COMMANDS, "node"}
    for command in [*COMMANDS, "node install", "node start", "node stop", "node status"]:
        assert f"`cachekit {command}" in page
