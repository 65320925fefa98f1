"""What counts of a command besides its words: the program itself, standard input, and what was asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    (tmp_path / "desk").mkdir()
    return Desk(tmp_path / "desk")


@pytest.mark.parametrize("head", ["#!/bin/sh\necho ", "#!/usr/bin/env python3\nprint"])
def test_an_edited_program_is_another_one(desk: Desk, head: str) -> None:
    """A script on PATH counts by its content: after an edit the new output comes, and then that one is kept."""
    for word in ("one", "two", "two"):
        desk.write("bin/tool", f"{head}('{word}')\n" if "python" in head else f"{head}{word}\n", 0o755)
        assert desk.says("--", "tool")[0] == f"{word}\n"


def test_an_upgraded_executable_is_another_program(desk: Desk) -> None:
    """One that is no script counts by its content, wherever PATH finds it."""
    (desk.place / "bin").mkdir()
    for real, wanted in (("echo", "x\n"), ("true", "")):
        shutil.copy(str(shutil.which(real)), desk.place / "bin" / "tool")
        assert desk.says("--", "tool", "x")[0] == wanted


def test_the_first_on_path_counts(desk: Desk) -> None:
    """A program that comes to stand before another one on PATH is the one that is run."""
    desk.write("late/tool", "#!/bin/sh\necho late\n", 0o755)
    path = f"{desk.place / 'bin'}:{desk.place / 'late'}:{os.environ['PATH']}"
    assert desk.says("--", "tool", PATH=path)[0] == "late\n"
    desk.write("bin/tool", "#!/bin/sh\necho early\n", 0o755)
    assert desk.says("--", "tool", PATH=path)[0] == "early\n"


@pytest.mark.parametrize(
    ("words", "file", "text"),
    [
        (("script.py",), "script.py", "print('{}')"),
        (("script.py",), "beside.py", "said = '{}'"),
        (("script.py",), "package/__init__.py", "said = '{}'"),
        (("script.py",), "package/below.py", "said = '{}'"),
        (("script.py",), "package/other.py", "said = '{}'"),
        (("script.py",), "late.py", "said = '{}'"),
        (("-m", "package"), "package/__main__.py", "print('{}')"),
        (("-B", "-m", "package.told"), "package/below.py", "said = '{}'"),
        (("-c", "import beside; print(beside.said)"), "beside.py", "said = '{}'"),
    ],
)
def test_a_script_counts_with_what_it_imports(desk: Desk, words: tuple[str, ...], file: str, text: str) -> None:
    """`python SCRIPT`, `-m` and `-c`: own modules by content, packages and what a function imports later included."""
    script = """
    import beside, package.below
    from package import other
    def late():
        import importlib
        return importlib.import_module("late").said
    print(beside.said, package.said, package.below.said, other.said, late())
    """
    desk.write("script.py", "\n".join(line.strip() if "return" not in line and "importlib\n" not in line + "\n" else line[4:]
                                      for line in script.strip().splitlines()))  # fmt: skip
    for name in ("beside.py", "late.py", "package/__init__.py", "package/below.py", "package/other.py"):
        desk.write(name, "said = 'old'")
    desk.write("package/__main__.py", "print('old')")
    desk.write("package/told.py", "from .below import said\nprint(said)")
    for word in ("first", "second"):
        desk.write(file, text.format(word))
        assert word in desk.says("--", sys.executable, *words)[0]


@pytest.mark.parametrize("before", [("env", "A=1"), ("nice", "-n", "5"), ("timeout", "60")])
def test_what_is_called_by_another_program_counts(desk: Desk, before: tuple[str, ...]) -> None:
    """`env`, `nice`, `timeout` and the like are looked through."""
    desk.write("script.py", "import beside; print(beside.said)")
    for word in ("one", "two"):
        desk.write("beside.py", f"said = '{word}'")
        assert desk.says("--", *before, sys.executable, "script.py")[0] == f"{word}\n"


@pytest.mark.parametrize("words", [("tool",), ("sh", "tool.sh"), ("node", "tool.js")])
def test_the_file_that_an_interpreter_reads_counts(desk: Desk, words: tuple[str, ...]) -> None:
    """`sh FILE` and `node FILE` by the file; what npm installed by its package's manifest too."""
    package = desk.place / "lib" / "node_modules" / "@team" / "tool"
    desk.write("lib/node_modules/@team/tool/package.json", '{"version": "1"}')
    desk.write(
        "lib/node_modules/@team/tool/cli.js",
        "#!/usr/bin/env node\nconsole.log(require('./package.json').version)",
        0o755,
    )
    (desk.place / "bin").mkdir()
    (desk.place / "bin" / "tool").symlink_to(package / "cli.js")
    if shutil.which("node") is None and words[0] != "sh":
        pytest.skip("no node")
    for version in ("2", "3"):
        desk.write("lib/node_modules/@team/tool/package.json", f'{{"version": "{version}"}}')
        desk.write("tool.sh", f"echo {version}")
        desk.write("tool.js", f"console.log({version})")
        done = desk.run("--", *words)
        assert (done.stdout, done.stderr) == (f"{version}\n", "")


