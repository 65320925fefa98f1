"""Commands of other tools out of a program: `command.run`, `command.RUN`, and what is known of agents and containers.

The tools themselves (claude, codex, gemini, llm, docker, kubectl) are scripted stand-ins: what they would say costs money
or needs a daemon. The commands that need neither are real.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit import UsageError, configure, distributed_cache, reset_stats, stats
from cachekit_adapters import agents, command, containers

STAND_IN = """#!/bin/sh
echo x >> "$(dirname "$0")/ran"
echo '{"type":"begin"}'
echo "$@"
case "$*" in *stdin*) cat ;; esac
echo '{"type":"end"}'
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of the test's own to work in, an empty home, and a cache."""
    home, desk = tmp_path / "home", tmp_path / "desk"
    home.mkdir()
    desk.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("KUBECONFIG", "DOCKER_HOST", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(desk)
    with configure(dir=tmp_path / "cache", ipfs="off"):
        reset_stats()
        yield desk


class Tool:
    """A stand-in that counts how often it ran."""

    def __init__(self, place: Path, name: str) -> None:
        self.path = place / "bin" / name
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(STAND_IN)
        self.path.chmod(0o755)

    @property
    def runs(self) -> int:
        ran = self.path.parent / "ran"
        return len(ran.read_text().splitlines()) if ran.exists() else 0

    def argv(self, text: str) -> list[str]:
        return [str(self.path), *text.split(" ")]


def bypasses() -> dict[str, int]:
    return dict(stats().as_dict()["bypasses"])


def test_a_hit_is_the_same_completed_process(place: Path) -> None:
    """stdout and stderr as bytes that are no text, the status, and the command ran once."""
    script = "import os, sys; open('ran','a').write('x'); os.write(1, bytes(range(256))); os.write(2, b'\\xff')"
    argv = [sys.executable, "-c", script]
    first, second = command.run(argv), command.run(argv)
    assert (first.stdout, first.stderr, first.returncode) == (bytes(range(256)), b"\xff", 0)
    assert vars(second) == vars(first)
    assert (place / "ran").read_text() == "x"


def test_named_outputs_come_back(place: Path) -> None:
    """A file that a hit finds gone is there again, and its content is that of the inputs."""
    for word in ("one", "two", "one"):
        (place / "in").write_text(word)
        command.run(["cp", "in", "out"], inputs=["in"], outputs=["out"], check=True)
        assert (place / "out").read_text() == word
        (place / "out").unlink()
    assert stats().as_dict()["misses"] == 2


@pytest.mark.parametrize(
    "change",
    [{"input": b"other"}, {"cwd": "/"}, {"account": "b"}, {"inputs": ["file"]}, {"env": ["HOME"]}, {"store_failures": True}],
)  # fmt: skip
def test_what_counts(place: Path, change: dict[str, Any]) -> None:
    """Standard input, the directory, a named variable, a file, the account: each makes another command."""
    (place / "file").write_text("x")
    before: dict[str, Any] = {"input": b"some", "account": "a"}
    for keywords in (before, before, {**before, **change}):
        command.run(["sort"], **keywords)
    assert stats().as_dict()["misses"] == 2


def test_words_of_a_command_do_not_run_together(place: Path) -> None:
    """Arguments are a list: two that join to the same text are two commands."""
    assert command.run(["printf", "%s|", "a b"], text=True).stdout == "a b|"
    assert command.run(["printf", "%s|", "a", "b"], text=True).stdout == "a|b|"
    with pytest.raises(UsageError, match="is a list"):
        command.run("ls -l")


def test_what_changes_something_always_runs(place: Path) -> None:
    """Once a call, and counted."""
    for number in (1, 2):
        command.run(["sh", "-c", "echo x >> ran"], side_effecting=True)
        assert (place / "ran").read_text() == "x\n" * number
    assert bypasses()["side_effecting"] == 2


def test_a_failure_is_passed_on(place: Path) -> None:
    """Its status each time it runs, as an exception where asked; kept only with `store_failures`."""
    argv = ["sh", "-c", "echo x >> ran; echo why >&2; exit 3"]
    assert [command.run(argv).returncode for _ in range(2)] == [3, 3]
    assert (place / "ran").read_text() == "x\nx\n"
    for _ in range(2):
        with pytest.raises(subprocess.CalledProcessError) as raised:
            command.run(argv, store_failures=True, check=True)
        assert (raised.value.returncode, raised.value.stderr) == (3, b"why\n")
    assert (place / "ran").read_text() == "x\n" * 3


def test_a_signal_is_said_as_subprocess_says_it() -> None:
    """Minus its number."""
    assert command.run(["sh", "-c", "kill -TERM $$"]).returncode == -15


def test_an_edited_program_runs_again(place: Path) -> None:
    """In one process too: what was found of a program counts while its files stay as they were."""
    tool = Tool(place, "tool")
    argv = tool.argv("x")
    command.run(argv)
    command.run(argv)
    assert tool.runs == 1
    tool.path.write_text(STAND_IN + "echo more\n")
    assert command.run(argv, text=True).stdout.endswith("more\n")
    assert tool.runs == 2


def test_a_function_that_returns_a_process(place: Path) -> None:
    """With `adapter=command.RUN` a hit is a CompletedProcess with the same bytes; a failed one is not kept."""
    calls = []

    @distributed_cache(adapter=command.RUN)
    def call(script: str) -> subprocess.CompletedProcess[bytes]:
        calls.append(script)
        return subprocess.run(["sh", "-c", script], capture_output=True, check=False)

    for script, times in (("printf 'a\\0b'; echo c >&2", 1), ("exit 1", 3)):
        found = [call(script) for _ in range(2)]
        assert len(calls) == times
        assert found[0].returncode == found[1].returncode
        assert (found[0].stdout, found[0].stderr) == (found[1].stdout, found[1].stderr)
    assert call("printf 'a\\0b'; echo c >&2").stdout == b"a\0b"


ASKED = [
    ("claude", "-p hello --model sonnet --output-format stream-json"),
    ("claude", "--print hello --allowedTools Read,Grep"),
    ("codex", "exec --model gpt-5 hello"),
    ("codex", "exec -s read-only hello"),
    ("gemini", "-m flash -p hello"),
    ("llm", "-m small hello -o temperature 0"),
    ("llm", "prompt hello"),
]


@pytest.mark.parametrize(("name", "text"), ASKED)
def test_an_agent_is_asked_once(place: Path, name: str, text: str) -> None:
    """(Stand-in.) The same prompt is replayed with all that was streamed; another prompt, model, input or file is asked."""
    tool = Tool(place, name)
    (place / "file").write_text("x")
    first, second = (agents.run(tool.argv(text), files=["file"]) for _ in range(2))
    assert first.stdout == second.stdout
    assert first.stdout.startswith(b'{"type":"begin"}\n')
    assert tool.runs == 1
    agents.run(tool.argv(text + "!"), files=["file"])
    agents.run(tool.argv(text), files=["file"], input="stdin")
    (place / "file").write_text("y")
    agents.run(tool.argv(text), files=["file"])
    agents.run(tool.argv(text), files=["file"], account="other")
    assert tool.runs == 5


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("claude", "-p -c hello", "session"),
        ("claude", "--continue -p hello", "session"),
        ("claude", "-p --resume abc hello", "session"),
        ("claude", "-p -r abc hello", "session"),
        ("claude", "hello", "interactive"),
        ("claude", "-p hello --dangerously-skip-permissions", "side_effecting"),
        ("claude", "-p hello --allowedTools Bash(git:*),Read", "side_effecting"),
        ("claude", "-p hello --permission-mode=acceptEdits", "side_effecting"),
        ("claude", "-p hello --allowedTools Read Write", "side_effecting"),
        ("claude", "-p hello --permission-prompt-tool mcp__ask", "side_effecting"),
        ("claude", "-p hello --worktree", "side_effecting"),
        ("claude", "-pc hello", "session"),
        ("codex", "exec resume --last hello", "session"),
        ("codex", "hello", "interactive"),
        ("codex", "exec --full-auto hello", "side_effecting"),
        ("codex", "exec -s workspace-write hello", "side_effecting"),
        ("codex", "exec -c sandbox_mode=workspace-write hello", "side_effecting"),
        ("codex", "exec -o answer.txt hello", "side_effecting"),
        ("codex", "exec fork 1 hello", "session"),
        ("gemini", "--resume latest -p hello", "session"),
        ("gemini", "-y -p hello", "side_effecting"),
        ("gemini", "-yp hello", "side_effecting"),
        ("gemini", "extensions install x", "not_a_prompt"),
        ("llm", "-c hello", "session"),
        ("llm", "--cid abc hello", "session"),
        ("llm", "chat", "interactive"),
        ("llm", "-T web hello", "side_effecting"),
        ("llm", "--save summary hello", "side_effecting"),
        ("llm", "-nc hello", "session"),
        ("llm", "-t mine hello", "elsewhere"),
        ("llm", "-f https://host.test/x hello", "elsewhere"),
        ("llm", "keys", "not_a_prompt"),
    ],
)  # fmt: skip
def test_an_agent_that_is_not_only_asked_runs_each_time(place: Path, name: str, text: str, reason: str) -> None:
    """(Stand-in.) One that goes on with a session, may change something or wants a terminal passes by, counted."""
    tool = Tool(place, name)
    for _ in range(2):
        agents.run(tool.argv(text))
    assert (tool.runs, bypasses()[reason]) == (2, 2)


