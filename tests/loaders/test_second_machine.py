"""What one machine loaded or converted, another one has: other HOME, other cache directory, same daemon and credential."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import coreml_models, gguf, openvino_models, transformers_models
from loaders.conftest import library
from loaders.test_converters import VENDORS, traced, tree
from loaders.test_transformers_models import digest

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300), *map(pytest.mark.filterwarnings, VENDORS)]
__all__ = ["traced"]


@pytest.fixture(autouse=True)
def nothing_left_to_collect() -> Iterator[None]:
    """coremltools leaves temporary directories to the collector, which warns of each: here, not at the end of the run."""
    yield
    gc.collect()


def test_a_gguf(
    scripts: Path, tiny: Callable[[str], Path], tmp_path: Path, again: Any, second_machine: dict[str, str]
) -> None:
    """The same bytes without a script run, and llama.cpp's reader takes them; restored by name as well."""
    library("gguf"), library("sentencepiece")
    script = scripts / "convert_hf_to_gguf.py"
    checkpoint = Path(shutil.copytree(tiny("llama"), tmp_path / "tiny-llama"))
    first = gguf.convert(script, checkpoint, outtype="f16")
    cachekit.flush(60)
    code = """
    import cachekit, gguf as library
    from cachekit_adapters import gguf
    restored = cachekit.restore("tiny-llama-f16.gguf")
    path = gguf.convert(script, checkpoint, outtype="f16")
    assert path == restored and path.read_bytes() == Path(first).read_bytes() and not path.samefile(first)
    answer = len(library.GGUFReader(path).tensors)
    """
    assert again(code, machine=second_machine, script=script, checkpoint=checkpoint, first=first) > 0


def test_a_model_of_transformers(tiny: Callable[[str], Path], again: Any, second_machine: dict[str, str]) -> None:
    """Weights bit for bit, the original not read."""
    transformers, directory = library("transformers"), tiny("llama")
    first = transformers_models.from_pretrained(transformers.AutoModelForCausalLM, directory)
    cachekit.flush(60)
    code = """
    import cachekit, transformers
    from cachekit_adapters import transformers_models
    from loaders.test_transformers_models import digest
    model = transformers_models.from_pretrained(transformers.AutoModelForCausalLM, directory)
    assert cachekit.stats().as_dict()["hits"]["ipfs"] == 1
    answer = digest(model)
    """
    assert again(code, machine=second_machine, directory=directory) == digest(first)


def test_an_openvino_model(tiny: Callable[[str], Path], again: Any, second_machine: dict[str, str]) -> None:
    """The same files, which infer what the first machine's infer."""
    openvino = library("openvino")
    first = openvino_models.convert(tiny("bert"), task="feature-extraction")
    cachekit.flush(60)
    code = """
    import cachekit, numpy as np, openvino
    from cachekit_adapters import openvino_models
    path = openvino_models.convert(directory, task="feature-extraction")
    assert cachekit.stats().as_dict()["hits"]["ipfs"] == 1
    model = openvino.Core().compile_model(path / "openvino_model.xml", "CPU")
    ids = np.array([[3, 4, 5, 6, 7]])
    answer = [str(path), model({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].tolist()]
    """
    path, inferred = again(code, machine=second_machine, directory=tiny("bert"))
    assert Path(path) != first and tree(Path(path)) == tree(first)
    import numpy as np

    ids = np.array([[3, 4, 5, 6, 7]])
    here = openvino.Core().compile_model(first / "openvino_model.xml", "CPU")
    assert np.array_equal(here({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0], np.float32(inferred))


def test_a_core_ml_package(traced: Path, again: Any, second_machine: dict[str, str]) -> None:
    """Byte for byte."""
    library("coremltools")
    first = coreml_models.convert(traced, inputs={"x": (1, 4)}, target="iOS16")
    cachekit.flush(60)
    code = """
    import cachekit
    from cachekit_adapters import coreml_models
    path = coreml_models.convert(traced, inputs={"x": (1, 4)}, target="iOS16")
    assert cachekit.stats().as_dict()["hits"]["ipfs"] == 1
    answer = str(path)
    """
    path = Path(again(code, machine=second_machine, traced=traced))
    assert path != first and tree(path) == tree(first)
