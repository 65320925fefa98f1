"""Where the provisioned peers lie, and their pinned versions."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
LLAMA_VERSION = "0.3.36"
LLAMA = f"llama-cpp-python-{LLAMA_VERSION}"
LLAMA_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
HELM = "helm.sh/helm/v3@v3.22.0"
COMPOSE = "github.com/docker/compose/v2@v2.40.3"
"""v5.7 asks for Go 1.26.10."""


def home() -> Path:
    """The directory of all peers: `$XDG_CACHE_HOME/cachekit/peers`, by default `~/.cache/cachekit/peers`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path is invalid and ignored.
    return Path(base if os.path.isabs(base) else Path.home() / ".cache", "cachekit", "peers")


def llama_home() -> Path:
    """The directory of `llama-server` and its model."""
    return home() / LLAMA


def gh_file() -> Path:
    """GitHub's command line."""
    return home() / "gh" / "gh"


def helm_file() -> Path:
    """Helm, of this version."""
    return home() / f"helm-{HELM.rpartition('@')[2]}" / "helm"


def compose_file() -> Path:
    """Docker's compose, of this version."""
    return home() / f"compose-{COMPOSE.rpartition('@')[2]}" / "docker-compose"


def model_file() -> Path:
    """The tiny model that `tiny_model` writes; another one when that changes."""
    written_by = hashlib.sha256((HERE / "tiny_model.py").read_bytes()).hexdigest()
    return llama_home() / f"cachekit-tiny-{written_by[:8]}.gguf"


def venv(name: str) -> Path:
    """The environment of a Python server, or of the build tools."""
    return home() / f"{name}-py{sys.version_info[0]}.{sys.version_info[1]}"


def venv_python(name: str) -> Path:
    """Its interpreter."""
    return venv(name) / "bin" / "python"
