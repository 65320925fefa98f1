"""The command line against a real Kubo: what is stored, sent, pinned and ended there, and every exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit.ipfs.content.cids import file_cid

ROOT = Path(__file__).parents[2]
ABSENT = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
MIB = 1 << 20
PROGRAM = """
import sys
from cachekit import distributed_cache, flush
@distributed_cache(tags=["t1"], pin="pin" in sys.argv)
def f(x):
    print("origin")
    return {"answer": x}
for x in (1, 2, 1): f(x)
if "flush" in sys.argv: flush(30)
"""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


class Machine:
    """A home directory with its own cache and credential, which shares one daemon with others."""

    def __init__(self, home: Path, api: str) -> None:
        home.mkdir()
        self.home = home
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "XDG_"))}
        self.environ = {
            **kept, "HOME": str(home), "CACHEKIT_DIR": str(home / "cache"), "CACHEKIT_IPFS": "rw",
            "CACHEKIT_IPFS_API": api, "CACHEKIT_IPFS_TIMEOUT": "10", "CACHEKIT_NAMESPACE": f"n{os.urandom(8).hex()}",
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        # One source for one function: both machines run the same file.
        self.program = home.parent / "program.py"
        self.program.write_text(PROGRAM)

    def run(self, *arguments: str, data: bytes | None = None, **variables: str) -> Done:
        """One command; whatever happens, there is no traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "cachekit", *arguments],
            env={**self.environ, **variables}, cwd=self.home, input=data or b"", capture_output=True, timeout=90,
        )  # fmt: skip
        text = Done(arguments, done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode())
        assert "Traceback" not in text.stderr
        return text

    def json(self, *arguments: str, status: int = 0, **variables: str) -> Any:
        """The parsed answer of a command with --json, which ended with `status`."""
        done = self.run(*arguments, "--json", **variables)
        assert done.returncode == status, done.stderr + done.stdout
        return json.loads(done.stdout)

    def call(self, *words: str) -> int:
        """Runs the program; how many times its origin was called."""
        command = [sys.executable, str(self.program), *words]
        done = subprocess.run(command, env=self.environ, cwd=self.home, text=True, capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout.count("origin")

    def checks(self, **variables: str) -> dict[str, dict[str, str]]:
        done = self.run("doctor", "--json", **variables)
        return {check["check"]: check for check in json.loads(done.stdout)["checks"]}


@pytest.fixture
def machine(tmp_path: Path, kubo_api: str) -> Machine:
    return Machine(tmp_path / "one", kubo_api)


@pytest.fixture
def mate(machine: Machine, tmp_path: Path, kubo_api: str) -> Machine:
    """A second machine of the team: another directory, the same namespace and credential."""
    made = Machine(tmp_path / "two", kubo_api)
    machine.run("sync")
    secret = (machine.home / ".config" / "cachekit" / "credential").read_text().strip()
    made.environ |= {"CACHEKIT_NAMESPACE": machine.environ["CACHEKIT_NAMESPACE"], "CACHEKIT_SECRET": secret}
    return made


# -- store and fetch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, MIB, 2 * MIB + 7])
def test_a_file_comes_back_as_it_was(machine: Machine, size: int) -> None:
    """`store` prints the CID that IPFS has for the bytes; `fetch` gives them to a file and to standard output."""
    data = os.urandom(size)
    (machine.home / "in").write_bytes(data)
    stored = machine.run("store", "in")
    cid = stored.stdout.strip()
    assert (stored.returncode, stored.stderr, cid) == (0, "", file_cid(data))
    assert machine.run("fetch", cid, "-o", "out").returncode == 0
    assert (machine.home / "out").read_bytes() == data
    command = [sys.executable, "-m", "cachekit", "fetch", cid]
    raw = subprocess.run(command, env=machine.environ, capture_output=True, timeout=90)
    assert (raw.returncode, raw.stdout) == (0, data)


def test_standard_input_is_stored(machine: Machine) -> None:
    """`store -` takes what is piped into it."""
    done = machine.run("store", "-", data=b"piped")
    assert done.stdout.strip() == file_cid(b"piped")


def test_store_and_fetch_answer_in_json(machine: Machine) -> None:
    """CID, size and whether it is pinned; bytes in base64, or the path they went to."""
    (machine.home / "in").write_bytes(b"hello")
    stored = machine.json("store", "in")
    assert stored == {"cid": file_cid(b"hello"), "size": 5, "pinned": False}
    assert machine.json("fetch", stored["cid"])["data"] == "aGVsbG8="
    assert machine.json("fetch", stored["cid"], "-o", "out")["path"] == "out"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["fetch", ABSENT], 1, ABSENT),
        (["fetch", "nonsense"], 2, "nonsense"),
        (["fetch", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPbdG"], 2, "ipfs cid base32"),
        (["store", "nowhere"], 2, "nowhere"),
        (["store", "."], 2, "directory"),
        (["unpin", ABSENT], 1, ABSENT),
        (["unpin", "nonsense"], 2, "nonsense"),
        (["unpin", "default/00"], 1, "default/00"),
        (["show", "default/" + "0" * 64], 1, "0000"),
    ],
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_what_cannot_be_had_is_said(
    machine: Machine, arguments: list[str], status: int, said: str, form: list[str]
) -> None:
    """A wrong CID, a missing file and an unknown key are one sentence on standard error, or a negative answer."""
    done = machine.run(*arguments, *form)
    assert done.returncode == status
    if form and done.stdout:
        assert json.loads(done.stdout)
    else:
        assert said in done.stderr
        assert done.stdout == ""


def test_a_file_that_cannot_be_written_is_named(machine: Machine) -> None:
    """`fetch -o` into no directory is the caller's mistake."""
    (machine.home / "in").write_bytes(b"x")
    cid = machine.run("store", "in").stdout.strip()
    done = machine.run("fetch", cid, "-o", "no/where")
    assert (done.returncode, "no/where" in done.stderr) == (2, True)


# -- pins -------------------------------------------------------------------------------------------------------------


def test_a_stored_pin_is_listed_until_it_is_taken_off(machine: Machine) -> None:
    """`store --pin`, `pins`, `unpin`, and a second `unpin` that has nothing to do."""
    (machine.home / "in").write_bytes(os.urandom(20))
    cid = machine.json("store", "in", "--pin")["cid"]
    assert [pin["cid"] for pin in machine.json("pins")] == [cid]
    assert cid in machine.run("pins").stdout
    assert machine.json("unpin", cid) == {"removed": True}
    assert machine.json("pins") == []
    assert machine.json("unpin", cid, status=1) == {"removed": False}


def test_a_pinned_answer_is_unpinned_by_its_key(machine: Machine) -> None:
    """What a decorated call pinned is listed under its namespace and taken off by the key that `ls` prints."""
    machine.call("pin", "flush")
    assert {pin["namespace"] for pin in machine.json("pins")} == {machine.environ["CACHEKIT_NAMESPACE"]}
    keys = [entry["key"] for entry in machine.json("ls")]
    assert [machine.run("unpin", key).returncode for key in keys] == [0, 0]
    assert machine.run("flush").returncode == 0
    assert machine.run("pins").stdout == "nothing is pinned\n"


# -- what was sent, and what comes from others ----------------------------------------------------------------------------


def test_flush_sends_and_sync_takes_in(machine: Machine, mate: Machine) -> None:
    """After `flush` here, `sync` there takes two entries in, and the origin is not called there."""
    assert machine.call() == 2
    assert machine.json("flush") == {"pending": 0, "ipfs": True}
    assert machine.run("flush").returncode == 0
    assert mate.json("sync") == {"entries": 2}
    assert mate.json("sync") == {"entries": 0}
    assert mate.call() == 0


def test_entries_are_listed_shown_and_explained(machine: Machine) -> None:
    """`ls`, `show` and `explain` agree on an entry that stands on disk and in IPFS."""
    machine.call("flush")
    entries = machine.json("ls")
    assert len(entries) == 2
    key = entries[0]["key"]
    assert key in machine.run("ls").stdout
    assert "answer" in machine.json("show", key)["preview"]
    explained = machine.json("explain", key)
    assert explained["disk"].startswith("usable")
    assert explained["ipfs"].startswith("usable: baf")
    gone = machine.environ["CACHEKIT_NAMESPACE"] + "/" + "0" * 64
    assert machine.json("explain", gone, status=1)["ipfs"].startswith("not in the index")


@pytest.mark.parametrize("how", ["key", "tag", "namespace", "clear"])
def test_an_end_reaches_the_other_machine(machine: Machine, mate: Machine, how: str) -> None:
    """Invalidating by key, tag or namespace, and clearing, end the hits of the other machine after flush and sync."""
    machine.call("flush")
    mate.run("sync")
    space = machine.environ["CACHEKIT_NAMESPACE"]
    key = machine.json("ls")[0]["key"]
    command = {"key": ["invalidate", key], "tag": ["invalidate", "--tag", "t1"],
               "namespace": ["invalidate", "--namespace", space], "clear": ["clear", "--yes"]}[how]  # fmt: skip
    assert machine.json(*command) == {"removed": True}
    assert machine.json(*command, status=1) == {"removed": False}
    machine.run("flush")
    mate.run("sync")
    assert not mate.json("explain", key, status=1)["ipfs"].startswith("usable")
    assert mate.call() == (1 if how == "key" else 2)


def test_gc_leaves_what_is_good(machine: Machine) -> None:
    """Nothing has expired, so nothing goes."""
    machine.call()
    assert machine.json("gc") == {"dropped": 0, "artifacts": 0, "leftovers": 0}
    assert len(machine.json("ls")) == 2


@pytest.mark.parametrize("arguments", [["flush", "--timeout", "1"], ["sync"], ["store", "in"], ["fetch", ABSENT]])
def test_a_daemon_that_is_away_is_said(machine: Machine, arguments: list[str]) -> None:
    """What needs the daemon ends with 1 and a sentence; entries wait for it."""
    (machine.home / "in").write_bytes(b"x")
    machine.environ["CACHEKIT_IPFS_API"] = "/ip4/127.0.0.1/tcp/1"
    machine.call()
    done = machine.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("cachekit: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_flushes_nothing(machine: Machine) -> None:
    """Under CACHEKIT_IPFS=ro nothing is queued and flush is content."""
    assert machine.json("flush", CACHEKIT_IPFS="ro") == {"pending": 0, "ipfs": True}


# -- doctor -----------------------------------------------------------------------------------------------------------


def test_doctor_names_the_daemon(machine: Machine) -> None:
    """Version and address are in the finding, and nothing fails."""
    done = machine.run("doctor")
    assert done.returncode == 0
    assert f"Kubo 0.43.0 at {machine.environ['CACHEKIT_IPFS_API']}" in done.stdout


def test_doctor_knows_its_own_namespace_from_others(machine: Machine) -> None:
    """With the right secret the entries are found; with another one, or another name, doctor says what to compare."""
    machine.call("flush")
    assert machine.checks()["namespaces"]["state"] == "ok"
    other = Machine(machine.home.parent / "three", machine.environ["CACHEKIT_IPFS_API"])
    other.environ["CACHEKIT_NAMESPACE"] = machine.environ["CACHEKIT_NAMESPACE"]
    for found in (other.checks(), machine.checks(CACHEKIT_NAMESPACE="another")):
        assert found["namespaces"]["state"] == "note"
        assert "CACHEKIT_SECRET" in found["namespaces"]["remedy"]


@pytest.mark.parametrize("secret", ["banana", "cachekit1-" + "x" * 50, "\u00e4"])
def test_a_secret_that_is_none_is_refused(machine: Machine, secret: str) -> None:
    """Doctor names the credential as the problem, the other commands end with 2, and nobody prints it."""
    done = machine.run("doctor", CACHEKIT_SECRET=secret)
    assert done.returncode == 1
    assert "failed  credential" in done.stdout
    refused = machine.run("sync", CACHEKIT_SECRET=secret)
    assert refused.returncode == 2
    assert "CACHEKIT_SECRET" in refused.stderr
    assert secret not in done.stdout + refused.stderr
