"""The real peers as context managers: each starts a server on a free loopback port and surely ends it.

Each yields a Server whose `url` has no trailing slash. Raises Missing where the peer is not provisioned, and
RuntimeError with the server's last lines where it does not become ready within its deadline. The stand-ins for servers
that cannot be had are in `standins`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import checksums
from .places import HERE, llama_home, model_file, venv, venv_python

LLAMA_MODEL = "cachekit-tiny"
_READY_SECONDS = 90.0
_END_SECONDS = 20.0
_TRIES = 3


class Missing(Exception):
    """The peer is not provisioned; the text names the remedy."""


@dataclass(frozen=True)
class Server:
    """A running peer: `url` without a trailing slash, and the file that its output goes to."""

    url: str
    log: Path

    @property
    def address(self) -> str:
        """host:port, as tritonclient wants it."""
        return self.url.removeprefix("http://")


@contextlib.contextmanager
def llama_server(
    *,
    api_prefix: str = "",
    embedding: bool = False,
    reranking: bool = False,
    chat_template: str | None = None,
    alias: str = LLAMA_MODEL,
    arguments: tuple[str, ...] = (),
) -> Iterator[Server]:
    """llama.cpp's server around the tiny model of `tiny_model`. `alias` is the model's name in its answers.

    `api_prefix="/openai"` gives Groq's paths; `url` does not contain it. With `embedding` it embeds and chats, with
    `reranking` it only reranks. `chat_template` is Jinja. `arguments` are further ones, as on its command line.
    """
    command = [
        str(llama_home() / "llama-server"), "--model", str(model_file()), "--alias", alias, "--host", "127.0.0.1",
        "--ctx-size", "16384", "--parallel", "2", "--threads", "1", "--threads-http", "4", "--no-warmup", "--offline",
        "--metrics", "--jinja", "--cache-ram", "0", *arguments,
    ]  # fmt: skip
    # One pool for every sequence: a single prompt may be as long as the model's context.
    command += ["--kv-unified"]
    command += ["--api-prefix", api_prefix] if api_prefix else []
    command += ["--embedding", "--pooling", "mean"] if embedding else []
    command += ["--reranking"] if reranking else []
    command += ["--chat-template", chat_template] if chat_template else []
    _require("llama", llama_home() / "llama-server", model_file())
    with _served(lambda ports: [*command, "--port", str(ports[0])], f"{api_prefix}/health") as server:
        yield server


@contextlib.contextmanager
def pytriton_server(*, version: int = 1) -> Iterator[Server]:
    """A Triton, KServe v2 in JSON and in binary: models `double`, `upper`, `pair`, all of `version`."""
    script = HERE / "services" / "pytriton_app.py"
    _require("pytriton", venv("pytriton"))
    # Its stub for this Python looks for libpython, and finds the system's, if nothing says where this one's is.
    environ = {"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR") or "")}
    with _served(
        lambda ports: [str(venv_python("pytriton")), str(script), *map(str, ports), str(version)],
        "/v2/health/ready", "/v2/models/double/ready", "/v2/models/upper/ready", "/v2/models/pair/ready",
        environ=environ,
    ) as server:  # fmt: skip
        yield server


@contextlib.contextmanager
def mlserver(*, version: str = "v1") -> Iterator[Server]:
    """An MLServer, KServe v2 in JSON only: the models of `pytriton_server`."""
    script = HERE / "services" / "mlserver_app.py"
    _require("mlserver", venv("mlserver"))
    with _served(
        lambda ports: [str(venv_python("mlserver")), str(script), str(ports[0]), str(ports[1]), version],
        "/v2/health/ready", "/v2/models/double/ready", "/v2/models/upper/ready", "/v2/models/pair/ready",
    ) as server:  # fmt: skip
        yield server


@contextlib.contextmanager
def opea_service() -> Iterator[Server]:
    """OPEA's MicroService runtime: `/v1/embeddings`, `/v1/reranking`, `/v1/chat/completions`, `/v1/health_check`."""
    script = HERE / "services" / "opea_app.py"
    _require("opea", venv("opea"))
    with _served(
        lambda ports: [str(venv_python("opea")), str(script), str(ports[0])], "/v1/health_check"
    ) as server:  # fmt: skip
        yield server


def _require(name: str, *files: Path) -> None:
    for file in files:
        if not checksums.beside(file).exists():
            raise Missing(f"{file} is not there: python -m tests.peers.provision {name}")


@contextlib.contextmanager
def _served(
    command: Callable[[list[int]], list[str]], *ready: str, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start `command(ports)` under the leash, wait until every path of `ready` answers 200, and end it."""
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        directory = Path(name)
        process, server = _started(command, ready, directory, {**_environment(directory), **(environ or {})})
        try:
            yield server
        finally:
            _end(process)


def _environment(directory: Path) -> dict[str, str]:
    # A proxy of the machine is not for the loopback; a server's own caches end with it.
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return {**kept, "HOME": str(directory), "XDG_CACHE_HOME": str(directory / "cache"), "TMPDIR": str(directory)}


def _started(
    command: Callable[[list[int]], list[str]], ready: tuple[str, ...], directory: Path, environ: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Server]:
    log = directory / "output"
    for _ in range(_TRIES):
        ports = free_ports(3)
        server = Server(f"http://127.0.0.1:{ports[0]}", log)
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "leash.py"), *command(ports)],
                stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=environ, cwd=directory,
            )  # fmt: skip
        if _becomes_ready(process, [server.url + path for path in ready]):
            return process, server
        # Another process may have taken a port between the choice and the start; everything else fails thrice.
        _end(process)
    said = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise RuntimeError(f"{Path(command([0, 0, 0])[0]).name} did not become ready; it said:\n{said}")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nothing listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _becomes_ready(process: subprocess.Popen[bytes], urls: list[str]) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if all(_answers(url) for url in urls):
            return True
        time.sleep(0.05)
    return False


def _answers(url: str) -> bool:
    try:
        # Without the environment's proxies.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException, urllib.error.URLError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let go of the leash, which ends the server and whatever that started; at last, kill the leash itself."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
