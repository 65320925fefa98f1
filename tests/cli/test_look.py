"""The command line, as a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stopping import heed

ROOT = Path(__file__).parents[2]
CID = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
COMMANDS = (
    "stats ls show blame explain env doctor invalidate clear distrust gc flush sync pins unpin store fetch restore warm run "
    "export import"
).split()
ACTIONS = ("install", "start", "serve", "stop", "status", "invite", "join", "revoke", "rotate")
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
    "arguments",
    [["warm"], [], ["explain", "banana"], ["show", "default/xyz"], ["flush", "--timeout", "soon"], ["node"]],
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
    """A directory with somebody's files is refused, warned of once, and keeps them."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "thesis.txt").write_text("mine")
    done = run("ls")
    assert done.returncode == 2
    assert [text.count("thesis.txt") for text in done.stderr.splitlines()] == [1, 1]
    assert run("doctor").returncode == 1
    assert os.listdir(tmp_path / "cache") == ["thesis.txt"]


def test_the_password_of_a_gateway_is_not_shown_nor_written(run: Run, tmp_path: Path) -> None:
    """A URL with a user in it is a secret: `env` says that it is set, and --write leaves it out."""
    url = {"CACHEKIT_GATEWAYS": "https://me:planted@one.example"}
    assert "planted" not in run("env", "--explain", **url).stdout
    written = run("env", "--write", str(tmp_path / "made.toml"), **url)
    assert "CACHEKIT_GATEWAYS is a secret and was left out" in written.stdout
    assert "planted" not in (tmp_path / "made.toml").read_text()


SAID = {
    "CACHEKIT_TTL": "forever",
    "CACHEKIT_SIZE_LIMIT": "2GB",
    "CACHEKIT_NAMESPACE": 'a "quoted" team',
    "CACHEKIT_STRICT": "yes",
    "CACHEKIT_GATEWAYS": "https://one.example, https://two.example/",
    "CACHEKIT_IPFS_TIMEOUT": "250ms",
}


def test_env_write_makes_a_file_that_says_the_same(run: Run, tmp_path: Path) -> None:
    """Without the variables, and with the file, the same settings hold; secrets are not in it, and are named."""
    done = run("env", "--write", CACHEKIT_SECRET_FILE=str(tmp_path / "s"), CACHEKIT_IPFS_AUTH="me:opensesame", **SAID)
    assert done.returncode == 0
    assert "CACHEKIT_IPFS_AUTH is a secret and was left out" in done.stdout
    assert "opensesame" not in (tmp_path / "cachekit.toml").read_text()

    def settings(**variables: str) -> dict[str, object]:
        rows = json.loads(run("env", "--json", **variables).stdout)["settings"]
        return {row["variable"]: row["value"] for row in rows if row["variable"] in {*SAID, "CACHEKIT_SECRET_FILE"}}

    written = settings()
    (tmp_path / "cachekit.toml").unlink()
    assert written == settings(CACHEKIT_SECRET_FILE=str(tmp_path / "s"), **SAID)


def test_env_write_overwrites_nothing(run: Run, tmp_path: Path) -> None:
    """A file that stands there stays as it is, and the error names the remedy."""
    (tmp_path / "cachekit.toml").write_text("ttl = 60\n")
    done = run("env", "--write", CACHEKIT_TTL="1h")
    assert done.returncode == 2
    assert "name another file" in done.stderr
    assert (tmp_path / "cachekit.toml").read_text() == "ttl = 60\n"


def test_an_unknown_variable_is_said(run: Run) -> None:
    """`env` and `doctor` name it, and what was probably meant; so does an unknown name in the file."""
    assert "did you mean CACHEKIT_TTL?" in run("env", CACHEKIT_TLL="1h").stdout
    assert "CACHEKIT_TLL is not a variable" in run("doctor", CACHEKIT_TLL="1h").stdout


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


@pytest.mark.parametrize("arguments", [["pins"], ["sync"], ["store", __file__], ["fetch", CID]])
def test_without_ipfs_the_reason_is_said(run: Run, arguments: list[str]) -> None:
    """A tier that is off answers with 1 and the variable that turned it off."""
    done = run(*arguments)
    assert done.returncode == 1
    assert "CACHEKIT_IPFS=off" in done.stderr


def test_gc_flush_and_the_node_answer_in_json(run: Run) -> None:
    """Nothing to do is no failure for gc and flush; a node that does not run is a no."""
    assert json.loads(run("gc", "--json").stdout) == {"dropped": 0, "artifacts": 0, "leftovers": 0}
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
    for command in [*COMMANDS, *(f"node {action}" for action in ACTIONS)]:
        assert f"`cachekit {command}" in page


