"""Where each compiler keeps its entries, how it is told another place, and what must be the same to use them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cachekit
from cachekit import Event
from cachekit_adapters._building import needed, versions
from cachekit_adapters.compile_cache.shared import entries, environment, machine


@contextmanager
def jax() -> Iterator[Path]:
    """JAX's persistent compilation cache, with an entry for every compilation, however short; gives its directory.

    The key: versions of jax and jaxlib, the devices and what runs on them, XLA_FLAGS and LIBTPU_INIT_ARGS, the processor.
    JAX's own key has the directory's absolute path in it unless XLA's caches are off (seen with 0.10.2), so they are off
    inside of the block. Raises UsageError where JAX is not installed.
    """
    module = needed("jax")
    compilation_cache = needed("jax.experimental.compilation_cache.compilation_cache")
    identity = {
        "tool": "jax",
        "versions": versions("jax", "jaxlib"),
        "devices": sorted({f"{device.platform} {device.device_kind}" for device in module.devices()}),
        "platform": module.devices()[0].client.platform_version,
        "flags": environment("XLA_FLAGS", "LIBTPU_INIT_ARGS"),
        "machine": machine(),
    }
    with entries(identity) as directory:
        wanted = {
            "jax_compilation_cache_dir": str(directory),
            "jax_enable_compilation_cache": True,
            "jax_persistent_cache_enable_xla_caches": "none",
            "jax_persistent_cache_min_compile_time_secs": 0.0,
            "jax_persistent_cache_min_entry_size_bytes": -1,
        }
        before = {name: getattr(module.config, name) for name in wanted}
        try:
            _configure(module, compilation_cache, wanted)
            yield directory
        finally:
            _configure(module, compilation_cache, before)


def _configure(module: Any, compilation_cache: Any, settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        module.config.update(name, value)
    compilation_cache.reset_cache()  # it keeps the directory of its first use


@contextmanager
def torch() -> Iterator[Path]:
    """torch.compile's caches, as `torch.compiler.save_cache_artifacts` packs them: one file for each process that compiled.

    The key: versions of torch and triton, CUDA or ROCm, the device, the C++ compiler, TORCHINDUCTOR_MAX and TORCH_CUDA_
    variables, the processor. Raises UsageError where torch is not installed.
    """
    module = needed("torch")
    identity = {
        "tool": "torch",
        "versions": versions("torch", "triton"),
        "device": _cuda(module),
        "compiler": _compiler(),
        "flags": environment(*(name for name in os.environ if name.startswith(("TORCHINDUCTOR_MAX", "TORCH_CUDA_")))),
        "machine": machine(),
    }
    with entries(identity) as directory:
        for path in sorted(directory.glob("*.torch")):
            _load(module, path)
        yield directory
        packed = module.compiler.save_cache_artifacts()
        if packed is not None:
            content = packed[0]
            name = hashlib.sha256(content).hexdigest()
            (directory / f"{name}.torch").write_bytes(content)


def _load(module: Any, path: Path) -> None:
    try:
        module.compiler.load_cache_artifacts(path.read_bytes())
    except Exception as error:  # whatever torch raises for a pack it cannot read: it compiles, and this is counted
        cachekit.tell(Event("error", "compile_cache", "artifacts", "load_failed", error=error))


@contextmanager
def openvino(core: Any, device: str = "CPU") -> Iterator[Path]:
    """OpenVINO's model cache of one `Core` and one device; gives its directory.

    The key: the version of OpenVINO, the device's full name, the processor. Read a model first and compile what was read:
    a model that is compiled by its path has an entry under that path.
    """
    identity = {
        "tool": "openvino",
        "versions": {"openvino": needed("openvino").get_version()},
        "device": [device, str(core.get_property(device, "FULL_DEVICE_NAME"))],
        "machine": machine(),
    }
    with entries(identity) as directory:
        before = core.get_property("CACHE_DIR")
        core.set_property({"CACHE_DIR": str(directory)})
        try:
            yield directory
        finally:
            core.set_property({"CACHE_DIR": before})


@contextmanager
def triton() -> Iterator[Path]:
    """Triton's cache of kernels, by `TRITON_CACHE_DIR` for this process and those that it starts; gives its directory.

    The key: the version of Triton, the target that is active, ptxas' place in the flags, the processor. The absolute paths
    in its groups are told anew (seen with 3.x's source): without that each of them is compiled again in another directory.
    """
    module = needed("triton")
    identity = {
        "tool": "triton",
        "versions": versions("triton"),
        "device": _target(module),
        "flags": environment("TRITON_PTXAS_PATH", "TRITON_DEFAULT_FP_FUSION"),
        "machine": machine(),
    }
    before = os.environ.get("TRITON_CACHE_DIR")
    with entries(identity) as directory:
        _regrouped(directory)
        os.environ["TRITON_CACHE_DIR"] = str(directory)
        try:
            yield directory
        finally:
            if before is None:
                del os.environ["TRITON_CACHE_DIR"]
            else:
                os.environ["TRITON_CACHE_DIR"] = before


def _regrouped(directory: Path) -> None:
    for path in directory.rglob("__grp__*"):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            children = {name: str(path.parent / Path(place).name) for name, place in told["child_paths"].items()}
        except (ValueError, LookupError, TypeError, AttributeError):
            continue  # of another version: it compiles
        path.write_text(json.dumps({**told, "child_paths": children}), encoding="utf-8")


def _target(module: Any) -> str:
    try:
        return str(module.runtime.driver.active.get_current_target())
    except Exception as error:  # whatever a machine without a GPU raises: there is no target, and that counts
        return type(error).__name__


def _cuda(module: Any) -> list[str]:
    told = [str(module.version.cuda), str(getattr(module.version, "hip", None))]
    if module.cuda.is_available():
        told += [module.cuda.get_device_name(), str(module.cuda.get_device_capability())]
    return told


def _compiler() -> str:
    """The first line of what the C++ compiler says of itself, which Inductor asks for kernels of the CPU."""
    command = os.environ.get("CXX") or "g++"
    path = shutil.which(command)
    if path is None:
        return ""
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.partition("\n")[0]