def test_a_python_that_cannot_be_asked_counts_with_what_lies_beside_the_script(desk: Desk) -> None:
    """One that is too old to say what it imports (a stand-in that only runs scripts): every module there counts."""
    desk.write("bin/python2", f'#!/bin/sh\ncase "$*" in *-c*) exit 1;; esac\nexec {sys.executable} "$@"\n', 0o755)
    desk.write("script.py", "import beside; print(beside.said)")
    for word in ("one", "two"):
        desk.write("beside.py", f"said = '{word}'")
        assert desk.says("--", "python2", "script.py")[0] == f"{word}\n"


def test_a_directory_that_python_runs_counts(desk: Desk) -> None:
    """`python DIRECTORY` by its `__main__` and what that imports."""
    desk.write("app/__main__.py", "import beside; print(beside.said)")
    for word in ("one", "two"):
        desk.write("app/beside.py", f"said = '{word}'")
        assert desk.says("--", sys.executable, "app")[0] == f"{word}\n"


def test_what_a_script_does_not_import_does_not_count(desk: Desk) -> None:
    """A neighbour may change: the outcome is had again."""
    desk.write("script.py", "print('said')")
    desk.write("neighbour.py", "1")
    assert desk.says("--", sys.executable, "script.py")[0] == "said\n"
    desk.write("neighbour.py", "2")
    assert json.loads(desk.run("--json", "--", sys.executable, "script.py").stdout)["hit"]


def test_a_module_that_comes_to_stand_before_another_counts(desk: Desk) -> None:
    """A file beside the script that hides a standard module is what is imported from then on."""
    desk.write("script.py", "import colorsys; print(getattr(colorsys, 'said', 'standard'))")
    assert desk.says("--", sys.executable, "script.py")[0] == "standard\n"
    desk.write("colorsys.py", "said = 'mine'")
    assert desk.says("--", sys.executable, "script.py")[0] == "mine\n"


