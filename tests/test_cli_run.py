"""`cachekit run -- COMMAND…`: a command's outcome, kept and replayed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")},
        **{"CACHEKIT_DIR": str(place / "cache"), "CACHEKIT_IPFS": "off", "XDG_CONFIG_HOME": str(place / "config")},
        **variables,
    }
    root = str(Path(__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-m", "cachekit", *arguments],
        cwd=place, env={**environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False,
    )  # fmt: skip


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
        (("run", "--", "no-such-command-here"), "cannot be run"),
        (("run", "--output", "never", "--", sys.executable, "-c", ""), "was not made"),
    ],
)
def test_wrong_inputs_are_said(place: Path, arguments: tuple[str, ...], said: str) -> None:
    """A sentence on standard error and exit status 2."""
    refused = cachekit(place, *arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
