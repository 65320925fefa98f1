"""OpenVINO, Core ML and Qualcomm: converted once, restored in another process, with what decides the result in the key."""

from __future__ import annotations

import gc
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit_adapters import coreml_models, openvino_models, qualcomm_models
from loaders.conftest import library

# What the converters say of torch's age and of their own tracing is not ours; a warning of cachekit's still fails.
VENDORS = (
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore:Converting a tensor", "ignore:.*torch.*:UserWarning",
    "ignore:Output, .* has been renamed:UserWarning", "ignore:Implicitly cleaning up:ResourceWarning",
)  # fmt: skip
pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300), *map(pytest.mark.filterwarnings, VENDORS)]


@pytest.fixture(autouse=True)
def nothing_left_to_collect() -> Iterator[None]:
    """coremltools leaves temporary directories to the collector, which warns of each: here, not at the end of the run."""
    yield
    gc.collect()


def misses() -> int:
    return int(cachekit.stats().as_dict()["misses"])


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "task"), [("bert", "feature-extraction"), ("llama", "text-generation")])
def test_ir_infers_the_same_after_a_restore(name: str, task: str, tiny: Callable[[str], Path], again: Any) -> None:
    """A real conversion; another process, which may not convert, gets the same files, and they compute what torch does."""
    library("openvino")
    torch, transformers, directory = library("torch"), library("transformers"), tiny(name)
    first = openvino_models.convert(directory, task=task)
    code = """
    import numpy as np, openvino
    from cachekit_adapters import openvino_models
    path = openvino_models.convert(directory, task=task)
    model = openvino.Core().compile_model(path / "openvino_model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ids = np.array([[3, 4, 5, 6, 7]])
    answer = [str(path), model({"input_ids": ids, "attention_mask": np.ones_like(ids)})[0].tolist()]
    """
    path, inferred = again(code, directory=directory, task=task)
    assert tree(Path(path)) == tree(first)
    assert {"openvino_model.xml", "openvino_model.bin", "config.json"} <= tree(first).keys()
    model = getattr(transformers, openvino_models.TASKS[task]).from_pretrained(directory).eval()
    with torch.no_grad():
        wanted = model(torch.tensor([[3, 4, 5, 6, 7]]))[0]
    assert torch.allclose(torch.tensor(inferred), wanted, atol=1e-3)


def test_weight_format_and_task_are_part_of_the_key(tiny: Callable[[str], Path]) -> None:
    """fp16 halves the weights; the same again is a hit."""
    library("openvino")
    full = openvino_models.convert(tiny("bert"))
    half = openvino_models.convert(tiny("bert"), weight_format="fp16")
    assert (half / "openvino_model.bin").stat().st_size < (full / "openvino_model.bin").stat().st_size
    openvino_models.convert(tiny("bert"), weight_format="fp16")
    assert misses() == 2


def test_int8_weights(tiny: Callable[[str], Path]) -> None:
    """Compressed by nncf."""
    library("openvino"), library("nncf")
    full = openvino_models.convert(tiny("bert"))
    small = openvino_models.convert(tiny("bert"), weight_format="int8")
    assert (small / "openvino_model.bin").stat().st_size < (full / "openvino_model.bin").stat().st_size / 2


def test_an_unknown_task_is_said() -> None:
    """With those there are."""
    with pytest.raises(cachekit.UsageError, match="feature-extraction"):
        openvino_models.convert("org/name", task="poetry")


