"""Joining a team from the command line, with real daemons: a token, a node, a hit, and who is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from teams import ROOT, free_port

from cachekit.files.places import cache_dir

PROGRAM = """
import sys
from cachekit import distributed_cache, flush
@distributed_cache(ttl=None)
def f(x):
    print("origin")
    return x * 2
print(f(21))
flush()
if "wait" in sys.argv:
    print("flushed", flush=True)
    sys.stdin.read()
"""

Done = subprocess.CompletedProcess[str]


class Home:
    """An empty home directory, but for the Kubo that is installed."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "XDG_", "CI"))}
        self.environ = {
            **kept, "HOME": str(place), "XDG_CACHE_HOME": str(cache_dir().parent), "CACHEKIT_DIR": str(place / "cache"),
            "PYTHONPATH": str(ROOT), "CACHEKIT_IPFS_TIMEOUT": "2", "CACHEKIT_IPFS": "rw",
        }  # fmt: skip
        (place.parent / "program.py").write_text(PROGRAM)

    def run(self, *words: str, **environ: str) -> Done:
        command = [sys.executable, "-m", "cachekit", *words]
        done = subprocess.run(
            command,
            env={**self.environ, **environ},
            cwd=self.place,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def program(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "../program.py", *words],
            env=self.environ, cwd=self.place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip


@pytest.fixture
def homes(tmp_path: Path, kubo_api: str) -> Iterator[tuple[Home, Home]]:
    """Two machines; `kubo_api` saw to it that there is a Kubo."""
    homes = Home(tmp_path / "a"), Home(tmp_path / "b")
    yield homes
    for home in homes:
        home.run("node", "stop")


def test_two_commands_make_a_team(homes: tuple[Home, Home]) -> None:
    """A token on one machine, joined on the other: which then has what the first computed, and both know each other."""
    first, second = homes
    invited = first.run("node", "invite", "--address", f"127.0.0.1:{free_port()}", "--name", "laptop-2")
    assert invited.returncode == 0, invited.stderr
    token = invited.stdout.strip()
    assert "127.0.0.1" in invited.stderr
    assert len(invited.stdout.splitlines()) == 1
    with first.program("wait") as program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(3)] == ["origin\n", "42\n", "flushed\n"]
        joined = second.run("node", "join", token, "--json")
        assert joined.returncode == 0, joined.stderr
        assert json.loads(joined.stdout)["entries"] == 1
        with second.program() as other:
            assert other.communicate()[0] == "42\n"
        members = json.loads(second.run("node", "status", "--json").stdout)["members"]
        assert [(one["online"], one["entries"], one["lag"]) for one in members] == [(True, 1, 0)]
        assert "ok      team: 1 daemons" in second.run("doctor").stdout
        program.communicate()
    assert "laptop-2" in first.run("node", "status").stdout
    for path in second.place.rglob("*"):
        if path.name in ("credential", "team.json", "swarm.key"):
            assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("join", "ck2.AAAA"), "cut or altered"),
        (("join", "nonsense"), "begins with ck2."),
        (("invite", "--address", "no host"), "HOST or HOST:PORT"),
        (("invite", "--address", "host:70000"), "HOST or HOST:PORT"),
    ],
)
def test_a_wrong_word_is_told_with_the_remedy(homes: tuple[Home, Home], words: tuple[str, ...], remedy: str) -> None:
    """Status 2 and one sentence, and nothing was made."""
    done = homes[0].run("node", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert remedy in done.stderr
    assert not (homes[0].place / ".config").exists()


def test_a_secret_in_the_environment_is_not_joined_over(homes: tuple[Home, Home]) -> None:
    """It would win over the token, and the machine would be in no team."""
    token = homes[0].run("node", "invite", "--address", f"127.0.0.1:{free_port()}").stdout.strip()
    secret = next((homes[0].place / ".config" / "cachekit").glob("credential")).read_text().strip()
    done = homes[1].run("node", "join", token, CACHEKIT_SECRET=secret)
    assert done.returncode == 2
    assert "unset it" in done.stderr
    assert secret not in done.stderr


def test_joining_again_changes_nothing(homes: tuple[Home, Home]) -> None:
    """The credential stays, the node goes on, and the earlier credential of another team is set aside."""
    first, second = homes
    token = first.run("node", "invite", "--address", f"127.0.0.1:{free_port()}").stdout.strip()
    config = second.place / ".config" / "cachekit"
    config.mkdir(parents=True, mode=0o700)
    from cachekit.ipfs.trust.credential import Credential

    (config / "credential").write_text(Credential.create().to_text())
    (config / "credential").chmod(0o600)
    assert "is in" in second.run("node", "join", token).stderr
    node = json.loads(second.run("node", "status", "--json").stdout)["pid"]
    assert second.run("node", "join", token).stderr == ""
    assert json.loads(second.run("node", "status", "--json").stdout)["pid"] == node
    assert len(list(config.glob("credential.before-*"))) == 1


def test_blame_says_who_stored_an_answer(homes: tuple[Home, Home]) -> None:
    """The member that computed it, on the machine that has a copy; this machine, where it was computed."""
    first, second = homes
    token = first.run("node", "invite", "--address", f"127.0.0.1:{free_port()}", "--name", "laptop-2").stdout.strip()
    with first.program("wait") as listening:
        assert listening.stdout is not None
        assert [listening.stdout.readline() for _ in range(3)] == ["origin\n", "42\n", "flushed\n"]
        second.run("node", "join", token)
        with second.program() as other:
            assert other.communicate()[0] == "42\n"
        key = json.loads(first.run("ls", "--json").stdout)[0]["key"]
        here, there = (json.loads(home.run("blame", key, "--json").stdout) for home in homes)
        listening.communicate()
    assert here["by"] == "this machine"
    assert here["function"] == there["function"] == "__main__.f"
    assert here["code"] != "not known here"
    assert there["by"] not in ("this machine", "laptop-2")
    assert there["stored"] == here["stored"]
    assert second.run("blame", f"default/{'0' * 64}").returncode == 1


def test_a_revoked_and_a_distrusted_member(homes: tuple[Home, Home]) -> None:
    """What it stored ends on the owner's machine; what it stores then is refused; nobody else may do either."""
    first, second = homes
    token = first.run("node", "invite", "--address", f"127.0.0.1:{free_port()}", "--name", "laptop-2").stdout.strip()
    second.run("node", "join", token)
    with second.program("wait") as listening:
        assert listening.stdout is not None
        assert [listening.stdout.readline() for _ in range(3)] == ["origin\n", "42\n", "flushed\n"]
        first.run("sync")
        with first.program() as copying:
            assert copying.communicate()[0] == "42\n"
        assert second.run("distrust", "laptop-2").returncode == 2
        assert first.run("distrust", "nobody").returncode == 2
        assert first.run("distrust", "laptop-2").returncode == 0
        assert first.run("node", "revoke", "laptop-2").returncode == 0
        with first.program() as again:
            assert again.communicate()[0] == "origin\n42\n"
        assert first.run("node", "rotate").returncode == 0
        listening.communicate()
