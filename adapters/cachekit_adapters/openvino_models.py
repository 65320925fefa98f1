"""OpenVINO's IR, converted once: models of transformers, and files of other frameworks.

from cachekit_adapters import openvino_models

directory = openvino_models.convert("org/name", revision="<commit>", task="text-classification", weight_format="int8")
compiled = openvino.Core().compile_model(directory / "openvino_model.xml", "CPU")
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cachekit import UsageError, bypass, persist_artifact
from cachekit_adapters._building import UNKNOWN, commit, named, needed, source, spoken, versions

TASKS: Final = {
    "feature-extraction": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "question-answering": "AutoModelForQuestionAnswering",
    "text-classification": "AutoModelForSequenceClassification",
    "text-generation": "AutoModelForCausalLM",
    "token-classification": "AutoModelForTokenClassification",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
}
_FORMATS: Final = {"fp32": "", "fp16": "", "int8": "INT8_ASYM", "int4": "INT4_ASYM"}


def convert(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    task: str = "feature-extraction",
    weight_format: str = "fp32",
    example: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """A directory with `openvino_model.xml`, `openvino_model.bin` and, of transformers' models, `config.json`.

    `model` is a checkpoint directory or a name on the hub, loaded with the class of `task` (`TASKS`) and traced with
    `example`: arrays by input name, by default `input_ids` and `attention_mask` of shape (1, 8); `options` are
    `from_pretrained`'s. Or it is a file that OpenVINO reads (ONNX, …), and `options` are `openvino.convert_model`'s.
    `weight_format` is fp32, fp16, int8 or int4; the last two need nncf. Text generation is converted without its state:
    each step is given all tokens.

    The key holds the content of `model` or else its name and commit, the task, the weight format, the example, the
    options and the versions of OpenVINO and of what loads the model. Where nobody can say which commit a branch is,
    nothing is kept. Raises UsageError for an unknown task or format,
    and where a library is missing.
    """
    if task not in TASKS or weight_format not in _FORMATS:
        there_are = f"tasks: {', '.join(TASKS)}; formats: {', '.join(_FORMATS)}"
        raise UsageError(f"task={task!r} with weight_format={weight_format!r} is not to be had; {there_are}")
    needed("openvino")
    original = source(model)
    libraries = ["openvino"] + (["nncf"] if _FORMATS[weight_format] else [])
    if _is_file(original):
        return _converted(
            original, None, "", weight_format, None, spoken(options), versions(*libraries), options=options
        )
    known = commit(original, revision)
    with bypass() if known == UNKNOWN else contextlib.nullcontext():
        return _converted(
            original,
            known or revision,
            task,
            weight_format,
            _arrays(example),
            spoken(options),
            versions(*libraries, "torch", "transformers"),
            options=options,
        )


@persist_artifact(version="1", ignore=("options",), scratch="scratch")
@named("openvino_models._converted")
def _converted(
    model: str | Path,
    revision: str | None,
    task: str,
    weight_format: str,
    example: Mapping[str, Any] | None,
    keyed: Mapping[str, Any],
    tools: Mapping[str, str],
    *,
    options: Mapping[str, Any],
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    openvino, directory = needed("openvino"), scratch / "ir"
    directory.mkdir()
    if task:
        loaded = _loaded(model, revision, task, options)
        loaded.config.save_pretrained(os.fspath(directory))
        converted = openvino.convert_model(loaded, example_input=_tensors(example))
    else:
        converted = openvino.convert_model(os.fspath(model), **options)
    _save(openvino, converted, weight_format, directory / "openvino_model.xml")
    return directory


def _is_file(model: str | Path) -> bool:
    return isinstance(model, Path) and model.is_file()


def _loaded(model: str | Path, revision: str | None, task: str, options: Mapping[str, Any]) -> Any:
    cls = getattr(needed("transformers"), TASKS[task])
    pinned = {} if revision is None else {"revision": revision}
    loaded = cls.from_pretrained(os.fspath(model), **pinned, **options).eval()
    # A cache of keys and values is state that a traced graph cannot give back.
    loaded.config.use_cache = False
    return loaded


def _save(openvino: Any, converted: Any, weight_format: str, path: Path) -> None:
    if _FORMATS[weight_format]:
        nncf = needed("nncf")
        converted = nncf.compress_weights(converted, mode=getattr(nncf.CompressWeightsMode, _FORMATS[weight_format]))
    openvino.save_model(converted, os.fspath(path), compress_to_fp16=weight_format == "fp16")


def _arrays(example: Mapping[str, Any] | None) -> dict[str, Any]:
    numpy = needed("numpy")
    if example is None:
        ones = numpy.ones((1, 8), numpy.int64)
        return {"input_ids": ones, "attention_mask": ones}
    return {name: numpy.asarray(value) for name, value in example.items()}


def _tensors(example: Mapping[str, Any] | None) -> dict[str, Any]:
    torch = needed("torch")
    return {name: torch.from_numpy(array.copy()) for name, array in (example or {}).items()}
