"""`persist_artifact` for objects, by an artifact codec; and what else can be asked of a function that builds artifacts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cachekit
from cachekit import MISS, UsageError, persist_artifact, stats
from cachekit.cache.default import default
from cachekit.model import FOREVER

BUILT: list[object] = []


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BUILT.clear()
    # What nobody keeps stays where it was made.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Model:
    """A vendor's object: what it knows is written and read by its library."""

    def __init__(self, weights: list[int]) -> None:
        self.weights = weights


class Saved:
    """A directory with one file; odd models cannot be saved, and a spoilt one cannot be read."""

    def save(self, value: Model, path: Path) -> None:
        path.mkdir()
        if not value.weights:
            raise ValueError("an empty model")
        (path / "weights.json").write_text(json.dumps(value.weights))

    def load(self, path: Path) -> Model:
        return Model(json.loads((path / "weights.json").read_text()))


@persist_artifact(codec=Saved(), version="1")
def train(*weights: int) -> Model:
    BUILT.append(weights)
    return Model(list(weights))


@persist_artifact(scratch="work", version="1")
def build(text: str, work: Path | None = None) -> Path:
    BUILT.append(text)
    assert work is not None
    (work / "built.txt").write_text(text)
    return work / "built.txt"


@persist_artifact(version="1", scratch="work", output="output")
async def awaited(text: str, output: Path | None = None, work: Path | None = None) -> Path:
    BUILT.append(text)
    assert work is not None
    (work / "awaited.txt").write_text(text)
    return work / "awaited.txt"


def test_an_object_is_built_once_and_read_again() -> None:
    """The first caller gets what the function made, the next ones an equal object of their own."""
    first, second, third = train(1, 2), train(1, 2), train(1, 2)
    assert BUILT == [(1, 2)]
    assert [type(one) for one in (first, second, third)] == [Model] * 3
    assert first.weights == second.weights == third.weights == [1, 2]
    assert len({id(one) for one in (first, second, third)}) == 3
    peeked = train.peek(1, 2)
    assert isinstance(peeked, Model) and peeked.weights == [1, 2]
    assert cachekit.restore("train").name == "train"


def test_what_a_codec_cannot_save_is_returned_and_counted() -> None:
    """The caller has the object, nothing is stored, and nothing lies about."""
    with pytest.warns(UserWarning, match="could not save: an empty model"):
        assert train().weights == []
    assert train().weights == []
    assert BUILT == [(), ()]
    found = stats(train).as_dict()
    assert (found["skipped"], found["stores"]) == ({"codec": 2}, 0)
    assert not list((default().settings.dir / "artifacts" / "scratch").glob("*"))


def test_what_a_codec_cannot_read_is_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that no longer reads its files costs a call of the function, not the caller's program."""
    train(3)

    def refuse(_self: Any, _path: Path) -> Model:
        raise KeyError("another version")

    monkeypatch.setattr(Saved, "load", refuse)
    assert train(3).weights == [3]
    assert BUILT == [(3,), (3,)]
    assert stats(train).as_dict()["errors"] == {"artifacts": {"codec": 1}}


def test_output_with_an_object_is_refused() -> None:
    """Nothing would appear there."""
    with pytest.raises(UsageError, match="output="):

        @persist_artifact(codec=Saved(), output="place")
        def odd(place: Path) -> Model:
            return Model([])


def test_a_codec_by_name_keeps_the_value() -> None:
    """An array comes back, and is pinned and kept for ever like every artifact."""

    @persist_artifact(codec="ndarray", version="1")
    def weights(size: int) -> np.ndarray[Any, Any]:
        BUILT.append(size)
        return np.arange(size)

    assert np.array_equal(weights(5), weights(5))
    assert BUILT == [5]
    disk = default().disk
    record = disk.get(weights.key_for(5)) if disk else None
    assert record is not None and record.pin and record.expires == FOREVER


def test_peek_gives_the_path_or_a_miss(tmp_path: Path) -> None:
    """The function is not called, and nothing appears at `output`."""
    assert build.peek("a") is MISS
    assert build.peek("a") is MISS
    path = build("a")
    assert build.peek("a") == path
    assert BUILT == ["a"]

    async def ask() -> None:
        assert await awaited.peek("b") is MISS
        await awaited("b")
        output = tmp_path / "appears"
        assert (await awaited.peek("b", output)).read_text() == "b"
        assert not output.exists()

    asyncio.run(ask())


def test_put_keeps_a_copy_of_what_was_built_elsewhere(tmp_path: Path) -> None:
    """The call is a hit without having been made; the file that was put stays the caller's."""
    made = tmp_path / "made.txt"
    made.write_text("elsewhere")
    assert build.put(made, "c")
    assert build("c").read_text() == "elsewhere"
    assert made.exists() and build("c") != made
    assert train.put(Model([7]), 7)
    assert train(7).weights == [7]
    assert BUILT == []

    async def ask() -> None:
        assert await awaited.put(made, "d")
        assert (await awaited("d")).read_text() == "elsewhere"

    asyncio.run(ask())
    with pytest.raises(UsageError, match="path"):
        build.put("no such file", "e")
    with cachekit.mode("read-only"), pytest.raises(UsageError, match="read-only"):
        build.put(made, "c")


def test_cacheable_is_asked_about_what_the_function_returned() -> None:
    """A path, not what is stored of it; what is not worth keeping stays where the function left it."""
    asked: list[object] = []

    def wanted(path: Path) -> bool:
        asked.append(path)
        return path.read_text() == "keep"

    @persist_artifact(scratch="work", version="1", cacheable=wanted)
    def made(text: str, work: Path | None = None) -> Path:
        BUILT.append(text)
        assert work is not None
        (work / "made.txt").write_text(text)
        return work / "made.txt"

    assert made("drop").read_text() == made("drop").read_text() == "drop"
    assert made("keep") == made("keep")
    assert BUILT == ["drop", "drop", "keep"]
    assert all(isinstance(path, Path) for path in asked)
    assert stats(made).as_dict()["skipped"] == {"not_cacheable": 2}
