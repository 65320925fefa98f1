"""What one machine compiled is not compiled on the next one, whose directories are others; with the real compilers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from loaders.conftest import ROOT, library

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300)]

JAX = """
import jax, jax.numpy as jnp
from jax import monitoring
counted = {"hits": 0, "misses": 0}
def listen(event, **_):
    for name in counted:
        counted[name] += event == f"/jax/compilation_cache/cache_{name}"
monitoring.register_event_listener(listen)
with compile_cache.jax():
    jax.jit(lambda x: jnp.sin(x) @ x.T)(jnp.ones((8, 8))).block_until_ready()
    jax.jit(lambda x: x * 2 + 1)(jnp.ones(3)).block_until_ready()
answer = counted
"""
TORCH = """
import torch
from torch._dynamo.utils import counters
with compile_cache.torch():
    torch.compile(lambda x: torch.sin(x).sum() + x.mean())(torch.ones(64))
answer = {"hits": counters["inductor"]["fxgraph_cache_hit"], "misses": counters["inductor"]["fxgraph_cache_miss"]}
"""
OPENVINO = """
import numpy as np, openvino as ov, openvino.opset13 as ops
x = ops.parameter([1, 16], np.float32, name="x")
model = ov.Model([ops.relu(ops.matmul(x, np.eye(16, dtype=np.float32), False, False))], [x], "m")
core = ov.Core()
with compile_cache.openvino(core):
    hit = core.compile_model(model, "CPU").get_property("LOADED_FROM_CACHE")
answer = {"hits": int(hit), "misses": int(not hit)}
"""
Machine = Callable[[str, str], dict[str, int]]


@pytest.fixture
def machine(tmp_path: Path, kubo_api: str) -> Machine:
    """Runs a program as a machine of its own: home, cache and temporary directory; daemon and credential are shared."""

    def run(name: str, program: str) -> dict[str, int]:
        home = tmp_path / name
        (home / "tmp").mkdir(parents=True, exist_ok=True)
        code = "import json, warnings, cachekit\nfrom cachekit_adapters import compile_cache\nwarnings.simplefilter('ignore')\n"
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CACHEKIT_")},
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "CACHEKIT_DIR": str(home / "cache"),
            "CACHEKIT_IPFS": "rw",
            "CACHEKIT_IPFS_API": kubo_api,
            "CACHEKIT_IPFS_TIMEOUT": "30",
            "CACHEKIT_SECRET_FILE": str(tmp_path / "credential"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
        }
        done = subprocess.run(
            [sys.executable, "-c", f"{code}{program}\ncachekit.flush(60)\nprint(json.dumps(answer))"],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout.splitlines()[-1]))

    return run


@pytest.mark.parametrize(
    ("name", "program"), [("jax", JAX), ("torch", TORCH), ("openvino", OPENVINO)], ids=["jax", "torch", "openvino"]
)
def test_the_second_machine_compiles_nothing(name: str, program: str, machine: Machine) -> None:
    """The first one compiles every entry, the second one none."""
    library(name)
    first, second = machine("one", program), machine("two", program)
    assert first["misses"] > 0
    assert first["hits"] == 0
    assert second == {"hits": first["misses"], "misses": 0}


def test_an_interrupted_block_pushes_nothing(machine: Machine) -> None:
    """A program that ends in an exception may have left half an entry: the next machine compiles all of it."""
    library("openvino")
    interrupted = OPENVINO.replace(
        "    hit =", "    core.compile_model(model, 'CPU')\n    raise KeyboardInterrupt\n    hit ="
    )
    broken = f"try:\n{textwrap.indent(interrupted, '    ')}\nexcept KeyboardInterrupt:\n    answer = {{}}"
    machine("one", broken)
    assert machine("two", OPENVINO) == {"hits": 0, "misses": 1}
