"""Core ML packages, converted once. Conversion runs on Linux and macOS; a prediction needs macOS.

from cachekit_adapters import coreml_models

package = coreml_models.convert("net.pt", inputs={"x": (1, 3, 224, 224)}, compute_units="CPU_AND_NE", target="iOS17")
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cachekit import UsageError, persist_artifact
from cachekit_adapters._building import existing, named, needed, versions


def convert(
    model: str | os.PathLike[str],
    *,
    inputs: Mapping[str, Sequence[int]],
    input_types: Mapping[str, str] | None = None,
    compute_units: str = "ALL",
    target: str | None = None,
    precision: str = "FLOAT16",
    source: str = "pytorch",
    **options: Any,
) -> Path:
    """An `.mlpackage` directory, an ML program.

    `model` is a file that coremltools reads: TorchScript (`torch.jit.save`), or with `source="tensorflow"` a saved
    model. A `.pt2` (`torch.export.save`) is read too; its inputs are in it, and `inputs` may be empty. `inputs` are
    shapes by name, in the order the model takes them, `input_types` numpy's names of types other than float32.
    `compute_units`, `target` and `precision` are names in coremltools' `ComputeUnit`, `target` and `precision`.
    `options` are `coremltools.convert`'s, plain values.

    The key holds the model's content, all of these, and the versions of coremltools and torch. Raises UsageError for a
    name that coremltools does not know, a file that does not exist, or where coremltools is missing.
    """
    path, coremltools = existing(model, "model"), needed("coremltools")
    for place, name in (("ComputeUnit", compute_units), ("target", target), ("precision", precision)):
        if name is not None and not hasattr(getattr(coremltools, place), name):
            raise UsageError(f"coremltools {coremltools.__version__} has no {place}.{name}; name one that it has")
    return _converted(
        path,
        path.suffix == ".pt2",
        {name: tuple(shape) for name, shape in inputs.items()},
        # The order of a mapping is not in a key, and here it says which input is which.
        tuple(inputs),
        dict(input_types or {}),
        compute_units,
        target,
        precision,
        source,
        options,
        versions("coremltools", "torch"),
    )


@persist_artifact(version="1", scratch="scratch")
@named("coreml_models._converted")
def _converted(
    model: Path,
    exported: bool,
    inputs: Mapping[str, Sequence[int]],
    order: Sequence[str],
    input_types: Mapping[str, str],
    compute_units: str,
    target: str | None,
    precision: str,
    source: str,
    options: Mapping[str, Any],
    tools: Mapping[str, str],
    *,
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    coremltools, numpy = needed("coremltools"), needed("numpy")
    package = scratch / "model.mlpackage"
    types = [
        coremltools.TensorType(
            name=name, shape=tuple(inputs[name]), dtype=numpy.dtype(input_types.get(name, "float32")).type
        )
        for name in order
    ]
    coremltools.convert(
        _exported(model) if exported else os.fspath(model),
        source=source,
        convert_to="mlprogram",
        inputs=types or None,
        compute_units=getattr(coremltools.ComputeUnit, compute_units),
        minimum_deployment_target=getattr(coremltools.target, target) if target else None,
        compute_precision=getattr(coremltools.precision, precision),
        # Loading the model is for a prediction, which is not what happens here.
        skip_model_load=True,
        **options,
    ).save(os.fspath(package))
    return package


def _exported(model: Path) -> Any:
    # coremltools reads the ATen dialect or what it decomposes to, not the training one that is saved.
    return needed("torch").export.load(os.fspath(model)).run_decompositions({})
