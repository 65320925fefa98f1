"""What the tests of loaders and converters start from: tiny random models, llama.cpp's scripts, another process.

Nothing heavy is imported at the top: the main suite collects these modules and deselects their tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachekit

ROOT = Path(__file__).parent.parent.parent
# Its parameters are images, so that even collecting it takes Pillow.
collect_ignore = [] if importlib.util.find_spec("PIL") else ["test_vision.py"]
REQUIRED = "loaders" in os.environ.get("CACHEKIT_REQUIRE", "").split(",")


def library(name: str) -> Any:
    """The module, or the reason to skip; where CI says that it must be there, its absence fails."""
    if REQUIRED:
        return __import__(name)
    return pytest.importorskip(name, reason="python -m tests.loaders.provision installs it")


@pytest.fixture
def again(own_cache: Path, tmp_path: Path) -> Callable[..., Any]:
    """Runs code in a new process on the same cache, where the origin may not be called: a miss raises there.

    Its names are those passed; what it leaves in `answer` comes back, through JSON. `machine` are settings of its own.
    """

    def run(code: str, *, mode: str = "replay", machine: dict[str, str] | None = None, **names: Any) -> Any:
        text = "\n".join(
            [
                "import json, sys, warnings; from pathlib import Path; warnings.simplefilter('ignore')",
                *(f"{name} = {value!r}" if not isinstance(value, Path) else f"{name} = Path({str(value)!r})"
                  for name, value in names.items()),
                textwrap.dedent(code),
                "Path(sys.argv[1]).write_text(json.dumps(answer))",
            ]
        )  # fmt: skip
        reply = tmp_path / "reply.json"
        environment = {
            **os.environ,
            "CACHEKIT_DIR": str(own_cache),
            "CACHEKIT_IPFS": "off",
            "CACHEKIT_MODE": mode,
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "PYTHONPATH": os.pathsep.join([str(ROOT / part) for part in ("", "adapters", "tests", "docs/examples")]),
            "HF_HUB_OFFLINE": "1",
            **(machine or {}),
        }
        done = subprocess.run([sys.executable, "-c", text, str(reply)], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(reply.read_text())

    return run


@pytest.fixture
def second_machine(kubo_api: str, own_cache: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The settings of another machine of the team, while this one shares what it builds through a real daemon."""
    credential, sharing = str(tmp_path / "credential"), {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 10}
    with cachekit.configure(dir=own_cache, secret_file=credential, **sharing):
        yield {
            "CACHEKIT_DIR": str(tmp_path / "second" / "cache"),
            "CACHEKIT_SECRET_FILE": credential,
            "CACHEKIT_IPFS": "rw",
            "CACHEKIT_IPFS_API": kubo_api,
            "CACHEKIT_IPFS_TIMEOUT": "10",
            "HOME": str(tmp_path / "second"),
            "XDG_CONFIG_HOME": str(tmp_path / "second" / "config"),
        }


@pytest.fixture(scope="session")
def scripts() -> Path:
    """llama.cpp's own converters, as they lie in the sdist of llama-cpp-python."""
    from peers import checksums
    from peers.places import llama_home

    found = llama_home() / "scripts"
    if not checksums.beside(found).exists():
        if REQUIRED:
            pytest.fail("no converters of llama.cpp: python -m tests.loaders.provision")
        pytest.skip("python -m tests.loaders.provision fetches llama.cpp's converters")
    return found


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a tiny random checkpoint: llama, bert, detr or llava; the same weights in every session."""
    from loaders import tiny_models

    library("torch"), library("transformers")
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("models") / f"tiny-{name}"
            tiny_models.MAKERS[name](made[name])
        return made[name]

    return directory
