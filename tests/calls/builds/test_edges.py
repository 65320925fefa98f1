"""`persist_artifact` where programs are less tidy than examples: places, races, inputs that move, arguments left out."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import MISS, UsageError, distributed_cache, persist_artifact, restore, stats
from cachekit.artifacts.trees import Trees
from cachekit.cache.default import default, registry
from cachekit.errors import TierUnavailable

ROOT = Path(__file__).parents[3]
BUILT: list[object] = []


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BUILT.clear()
    # What nobody keeps stays where it was made.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@persist_artifact(output="output", scratch="work", version="1")
def tree(text: str, output: Path | str | None = None, work: Path | None = None) -> Path:
    BUILT.append(text)
    assert work is not None
    for number in range(20):
        (work / f"{number}.bin").write_text(text)
    return work


@persist_artifact(output="output", version="1")
def copied(source: Path, output: Path | str) -> Path:
    BUILT.append(source)
    Path(output).write_bytes(source.read_bytes())
    return Path(output)


# -- where the result is to appear ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["on", "off"])
@pytest.mark.parametrize("where", ["", ".", "cwd", "above", "home", "cache", "inside", "input"])
def test_an_output_never_takes_more_than_an_earlier_result(
    where: str, mode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The working directory, the home, the cache and the inputs are refused before anything is built, cached or not."""
    for name in ("desk/here", "home", "inputs"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "precious").touch()
    monkeypatch.chdir(tmp_path / "desk" / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cache = default().settings.dir
    places = {"cwd": tmp_path / "desk/here", "above": tmp_path / "desk", "home": tmp_path / "home", "cache": cache}
    places |= {"inside": cache / "leases", "input": tmp_path / "inputs"}
    output = places.get(where, where)
    with cachekit.mode(mode), pytest.raises(UsageError, match="name another"):
        copied(tmp_path / "inputs" / "precious", output) if where == "input" else tree("text", output)
    assert BUILT == []
    assert len(list(tmp_path.rglob("precious"))) == 3


def test_what_stands_at_output_already_is_left_alone(tmp_path: Path) -> None:
    """The same files, not new ones like them, as long as nobody changes them."""
    output = tmp_path / "out"
    tree("text", output)
    before = [(path.name, path.stat().st_ino) for path in sorted(output.iterdir())]
    assert tree("text", output) == output
    assert [(path.name, path.stat().st_ino) for path in sorted(output.iterdir())] == before
    (output / "3.bin").write_text("changed")
    assert (tree("text", output) / "3.bin").read_text() == "text"
    (output / "more").touch()
    assert len(list(tree("text", output).iterdir())) == 20


RANK = """
import sys
from pathlib import Path
from tests.calls.builds.test_edges import tree
for _ in range(20):
    out = Path(tree("text", sys.argv[1]))
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{number}.bin" for number in range(20))
    assert all(path.read_text() == "text" for path in out.iterdir())
"""


def test_ranks_share_an_output(own_cache: Path, tmp_path: Path) -> None:
    """Processes that ask for one artifact at one place find it whole each time, and leave nothing beside it."""
    tree("text")
    (tmp_path / "ranks").mkdir()
    environ = {**os.environ, "CACHEKIT_DIR": str(own_cache), "CACHEKIT_IPFS": "off", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RANK, str(tmp_path / "ranks" / "model")]
    ranks = [subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0] * 4, said
    assert [path.name for path in (tmp_path / "ranks").iterdir()] == ["model"]


# -- inputs that move -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decorate", [distributed_cache(version="1"), persist_artifact(scratch="work", version="1")])
def test_an_input_that_changes_meanwhile_is_not_remembered(decorate: Any, tmp_path: Path) -> None:
    """The caller has the answer; whose it is nobody can say, so the next call asks again."""
    source = tmp_path / "input"

    def read(path: Path, work: Path | None = None) -> Any:
        BUILT.append(path)
        if len(BUILT) == 1:
            path.write_text("newer")  # as another process would
        if work is None:
            return path.read_text()
        (work / "result").write_text(path.read_text())
        return work / "result"

    def text(found: Any) -> str:
        return found.read_text() if isinstance(found, Path) else str(found)

    ask = decorate(read)
    source.write_text("older")
    assert text(ask(source)) == "newer"
    assert stats(ask).as_dict()["skipped"] == {"input_changed": 1}
    source.write_text("older")
    assert text(ask(source)) == text(ask(source)) == "older"
    assert len(BUILT) == 2


def test_a_function_may_take_its_input_away(tmp_path: Path) -> None:
    """What it moved it has read: the result is kept."""

    @persist_artifact(scratch="work", version="1")
    def moved(path: Path, work: Path | None = None) -> Path:
        BUILT.append(path)
        assert work is not None
        return path.rename(work / "moved")

    for _ in range(2):
        (tmp_path / "upload").write_text("bytes")
        assert moved(tmp_path / "upload").read_text() == "bytes"
    assert len(BUILT) == 1


# -- keys -------------------------------------------------------------------------------------------------------------


class Upper:
    def save(self, value: str, path: Path) -> None:
        path.write_text(value.upper())

    def load(self, path: Path) -> str:
        return path.read_text()


class Plain(Upper):
    def save(self, value: str, path: Path) -> None:
        path.write_text(value)


def test_how_a_value_is_stored_is_part_of_the_key(tmp_path: Path) -> None:
    """A path, and objects by different codecs, are different artifacts of one function."""

    place = str(tmp_path / "made")

    def made(text: str) -> str:
        Path(place).write_text(text)
        return place

    kinds = [persist_artifact(made), *(persist_artifact(codec=codec)(made) for codec in (Upper(), Plain(), "json"))]
    assert len({str(kind.key_for("a")) for kind in kinds}) == 4
    first, again = [kind("a") for kind in kinds], [kind("a") for kind in kinds]
    assert [type(one) for one in first] == [str, str, str, str]
    assert again[1:] == [place.upper(), place, place]


# -- arguments --------------------------------------------------------------------------------------------------------


def test_scratch_needs_no_default() -> None:
    """A parameter that cachekit fills may be required, positional only, or passed as None."""

    @persist_artifact(scratch="work", version="1")
    def required(text: str, work: Path) -> Path:
        BUILT.append(text)
        (work / "a").write_text(text)
        return work / "a"

    @persist_artifact(scratch="work", version="1")
    def placed(text: str, work: Path | None = None, /) -> Path:
        BUILT.append(text)
        assert work is not None
        (work / "b").write_text(text)
        return work / "b"

    assert required("x") == required("x")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert placed("y") == placed("y", None)
    assert BUILT == ["x", "y"]


def test_who_returns_the_scratch_directory_has_an_artifact_called_after_the_function() -> None:
    """Not after a process and a random number."""
    assert tree("text").name == "tree"
    assert restore("tree") == tree("text")


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"output": "nope"}, "no parameter"),
        ({"scratch": "nope"}, "no parameter"),
        ({"output": "a", "scratch": "a"}, "both name"),
        ({"codec": 3}, "codec="),
        ({"codec": Upper}, "codec="),
        ({"codec": "zzz"}, "zzz"),
        ({"codec": "json", "scratch": "a"}, "keeps values"),
        ({"pin": "yes"}, "pin="),
        ({"encrypt": "no"}, "encrypt="),
    ],
)
def test_a_mistake_in_the_decorator_is_said_there(said: Any, match: str) -> None:
    """Not at the first call, nor never."""
    with pytest.raises(UsageError, match=match):
        persist_artifact(**said)(lambda a, b: a)