@pytest.mark.parametrize(
    ("name", "text", "file"),
    [
        ("claude", "-p see @notes.txt.", "notes.txt"),
        ("claude", "-p hello", "CLAUDE.md"),
        ("claude", "-p hello", "../home/.claude/settings.json"),
        ("codex", "exec hello", "AGENTS.md"),
        ("codex", "exec -i a.png hello", "a.png"),
        ("gemini", "-p hello", "GEMINI.md"),
        ("llm", "-a b.png hello", "b.png"),
    ],
)
def test_what_an_agent_reads_by_name_counts(place: Path, name: str, text: str, file: str) -> None:
    """(Stand-in.) Files that the prompt mentions, that are attached, and its instructions and settings."""
    tool = Tool(place, name)
    path = place / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for content, runs in (("a", 1), ("a", 1), ("b", 2)):
        path.write_text(content)
        agents.run(tool.argv(text))
        assert tool.runs == runs


@pytest.mark.parametrize(
    ("name", "text", "ttl"),
    [
        ("docker", "ps --format json", "30s"),
        ("docker", "-H tcp://host:1 inspect web", "60s"),
        ("docker", "image ls", "60s"),
        ("docker", "manifest inspect debian", "10m"),
        ("docker", "version", "10m"),
        ("kubectl", "get pods -o json", "30s"),
        ("kubectl", "-n prod get deploy/web", "30s"),
        ("kubectl", "get nodes", "60s"),
        ("kubectl", "describe pod web", "30s"),
        ("kubectl", "api-resources", "10m"),
        ("kubectl", "config current-context", "60s"),
    ],
)
def test_reads_of_containers_are_kept_for_a_while(place: Path, name: str, text: str, ttl: str) -> None:
    """(Stand-in.) As long as the noun stays what it is; another host or account is asked itself."""
    tool = Tool(place, name)
    for _ in range(2):
        containers.run(tool.argv(text), check=True)
    assert tool.runs == 1
    assert containers.PRESETS[name].judge(text.split()).ttl == ttl
    settings = place.parent / "home" / {"docker": ".docker/config.json", "kubectl": ".kube/config"}[name]
    settings.parent.mkdir()
    settings.write_text("another context")
    containers.run(tool.argv(text))
    assert tool.runs == 2


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("docker", "rm web", "side_effecting"),
        ("docker", "buildx inspect --bootstrap", "side_effecting"),
        ("kubectl", "cluster-info dump --output-directory x", "side_effecting"),
        ("kubectl", "get pods -wn web", "stream"),
        ("docker", "context use other", "side_effecting"),
        ("docker", "run --rm debian", "side_effecting"),
        ("docker", "stats", "stream"),
        ("kubectl", "delete pod web", "side_effecting"),
        ("kubectl", "-n prod apply -f x.yaml", "side_effecting"),
        ("kubectl", "get pods -w", "stream"),
        ("kubectl", "get secret db -o json", "secret"),
        ("kubectl", "get pods,secrets", "secret"),
        ("kubectl", "get --raw /api/v1/secrets", "secret"),
        ("kubectl", "unknown-plugin list", "side_effecting"),
    ],
)
def test_what_is_no_read_runs_each_time(place: Path, name: str, text: str, reason: str) -> None:
    """(Stand-in.) Mutations, streams, secrets, and whatever is not known."""
    tool = Tool(place, name)
    for _ in range(2):
        containers.run(tool.argv(text))
    assert tool.runs == 2
    assert bypasses()[reason] == 2


