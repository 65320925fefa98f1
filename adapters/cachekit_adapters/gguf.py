"""llama.cpp's converters, run once: checkpoints and LoRA adapters to GGUF.

from cachekit_adapters import gguf

model = gguf.convert("llama.cpp/convert_hf_to_gguf.py", "checkpoints/mine", outtype="q8_0")   # a read-only Path
lora = gguf.convert_lora("llama.cpp/convert_lora_to_gguf.py", "adapters/mine", "checkpoints/mine")

The scripts are run as they are, in a process of their own; what they raise on their stderr is in the CalledProcessError.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cachekit import UsageError, persist_artifact
from cachekit_adapters._building import existing, flags, named, only, run, versions_in

StrPath = str | os.PathLike[str]

_LIBRARIES: Final = ("gguf", "transformers", "torch", "numpy", "sentencepiece", "safetensors")
# They say how the work is done, or how much is told of it; the bytes are the same.
_NEUTRAL: Final = frozenset({"verbose", "use_temp_file", "no_lazy"})
_OURS: Final = frozenset({"outfile", "output", "input", "outtype", "base", "remote", "dry_run"})
# The scripts read it: with it they use the installed gguf, without it the one beside them.
_SWITCH: Final = "NO_LOCAL_GGUF"


def convert(
    script: StrPath, model_dir: StrPath, *, outtype: str = "f16", python: StrPath | None = None, **options: Any
) -> Path:
    """The GGUF that `convert_hf_to_gguf.py` (any version, any place) makes of a checkpoint directory.

    A file, or a directory where the options ask for a split. `python` is the interpreter, by default this one; `options`
    are the script's own (`model_name="x"` is `--model-name x`), a Path among them counts by content.

    The key holds the directory's content and its name, which the script writes into the file (`general.name`), the
    content of the script and of the modules beside it that it imports, the versions of gguf and the libraries that read
    checkpoints, `outtype` and `options`.

    Raises CalledProcessError when the script fails, with its `stderr`; UsageError for a path that does not exist.
    """
    inputs = {"model": existing(model_dir, "model_dir")}
    return _convert(script, inputs, "--outfile", outtype, python, options, ("{model}",))


def convert_lora(
    script: StrPath,
    adapter_dir: StrPath,
    base_dir: StrPath,
    *,
    outtype: str = "f16",
    python: StrPath | None = None,
    **options: Any,
) -> Path:
    """The GGUF that `convert_lora_to_gguf.py` makes of a PEFT adapter for the model in `base_dir`.

    The key holds both directories, each with its name, and everything else that `convert` puts into it. Raises as
    `convert` does.
    """
    inputs = {"adapter": existing(adapter_dir, "adapter_dir"), "base": existing(base_dir, "base_dir")}
    return _convert(script, inputs, "--outfile", outtype, python, options, ("--base", "{base}", "{adapter}"))


def convert_ggml(script: StrPath, file: StrPath, *, python: StrPath | None = None, **options: Any) -> Path:
    """The GGUF that `convert_llama_ggml_to_gguf.py` makes of a file in one of the formats before it.

    The key holds what `convert` puts into it; the file's name is among it. Raises as `convert` does.
    """
    inputs = {"file": existing(file, "file")}
    return _convert(script, inputs, "--output", "", python, options, ("--input", "{file}"))


def _convert(
    script: StrPath,
    inputs: dict[str, Path],
    writes: str,
    outtype: str,
    python: StrPath | None,
    options: Mapping[str, Any],
    words: Sequence[str],
) -> Path:
    """Runs `script` on `inputs`, whose places in the command are `words`; `writes` is its flag for the output."""
    ours = sorted(_OURS & options.keys())
    if ours:
        raise UsageError(f"{ours[0]}= is the adapter's to say: it decides from what is read, and where the output goes")
    path, interpreter = existing(script, "script"), os.fspath(python) if python is not None else sys.executable
    command = [interpreter, os.fspath(path), *(word.format_map(inputs) for word in words)]
    command += [*(["--outtype", outtype] if outtype else []), *flags(options), writes]
    return _converted(*_arguments(path, inputs, outtype, interpreter, options), command=command)


def _arguments(
    script: Path, inputs: dict[str, Path], outtype: str, python: str, options: Mapping[str, Any]
) -> tuple[Any, ...]:
    """What identifies a conversion, in the order `_converted` takes it."""
    return (
        {name: path.name for name, path in inputs.items()},
        inputs,
        _code(script),
        outtype,
        {name: _counted(value) for name, value in options.items() if name not in _NEUTRAL},
        {**versions_in(python, *_LIBRARIES), _SWITCH: str(_SWITCH in os.environ)},
    )


@persist_artifact(version="1", ignore=("command",), scratch="scratch")
@named("gguf._converted")
def _converted(
    names: Mapping[str, str],
    inputs: Mapping[str, Path],
    code: Mapping[str, Path],
    outtype: str,
    options: Mapping[str, Any],
    tools: Mapping[str, str],
    *,
    command: Sequence[str],
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    directory = scratch / "gguf"
    directory.mkdir()
    stem = "-".join(filter(None, (next(iter(names.values())), outtype)))
    run([*command, os.fspath(directory / f"{stem}.gguf")])
    return only(directory, command[1])


def _counted(value: Any) -> Any:
    """What an option is in the key: one that names a file or a directory counts with its content."""
    if isinstance(value, str) and os.path.exists(value):
        return value, Path(value)
    return value


def _code(script: Path) -> dict[str, Path]:
    """The script, the modules beside it that it imports, and gguf-py: by relative name.

    File by file, because Python leaves its bytecode beside them: as trees they would differ after the first run.
    """
    modules, todo = {script.name: script}, [script]
    while todo:
        for name in _imported(todo.pop()):
            module = script.parent / f"{name}.py"
            if module.is_file() and module.name not in modules:
                modules[module.name] = module
                todo.append(module)
            modules |= _sources(script.parent / name, script.parent)
    return modules | _sources(script.parent / "gguf-py", script.parent)


def _sources(package: Path, root: Path) -> dict[str, Path]:
    return {path.relative_to(root).as_posix(): path for path in sorted(package.rglob("*.py"))}


def _imported(module: Path) -> set[str]:
    """The first names of what a module imports. One that is no Python imports nothing: running it will tell."""
    try:
        tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in item.names}
        elif isinstance(item, ast.ImportFrom) and item.module and not item.level:
            names.add(item.module.partition(".")[0])
    return names
