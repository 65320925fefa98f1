"""`cachekit run -- COMMAND…`: a command's outcome, kept and replayed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from stopping import heed

from cachekit import configure
from cachekit.cli.parser import main
from cachekit.commands import process

SCRIPT = """
import os, sys
open("ran", "a").write("x")
print("said", os.environ.get("WORD", ""))
print("warned", file=sys.stderr)
open(sys.argv[2], "w").write(open(sys.argv[1]).read().upper())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "in.txt").write_text("hello")
    return tmp_path


def cachekit(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cachekit", *arguments],
        cwd=place, env=environment(place, **variables), capture_output=True, text=True, check=False, input="typed",
    )  # fmt: skip


def environment(place: Path, **variables: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")},
        **{"CACHEKIT_DIR": str(place / "cache"), "CACHEKIT_IPFS": "off", "XDG_CONFIG_HOME": str(place / "config")},
        "PYTHONPATH": str(Path(__file__).parents[2]),
        **variables,
    }


def convert(place: Path, *more: str, output: str = "out.txt", **variables: str) -> subprocess.CompletedProcess[str]:
    said = ("--input", "in.txt", "--input", "script.py", "--output", output, "--env", "WORD", *more)
    return cachekit(place, "run", *said, "--", sys.executable, "script.py", "in.txt", "out.txt", **variables)


def runs(place: Path) -> int:
    return len((place / "ran").read_text()) if (place / "ran").exists() else 0


def test_the_second_run_is_replayed(place: Path) -> None:
    """The same output, the same files, writable, and the command did not run again."""
    first = convert(place)
    (place / "out.txt").unlink()
    second = convert(place)
    assert (first.returncode, second.returncode) == (0, 0)
    assert (second.stdout, second.stderr) == (first.stdout, first.stderr) == ("said \n", "warned\n")
    assert (place / "out.txt").read_text() == "HELLO"
    (place / "out.txt").write_text("mine")
    assert runs(place) == 1


def test_inputs_and_variables_count(place: Path) -> None:
    """Another input or another value of a named variable runs the command; an unnamed one does not."""
    convert(place)
    convert(place, OTHER="1")
    assert runs(place) == 1
    convert(place, WORD="hello")
    (place / "in.txt").write_text("changed")
    convert(place)
    assert runs(place) == 3
    assert (place / "out.txt").read_text() == "CHANGED"


def test_a_failing_command_is_passed_on_and_not_stored(place: Path) -> None:
    """The exit status is the command's, every time it runs."""
    for _ in range(2):
        failed = cachekit(place, "run", "--", sys.executable, "-c", "open('ran','a').write('x'); raise SystemExit(7)")
        assert failed.returncode == 7
    assert runs(place) == 2


def test_json_says_whether_it_was_a_hit(place: Path) -> None:
    """`--json` prints one object on standard output; what the command says goes to standard error."""
    found = [json.loads(convert(place, "--json").stdout) for _ in range(2)]
    assert [one["hit"] for one in found] == [False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run",), "takes a command"),
        (("run", "--input", "nowhere", "--", "true"), "nowhere"),
        (("run", "--input", "", "--", "true"), "--input takes the path"),
        (("run", "--output", "never", "--", sys.executable, "-c", ""), "was not made"),
    ],
)
def test_wrong_inputs_are_said(place: Path, arguments: tuple[str, ...], said: str) -> None:
    """A sentence on standard error and exit status 2."""
    refused = cachekit(place, *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("tree", [False, True])
def test_what_stood_there_before_was_not_made_by_the_command(place: Path, tree: bool) -> None:
    """Said, the command's status passed on, nothing kept: and kept as soon as the command writes to it."""
    output = place / "out"
    file = output / "part" if tree else output
    file.parent.mkdir(exist_ok=True)
    file.write_text("stale")
    skipping = ("run", "--json", "--output", "out", "--input", "changes", "--", sys.executable, "script.py")
    (place / "script.py").write_text(f"open('ran','a').write('x'); print(open('changes').read(), file=open({str(file)!r}, 'a')"
                                     " if open('changes').read() else None)")  # fmt: skip
    (place / "changes").write_text("")
    for _ in range(2):
        found = cachekit(place, *skipping)
        assert found.returncode == 0
        assert json.loads(found.stdout)["kept"] is False
        assert "nothing was kept" in found.stderr
        assert "stood there before" in found.stderr
    assert runs(place) == 2
    (place / "changes").write_text("now")
    assert [json.loads(cachekit(place, *skipping).stdout)["hit"] for _ in range(2)] == [False, True]


def test_the_command_gets_no_standard_input(place: Path) -> None:
    """What is not part of the key cannot reach the command."""
    found = cachekit(place, "run", "--", sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))")
    assert (found.returncode, found.stdout) == (0, "''\n")