@pytest.mark.parametrize("result", ["", None, "no such file"])
def test_what_is_no_path_is_refused_with_what_it_was(result: Any) -> None:
    """An empty text is not the working directory."""
    with pytest.raises(UsageError, match="codec=") as caught:
        persist_artifact(version="1")(lambda: result)()
    assert repr(result) in str(caught.value) or type(result).__name__ in str(caught.value)


# -- where something gives way ----------------------------------------------------------------------------------------


def test_without_a_store_the_function_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache directory that cannot be made costs hits, and nothing else; the reason is counted."""
    (tmp_path / "made").touch()

    def refuse(_directory: Path) -> None:
        raise TierUnavailable("nothing can be made there")

    monkeypatch.setattr("cachekit.cache.opening.prepare", refuse)
    with cachekit.configure(dir=tmp_path / "nowhere"):
        assert (tree("a") / "0.bin").read_text() == (tree("a") / "0.bin").read_text() == "a"
        assert (tree.refresh("a") / "0.bin").read_text() == "a"
        assert tree.peek("a") is MISS
        assert tree.put(tmp_path / "made", "a") is False
        assert stats(tree).as_dict()["bypasses"]["no_store"] == 4
    assert BUILT == ["a"] * 3


def test_no_room_once_the_tree_stands_takes_nothing_from_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was moved into the store is handed out of it, with or without a note of its signatures."""

    write = Trees._write

    def full(self: Trees, path: Path, data: bytes) -> None:
        if path.suffix == ".seen":
            raise OSError(errno.ENOSPC, "no space left")
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Trees, "_write", full)
        path = tree("text")
        assert len(list(path.iterdir())) == 20
    assert tree("text") == path
    assert BUILT == ["text"]


