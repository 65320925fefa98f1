"""A hit of `cachekit run` that costs little: by a note, and never against what changed meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from desk import Desk

TOOL = "#!/bin/sh\necho x >> ran\ncat in.txt tree/* 2>/dev/null\necho $WORD\n"
SAID = ("--input", "in.txt", "--input", "tree", "--env", "WORD", "--", "./tool")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "desk").mkdir()
    desk = Desk(tmp_path / "desk")
    desk.write("tool", TOOL, 0o755)
    desk.write("in.txt", "one")
    desk.write("tree/a", "two")
    return desk


def runs(desk: Desk) -> int:
    return len((desk.place / "ran").read_text().splitlines())


def test_a_hit_imports_next_to_nothing(desk: Desk) -> None:
    """Neither wrapt nor asyncio, nor the package's own rooms: what it replays is what the command said."""
    desk.run(*SAID)
    probe = (
        "import sys; from cachekit.cli import main; main(sys.argv[1:]); print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "run", *SAID],
        cwd=desk.place, env=desk.environ, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    loaded = set(done.stderr.split())
    assert (done.stdout, runs(desk), desk.quick()) == ("onetwo\n", 1, 1)
    assert {name for name in loaded if name.startswith("cachekit")} == {
        *("cachekit", "cachekit.cli", "cachekit.commands", "cachekit.commands.quick"),
        *("cachekit.files", "cachekit.files.frames"),
    }
    assert loaded.isdisjoint(("wrapt", "asyncio", "argparse", "json", "dataclasses", "pathlib", "sqlite3"))


@pytest.mark.parametrize("words", [("env",), ("stats",), ("ls",), ("gc",), ("run", "--", "true")])
def test_the_command_line_does_without_wrapt(desk: Desk, words: tuple[str, ...]) -> None:
    """Which takes as long to import as all the rest: nothing that is typed decorates a function."""
    probe = "import sys; from cachekit.cli import main; main(sys.argv[1:]); sys.exit('wrapt' in sys.modules)"
    command = [sys.executable, "-c", probe, *words]
    subprocess.run(command, cwd=desk.place, env=desk.environ, capture_output=True, check=True, stdin=subprocess.DEVNULL)


def edit(name: str, text: str) -> Callable[[Desk], None]:
    return lambda desk: desk.write(name, text, 0o755) and None


def cachekit(*words: str) -> Callable[[Desk], None]:
    def call(desk: Desk) -> None:
        command = [sys.executable, "-m", "cachekit", *words]
        subprocess.run(command, cwd=desk.place, env=desk.environ, check=True, capture_output=True)

    return call


@pytest.mark.parametrize(
    ("change", "environ"),
    [
        (edit("tool", TOOL + "echo more\n"), {}),
        (edit("in.txt", "two"), {}),
        (edit("tree/b", "new"), {}),
        (edit("tree/a", "TWO"), {}),
        (lambda desk: (desk.place / "in.txt").rename(desk.place / "old") and desk.write("in.txt", "ONE"), {}),
        (edit("nothing", ""), {"WORD": "other"}),
        (edit("nothing", ""), {"CACHEKIT_MODE": "off"}),
        (edit("nothing", ""), {"CACHEKIT_MODE": "refresh"}),
        (edit("nothing", ""), {"CACHEKIT_NAMESPACE": "other"}),
        (edit("cachekit.toml", "mode = 'off'\n"), {}),
        (edit("pyproject.toml", "[tool.cachekit]\nmode = 'refresh'\n"), {}),
        (cachekit("clear", "--yes"), {}),
        (cachekit("invalidate", "--namespace", "default"), {}),
    ],
)  # fmt: skip
def test_what_ends_a_hit_ends_a_quick_one(
    desk: Desk, change: Callable[[Desk], object], environ: dict[str, str]
) -> None:
    """The program, an input, a file in a tree, a variable, a mode, a settings file, an invalidation: the command runs."""
    for _ in range(2):
        desk.run(*SAID)
    assert (runs(desk), desk.quick()) == (1, 1)
    change(desk)
    assert desk.run(*SAID, **environ).returncode == 0
    assert runs(desk) == 2


def test_a_quick_hit_ends_with_its_ttl(desk: Desk) -> None:
    """It is served before, and the command runs again once it is over."""
    words = ("--ttl", "3s", *SAID)
    desk.run(*words)
    desk.run(*words)
    quick, until = desk.quick(), time.monotonic() + 60
    while runs(desk) < 2 and time.monotonic() < until:
        desk.run(*words)
    assert quick == 1
    assert runs(desk) == 2


def test_what_the_store_lost_is_no_quick_hit(desk: Desk) -> None:
    """An outcome that somebody changed or took away in the store is not replayed."""
    desk.run(*SAID)
    (said,) = Path(desk.environ["CACHEKIT_DIR"]).glob("artifacts/trees/*/*/*/stdout")
    said.chmod(0o600)
    said.write_text("forged!")
    assert desk.run(*SAID).stdout == "onetwo\n"


def test_another_command_ends_no_quick_hit(desk: Desk) -> None:
    """Outcomes share equal files in the store (nothing on standard error, for one): that is no change of either."""
    for word in ("one", "two", "one", "two"):
        assert desk.run("--", "echo", word).stdout == f"{word}\n"
    assert desk.quick() == 2


def test_a_forged_copy_of_an_output_is_not_put_anywhere(desk: Desk) -> None:
    """Where the store's copy has other bytes, the command runs again."""
    words = ("--input", "in.txt", "--output", "made", "--", "cp", "in.txt", "made")
    desk.run(*words)
    (desk.place / "made").unlink()
    (kept,) = Path(desk.environ["CACHEKIT_DIR"]).glob("artifacts/trees/*/*/*/outputs/0/made")
    kept.chmod(0o600)
    kept.write_text("two")
    assert desk.run(*words).returncode == 0
    assert (desk.place / "made").read_text() == "one"


def test_outputs_come_back_quickly(desk: Desk) -> None:
    """A file that is gone or changed comes back, with its permissions; one that is there already is left alone."""
    script = "echo x >> ran; cp in.txt made; chmod 640 made; mkdir -p out/below; cp in.txt out/below/file"
    words = ("--input", "in.txt", "--output", "made", "--output", "out", "--", "sh", "-c", script)
    desk.run(*words)
    made, below = desk.place / "made", desk.place / "out" / "below" / "file"
    before = made.stat()
    desk.run(*words)
    assert (made.stat(), desk.quick()) == (before, 1)
    made.unlink()
    desk.run(*words)
    assert (made.read_text(), made.stat().st_mode & 0o777, desk.quick()) == ("one", 0o640, 2)
    made.write_text("mine")
    desk.run(*words)
    assert (made.read_text(), desk.quick()) == ("one", 3)
    below.write_text("mine")
    desk.run(*words)
    assert (below.read_text(), runs(desk)) == ("one", 1)
    assert not list(desk.place.glob(".cachekit-*"))


def test_a_link_in_the_way_is_not_followed(desk: Desk) -> None:
    """Where a link came to stand at an output, what it leads to stays as it is."""
    words = ("--input", "in.txt", "--output", "made", "--", "cp", "in.txt", "made")
    desk.run(*words)
    (desk.place / "made").unlink()
    victim = desk.write("victim", "precious")
    (desk.place / "made").symlink_to(victim)
    desk.run(*words)
    assert victim.read_text() == "precious"
    assert (desk.place / "made").read_text() == "one"


def test_quick_hits_are_counted(desk: Desk) -> None:
    """`cachekit stats` has them among the hits of the disk, with the seconds saved."""
    for _ in range(4):
        desk.run(*SAID)
    assert desk.quick() == 3
    command = [sys.executable, "-m", "cachekit", "stats", "--json"]
    done = subprocess.run(command, cwd=desk.place, env=desk.environ, check=True, capture_output=True, text=True)
    counted = json.loads(done.stdout)["functions"]["cachekit.cli.outcome"]
    assert (counted["calls"], counted["hits"]["disk"], counted["misses"]) == (4, 3, 1)
    assert counted["seconds"]["saved"] > 0
    assert desk.quick() == 0


def test_a_replay_says_the_same_in_json(desk: Desk) -> None:
    """`--json` prints what the whole way prints, and the command's words go to standard error."""
    found = [desk.run("--json", *SAID) for _ in range(3)]
    assert desk.quick() == 2
    assert [json.loads(one.stdout)["hit"] for one in found] == [False, True, True]
    assert {one.stderr for one in found} == {"onetwo\n"}


def test_configured_in_the_process_goes_the_whole_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """`main()` called where `configure()` says another directory does not look into the default one."""
    from cachekit import configure
    from cachekit.cli import main

    monkeypatch.chdir(desk.place)
    for name, value in desk.environ.items():
        monkeypatch.setenv(name, value)
    desk.run(*SAID)
    with configure(dir=desk.place.parent / "other"):
        assert main(["run", *SAID]) == 0
    assert (runs(desk), desk.quick()) == (2, 0)
    assert os.listdir(desk.place.parent / "other")


@pytest.mark.parametrize(("more", "mode"), [((), "refresh"), (("--trace",), "on")])
def test_a_quick_hit_ends_where_another_outcome_takes_its_place(desk: Desk, more: tuple[str, ...], mode: str) -> None:
    """Made anew in mode refresh, and by --trace: the next hit has the new outcome, wherever it is asked for."""
    desk.write("count", "#!/bin/sh\necho x >> ran\nwc -l < ran\n", 0o755)
    assert [desk.run("--", "./count").stdout.strip() for _ in range(2)] == ["1", "1"]
    assert desk.run(*more, "--", "./count", CACHEKIT_MODE=mode).stdout.strip() == "2"
    assert [desk.run("--", "./count").stdout.strip() for _ in range(2)] == ["2", "2"]
