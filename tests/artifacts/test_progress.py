"""What is told while files move: to programs by callbacks, to a terminal by bars, elsewhere by lines of the log."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import Progress, UsageError, on_progress, persist_artifact, restore
from cachekit.artifacts.progress import LARGE, Display, counter, tell
from cachekit.cache.operations import registry

ROOT = Path(__file__).parents[2]


@persist_artifact(scratch="work", version="7")
def build(name: str, *texts: str, work: Path | None = None) -> Path:
    assert work is not None
    tree = work / name
    tree.mkdir()
    for number, text in enumerate(texts):
        (tree / f"{number}.bin").write_text(text)
    return tree


# -- programs --------------------------------------------------------------------------------------------------------


def test_a_callback_hears_of_every_file(kubo_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storing or hashing, adding and fetching, each up to its total; nothing after it was taken off."""
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    common = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 5, "namespace": f"n{os.urandom(6).hex()}"}
    heard: list[Progress] = []
    remove = on_progress(heard.append)
    with cachekit.configure(dir=tmp_path / "one", **common):
        build("model-told", "a" * (3 << 20), "b" * (2 << 20))
        cachekit.flush(60)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config two"))
    with cachekit.configure(dir=tmp_path / "two", **common):
        restore("model-told")
    last = {(progress.what, progress.name): (progress.done, progress.total) for progress in heard}
    for what in ("hashing", "adding", "fetching"):
        assert {name for step, name in last if step == what} >= {"0.bin", "1.bin"}
    assert all(done == total for done, total in last.values())
    remove()
    before = len(heard)
    build("model-silent", "c")
    assert len(heard) == before


def test_a_callback_is_taken_off_once() -> None:
    """The same callback given twice is told twice; taking one of them off leaves the other, and again does nothing."""
    heard: list[Progress] = []
    first, second = on_progress(heard.append), on_progress(heard.append)
    tell(Progress("hashing", "a", 1, 1))
    assert len(heard) == 2
    first()
    first()
    second()
    tell(Progress("hashing", "a", 1, 1))
    assert len(heard) == 2


def test_differences_are_added_up() -> None:
    """`counter` is for who knows how many bytes it did just now; the callback hears how many those are in all."""
    heard: list[Progress] = []
    remove = on_progress(heard.append)
    count = counter("storing", "a.bin", 10)
    count(4)
    count(6)
    remove()
    assert heard == [Progress("storing", "a.bin", 4, 10), Progress("storing", "a.bin", 10, 10)]


@pytest.mark.parametrize("what", [None, "print", 3])
def test_what_cannot_be_called_is_refused(what: Any) -> None:
    """At once, and not in the middle of the next call's work."""
    with pytest.raises(UsageError, match="on_progress takes a function"):
        on_progress(what)
    build("model-undisturbed", "x")


def test_an_exception_of_a_callback_ends_the_work() -> None:
    """A program may stop by raising: its exception comes out, and nothing is stored."""

    class Stop(Exception):
        pass

    def stop(_progress: Progress) -> None:
        raise Stop

    remove = on_progress(stop)
    try:
        with pytest.raises(Stop):
            build("model-stopped", "x")
    finally:
        remove()
    assert registry().find("model-stopped") is None


# -- the log ----------------------------------------------------------------------------------------------------------


def test_a_log_line_for_large_files_only(caplog: pytest.LogCaptureFixture) -> None:
    """Where standard error is no terminal: a line with rate and share, and none below 64 MiB."""
    caplog.set_level(logging.INFO, "cachekit")
    Display()(Progress("adding", "small", LARGE - 1, LARGE - 1))
    assert caplog.messages == []
    display = Display()
    display(Progress("adding", "large\x1b[2J", 0, 2 * LARGE))
    display(Progress("adding", "large\x1b[2J", 2 * LARGE, 2 * LARGE))
    assert any("100% of 128 MiB" in line and "MiB/s" in line for line in caplog.messages)
    assert not any("\x1b" in line for line in caplog.messages)