@pytest.mark.parametrize("command", [[], *([c] for c in COMMANDS), ["node"], ["node", "start"], ["node", "status"]])
def test_help_is_for_people(run: Run, command: list[str]) -> None:
    """Every command says what it does, and what each of its arguments means."""
    done = run(*command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    # argparse prints an argument without a help alone on its line, and the line after it is the next one.
    named = [i for i, line in enumerate(lines) if line.startswith("  ") and line[2] not in " "]
    for i in named:
        assert (
            "  " in lines[i].strip()
            or lines[i + 1].startswith("          ")
            or "metavar" in lines[i]
            or (lines[i].strip() in ("COMMAND", "ACTION"))
        ), lines[i]


def test_no_command_at_all_shows_the_help(run: Run) -> None:
    """A newcomer who types `cachekit` sees what there is."""
    done = run()
    assert done.returncode == 2
    assert "doctor" in done.stderr


@pytest.mark.parametrize(
    "arguments", [["ls", "x"], ["show", "a", "b"], ["fetch", "nonsense"], ["unpin", "nonsense"], ["store", "/nowhere"],
                  ["show", ""], ["explain", "default/"], ["invalidate", "--tag"], ["flush", "--timeout", "-1"],
                  ["gc", "--all"], ["env", "CACHEKIT_TTL"], ["doctor", "--fix"], ["clear", "--no"], ["stats", "a", "b"],
                  ["fetch"], ["store", "."], ["store", ""], ["unpin", "/00"], ["pins", "x"], ["sync", "--timeout", "1"],
                  ["node", "start", "--port", "1"], ["node", "stop", "now"], ["node", "restart"], ["banana"]]
)  # fmt: skip
def test_what_nobody_can_mean_is_refused_in_words(run: Run, arguments: list[str]) -> None:
    """Wrong input ends with 2, nothing on standard output, and the command's name or the input in the sentence."""
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "cachekit" in done.stderr
    assert "_seconds" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["show", "default/00"], ["show", "banana"], ["explain", "ab"], ["stats", "nobody"]]
)
def test_what_is_not_there_is_said_aside(run: Run, arguments: list[str]) -> None:
    """A negative answer that is no result stands on standard error; with --json it is data."""
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cachekit: ")
    as_json = run(*arguments, "--json")
    assert as_json.returncode == 1
    assert json.loads(as_json.stdout)


def test_the_default_directory_may_hold_kubo_already(environ: dict[str, str], tmp_path: Path) -> None:
    """`node install` puts Kubo where the default cache will be; the cache takes the place all the same."""
    (tmp_path / ".cache" / "cachekit" / "kubo" / "0.43.0").mkdir(parents=True)
    environ = {name: value for name, value in environ.items() if name != "CACHEKIT_DIR"}
    command = [sys.executable, "-m", "cachekit", "ls"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("arguments", [["ls"], ["ls", "--json"], ["--help"], ["env"], ["stats"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_left_is_no_error(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], unbuffered: str
) -> None:
    """Standard output that nobody reads any more gives no traceback, buffered or not."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "cachekit", *arguments],
            env={**environ, "PYTHONUNBUFFERED": unbuffered}, cwd=tmp_path, stdout=nobody, stderr=subprocess.PIPE,
            timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_standard_output_may_be_closed(environ: dict[str, str], tmp_path: Path) -> None:
    """A command started without a standard output does its work."""
    command = ["sh", "-c", 'exec "$0" -m cachekit ls >&-', sys.executable]
    done = subprocess.run(command, env=environ, cwd=tmp_path, text=True, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_ends_a_command_with_130(environ: dict[str, str], tmp_path: Path) -> None:
    """An interrupt while a command waits is one sentence and the status that shells use."""
    command = [sys.executable, "-m", "cachekit", "store", "-"]
    with subprocess.Popen(
        command,
        env=environ,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed,
    ) as process:
        assert process.stdin is not None
        # It is past its imports when it has read this: a pipe holds 64 KiB, so the rest blocks until somebody reads.
        process.stdin.write(bytes(200_000))
        process.stdin.flush()
        # Again where it came in the instant before a read began, which then waits; the input stays open.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
        code = process.returncode
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert code == 130
    assert said == "cachekit: interrupted\n"


WITHOUT_LOCKS = """
import os, sys, warnings
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "fcntl":
            raise ImportError("no fcntl on this system")
sys.meta_path.insert(0, Absent())
import platformdirs  # which takes another module of its own where there are no user ids
del os.geteuid, os.getuid
import cachekit, cachekit.cli
assert "fcntl" not in sys.modules
@cachekit.distributed_cache
def f(x): return x
assert f(1) == f(1) == 1
assert cachekit.stats().as_dict()["hits"]["memory"] == 1
sys.exit(cachekit.cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("arguments", "status", "said"), [
    (["ls"], 0, ""), (["doctor"], 0, "file locks"), (["node", "stop"], 0, ""), (["node", "status"], 1, ""),
])  # fmt: skip
def test_a_system_without_file_locks(
    environ: dict[str, str], tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    """Without fcntl and user ids calls are cached; what needs locks says so."""
    command = [sys.executable, "-c", WITHOUT_LOCKS, *arguments]
    done = subprocess.run(command, env=environ, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert said in done.stdout


def test_the_private_node_needs_file_locks(environ: dict[str, str], tmp_path: Path) -> None:
    """Starting a node without fcntl is refused in a sentence."""
    program = WITHOUT_LOCKS.replace(
        "sys.exit(",
        (
            "from pathlib import Path; from cachekit.ipfs.node import daemon\n"
            "try: daemon.start(Path('data'), binary=Path('ipfs'))\n"
            "except cachekit.UsageError as error: sys.exit(str(error))\nsys.exit("
        ),
    )
    command = [sys.executable, "-c", program, "ls"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert "no file locks (fcntl)" in done.stderr
    assert "Traceback" not in done.stderr
