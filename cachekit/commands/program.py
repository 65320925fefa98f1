"""Which program a command runs: the executable by its content, a script with what runs it, Python with what it imports."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_PYTHON: Final = re.compile(r"(python|pypy|graalpy)[0-9.]*[tdw]*(\.exe)?")
_READING: Final = re.compile(r"(ba|da|z|k|c|tc|fi)?sh|node|nodejs|bun|ruby|perl|php|lua|Rscript|awk|sed|tclsh")
"""Programs that run the file that their first argument names."""
_CALLING: Final = re.compile(
    r"env|nice|ionice|chrt|taskset|numactl|nohup|setsid|setarch|stdbuf|time|timeout|prlimit|unshare|flock|sudo|doas"
    r"|chronic|unbuffer|catchsegv|strace|ltrace|valgrind|perf|gdb|xargs|parallel|xvfb-run|mpirun|mpiexec|srun"
    r"|uv|poetry|pipenv|pdm|hatch|conda"
)
"""Programs that run the program that one of their arguments names."""
_HEAD: Final = 512
_CHAIN: Final = 4
"""Interpreters of interpreters that Linux follows."""
_BOUND: Final = 60.0
"""Seconds that a Python may take to say what it imports."""
_MOST: Final = 4096
_KEPT_FLAGS: Final = frozenset("IEsSPBOu")


@dataclass(slots=True)
class Program:
    """`facts` go into the key, Paths by content; while all `watched` paths are as they were and `sure`, they hold.

    `files` are the arguments that are part of it, as they are written. What it reads below `outside` is the
    interpreter's and the distributions', and `searched` are the directories that it imports from.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    watched: dict[str, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    outside: tuple[str, ...] = ()
    searched: frozenset[str] = frozenset()
    sure: bool = True


def program_of(argv: Sequence[str], cwd: str | None, environ: Mapping[str, str]) -> Program:
    """What the command would run now; no facts where there is no such program. Nothing of it runs but its interpreter."""
    program = Program()
    program.facts = _facts(program, argv, cwd or os.getcwd(), environ, _CHAIN)
    return program


def _facts(program: Program, argv: Sequence[str], cwd: str, environ: Mapping[str, str], left: int) -> dict[str, Any]:
    path = _found(program, argv[0], cwd, environ)
    if path is None:
        return {}
    real = os.path.realpath(path)
    if _PYTHON.fullmatch(os.path.basename(path)) or _PYTHON.fullmatch(os.path.basename(real)):
        facts = _python(program, path, argv[1:], cwd)
        if facts is not None:
            return facts
    interpreter = _interpreter(real)
    if interpreter and left:
        if _PYTHON.fullmatch(os.path.basename(interpreter[0])):
            facts = _facts(program, [*interpreter, path], cwd, environ, left - 1)
            # Where its interpreter lies is no fact about a script: in a virtual environment the first line says it.
            facts.get("modules", {}).pop("__main__", None)
            return {"script": _rest(real), **facts}
        inner = _facts(program, interpreter, cwd, environ, left - 1)
        return {"script": _content(real), "interpreter": inner, **_package(program, real)}
    facts = {"executable": _content(real), **_package(program, real)}
    if _CALLING.fullmatch(os.path.basename(path)) and left:
        facts |= _called(program, argv[1:], cwd, environ, left)
    if _READING.fullmatch(os.path.basename(path)):
        facts |= _read_first(program, argv[1:], cwd)
    return facts


def _found(program: Program, name: str, cwd: str, environ: Mapping[str, str]) -> str | None:
    """Where the program is, as the system would find it."""
    places = [cwd] if os.sep in name else environ.get("PATH", os.defpath).split(os.pathsep)
    for place in places:
        path = os.path.join(cwd, place, name)
        program.watched[path] = None
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    return None


def _package(program: Program, path: str) -> dict[str, Any]:
    """Of a program that npm installed, what says its package's version: it reads more than its own file."""
    above, inside, rest = path.rpartition(f"{os.sep}node_modules{os.sep}")
    names = rest.split(os.sep)
    manifest = os.path.join(above + inside, *names[: 2 if rest.startswith("@") else 1], "package.json")
    if not inside or not os.path.isfile(manifest):
        return {}
    program.watched[manifest] = None
    return {"package": _content(manifest)}


def _content(path: str) -> Any:
    """A Path, which counts by its content; of what may be run and not read, its size and when it was written."""
    if os.access(path, os.R_OK):
        return Path(path)
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def _interpreter(path: str) -> list[str]:
    """The words of a script's first line, `env` looked through; empty for what is no script."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return []
    if not head.startswith(b"#!"):
        return []
    words = os.fsdecode(head[2:].partition(b"\n")[0]).split()
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S" and "=" not in word]
    return words


def _rest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read().partition(b"\n")[2]).hexdigest()


def _called(program: Program, words: Sequence[str], cwd: str, environ: Mapping[str, str], left: int) -> dict[str, Any]:
    """What runs the rest of its arguments: the first of them that is a program."""
    for place, word in enumerate(words):
        if not word.startswith("-") and "=" not in word and _found(program, word, cwd, environ) is not None:
            return {"called": _facts(program, words[place:], cwd, environ, left - 1)}
    return {}


def _read_first(program: Program, arguments: Sequence[str], cwd: str) -> dict[str, Any]:
    for word in arguments:
        path = os.path.join(cwd, word)
        if not word.startswith("-"):
            if not os.path.isfile(path) or not os.access(path, os.R_OK):
                break
            program.watched[path] = None
            program.files.add(word)
            return {"script": Path(path)}
    return {}


def _python(program: Program, path: str, arguments: Sequence[str], cwd: str) -> dict[str, Any] | None:
    """The interpreter's version, own code by content and the distributions by version; None where it does not tell."""
    flags, kind, word = _asked(arguments)
    if kind == "script":
        program.files.add(word)
        word = os.path.join(cwd, word)
        program.watched[word] = None
        if os.path.isdir(word):
            word = os.path.join(word, "__main__.py")
        kind = kind if os.path.isfile(word) else "nothing"
    if kind == "nothing":
        kind, word = "code", ""
    found = _walked(path, flags, kind, word, cwd)
    if found is None:
        program.sure = False
        script = {"script": Path(word)} if kind == "script" else {}
        beside = _beside(os.path.dirname(os.path.realpath(word)) if script else cwd)
        return {"executable": _content(os.path.realpath(path)), **script, "modules": beside}
    program.watched.update(dict.fromkeys([*found["watched"], *found["modules"].values()]))
    # What stands there may choose among several (pyenv): by what nobody watches.
    itself = found["executable"] == os.path.realpath(path)
    program.sure = program.sure and itself and bool(found["sure"])
    program.outside, program.searched = tuple(found["outside"]), frozenset(found["searched"])
    return {
        "python": found["version"],
        "modules": {name: _content(file) for name, file in sorted(found["modules"].items()) if _is_file(file)},
        "distributions": found["distributions"],
    }


def _beside(directory: str) -> dict[str, Any]:
    """Every module below a directory: of an interpreter that cannot be asked (before 3.8) any of them may be imported."""
    found: dict[str, Any] = {}
    for above, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if not name.startswith(".") and name != "site-packages")
        for path in (os.path.join(above, name) for name in sorted(names) if name.endswith(".py")):
            found[os.path.relpath(path, directory)] = _content(path)
        if len(found) > _MOST:
            break
    return found


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _asked(arguments: Sequence[str]) -> tuple[list[str], str, str]:
    """What a Python is asked to run: (flags that decide what it imports, script|module|code|nothing, which)."""
    flags: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "-" or not word.startswith("-"):
            return flags, "nothing" if word == "-" else "script", word
        if word.startswith("--"):
            next(words, "") if word == "--check-hash-based-pycs" else ""
            continue
        for place, letter in enumerate(word[1:], 2):
            if letter in "cm":
                return flags, "code" if letter == "c" else "module", word[place:] or next(words, "")
            if letter in "XW":
                next(words, "") if not word[place:] else ""
                break
            if letter in _KEPT_FLAGS:
                flags.append(f"-{letter}")
    return flags, "nothing", ""


def _walked(path: str, flags: Iterable[str], kind: str, word: str, cwd: str) -> dict[str, Any] | None:
    text = Path(__file__).with_name("imports.py").read_text(encoding="utf-8")
    command = [path, *flags, "-c", text, kind, word]
    try:
        done = subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=_BOUND)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):  # no Python, in spite of its name
        return None
    return found


def undeclared(argv: Sequence[str], program: Program, known: Iterable[Path], cwd: str | None) -> Iterator[str]:
    """The arguments that name a file or a directory that is there, and that nobody counts: `PATH` and `--option=PATH`."""
    there = {os.path.realpath(path) for path in known}
    for word in dict.fromkeys(argv[1:]):
        for text in dict.fromkeys((word, word.partition("=")[2])):
            if not text or text in program.files:
                continue
            path = os.path.realpath(os.path.join(cwd or os.getcwd(), text))
            above = any(path == one or path.startswith(os.path.join(one, "")) for one in there)
            if not above and (_is_file(path) or (os.path.isdir(path) and (os.sep in text or text in (".", "..")))):
                yield text