def test_an_installed_distribution_counts_by_its_version(desk: Desk) -> None:
    """Its console script gives the new version's output after an upgrade; another distribution's upgrade is no matter."""
    home = desk.place / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    sites = next(home.glob("lib/python*/site-packages"))

    def install(name: str, version: str) -> None:
        for old in sites.glob(f"{name}-*.dist-info"):
            shutil.rmtree(old)
        info = sites / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "RECORD").write_text(f"{name}/__init__.py,,\n")
        (sites / name).mkdir(exist_ok=True)
        (sites / name / "__init__.py").write_text(f"def main(): print('{name} {version}')")

    install("tool", "1.0")
    install("other", "1.0")
    script = f"#!{home}/bin/python\nfrom tool import main\nmain()\n"
    desk.write("environment/bin/tool", script, 0o755)
    environ = {"PATH": f"{home}/bin:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    assert desk.says("--", "tool", **environ)[0] == "tool 1.0\n"
    install("other", "2.0")
    assert json.loads(desk.run("--json", "--", "tool", **environ).stdout)["hit"]
    install("tool", "1.1")
    assert desk.says("--", "tool", **environ)[0] == "tool 1.1\n"


def test_a_named_file_that_nobody_declared_is_said_once(desk: Desk) -> None:
    """As an argument and as `--option=FILE`, with the remedy; not when replayed, and not what is declared."""
    for name in ("a.txt", "b.txt", "c.txt"):
        desk.write(name, name)
    words = ("--input", "c.txt", "--", "echo", "a.txt", "--from=b.txt", "c.txt", "no.txt")
    first, second = desk.run(*words), desk.run(*words)
    assert first.stderr.count("is named in the command and does not count") == 2
    assert "--input a.txt" in first.stderr
    assert "--input b.txt" in first.stderr
    assert (second.stdout, second.stderr) == (first.stdout, "")


def test_the_working_directory_counts_when_asked(desk: Desk) -> None:
    """With `--cwd` another directory is another command; without, paths are texts."""
    (desk.place / "a").mkdir()
    (desk.place / "b").mkdir()
    plain, counted = ("--", "pwd"), ("--cwd", "--", "pwd")
    assert desk.says(*plain, where="a")[0] == desk.says(*plain, where="b")[0]
    assert desk.says(*counted, where="a")[0].endswith("/a\n")
    assert desk.says(*counted, where="b")[0].endswith("/b\n")


def test_failures_are_kept_when_asked(desk: Desk) -> None:
    """`--store-failures` replays what a failed command printed, with its status, and nobody else gets that."""
    script = "echo x >> ran; echo no; echo why >&2; exit 3"
    for _ in range(2):
        done = desk.run("--store-failures", "--output", "never", "--", "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (3, "no\n", "why\n")
    assert (desk.place / "ran").read_text() == "x\n"
    assert desk.run("--output", "never", "--", "sh", "-c", script).returncode == 3
    assert (desk.place / "ran").read_text() == "x\nx\n"


def test_standard_input_counts(desk: Desk) -> None:
    """That of a file by itself, a pipe's with `--stdin`: the command gets it, and another content is another outcome."""
    for word in ("one", "two", "one"):
        with open(desk.write("in", word)) as file:
            assert desk.run("--", "cat", stdin=file).stdout == word
        piped = subprocess.run(
            [sys.executable, "-m", "cachekit", "run", "--stdin", "--", "tr", "a-z", "A-Z"],
            cwd=desk.place, env=desk.environ, capture_output=True, text=True, check=True, input=word,
        )  # fmt: skip
        assert piped.stdout == word.upper()


def test_a_loop_over_a_file_goes_on(desk: Desk) -> None:
    """Standard input of a file is not moved on, when the command runs and when it is replayed."""
    desk.write("list", "a\nb\nc\n")
    loop = 'while read word; do "$0" -m cachekit run -- echo "$word"; done < list'
    for quick in (0, 3):
        done = subprocess.run(
            ["sh", "-c", loop, sys.executable],
            cwd=desk.place,
            env=desk.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        assert (done.stdout, desk.quick()) == ("a\nb\nc\n", quick)


def test_an_idle_pipe_is_not_waited_for(desk: Desk) -> None:
    """A pipe that somebody holds open and never writes to does not keep the command, which gets nothing of it."""
    reading, writing = os.pipe()
    try:
        assert desk.run("--", "cat", stdin=reading).stdout == ""
    finally:
        os.close(reading)
        os.close(writing)


def test_a_terminal_stays_one(desk: Desk) -> None:
    """At a terminal the command's own streams are terminals, its words come as they are; and so for the replay."""
    import pty

    asking = "import sys; print([s.isatty() for s in (sys.stdin, sys.stdout, sys.stderr)])"
    for _ in range(2):
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [sys.executable, "-m", "cachekit", "run", "--", sys.executable, "-c", asking],
            cwd=desk.place, env=desk.environ, stdin=theirs, stdout=theirs, stderr=theirs,
        ) as child:  # fmt: skip
            os.close(theirs)
            said = b""
            while not said.endswith(b"\n"):
                said += os.read(ours, 100)
            assert said == b"[True, True, True]\r\n"
            assert child.wait(60) == 0
        os.close(ours)


def test_trace_lists_what_was_read(desk: Desk) -> None:
    """With strace, what nobody declared is said; without it, that it cannot be."""
    desk.write("script.py", "open('declared').read(); open('data.txt').read(); open('made', 'w').write('x')")
    desk.write("declared", "x")
    desk.write("data.txt", "x")
    words = ("--trace", "--input", "declared", "--output", "made", "--", sys.executable, "script.py")
    without = desk.run(*words, PATH=str(desk.write("bin/none", "").parent))
    assert "cannot be listed" in without.stderr
    assert without.returncode == 0
    if shutil.which("strace") is None:
        pytest.skip("no strace")
    (desk.place / "made").unlink()
    for _ in range(2):
        done = desk.run(*words)
        assert [line for line in done.stderr.splitlines() if "not declared" in line] == [
            "cachekit: read and not declared: data.txt"
        ], done.stderr


@pytest.mark.parametrize(
    "script",
    [
        "from package import *\nprint(part.said)",
        "import importlib\nprint(importlib.import_module('.part', 'package').said)",
        "import importlib\nprint(importlib.import_module(name='package.part').said)",
        "from importlib import import_module as get\nprint(get('package.part').said)",
        "import runpy\nprint(runpy.run_module('package.part')['said'])",
        "NAMES = ['package.part:said']\nprint(__import__(NAMES[0].split(':')[0]).part.said)",
    ],
)
def test_a_module_that_a_text_names_counts(desk: Desk, script: str) -> None:
    """`__all__`, a relative name, a keyword, an import under another name, and a table: an edit there runs it again."""
    desk.write("script.py", script)
    desk.write("package/__init__.py", "__all__ = ['part']\n")
    for word in ("one", "second"):
        desk.write("package/part.py", f"said = '{word}'\n")
        assert desk.says("--", sys.executable, "script.py")[0] == f"{word}\n"


def test_what_a_python_imports_at_its_start_counts(desk: Desk) -> None:
    """An edited `sitecustomize` on PYTHONPATH, which no line of the script names."""
    command = ("--", sys.executable, "-c", "import sys; print(sys.said)")
    for word in ("one", "second"):
        desk.write("start/sitecustomize.py", f"import sys\nsys.said = '{word}'\n")
        assert (
            desk.says(*command, PYTHONPATH=f"{desk.place / 'start'}{os.pathsep}{desk.environ['PYTHONPATH']}")[0]
            == f"{word}\n"
        )


@pytest.mark.parametrize("caller", ["taskset 1", "setarch -R", "flock lock", "nice -n 1"])
def test_a_program_that_another_one_calls_counts(desk: Desk, caller: str) -> None:
    """What sets something and then runs the rest of its words is looked through."""
    if shutil.which(caller.split()[0]) is None:
        pytest.skip("not here")
    for word in ("one", "second"):
        desk.write("bin/tool", f"#!/bin/sh\necho {word}\n", 0o755)
        assert desk.says("--", *caller.split(), "tool")[0] == f"{word}\n"


def test_a_python_that_chooses_among_several_is_asked_each_time(desk: Desk) -> None:
    """A shim such as pyenv's decides by a variable or a file that nobody watches: no note is left of it."""
    text = f'#!/bin/sh\nPYTHONPATH={desk.place}/$CHOSEN exec {sys.executable} "$@"\n'
    desk.write("bin/python3", text, 0o755)
    for word in ("one", "second"):
        desk.write(f"{word}/told.py", f"said = '{word}'\n")
        assert desk.says("--", "python3", "-c", "import told; print(told.said)", CHOSEN=word)[0] == f"{word}\n"
