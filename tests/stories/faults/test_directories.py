"""The cache directory is taken away, made by many at once, or half there: nobody raises, and it is ours again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import HEAD, environment, told, without_privileges

from cachekit.errors import UsageError
from cachekit.files.places import prepare

SQUARE = """
@distributed_cache(version="1")
def square(x): return [x * x]
@distributed_cache(version="1")
def big(x): return bytes([x]) * 300_000
"""


def test_a_directory_removed_under_a_running_process(own_cache: Path) -> None:
    """Values stay right, the next store makes the directory again, and another process hits what was stored there."""
    script = """
for x in range(5): square(x), big(x)
shutil.rmtree(HERE)
assert [square(x) for x in range(8)] == [[x * x] for x in range(8)]
assert [big(x)[0] for x in range(8)] == list(range(8))
say(errors(), (HERE / "cachekit-format").read_text().strip(), oct(HERE.stat().st_mode & 0o777))
"""
    assert told(SQUARE + script, own_cache) == ["[] 1 0o700"]
    second = 'assert big(7)[0] == 7 and square(7) == [49]; say(stats().as_dict()["hits"]["disk"])'
    assert told(SQUARE + second, own_cache) == ["2"]


def test_an_invalidation_reaches_who_worked_in_the_removed_directory(own_cache: Path) -> None:
    """Both are in the new directory after a store: what one invalidates, the other does not serve from memory."""
    script = """
square(1)
shutil.rmtree(HERE)
square(2)
code = "import sys, cachekit; cachekit.invalidate(key=sys.argv[1])"
subprocess.run([sys.executable, "-c", code, str(square.key_for(2))], check=True, timeout=30)
before = stats().as_dict()["misses"]
square(2)
say(stats().as_dict()["misses"] - before)
"""
    assert told(SQUARE + script, own_cache) == ["1"]


@pytest.mark.parametrize("turn", range(3))
def test_eight_processes_make_one_directory(own_cache: Path, turn: int) -> None:
    """Started together on a directory that is not there: each gets its values, none counts an error."""
    script = "sys.stdin.readline(); assert square(3) == [9] and len(big(3)) == 300_000; say(errors())"
    command = [sys.executable, "-c", HEAD + SQUARE + script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(command, env=environment(own_cache / str(turn)), text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(8)
    ]
    answers = [process.communicate("go\n", timeout=60) for process in started]
    assert [answer[0] for answer in answers] == ["[]\n"] * 8, answers


def test_an_empty_stamp_is_written_again(own_cache: Path) -> None:
    """Power failed while it was written: the directory is still ours, with what it holds."""
    told(SQUARE + "square(3)", own_cache)
    (own_cache / "cachekit-format").write_text("")
    assert told(SQUARE + 'square(3); say(stats().as_dict()["hits"]["disk"])', own_cache) == ["1"]
    assert (own_cache / "cachekit-format").read_text() == "1\n"


@pytest.mark.parametrize("left", ["everything", "values", "artifacts"])
def test_what_was_ours_becomes_ours_again(own_cache: Path, left: str) -> None:
    """Without its stamp, or with nothing but what a running process put there again."""
    told(SQUARE + "big(3)", own_cache)
    (own_cache / "cachekit-format").unlink()
    (own_cache / "artifacts" / "tmp").mkdir(parents=True, exist_ok=True)
    for path in own_cache.iterdir():
        keep = {"everything": True, "values": len(path.name) == 2, "artifacts": path.name == "artifacts"}[left]
        if not keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    prepare(own_cache)
    assert (own_cache / "cachekit-format").read_text() == "1\n"


@pytest.mark.parametrize("foreign", ["README.md", "artifacts/mine.txt", "ab/notes.txt", "digests"])
def test_what_is_somebody_elses_stays_so(tmp_path: Path, foreign: str) -> None:
    """A name that we might use is not ours for that: what lies in it says."""
    (tmp_path / "theirs" / foreign).parent.mkdir(parents=True)
    (tmp_path / "theirs" / foreign).write_text("")
    with pytest.raises(UsageError, match="not cachekit's"):
        prepare(tmp_path / "theirs")


def test_an_invalidation_that_reaches_no_entry_raises(own_cache: Path) -> None:
    """Entries stand where this process is not let in: it says so; calls pass, and where none can stand it is a no."""
    told(SQUARE + "square(3)", own_cache)
    script = """
from cachekit import UsageError, clear
for end in (lambda: square.invalidate(3), clear):
    try: say(end())
    except UsageError as error: say("CACHEKIT_DIR" in str(error))
assert square(3) == [9]
"""
    within = without_privileges()
    own_cache.chmod(0)
    refused = told(SQUARE + script, own_cache, within=within)
    own_cache.chmod(0o500)
    nowhere = told(SQUARE + script, own_cache / "new", within=within)
    own_cache.chmod(0o700)
    assert (refused, nowhere) == (["True", "True"], ["False", "False"])