def test_many_small_files_count_together(caplog: pytest.LogCaptureFixture) -> None:
    """A tree of small files that comes to 64 MiB is told of as well."""
    caplog.set_level(logging.INFO, "cachekit")
    clock = Clock()
    display = Display(clock)
    for number in range(65):
        display(Progress("adding", str(number), 0, 1 << 20))
        clock.now += 0.1
        display(Progress("adding", str(number), 1 << 20, 1 << 20))
    assert [line.split(",")[0] for line in caplog.messages] == ["adding 63: 100% of 1 MiB"]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_log_line_has_something_to_tell(caplog: pytest.LogCaptureFixture) -> None:
    """It comes after the first interval, with a rate, or when the file is done; the next file's likewise."""
    caplog.set_level(logging.INFO, "cachekit")
    clock = Clock()
    display = Display(clock)
    for name in ("first", "second"):
        for done in range(11):
            display(Progress("fetching", name, done * LARGE, 10 * LARGE))
            clock.now += 1
    display(Progress("hashing", "at once", LARGE, LARGE))
    assert [line.partition(" of ")[0] for line in caplog.messages] == [
        *("fetching first:  40%", "fetching first:  80%", "fetching first: 100%"),
        *("fetching second:  40%", "fetching second:  80%", "fetching second: 100%"),
        "hashing at once: 100%",
    ]
    assert all("64 MiB/s" in line for line in caplog.messages[:-1])
    assert " 0 MiB/s" not in caplog.text


# -- a terminal ------------------------------------------------------------------------------------------------------


BARS = """
from itertools import count
from cachekit.artifacts.progress import Display, Progress
tell = Display(count().__next__)
for done in range(0, 129, 32):
    tell(Progress("fetching", "weights.bin", done << 20, 128 << 20))
"""


def test_a_terminal_gets_bars() -> None:
    """On a terminal: a bar with the name, rate and time left, which is gone when the file is done."""
    said, lines = screen(BARS)
    assert b"fetching weights.bin:  50%|#" in said
    assert b"| 67.1M/134M [00:02<00:02, 33.6MB/s]" in said
    assert said.rstrip().endswith(b"\x1b[J")
    assert "".join(lines) == ""


SEVERAL = """
from itertools import count
from cachekit.artifacts.progress import Display, Progress
tell = Display(count().__next__)
for done in (32, 64):
    for name in ("a.bin", "b.bin"):
        tell(Progress("fetching", name, done << 20, 128 << 20))
tell(Progress("fetching", "a.bin", 128 << 20, 128 << 20))
print("stays")
"""


def test_several_files_have_a_bar_each() -> None:
    """One below the other; who is done goes, and the others stay."""
    said, lines = screen(SEVERAL)
    *_, both, one = said.split(b"\x1b7")
    assert [line.split(b":")[0] for line in both.split(b"\r\n")[1:3]] == [b"fetching a.bin", b"fetching b.bin"]
    assert b"a.bin" not in one and b"b.bin" in one
    assert lines[0] == "stays"


NARROW = """
from itertools import count
from cachekit.artifacts.progress import Display, Progress
tell = Display(count().__next__)
for number in range(30):
    for done in (32, 64):
        tell(Progress("fetching", str(number) + " \\x1b[2J weights" * 9, done << 20, 128 << 20))
"""


@pytest.mark.parametrize("width", [24, 40, 100])
def test_bars_stay_within_the_terminal(width: int) -> None:
    """However narrow it is and however many files there are; and what a name holds is no command to it."""
    said, lines = screen(NARROW, height=6, width=width)
    bars = re.findall(r"\n(fetching[^\x1b\r]*)", said.decode())
    assert len(bars) >= 30 and max(map(len, bars)) < width
    assert len([line for line in lines if line]) <= 5
    assert b"\x1b[2J" not in said


CLOSED = """
import sys
from cachekit.artifacts.progress import LARGE, Progress, tell
sys.stderr.close()
tell(Progress("fetching", "weights.bin", LARGE, 2 * LARGE))
sys.stderr = None
tell(Progress("fetching", "weights.bin", 2 * LARGE, 2 * LARGE))
print("done")
"""


def test_who_has_no_standard_error_gets_no_bar() -> None:
    """Closed, or none at all: the work goes on."""
    assert screen(CLOSED)[1][0] == "done"


UNLOADED = """
import sys
import cachekit
assert "tqdm" not in sys.modules, "import cachekit"
cachekit.configure(dir=sys.argv[1], ipfs="off")
f = cachekit.distributed_cache(version="1")(lambda x: x)
assert f(1) == f(1) == 1
assert "tqdm" not in sys.modules, "a decorated call"
from cachekit.cli import main
assert main(["run", "--", "true"]) == 0
assert "tqdm" not in sys.modules, "cachekit run"
"""