def test_a_file_from_the_future_is_stored() -> None:
    """Its signature will not settle for a year; it is copied instead of moved."""

    @persist_artifact(scratch="work", version="1")
    def dated(work: Path | None = None) -> Path:
        assert work is not None
        (work / "dated").write_text("x")
        later = time.time_ns() + 365 * 24 * 3600 * 10**9
        os.utime(work / "dated", ns=(later, later))
        return work / "dated"

    assert dated().read_text() == "x"
    assert stats(dated).as_dict()["stores"] == 1


AT_EXIT = """
import atexit, threading
from pathlib import Path
from cachekit import persist_artifact
@persist_artifact(scratch="work", version="1")
def last(work=None):
    (work / "last").write_text("words")
    return work / "last"
def end():
    assert last() == last()
    print(last().read_text())
atexit.register(end)
"""


def test_a_program_that_ends_may_still_build(own_cache: Path) -> None:
    """Threads cannot be started any more; the calls work without."""
    environ = {**os.environ, "CACHEKIT_DIR": str(own_cache), "CACHEKIT_IPFS": "off", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", AT_EXIT], env=environ, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("words\n", 0), done.stderr


def test_a_cancelled_call_keeps_its_files_until_they_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that stores them goes on; what it stored is whole."""
    begun, go = threading.Event(), threading.Event()
    ingest = default().ready().artifacts.ingest  # type: ignore[union-attr]

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        go.wait(30)
        return ingest(*args, **kwargs)

    @persist_artifact(scratch="work", version="1")
    async def cancelled(work: Path | None = None) -> Path:
        assert work is not None
        (work / "a").write_text("whole")
        return work

    async def ask() -> None:
        monkeypatch.setattr(default().artifacts, "ingest", slow)
        task = asyncio.ensure_future(cancelled())
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        monkeypatch.setattr(default().artifacts, "ingest", ingest)
        assert ((await cancelled()) / "a").read_text() == "whole"

    asyncio.run(ask())
    for found in registry().all():
        assert [file.path for file in found.manifest.files] == ["a"]


# -- stale, and again -------------------------------------------------------------------------------------------------


def test_a_refresh_behind_the_call_asks_cacheable_about_the_path(tmp_path: Path) -> None:
    """As a call does; and where the result has a place it is built in front, so that two contents never meet there."""

    def wanted(path: Path) -> bool:
        return path.name.startswith("version")

    @persist_artifact(ttl=0.001, stale_while_revalidate=60, cacheable=wanted, scratch="work", version="1")
    def aging(work: Path | None = None) -> Path:
        BUILT.append(1)
        assert work is not None
        (work / f"version{len(BUILT)}").touch()
        return work / f"version{len(BUILT)}"

    written: list[int] = []

    @persist_artifact(ttl=0.001, stale_while_revalidate=60, output="output", version="1")
    def placed(output: Path) -> Path:
        written.append(1)
        output.write_text(str(len(written)))
        return output

    assert aging().name == "version1"
    until = time.monotonic() + 30
    while aging().name == "version1":
        assert time.monotonic() < until, stats(aging).as_dict()
        time.sleep(0.005)
    placed(tmp_path / "out")
    time.sleep(0.01)  # past the TTL
    assert placed(tmp_path / "out").read_text() == "2"


def test_a_name_means_what_calls_are_answered_with(tmp_path: Path) -> None:
    """After a refresh with other content the name, the key and the digest's beginning lead to the new one."""

    @persist_artifact(scratch="work", version="1")
    def named(work: Path | None = None) -> Path:
        BUILT.append(1)
        assert work is not None
        (work / "weights.bin").write_text(str(len(BUILT)))
        return work / "weights.bin"

    assert named().read_text() == "1"
    assert named.refresh().read_text() == "2"
    assert restore("weights.bin").read_text() == "2"
    assert restore(str(named.key_for())).read_text() == "2"
    old = next(one for one in registry().all() if not one.entry)
    assert (old.key, old.pinned) == (None, False)


# -- what a second review found -----------------------------------------------------------------------------------------


def test_neither_an_output_nor_a_log_hides_that_an_input_changed(tmp_path: Path) -> None:
    """Paths that do not count are not asked whether they are there; inputs inside dataclasses are."""

    @dataclass(frozen=True)
    class Inputs:
        source: Path

    @persist_artifact(scratch="work", output="output", ignore=("log",), version="1")
    def read(inputs: Inputs, log: Path, output: Path, work: Path | None = None) -> Path:
        BUILT.append(1)
        assert work is not None
        if len(BUILT) == 1:
            inputs.source.write_text("newer")
        (work / "read").write_text(inputs.source.read_text())
        return work / "read"

    for _ in range(2):
        (tmp_path / "source").write_text("older")
        read(Inputs(tmp_path / "source"), tmp_path / "log", tmp_path / f"out{len(BUILT)}")
    assert (tmp_path / "out0").read_text() == "newer"
    assert (tmp_path / "out1").read_text() == "older"
    assert len(BUILT) == 2


def test_arguments_that_the_function_changes_are_its_own_business(tmp_path: Path) -> None:
    """Only files are looked at again."""
    (tmp_path / "source").touch()

    @distributed_cache(version="1")
    def convert(source: Path, options: dict[str, str]) -> str:
        BUILT.append(1)
        return options.pop("dtype")

    assert convert(tmp_path / "source", {"dtype": "f16"}) == convert(tmp_path / "source", {"dtype": "f16"}) == "f16"
    assert len(BUILT) == 1


def test_a_function_may_build_inside_its_input(tmp_path: Path) -> None:
    """As compilers do: on a fresh checkout of the same project the result is a hit."""

    @persist_artifact(version="1")
    def compiled(project: Path) -> Path:
        BUILT.append(1)
        (project / "build").mkdir()
        (project / "build" / "program").write_text("binary")
        return project / "build"

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.c").write_text("int main;")
        assert (compiled(tmp_path / name) / "program").read_text() == "binary"
    assert len(BUILT) == 1


class Rounded:
    def __init__(self, digits: int) -> None:
        self.digits = digits

    def save(self, value: float, path: Path) -> None:
        path.write_text(str(round(value, self.digits)))

    def load(self, path: Path) -> float:
        return float(path.read_text())


def test_what_a_codec_holds_is_part_of_the_key() -> None:
    """One that keeps a digit more is another one."""

    def pi() -> float:
        return 3.14159

    one, five = (persist_artifact(codec=Rounded(digits))(pi) for digits in (1, 5))
    assert one.key_for() != five.key_for()
    assert persist_artifact(codec=Rounded(1))(pi).key_for() == one.key_for()


def test_an_output_without_a_working_directory_or_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is needed to put a result at an absolute place; nor is a lock."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr(Path, "home", classmethod(lambda _cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    default().ready()
    (default().settings.dir / "artifacts").mkdir(exist_ok=True)
    (default().settings.dir / "artifacts" / "places").touch()
    assert len(list(Path(tree("text", tmp_path / "out")).iterdir())) == 20
    assert BUILT == ["text"]


def test_one_thread_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a second one is refused, the first does all the work."""
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("cachekit-artifact"):
            started.append(thread.name)
            if len(started) > 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert len(list(tree("text").iterdir())) == 20
    assert len(started) > 1
