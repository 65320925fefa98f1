"""`persist_artifact`: files and directories built once, had everywhere."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from pathlib import Path

import pytest

import cachekit
from cachekit import UsageError, persist_artifact, stats

BUILT: list[object] = []


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BUILT.clear()
    # What nobody keeps stays where it was made.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@persist_artifact(scratch="work", version="1")  # pytest rewrites the asserts in it, so no source would match
def build(text: str, work: Path | None = None) -> Path:
    BUILT.append(text)
    assert work is not None
    tree = work / "model"
    (tree / "sub").mkdir(parents=True)
    (tree / "weights.bin").write_text(text * 10)
    (tree / "sub" / "config.json").write_text("{}")
    (tree / "link").symlink_to("sub/config.json")
    (tree / "empty").mkdir()
    return tree


@persist_artifact(output="output")
def convert(source: Path, output: Path) -> Path:
    BUILT.append(output)
    output.write_bytes(source.read_bytes().upper())
    return output


def test_a_tree_is_built_once_and_read_only() -> None:
    """The second call gives the same path with the same content; the scratch directory is gone."""
    first = build("abc")
    assert build("abc") == first
    assert BUILT == ["abc"]
    assert first.name == "model"
    assert (first / "weights.bin").read_text() == "abc" * 10
    assert os.readlink(first / "link") == "sub/config.json"
    assert (first / "empty").is_dir()
    assert not (first / "weights.bin").stat().st_mode & 0o222
    assert stats(build).as_dict()["stores"] == 1


def test_a_hit_appears_at_output(tmp_path: Path) -> None:
    """A hit replaces what stands at `output`; neither the place nor a later change reaches the store."""
    source = tmp_path / "in.txt"
    source.write_text("hello")
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    assert convert(source, one) == one
    two.write_text("something else")
    assert convert(source, output=two) == two
    assert two.read_text() == "HELLO"
    two.write_text("spoilt")
    three = tmp_path / "three.txt"
    assert convert(source, three).read_text() == "HELLO"
    assert BUILT == [one]


def test_an_input_changed_in_place_is_a_miss(tmp_path: Path) -> None:
    """A path counts by its content."""
    source = tmp_path / "in.txt"
    source.write_text("one")
    assert convert(source, tmp_path / "a").read_text() == "ONE"
    source.write_text("two")
    assert convert(source, tmp_path / "a").read_text() == "TWO"
    source.write_text("one")
    assert convert(source, tmp_path / "b").read_text() == "ONE"
    assert len(BUILT) == 2


def test_a_spoilt_copy_in_the_store_is_never_a_hit() -> None:
    """A file of the store that was changed is noticed, and built again."""
    path = build("abc") / "weights.bin"
    path.chmod(0o644)
    path.write_text("spoilt")
    assert (build("abc") / "weights.bin").read_text() == "abc" * 10
    assert len(BUILT) == 2


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    """A FIFO in the tree raises UsageError naming it, and nothing is stored."""

    @persist_artifact
    def odd() -> Path:
        tree = tmp_path / "odd"
        tree.mkdir(exist_ok=True)
        if not (tree / "pipe").exists():
            os.mkfifo(tree / "pipe")
        return tree

    with pytest.raises(UsageError, match="pipe"):
        odd()
    assert stats(odd).as_dict()["stores"] == 0


def test_no_path_is_refused() -> None:
    """A function that returns no existing path raises UsageError with the remedy."""

    @persist_artifact
    def wrong() -> object:
        return {"a": 1}

    with pytest.raises(UsageError, match="path"):
        wrong()


def test_threads_build_once() -> None:
    """Many threads, one build, one path."""
    start = threading.Barrier(6)
    found: list[Path] = []

    def ask() -> None:
        start.wait()
        found.append(build("shared"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert BUILT == ["shared"]


def test_a_coroutine_function() -> None:
    """An async builder likewise."""

    @persist_artifact(scratch="work", version="1")
    async def slowly(text: str, work: Path | None = None) -> Path:
        BUILT.append(text)
        assert work is not None
        await asyncio.sleep(0)
        (work / "out").write_text(text)
        return work / "out"

    async def main() -> None:
        assert (await slowly("x")).read_text() == (await slowly("x")).read_text() == "x"

    asyncio.run(main())
    assert BUILT == ["x"]


def test_bypass_runs_the_function_alone() -> None:
    """Without the cache the function runs, and its result stays readable."""
    with cachekit.bypass():
        assert (build("free") / "weights.bin").read_text() == "free" * 10
    assert stats(build).as_dict()["stores"] == 0


def test_another_machine_gets_the_files(kubo_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second machine, with another cache directory and the same credential, restores the tree without building."""
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    common = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 5}
    with cachekit.configure(dir=tmp_path / "one", **common):
        first = build("team")
        cachekit.flush(60)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config two"))
    with cachekit.configure(dir=tmp_path / "two", **common):
        second = build("team")
        assert second != first
        assert (second / "weights.bin").read_text() == "team" * 10
        assert os.readlink(second / "link") == "sub/config.json"
        assert stats(build).as_dict()["hits"]["ipfs"] == 1
    assert BUILT == ["team"]
