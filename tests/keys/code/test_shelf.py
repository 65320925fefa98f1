"""What earlier processes read of source files is used again, and never changes a key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest

from cachekit.keys.code import shelf
from cachekit.keys.code.source import facts_of

ROOT = Path(__file__).parents[3]

MAIN = """
import cachekit, helpers
from records import CALLS

@cachekit.distributed_cache(share=False)
def ask(text: str) -> str:
    from json import dumps as written
    CALLS.append(text)
    return written([helpers.shout(text), helpers.PROMPTS.get("a"), helpers.Deep.inner.P])

@cachekit.distributed_cache(share=False)
def other(text: str) -> str:
    return helpers.shout(text)
"""
HELPERS = """
PROMPTS = {"a": "alpha"}

class Deep:
    class inner:
        P = 1
        def method(self, x=2):
            return x

def shout(text, times=2):
    '''Doc.'''
    return quiet(text).upper() * times + (lambda y: y)("é")

def quiet(text):
    global CALLS
    CALLS = text
    return text + "1"
"""
RUN = """
import sys
import main
parsed = []
sys.addaudithook(lambda event, args: parsed.append(1) if event == "compile" and args[1] == "<unknown>" else None)
{before}
main.{name}("x")
many = len(parsed)  # `key_for` looks up where things stand
print(main.{name}.key_for("x"), many)
"""


class Ran(NamedTuple):
    key: str
    parsed: int


class Project:
    """Files of own code, and processes that each make their first key."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.kept = place / "cache"
        for name, text in (("main", MAIN), ("helpers", HELPERS), ("records", "CALLS = []\n")):
            (place / f"{name}.py").write_text(text, encoding="utf-8")

    def edit(self, old: str, new: str) -> None:
        path = self.place / "helpers.py"
        path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")

    def run(self, before: str = "", *, name: str = "ask", kept: str = "cache", **settings: str) -> Ran:
        """The key of a new process, and how many files it parsed for it."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("CACHEKIT_")}
        environ |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{self.place}", "PYTHONDONTWRITEBYTECODE": "1"}
        environ |= {"CACHEKIT_DIR": str(self.place / kept), "CACHEKIT_IPFS": "off", **settings}
        script = RUN.format(before=textwrap.dedent(before), name=name)
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True)  # noqa: S603
        assert done.returncode == 0, done.stderr
        key, parsed = done.stdout.split()
        return Ran(key, int(parsed))

    def entries(self) -> list[Path]:
        return sorted((self.kept / "digests").glob("??/*"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_another_process_parses_nothing(project: Project) -> None:
    """The second process has the same key of what the first one read; so has another function that reaches the same."""
    first = project.run()
    assert first.parsed > 0
    assert project.run() == (first.key, 0)
    other = project.run(name="other")
    assert other.parsed > 0
    assert project.run(name="other") == (other.key, 0)
    assert project.run() == (first.key, 0)
    assert len(project.entries()) == 2


def test_an_edited_file_is_read_again(project: Project) -> None:
    """No facts of the file before: the key is that of a machine that never saw it. A comment changes no key."""
    before = project.run()
    project.edit('+ "1"', '+ "2"')
    edited = project.run()
    assert edited.parsed > 0
    assert edited.key != before.key
    assert edited.key == project.run(kept="elsewhere").key
    project.edit("PROMPTS =", "# a comment\nPROMPTS =")
    commented = project.run()
    assert commented.parsed > 0
    assert commented.key == edited.key
    assert project.run() == (edited.key, 0)
    assert len(project.entries()) == 1


def test_a_file_that_is_edited_after_the_import_describes_no_loaded_code(project: Project) -> None:
    """The code that runs is the old one: it gets no key of the new file, and leaves nothing false behind."""
    (project.place / "new").mkdir()
    new = Project(project.place / "new")
    new.edit('+ "1"', '+ "2"')
    before = project.run()
    edit = f"""
    from pathlib import Path
    path = Path({str(project.place / "helpers.py")!r})
    path.write_text(path.read_text(encoding="utf-8").replace('+ "1"', '+ "2"'), encoding="utf-8")
    """
    late = project.run(edit)
    after = project.run()
    assert len({before.key, late.key, after.key}) == 3
    assert after.key == new.run().key
    assert project.run() == (after.key, 0)


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "long", "foreign", "gone"])
def test_a_damaged_shelf_costs_a_reading(damage: str, project: Project) -> None:
    """Whatever is wrong with it, the sources are read, the key is right, and the next process parses nothing."""
    right = project.run()
    (entry,) = project.entries()
    data = entry.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    if damage == "gone":
        shutil.rmtree(project.kept / "digests")
    else:
        entry.write_bytes(
            {"flipped": bytes(flipped), "short": data[:-1], "empty": b"", "long": data + b"\0", "foreign": b"{}" * 99}[
                damage
            ]
        )
    again = project.run()
    assert again.key == right.key
    assert again.parsed > 0
    assert project.run() == (right.key, 0)


def test_what_other_modules_wrote_is_read_again(project: Project) -> None:
    """Facts are believed only from the very modules that read now: another reading of names may find others."""
    right = project.run()
    other = "from cachekit.keys.code import shelf; shelf._READING = (*shelf._READING, 'own.py')"
    again = project.run(other)
    assert again.key == right.key
    assert again.parsed > 0


def test_modes_are_kept(project: Project) -> None:
    """With the cache off nothing is read or left; read-only uses what is there, and leaves nothing."""
    off = project.run(CACHEKIT_MODE="off")
    assert project.entries() == []
    assert project.run(CACHEKIT_MODE="read-only").parsed > 0
    assert project.entries() == []
    left = project.run()
    assert left.key == off.key
    assert project.run(CACHEKIT_MODE="off").key == off.key
    assert project.run(CACHEKIT_MODE="read-only") == (left.key, 0)


def test_all_that_is_known_of_names_is_kept() -> None:
    """Facts come back as they were: no part of a name's use, and no import, is left behind."""

    def reads(x: str) -> object:
        import os.path as path

        global _COUNT  # noqa: PLW0603
        _COUNT += 1
        ROOT.x.append(path.sep)
        return [shelf.frame, shelf.Facts._fields, len(x), ROOT]

    facts = facts_of(reads)
    again = shelf._unpacked(json.loads(json.dumps(shelf._packed(facts))), facts.mark)
    assert again._replace(names=facts.names) == facts
    assert again.names.imports == facts.names.imports
    assert list(again.names.__dict__) == list(facts.names.__dict__) == ["outer", "imports"]
    slots = type(facts.names.outer["ROOT"]).__slots__
    told = [
        {name: [getattr(use, slot) for slot in slots] for name, use in one.names.outer.items()}
        for one in (facts, again)
    ]
    assert told[0] == told[1]


_COUNT = 0
