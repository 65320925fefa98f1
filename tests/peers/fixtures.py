"""One session-wide fixture per peer: `from peers.fixtures import *` in a conftest. A test asks for what it needs.

A peer that is not provisioned skips its tests, and fails them where CACHEKIT_REQUIRE names `peers`. Tests that need a
server of their own, to stop it or to start it otherwise, use `servers` and `started`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

import pytest

from . import servers
from .scripted import Scripted
from .servers import Server
from .tei import tei_server
from .tgi import tgi_server

__all__ = [
    "groq_peer", "llama_peer", "llama_rerank_peer", "mlserver_peer", "opea_peer", "pytriton_peer", "tei_peer",
    "tgi_peer",
]  # fmt: skip

# Read once: a test's own environment is emptied of it.
REQUIRED = os.environ.get("CACHEKIT_REQUIRE", "").split(",")
Running = TypeVar("Running")


def started(manager: AbstractContextManager[Running]) -> Iterator[Running]:
    """Yield what `manager` starts; skip where it is not provisioned, unless it is required."""
    try:
        server = manager.__enter__()
    except servers.Missing as missing:
        if "peers" in REQUIRED:
            raise
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        manager.__exit__(None, None, None)


@pytest.fixture(scope="session")
def llama_peer() -> Iterator[Server]:
    """llama-server: chat, messages, completions and embeddings, without a prefix."""
    yield from started(servers.llama_server(embedding=True))


@pytest.fixture(scope="session")
def groq_peer() -> Iterator[Server]:
    """llama-server with Groq's paths: the groq SDK's `base_url` is its `url`."""
    yield from started(servers.llama_server(api_prefix="/openai"))


@pytest.fixture(scope="session")
def llama_rerank_peer() -> Iterator[Server]:
    """llama-server that reranks: `/rerank` (TEI's shape with `texts`), `/v1/rerank`."""
    # Pairs beside each other change its scores, unless each is computed alone.
    yield from started(servers.llama_server(reranking=True, arguments=("--parallel", "1")))


@pytest.fixture(scope="session")
def pytriton_peer() -> Iterator[Server]:
    """A Triton: KServe v2, JSON and binary."""
    yield from started(servers.pytriton_server())


@pytest.fixture(scope="session")
def mlserver_peer() -> Iterator[Server]:
    """An MLServer: KServe v2, JSON only."""
    yield from started(servers.mlserver())


@pytest.fixture(scope="session")
def opea_peer() -> Iterator[Server]:
    """OPEA's MicroService runtime."""
    yield from started(servers.opea_service())


@pytest.fixture(scope="session")
def tei_peer() -> Iterator[Scripted]:
    """The stand-in for TEI around the example's embedding model."""
    yield from started(tei_server())


@pytest.fixture(scope="session")
def tgi_peer() -> Iterator[Scripted]:
    """The stand-in for TGI's native API."""
    yield from started(tgi_server())
