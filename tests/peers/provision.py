"""Provision the test peers: `python -m tests.peers.provision [llama] [gh] …`, by default all.

`llama-server` is built from the sources inside the llama-cpp-python sdist (minutes), the Python servers are installed
into environments of their own, `gh` is taken out of Debian's package, `helm` and `docker compose` are built with Go. All
of it lives in
`$XDG_CACHE_HOME/cachekit/peers` (`~/.cache`), with checksums beside it; a second run checks those and ends within
seconds. Versions are pinned, here and in `requirements/`; gh's is Debian's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from . import checksums
from .places import (
    COMPOSE,
    HELM,
    HERE,
    LLAMA,
    LLAMA_SHA256,
    LLAMA_VERSION,
    compose_file,
    gh_file,
    helm_file,
    home,
    llama_home,
    model_file,
    venv,
    venv_python,
)

_BUILD_SECONDS = 2400.0
_INSTALL_SECONDS = 1200.0
_PYTHONS = ((3, 11), (3, 13))
# -O1: a model of 64 dimensions needs no faster code, and the build takes half the time. GGML_NATIVE off: the cache may
# move to another processor. Static: one file to check and to start.
_OPTIONS = (
    "CMAKE_BUILD_TYPE=Release", "CMAKE_C_FLAGS_RELEASE=-O1 -DNDEBUG", "CMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
    "CMAKE_EXE_LINKER_FLAGS=-s", "BUILD_SHARED_LIBS=OFF", "GGML_NATIVE=OFF", "GGML_OPENMP=OFF", "GGML_CCACHE=OFF",
    "LLAMA_BUILD_UI=OFF", "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF",
    "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_BUILD_NUMBER=0", f"LLAMA_BUILD_COMMIT={LLAMA}",
)  # fmt: skip


class Unprovisioned(Exception):
    """A peer that could not be had; the text is a sentence that names the remedy."""


def _say(line: str) -> None:
    print(line, flush=True)


def _run(command: list[str], seconds: float, remedy: str, *, directory: Path | None = None) -> None:
    """Run one step; what it prints is shown only when it fails."""
    try:
        done = subprocess.run(
            command, cwd=directory, timeout=seconds, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unprovisioned(f"{Path(command[0]).name} did not run ({error}): {remedy}") from error
    if done.returncode != 0:
        _say("\n".join(f"  | {line}" for line in done.stdout.splitlines()[-15:]))
        raise Unprovisioned(f"`{' '.join(command[:4])} …` failed (its last lines stand above): {remedy}")


# -- the Python servers ------------------------------------------------------------------------


def _install(name: str) -> None:
    """Lay the environment `name` with exactly the packages of its requirements file."""
    if checksums.venv_intact(venv(name), _requirements(name)):
        return
    if not _PYTHONS[0] <= sys.version_info[:2] <= _PYTHONS[1]:
        raise Unprovisioned(
            f"the packages pinned for {name} need Python 3.{_PYTHONS[0][1]} to 3.{_PYTHONS[1][1]}: run this with one."
        )
    remedy = f"see that the package index can be reached, remove {venv(name)} and try again."
    shutil.rmtree(venv(name), ignore_errors=True)
    _say(f"{name}: installing {len(_requirements(name).read_text().split())} pinned packages into {venv(name)}")
    _run([sys.executable, "-m", "venv", str(venv(name))], _INSTALL_SECONDS, remedy)
    _run(
        [str(venv_python(name)), "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:",
         "--disable-pip-version-check", "--requirement", str(_requirements(name))],
        _INSTALL_SECONDS, remedy,
    )  # fmt: skip
    checksums.record_venv(venv(name), _requirements(name))


def _requirements(name: str) -> Path:
    return HERE / "requirements" / f"{name}.txt"


# -- llama-server ------------------------------------------------------------------------------


def _llama() -> None:
    """`llama-server` and its tiny model."""
    target = llama_home()
    target.mkdir(parents=True, exist_ok=True)
    if not checksums.file_intact(target / "llama-server"):
        _install("tools")
        with tempfile.TemporaryDirectory(prefix=".build-", dir=home()) as aside:
            _build(_sources(Path(aside)), Path(aside, "build"), target / "llama-server")
    if not checksums.file_intact(model_file()):
        _install("tools")
        _say(f"llama: writing the model {model_file()}")
        _run(
            [str(venv_python("tools")), str(HERE / "tiny_model.py"), str(model_file())],
            60, "this is a defect of tests/peers/tiny_model.py.",
        )  # fmt: skip
        checksums.record_file(model_file())


def _sources(aside: Path) -> Path:
    """The sources of llama.cpp, out of the sdist that pip fetched and checked."""
    _say(f"llama: fetching the sources, {LLAMA} (77 MB)")
    wanted = aside / "wanted.txt"
    wanted.write_text(f"llama-cpp-python=={LLAMA_VERSION} --hash=sha256:{LLAMA_SHA256}\n")
    _run(
        [str(venv_python("tools")), "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         "--disable-pip-version-check", "--require-hashes", "--requirement", str(wanted), "--dest", str(aside)],
        _INSTALL_SECONDS, "see that the package index can be reached and try again.",
    )  # fmt: skip
    [archive] = aside.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive, "r:gz") as tar:
        members = (member for member in tar if member.name.partition("/")[2].startswith("vendor/llama.cpp/"))
        tar.extractall(aside, members=members, filter="data")
    return aside / archive.name.removesuffix(".tar.gz") / "vendor" / "llama.cpp"


def _build(sources: Path, build: Path, target: Path) -> None:
    tools = venv_python("tools").parent
    remedy = "install a C++17 compiler (Debian: apt-get install g++) and try again."
    _say("llama: building llama-server with 2 jobs; this takes six minutes or more")
    configure = [
        str(tools / "cmake"), "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tools / 'ninja'}", "-S", str(sources),
        "-B", str(build), *(f"-D{option}" for option in _OPTIONS),
    ]  # fmt: skip
    _run(configure, 300, remedy)
    _run([str(tools / "cmake"), "--build", str(build), "--target", "llama-server", "-j", "2"], _BUILD_SECONDS, remedy)
    built = build / "bin" / "llama-server"
    _run([str(built), "--version"], 60, remedy)
    shutil.move(built, target)
    checksums.record_file(target)


# -- gh ----------------------------------------------------------------------------------------


_GH_REMEDY = "install GitHub's command line yourself (package gh); the tests take it from the PATH."


def _gh() -> None:
    """GitHub's command line, out of Debian's package, without root."""
    if checksums.file_intact(gh_file()):
        return
    gh_file().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".package-", dir=home()) as aside:
        shutil.move(_of_debian(Path(aside)), gh_file())
    _run([str(gh_file()), "--version"], 60, _GH_REMEDY)
    checksums.record_file(gh_file())


def _of_debian(aside: Path) -> Path:
    _say("gh: fetching Debian's package (7 MB)")
    lists = aside / "lists"
    (lists / "partial").mkdir(parents=True)
    own = ["-o", f"Dir::State::lists={lists}"]
    try:
        _run(["apt-get", "download", "gh"], 120, _GH_REMEDY, directory=aside)
    except Unprovisioned:  # a machine that never asked what there is
        _run(["apt-get", *own, "update"], 300, _GH_REMEDY, directory=aside)
        _run(["apt-get", *own, "download", "gh"], 120, _GH_REMEDY, directory=aside)
    [package] = aside.glob("gh_*.deb")
    _run(["dpkg-deb", "-x", str(package), str(aside / "package")], 120, _GH_REMEDY)
    return aside / "package" / "usr" / "bin" / "gh"


# -- what reads deploy/ ------------------------------------------------------------------------


def _with_go(target: Path, module: str, package: str) -> None:
    """A program of a Go module, at `target`."""
    if checksums.file_intact(target):
        return
    remedy = "install Go (Debian: apt-get install golang), see that its modules can be had, and try again."
    target.parent.mkdir(parents=True, exist_ok=True)
    _say(f"{target.name}: building {module}; this takes some minutes")
    settings = ["env", "CGO_ENABLED=0", "GOWORK=off"]
    with tempfile.TemporaryDirectory(prefix=".build-", dir=home()) as aside:
        # Built among its own sources, where its go.mod's replacements hold; `go install` refuses those.
        found = subprocess.run(
            [*settings, "go", "mod", "download", "-json", module],
            cwd=aside, timeout=_INSTALL_SECONDS, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if found.returncode:
            raise Unprovisioned(f"{module} cannot be had ({found.stdout}{found.stderr}): {remedy}")
        build = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(Path(aside, "built")), package]
        _run([*settings, *build], _BUILD_SECONDS, remedy, directory=Path(json.loads(found.stdout)["Dir"]))
        shutil.move(Path(aside, "built"), target)
    checksums.record_file(target)


# -- the command -------------------------------------------------------------------------------

PEERS: dict[str, Callable[[], None]] = {
    "llama": _llama,
    "pytriton": lambda: _install("pytriton"),
    "mlserver": lambda: _install("mlserver"),
    "opea": lambda: _install("opea"),
    "gh": _gh,
    "helm": lambda: _with_go(helm_file(), HELM, "./cmd/helm"),
    "compose": lambda: _with_go(compose_file(), COMPOSE, "./cmd"),
}


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Two runs at once wait for each other. The lock ends with the process, however that ends."""
    home().mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def provision(names: list[str]) -> None:
    """Provide the peers of `names`. Raises Unprovisioned, naming the remedy, at the first that cannot be had."""
    with _alone():
        for name in names:
            start = time.monotonic()
            PEERS[name]()
            _say(f"{name}: ready ({time.monotonic() - start:.1f} s)")


def main(arguments: list[str]) -> int:
    unknown = sorted(set(arguments) - set(PEERS))
    if unknown:
        _say(f"There is no peer {', '.join(unknown)}: there are {', '.join(PEERS)}.")
        return 1
    try:
        provision(arguments or list(PEERS))
    except Unprovisioned as error:
        _say(f"Not provisioned: {error}")
        return 1
    except OSError as error:
        _say(f"Not provisioned: {home()} cannot be written ({error}); make room there or set XDG_CACHE_HOME.")
        return 1
    return 0


if __name__ == "__main__":
    # The builds use every core for minutes; whoever works on this machine comes first.
    os.nice(10)
    sys.exit(main(sys.argv[1:]))
