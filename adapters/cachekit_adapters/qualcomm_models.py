"""Qualcomm's SDKs (SNPE, QNN): a DLC or a context binary, built once by the SDK's own command line.

from cachekit_adapters import qualcomm_models

dlc = qualcomm_models.build(
    ["snpe-onnx-to-dlc", "--input_network", "{model}", "--output_path", "{output}"], "net.onnx", soc="SM8650"
)
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cachekit import UsageError, persist_artifact
from cachekit_adapters._building import existing, named, only, run

StrPath = str | os.PathLike[str]

_PLACE: Final = re.compile(r"\{(\w+)\}")


def build(
    command: Sequence[StrPath],
    model: StrPath,
    *,
    soc: str,
    output: str = "model.dlc",
    sdk: str | None = None,
    inputs: Mapping[str, StrPath] | None = None,
) -> Path:
    """What `command` writes at `{output}`: a file, or a directory where it writes more than one.

    `command` is a list of words, run without a shell. In each word `{model}` stands for the model's path, `{output}` for
    where the result must be written (a file called `output`), `{soc}` for the target, and `{NAME}` for the file or
    directory called NAME in `inputs`, such as an input list or a backend's configuration.

    The key holds the words as they stand here (of the executable only its name), the content of the model and of
    `inputs`, the target, and the SDK's version: `sdk`, or else what the executable says to `--version`.

    Raises CalledProcessError when the command fails, with its `stderr`; UsageError where the version cannot be had, a
    file does not exist, or no word holds `{output}`.
    """
    words = _checked(command)
    files = {name: existing(path, name) for name, path in (inputs or {}).items()}
    return _built(
        [os.path.basename(words[0]), *words[1:]],
        existing(model, "model"),
        files,
        soc,
        sdk or _sdk(words[0]),
        output,
        executable=words[0],
    )


@persist_artifact(version="1", ignore=("executable",), scratch="scratch")
@named("qualcomm_models._built")
def _built(
    words: Sequence[str],
    model: Path,
    inputs: Mapping[str, Path],
    soc: str,
    sdk: str,
    output: str,
    *,
    executable: str,
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    directory = scratch / "built"
    directory.mkdir()
    places: dict[str, Any] = {"model": model, "output": directory / output, "soc": soc, **inputs}
    run([executable, *(_filled(word, places) for word in words[1:])], directory=scratch)
    return only(directory, words[0])


def _filled(word: str, places: Mapping[str, Any]) -> str:
    return _PLACE.sub(lambda match: str(places.get(match[1], match[0])), word)


def _checked(words: Sequence[StrPath]) -> list[str]:
    if not any("{output}" in os.fspath(word) for word in words):
        raise UsageError("no word of the command holds {output}, so its result could not be found: say where it goes")
    for word in words[1:]:
        # A path in a key would say nothing of the file's content, and another machine has it elsewhere.
        if os.path.isfile(os.fspath(word).partition("=")[2] or word):
            raise UsageError(f"the command names the file {os.fspath(word)}: pass it in inputs= and write {{its name}}")
    return [os.fspath(word) for word in words]


def _sdk(executable: str) -> str:
    try:
        version = run([executable, "--version"]).strip()
    except subprocess.CalledProcessError:
        version = ""
    if not version:
        raise UsageError(f"{os.path.basename(executable)} does not tell its version: say it with sdk=")
    return version