def test_a_mutation_ends_what_was_read_before(place: Path) -> None:
    """(Stand-in.) After `docker rm` the next `docker ps` asks again; kubectl's reads stay."""
    docker, kubectl = Tool(place, "docker"), Tool(place, "kubectl")
    containers.run(docker.argv("ps"))
    containers.run(kubectl.argv("get pods"))
    before = docker.runs
    containers.run(docker.argv("rm web"))
    containers.run(docker.argv("ps"))
    assert docker.runs == before + 2
    containers.run(kubectl.argv("get pods"))
    assert docker.runs == before + 2


def test_an_unknown_program_has_no_preset() -> None:
    """The error names those there are, and what to use instead."""
    with pytest.raises(UsageError, match=r"no preset for 'podman'; there are docker, kubectl: use command\.run"):
        containers.run(["podman", "ps"])


def test_secrets_of_a_command_are_not_written_down(tmp_path: Path) -> None:
    """An option's secret stands in no file of the cache."""
    command.run(["true", "--token", "hunter2hunter2", "--api-key=opensesame"])
    kept = b"".join(path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert stats().as_dict()["stores"] == 1
    assert b"opensesame" not in kept
    assert b"hunter2hunter2" not in kept


@pytest.mark.parametrize("status", [129, 143, 255])
def test_a_high_status_is_no_signal(status: int) -> None:
    """What a program exits with is told as it is: ssh's 255, git's 129; kept or not."""
    words = ["sh", "-c", f"exit {status}"]
    found = [command.run(words, store_failures=True).returncode for _ in range(2)]
    assert [*found, command.run(words).returncode] == [status] * 3
