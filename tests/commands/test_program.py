"""Which program a command runs, looked at from inside: what a Python is asked for, and what a command names."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from cachekit import UsageError, configure, run_command
from cachekit.commands.command import argv_of
from cachekit.commands.program import _PYTHON, Program, _asked, program_of, undeclared


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("script.py -c x", ([], "script", "script.py")),
        ("-c pass -m x", ([], "code", "pass")),
        ("-cpass", ([], "code", "pass")),
        ("-m package.tool --help", ([], "module", "package.tool")),
        ("-Im tool", (["-I"], "module", "tool")),
        ("-X dev -W error -u script.py", (["-u"], "script", "script.py")),
        ("-Xdev -Werror script.py", ([], "script", "script.py")),
        ("--check-hash-based-pycs always -B script.py", (["-B"], "script", "script.py")),
        ("-", ([], "nothing", "-")),
        ("-V", ([], "nothing", "")),
    ],
)
def test_what_a_python_is_asked_to_run(words: str, asked: tuple[list[str], str, str]) -> None:
    """A script, a module, code or nothing, behind whatever options; flags that decide about imports are kept."""
    assert _asked(words.split()) == asked


@pytest.mark.parametrize("name", ["python", "python3.14", "python3.14t", "python3.13d", "pypy3", "pythonw.exe"])
def test_what_is_called_as_a_python_is_one(name: str) -> None:
    """With a version, free threads, and checks compiled in."""
    assert _PYTHON.fullmatch(name)


def test_a_program_that_is_not_there_has_no_facts() -> None:
    """Running it will tell; every place where it could come to stand is watched."""
    program = program_of(["no-such-tool"], None, {"PATH": "/bin:/usr/bin"})
    assert program.facts == {}
    assert list(program.watched) == ["/bin/no-such-tool", "/usr/bin/no-such-tool"]


def test_an_executable_that_may_not_be_read_counts_by_its_looks(tmp_path: Path) -> None:
    """By its size and the time of its last write."""
    tool = tmp_path / "tool"
    tool.write_bytes(b"x" * 10)
    tool.chmod(0o111)
    facts = program_of([str(tool)], None, {}).facts["executable"]
    assert facts == (tool if os.access(tool, os.R_OK) else [10, tool.stat().st_mtime_ns])


def test_what_is_named_and_not_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, as arguments and as values of options, and directories that are written as such; nothing below an input."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree").mkdir()
    for name in ("a", "b", "c", "tree/d", "script"):
        (tmp_path / name).write_text("x")
    argv = ["tool", "a", "a", "--from=b", "c", "tree/d", "tree", "./tree", ".", "none", "script", "--x=none"]
    known = [tmp_path / "c", tmp_path / "tree" / "d"]
    found = list(undeclared(argv, Program(files={"script"}), known, None))
    assert found == ["a", "b", "./tree", "."]
    assert list(undeclared(argv, Program(files={"script"}), [tmp_path], None)) == []


@pytest.mark.parametrize("argv", ["ls -l", b"ls", [], ["ls", 1], ["ls", None], ["a\0b"]])
def test_a_command_is_a_list_of_texts(argv: Any) -> None:
    """Anything else is refused, with what to say instead."""
    with pytest.raises(UsageError, match="a command is a list"):
        argv_of(argv)


def test_values_of_variables_are_no_names(tmp_path: Path) -> None:
    """`env=` takes names: a mapping is refused, with the remedy."""
    with configure(dir=tmp_path, ipfs="off"), pytest.raises(UsageError, match=r"set their values in os\.environ"):
        run_command(["true"], env={"A": "1"})


def test_threads_run_commands_at_once(tmp_path: Path) -> None:
    """No signal handler is touched, and equal commands run once."""
    script = f"open({str(tmp_path / 'ran')!r}, 'a').write('x'); print('said')"
    found: list[bytes] = []
    with configure(dir=tmp_path / "cache", ipfs="off"):
        threads = [
            threading.Thread(target=lambda: found.append(run_command([sys.executable, "-c", script]).stdout))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [b"said\n"] * 4
    assert (tmp_path / "ran").read_text() == "x"


def test_threads_of_a_command_that_fails_each_have_its_words(tmp_path: Path) -> None:
    """Nothing is kept, and nobody gets a status without what was said with it."""
    found: list[tuple[int, bytes]] = []
    script = "sleep 0.3; echo said; exit 3"
    with configure(dir=tmp_path / "cache", ipfs="off"):
        threads = [
            threading.Thread(target=lambda: found.append(run_command(["sh", "-c", script])[:2])) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == [(3, b"said\n")] * 4