@pytest.fixture
def traced(tmp_path: Path) -> Path:
    """A tiny network as TorchScript."""
    torch = library("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    torch.jit.save(torch.jit.trace(network, torch.zeros(1, 4)), tmp_path / "net.pt")
    return tmp_path / "net.pt"


def test_a_core_ml_package_comes_back(traced: Path, again: Any) -> None:
    """Converted for real on Linux; after a restore in another process the specification loads and names its input."""
    library("coremltools")
    first = coreml_models.convert(traced, inputs={"x": (1, 4)}, target="iOS16")
    code = """
    import coremltools
    from cachekit_adapters import coreml_models
    path = coreml_models.convert(traced, inputs={"x": (1, 4)}, target="iOS16")
    model = coremltools.models.MLModel(str(path), skip_model_load=True)
    answer = [str(path), [each.name for each in model.get_spec().description.input]]
    """
    path, names = again(code, traced=traced)
    assert names == ["x"]
    assert tree(Path(path)) == tree(first)
    assert any(name.endswith("weight.bin") for name in tree(first))


def test_an_exported_program_is_read(tmp_path: Path) -> None:
    """What torch.export saves brings its inputs along."""
    library("coremltools")
    torch = library("torch")
    torch.export.save(torch.export.export(torch.nn.Linear(4, 2).eval(), (torch.zeros(1, 4),)), tmp_path / "net.pt2")
    assert (coreml_models.convert(tmp_path / "net.pt2", inputs={}) / "Manifest.json").exists()


def test_compute_units_target_and_shape_are_part_of_the_key(traced: Path) -> None:
    """Each is another package; a name that coremltools does not know is said."""
    library("coremltools")
    coreml_models.convert(traced, inputs={"x": (1, 4)})
    coreml_models.convert(traced, inputs={"x": (1, 4)}, compute_units="CPU_ONLY")
    coreml_models.convert(traced, inputs={"x": (1, 4)}, target="iOS17")
    coreml_models.convert(traced, inputs={"x": (2, 4)})
    coreml_models.convert(traced, inputs={"x": (1, 4)})
    assert misses() == 4
    with pytest.raises(cachekit.UsageError, match="ComputeUnit.TPU"):
        coreml_models.convert(traced, inputs={"x": (1, 4)}, compute_units="TPU")


# A STAND-IN for Qualcomm's converter, which cannot be had here: it knows --version, and writes what it was told.
STAND_IN = """#!{python}
import pathlib, sys
if "--version" in sys.argv:
    print("stand-in SDK {version}")
    sys.exit()
given = dict(word.split("=", 1) for word in sys.argv[1:])
if pathlib.Path(given["--model"]).read_bytes() == b"broken":
    pathlib.Path(given["--out"]).write_bytes(b"half")
    sys.exit("cannot read the model")
pathlib.Path(given["--out"]).write_bytes(b"DLC " + pathlib.Path(given["--model"]).read_bytes() + given["--soc"].encode())
"""
WORDS = ["--model={model}", "--out={output}", "--soc={soc}"]


@pytest.fixture
def sdk(tmp_path: Path) -> Callable[[str], Path]:
    def stand_in(version: str) -> Path:
        executable = tmp_path / f"sdk-{version}" / "snpe-onnx-to-dlc"
        executable.parent.mkdir()
        executable.write_text(STAND_IN.format(python=sys.executable, version=version))
        executable.chmod(executable.stat().st_mode | stat.S_IXUSR)
        return executable

    return stand_in


def test_a_dlc_of_the_stand_in_sdk(sdk: Callable[[str], Path], tmp_path: Path, again: Any) -> None:
    """STAND-IN executable. Its output comes back in another process; SoC, SDK and model are part of the key."""
    model, tool = tmp_path / "net.onnx", sdk("2.30")
    model.write_bytes(b"weights")
    first = qualcomm_models.build([tool, *WORDS], model, soc="SM8650")
    assert first.read_bytes() == b"DLC weightsSM8650"
    code = """
    from cachekit_adapters import qualcomm_models
    answer = qualcomm_models.build([tool, *words], model, soc="SM8650").read_bytes().decode()
    """
    assert again(code, tool=tool, words=WORDS, model=model) == "DLC weightsSM8650"
    qualcomm_models.build([tool, *WORDS], model, soc="SM8750")
    qualcomm_models.build([sdk("2.31"), *WORDS], model, soc="SM8650")
    model.write_bytes(b"other weights")
    qualcomm_models.build([tool, *WORDS], model, soc="SM8650")
    assert misses() == 4


def test_where_the_sdk_lies_does_not_count(sdk: Callable[[str], Path], tmp_path: Path) -> None:
    """STAND-IN executable. Two machines with one SDK in two places share what it built."""
    model = tmp_path / "net.onnx"
    model.write_bytes(b"weights")
    qualcomm_models.build([sdk("a"), *WORDS], model, soc="SM8650", sdk="2.30")
    qualcomm_models.build([sdk("b"), *WORDS], model, soc="SM8650", sdk="2.30")
    assert misses() == 1


def test_a_failing_build_leaves_nothing(sdk: Callable[[str], Path], tmp_path: Path) -> None:
    """STAND-IN executable. The caller gets its stderr."""
    model = tmp_path / "net.onnx"
    model.write_bytes(b"broken")
    with pytest.raises(subprocess.CalledProcessError) as raised:
        qualcomm_models.build([sdk("2.30"), *WORDS], model, soc="SM8650")
    assert raised.value.stderr == "cannot read the model\n"
    assert cachekit.stats().as_dict()["stores"] == 0


def test_a_file_in_the_command_has_to_be_named(sdk: Callable[[str], Path], tmp_path: Path) -> None:
    """STAND-IN executable. As a word it would count by its path, and not by what is in it."""
    model = tmp_path / "net.onnx"
    model.write_bytes(b"weights")
    with pytest.raises(cachekit.UsageError, match="inputs="):
        qualcomm_models.build([sdk("2.30"), *WORDS, f"--list={model}"], model, soc="SM8650")
    with pytest.raises(cachekit.UsageError, match="output"):
        qualcomm_models.build([sdk("2.29"), "--model={model}"], model, soc="SM8650")