@pytest.mark.parametrize("full", ["scratch", "copy", "printed", "store", "record"])
def test_a_full_disk_costs_only_the_keeping(
    place: Path, full: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The outputs are where the command put them, it ran once, its status is passed on, and one line says it."""

    def refuse(*_arguments: Any, **_keywords: Any) -> Any:
        raise OSError(28, "No space left on device")

    def write(descriptor: int, data: Any) -> int:
        return refuse()  # type: ignore[no-any-return]

    monkeypatch.chdir(place)
    with configure(dir=place / "cache", ipfs="off"):
        assert main(["gc"]) == 0
        if full == "scratch":
            monkeypatch.setattr("cachekit.calls.builds.work.own_scratch", refuse)
            monkeypatch.setattr("cachekit.artifacts.store.new_name", refuse)
        elif full == "copy":
            monkeypatch.setattr(shutil, "copy2", refuse)
        elif full == "printed":
            monkeypatch.setattr(process.os, "write", write)
        elif full == "store":
            monkeypatch.setattr("cachekit.artifacts.store.bring", refuse)
        else:
            from cachekit.cache.default import default
            from cachekit.errors import TierFull

            def no_room(*_arguments: Any) -> None:
                raise TierFull("No space left on device")

            monkeypatch.setattr(type(default().disk), "put", no_room)
        status = main(["run", "--output", "out.txt", "--", sys.executable, "script.py", "in.txt", "out.txt"])
    monkeypatch.undo()
    printed, said = capfdbinary.readouterr()
    assert (status, runs(place), (place / "out.txt").read_text()) == (0, 1, "HELLO")
    assert b"said" in printed
    assert said.count(b"cachekit: nothing was kept: ") == 1
    assert b"No space left" in said
    assert b"Traceback" not in said
    scratch = place / "cache" / "artifacts" / "scratch"
    assert not scratch.exists() or list(scratch.iterdir()) == []


@pytest.mark.parametrize("mode", ["off", "read-only"])
def test_a_mode_that_keeps_nothing_copies_nothing(place: Path, mode: str) -> None:
    """The command runs as if it stood alone; nothing is left in the temporary directory or in the store."""
    temporary = place / "tmp"
    temporary.mkdir()
    for _ in range(2):
        done = convert(place, CACHEKIT_MODE=mode, TMPDIR=str(temporary))
        assert (done.returncode, done.stdout, done.stderr) == (0, "said \n", "warned\n")
    assert runs(place) == 2
    assert list(temporary.iterdir()) == []
    assert not list(place.glob("cache/artifacts/scratch/*"))


WAITING = """
import signal, sys, time
if "gentle" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "how", "status"),
    [
        (signal.SIGTERM, "plain", 143),
        (signal.SIGHUP, "plain", 129),
        (signal.SIGINT, "plain", 130),
        (signal.SIGQUIT, "plain", 131),
        (signal.SIGUSR1, "plain", 138),
        (signal.SIGUSR2, "plain", 140),
        (signal.SIGTERM, "gentle", 0),
    ],
)
def test_signals_reach_the_command(place: Path, number: signal.Signals, how: str, status: int) -> None:
    """Cachekit ends as the command did, and keeps nothing of what a signal broke off."""
    (place / "waiting.py").write_text(WAITING)
    command = [sys.executable, "-m", "cachekit", "run", "--", sys.executable, "waiting.py", how]
    with subprocess.Popen(
        command, cwd=place, env=environment(place), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=heed,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(number)
        said = child.communicate(timeout=30)[1]
    assert child.returncode == status
    assert (b"was passed on" in said) == (status == 0)
    assert json.loads(cachekit(place, "ls", "--artifacts", "--json").stdout) == []


def test_values_of_the_environment_are_not_written_down(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They decide the key, and may be passwords: neither `show` nor any file of the cache has them."""
    for number, url in enumerate(("postgres://user:hunter2@host", "postgres://user:hunter3@host")):
        monkeypatch.setenv("DATABASE", url)
        done = cachekit(place, "run", "--json", "--env", "DATABASE", "--", "true")
        assert json.loads(done.stdout)["hit"] is False, number
    directory = Path(environment(place)["CACHEKIT_DIR"])
    assert not [path for path in directory.rglob("*") if path.is_file() and b"hunter" in path.read_bytes()]
    assert json.loads(cachekit(place, "ls", "--artifacts", "--json").stdout)


def test_an_input_that_the_command_changes_is_said(place: Path) -> None:
    """Its status is passed on, and a line says that nothing was kept, and why."""
    (place / "both").write_text("x")
    for _ in range(2):
        done = cachekit(place, "run", "--input", "both", "--", "/bin/sh", "-c", "echo more >> both")
        assert done.returncode == 0
        assert "--input is another one" in done.stderr
    assert (place / "both").read_text() == "xmore\nmore\n"


def test_an_outcome_is_called_after_its_output(place: Path) -> None:
    """Else after the command; `show` finds it by that name, and one that no artifact may have is left."""
    convert(place)
    cachekit(place, "run", "--", "/bin/sh", "-c", "echo hello")
    (place / "nul").symlink_to("/bin/sh")
    cachekit(place, "run", "--", "./nul", "-c", "echo hello")
    found = json.loads(cachekit(place, "ls", "--artifacts", "--json").stdout)
    assert sorted(one["name"] for one in found) == ["out.txt", "outcome", "sh"]
    assert "out.txt" in cachekit(place, "show", "out.txt").stdout


def test_an_unreadable_input_is_named_before_the_command_runs(place: Path) -> None:
    """Exit status 2, and the sentence has the option and the file, not a parameter of ours."""
    os.mkfifo(place / "pipe")
    refused = convert(place, "--input", "pipe")
    assert (refused.returncode, runs(place)) == (2, 0)
    assert refused.stderr.startswith("cachekit: --input pipe cannot be read")
    assert "Warning" not in refused.stderr


MAKING = """
import os, sys
os.makedirs("tree/below")
for name, mode in (("secret", 0o600), ("tree/key", 0o640), ("tree/below/tool", 0o755)):
    open(name, "w").close()
    os.chmod(name, mode)
os.chmod("tree/below", 0o500)
"""


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_permissions_come_back(place: Path, umask: int) -> None:
    """Those that the umask allows, and never more than the command's own output had."""
    (place / "making.py").write_text(MAKING)
    said = ("run", "--json", "--output", "secret", "--output", "tree", "--", sys.executable, "making.py")
    before = os.umask(umask)
    try:
        assert json.loads(cachekit(place, *said).stdout)["hit"] is False
        (place / "tree" / "below").chmod(0o700)
        shutil.rmtree(place / "tree")
        (place / "secret").unlink()
        assert [json.loads(cachekit(place, *said).stdout)["hit"] for _ in range(2)] == [True, True]
    finally:
        os.umask(before)
    wanted = {"secret": 0o600, "tree/key": 0o640, "tree/below/tool": 0o755, "tree/below": 0o500}
    assert {name: (place / name).stat().st_mode & 0o777 for name in wanted} == {
        name: mode & ~umask for name, mode in wanted.items()
    }
    assert not list(place.glob(".cachekit-*"))


def test_secrets_of_a_command_line_are_not_written_down(place: Path) -> None:
    """An option's secret and a URL's password stand in no file of the cache, and no command shows them."""
    said = ("--token", "hunter2hunter2", "--api-key=opensesame", "https://me:letmein1@host.test/x")
    done = cachekit(place, "run", "--output", "out.txt", "--", sys.executable, "script.py", "in.txt", "out.txt", *said)
    assert done.returncode == 0, done.stderr
    listed = json.loads(cachekit(place, "ls", "--artifacts", "--json").stdout)
    shown = cachekit(place, "show", listed[0]["name"])
    kept = b"".join(path.read_bytes() for path in (place / "cache").rglob("*") if path.is_file())
    assert "<secret>" in shown.stdout
    for secret in ("hunter2hunter2", "opensesame", "letmein1"):
        assert secret not in shown.stdout + str(listed)
        assert secret.encode() not in kept


@pytest.mark.parametrize(("name", "status"), [("no-such-command-here", 127), ("./in.txt", 126), (".", 126)])
def test_what_cannot_be_run_ends_as_in_a_shell(place: Path, name: str, status: int) -> None:
    """127 where there is no such program, 126 where it may not be run, as `env` and `timeout` say it; one sentence."""
    refused = cachekit(place, "run", "--", name)
    assert refused.returncode == status
    assert "cannot be run" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_ends_a_replay_as_it_ends_a_run(place: Path, unbuffered: str) -> None:
    """`| head`: the status is that of SIGPIPE when it runs, when it is had the whole way, and by a note."""
    words, env = [sys.executable, "-m", "cachekit", "run", "--", "seq", "300000"], environment(place)
    env["PYTHONUNBUFFERED"] = unbuffered
    subprocess.run(words, cwd=place, env=env, stdout=subprocess.DEVNULL, check=True)
    notes = place / "cache" / "notes"
    for whole in (False, True):
        if whole:
            shutil.rmtree(notes)
        with subprocess.Popen(words, cwd=place, env=env, stdout=subprocess.PIPE) as replay:
            assert replay.stdout is not None
            replay.stdout.read(2)
            replay.stdout.close()
        assert replay.returncode == 141