def test_only_who_draws_a_bar_loads_tqdm(tmp_path: Path) -> None:
    """Neither `import cachekit` does, nor a decorated call, nor `cachekit run`."""
    command = [sys.executable, "-c", UNLOADED, str(tmp_path / "cache of its own")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def screen(program: str, *, height: int = 12, width: int = 100) -> tuple[bytes, list[str]]:
    """What a program sent to a terminal, standard output too, and the lines that stand there then (with those above)."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", height, width, 0, 0))
    with subprocess.Popen([sys.executable, "-c", program], stdout=follower, stderr=follower, cwd=ROOT) as child:
        os.close(follower)
        said = _read(leader)
    assert child.returncode == 0, said
    return said, _shown(said.decode(), height)


def _shown(said: str, height: int) -> list[str]:
    lines, row, column, saved, top = [""], 0, 0, (0, 0), 0
    for escape, text in re.findall(r"(\x1b(?:\[\d*[A-Z]|[78D]))|([^\x1b]|\x1b)", said):
        if escape == "\x1b7":
            saved = (row, column)
        elif escape == "\x1b8":
            row, column = saved
        elif escape == "\x1b[J":
            lines[row:] = [lines[row][:column]]
        elif escape.endswith("A"):
            row = max(top, row - int(escape[2:-1] or 1))
        elif text == "\r":
            column = 0
        elif escape == "\x1bD" or text == "\n":
            row += 1
            # A noted place is one of the screen, which may have been moved on since.
            saved, top = (saved[0] + (row - top >= height), saved[1]), max(top, row - height + 1)
        else:
            assert text.isprintable(), (escape, text)
            lines[row] = lines[row].ljust(column)[:column] + text + lines[row][column + 1 :]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return lines


BEHIND = """
import threading
from cachekit.artifacts.progress import Progress, tell, waiting

def add():
    for done in range(0, 129, 4):
        begin.wait()
        tell(Progress("adding", "weights.bin", done << 20, 128 << 20))
        end.wait()

begin, end = threading.Barrier(2), threading.Barrier(2)
threading.Thread(target=add, daemon=True).start()
for epoch in range(33):
    print("epoch", epoch, flush=True)
    begin.wait()
    end.wait()
"""


def test_what_is_added_behind_the_calls_is_not_shown() -> None:
    """A terminal hears nothing of a background upload: the program's own lines are all that stands there."""
    said, lines = screen(BEHIND)
    assert lines == [*(f"epoch {epoch}" for epoch in range(33)), ""]
    assert b"\x1b" not in said


FLUSH = """
import cachekit
from cachekit.cache.default import default
from cachekit.artifacts.progress import Progress, tell

class Uploading:
    def flush(self, timeout):
        for done in range(0, 96, 32):
            tell(Progress("adding", "weights.bin", done << 20, 128 << 20))
        raise cachekit.TierError("it takes too long")

class Team:
    tier = Uploading()
    def close(self, bound): ...

cachekit.configure(dir="DIR", ipfs="off")
default().ready().team = Team()
print("before", flush=True)
try:
    cachekit.flush(1)
except cachekit.TierError:
    print("after", flush=True)
tell(Progress("adding", "weights.bin", 128 << 20, 128 << 20))
"""


def test_flush_shows_what_is_added(tmp_path: Path) -> None:
    """While it waits there are bars; afterwards none, though the upload goes on."""
    said, lines = screen(FLUSH.replace("DIR", str(tmp_path)))
    assert b"adding" in said and b"weights.bin" in said
    assert lines == ["before", "after", ""]


BETWEEN = """
from cachekit.artifacts.progress import Progress, tell
print("begin: ", end="", flush=True)
for epoch in range(20):
    for name in ("a.bin", "b.bin"):
        tell(Progress("fetching", name, 1 << 20, 128 << 20))  # given up: nobody says its end
        tell(Progress("fetching", name * 30, 128 << 20, 128 << 20))
    print("epoch", epoch, "x" * 90, flush=True)
    print("and", epoch, "x" * 90, flush=True)
    print("then", epoch, "x" * 90, flush=True)
for name in ("a.bin", "b.bin"):
    tell(Progress("fetching", name, 128 << 20, 128 << 20))
"""


def test_no_bar_goes_over_what_the_program_prints() -> None:
    """Between two calls, of work that was given up, at the end of the screen: every line of the program still stands."""
    said, lines = screen(BETWEEN)
    assert b"fetching" in said
    own = [f"{word} {epoch} {'x' * 90}" for epoch in range(20) for word in ("epoch", "and", "then")]
    assert lines == ["begin: " + own[0], *own[1:], ""]


def _read(leader: int) -> bytes:
    said = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux: nobody has the other end any more
            break
        if not piece:
            break
        said += piece
    os.close(leader)
    return said
