"""A store behind a web server: Python's own for any static one, and a scripted stand-in for one that misbehaves."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Exchange, black_hole, certificate, refusing, serving
from webbing import Quiet, served

from cachekit.errors import IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.ipfs.content.cids import binary_cid, raw_cid
from cachekit.ipfs.directory.layout import MARK
from cachekit.ipfs.directory.mounted import Mounted
from cachekit.ipfs.directory.web import Web

MIB = 1 << 20
LONG = 20.0
SHORT = 0.3
ABSENT = raw_cid(b"nobody ever stored this block")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with one block and one file."""
    made = tmp_path / "team"
    made.mkdir()
    store = Mounted(made.as_uri())
    store.import_blocks([(binary_cid(raw_cid(b"here")), b"here")], timeout=LONG)
    store.write("/cachekit/v1/ns/w/1", b"x", timeout=LONG)
    return made


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    with served(root) as url:
        yield url


def test_nothing_can_be_written(url: str) -> None:
    """Every call that would is a TierError `read_only`; collecting is nobody's business here."""
    web = Web(url)
    assert not web.writable
    for call in (
        lambda: web.import_blocks([(binary_cid(ABSENT), b"x")], timeout=LONG),
        lambda: web.add(b"x", timeout=LONG),
        lambda: web.add_stream([b"x"], size=1, pin_name=None, idle=LONG),
        lambda: web.write("/a", b"x", timeout=LONG),
        lambda: web.remove("/a", timeout=LONG),
        lambda: web.pin(ABSENT, "x", timeout=LONG),
        lambda: web.unpin(ABSENT, timeout=LONG),
        lambda: web.link(ABSENT, "/a", timeout=LONG),
    ):
        with pytest.raises(TierError) as caught:
            call()
        assert (type(caught.value), caught.value.reason) == (TierError, "read_only")
    assert web.collect(timeout=LONG) == 0


def test_what_is_new_costs_one_request(root: Path) -> None:
    """Of a namespace's stat; and one connection carries all of them."""

    class Counted(Quiet):
        asked = []
        connections: list[Any] = []

        def setup(self) -> None:
            self.connections.append(1)
            super().setup()

    with served(root, Counted) as url:
        web = Web(url)
        for _ in range(5):
            assert web.stat("/cachekit/v1/ns", timeout=LONG)
        assert len(Counted.asked) == 5
        assert len(Counted.connections) == 1
        web.close()


def test_a_writers_news_are_seen(root: Path, url: str) -> None:
    """Without anything that was kept: the namespace's stat is another one at once."""
    web = Web(url)
    before = web.stat("/cachekit/v1/ns", timeout=LONG)
    Mounted(root.as_uri()).write("/cachekit/v1/ns/w/2", b"y", timeout=LONG)
    assert web.stat("/cachekit/v1/ns", timeout=LONG) not in (None, before)


def test_a_wrong_path_is_told(url: str) -> None:
    """Not taken for an empty store: nothing there says that it is one."""
    web = Web(f"{url}/elsewhere")
    for call in (web.version, lambda: web.block_get(ABSENT, timeout=LONG)):
        with pytest.raises(TierUnavailable) as caught:
            call()
        assert caught.value.reason == "no_store"


def test_a_proxy_in_the_environment_is_ignored(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is asked, and nobody else."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert Web(url).block_get(raw_cid(b"here"), timeout=LONG) == b"here"


def _web(api: str, **options: Any) -> Web:
    _, _, host, _, port = api.split("/")[:5]
    return Web(f"http://{host}:{port}/store", **options)


@pytest.mark.parametrize(
    ("script", "kind", "reason"),
    [
        (lambda exchange: exchange.answer(403, b"no", "text/plain"), TierUnavailable, "forbidden"),
        (lambda exchange: exchange.answer(302, b"", "text/plain"), TierUnavailable, "no_store"),
        (lambda exchange: exchange.answer(200, b"<html>", "text/html; charset=utf-8"), TierUnavailable, "no_store"),
        (lambda exchange: exchange.answer(503, b"busy", "text/plain"), TierUnavailable, "http_503"),
        (lambda exchange: exchange.answer(429, b"busy", "text/plain"), TierUnavailable, "http_429"),
        (lambda exchange: exchange.answer(200, b"x" * (3 * MIB), "text/plain"), IntegrityError, "oversized"),
    ],
)
def test_what_a_server_answers_is_told_apart(
    script: Callable[[Exchange], bool], kind: type[TierError], reason: str
) -> None:
    """A refusal, a redirect, a page for people, a busy server, a flood: never taken for bytes, never for absence."""
    with serving(script) as server:
        with pytest.raises(TierError) as caught:
            _web(server.api).block_get(ABSENT, timeout=LONG)
        assert (type(caught.value), caught.value.reason) == (kind, reason)


def test_nobody_there_is_refused() -> None:
    """TierUnavailable, at once."""
    with pytest.raises(TierUnavailable) as caught:
        _web(refusing()).version()
    assert caught.value.reason == "refused"


def test_a_server_that_hangs_is_a_timeout() -> None:
    """Within the time of the call, and a little."""
    with black_hole() as api:
        begun = time.monotonic()
        with pytest.raises(TierUnavailable) as caught:
            _web(api).block_get(ABSENT, timeout=SHORT)
        assert caught.value.reason == "timeout"
        assert time.monotonic() - begun < SHORT + 5


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nxx"])
def test_a_server_that_stalls_is_a_timeout(begun: bytes) -> None:
    """In its headers or in the middle of a block, byte by byte: the time is that of the whole call."""
    with serving(lambda exchange: exchange.drip(begun, b"x")) as server:
        began = time.monotonic()
        with pytest.raises(TierUnavailable) as caught:
            _web(server.api).block_get(ABSENT, timeout=SHORT)
        assert caught.value.reason == "timeout"
        assert time.monotonic() - began < SHORT + 5


@pytest.mark.parametrize("trusted", [True, False])
def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """A server whose certificate nobody trusts hears no word, the credential least of all."""
    cert, key = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with serving(lambda exchange: exchange.answer(200, MARK, "text/plain"), tls=server_side) as server:
        web = Web(f"https://localhost:{server.api.rpartition('/')[2]}/store", auth="secret")
        if trusted:
            assert web.version()
            return
        with pytest.raises(TierUnavailable) as caught:
            web.version()
        assert caught.value.reason == "tls"
        assert server.headers == []


def test_the_credential_goes_with_every_request() -> None:
    """As to Kubo's RPC, in the header that the server asks for."""
    seen = list[str]()

    def script(exchange: Exchange) -> bool:
        seen.append(exchange.headers.get("authorization", ""))
        return exchange.answer(200, MARK, "text/plain")

    with serving(script) as server:
        assert _web(server.api, auth="me:secret").version()
    assert seen[0].startswith("Basic ")
    with pytest.raises(UsageError):
        Web("http://localhost/", auth="a\nb")


def test_forked_children_never_get_each_others_bytes(root: Path, url: str) -> None:
    """A connection belongs to one process."""
    store, web = Mounted(root.as_uri()), Web(url)
    blocks = [os.urandom(2000) for _ in range(20)]
    store.import_blocks([(binary_cid(raw_cid(block)), block) for block in blocks], timeout=LONG)
    assert web.block_get(raw_cid(blocks[0]), timeout=LONG) == blocks[0]
    children = list[int]()
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(0 if all(web.block_get(raw_cid(one), timeout=LONG) == one for one in blocks) else 1)
            finally:
                os._exit(2)
        children.append(pid)
    assert all(web.block_get(raw_cid(one), timeout=LONG) == one for one in blocks)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
