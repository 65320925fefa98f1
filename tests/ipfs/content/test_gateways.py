"""Gateways that answer late, with too much, or with a way to somewhere else: on real sockets."""

from __future__ import annotations

import itertools
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import raw_cid
from cachekit.ipfs.content.gateways import Gateways

CID = raw_cid(b"x")
HUGE = 10**18
Script = Callable[[socket.socket], object]


class Scripted:
    """A gateway that reads a question and then does what `script` says; counts its connections."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self.asked = 0
        self._script = script
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.asked += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        try:
            with self._tls.wrap_socket(connection, server_side=True) if self._tls else connection as peer:
                peer.recv(4096)
                self._script(peer)
        except OSError:  # the client went away
            pass


@pytest.fixture
def scripted() -> Iterator[Callable[..., Scripted]]:
    made: list[Scripted] = []

    def make(script: Script, tls: ssl.SSLContext | None = None) -> Scripted:
        made.append(Scripted(script, tls))
        return made[-1]

    yield make
    for one in made:
        one.close()


def said(text: str) -> Script:
    return lambda peer: peer.sendall(text.replace("\n", "\r\n").encode())


def asked(url: str, seconds: float = 5) -> tuple[bytes | None, list[str]]:
    reports: list[str] = []
    return Gateways([url], reports.append).block(CID, Deadline(seconds)), reports


@pytest.mark.parametrize(
    "beginning",
    ["HTTP/1.1 200 OK\nX: ", "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n1;", "HTTP/1.1 200 OK\n\n"],
    ids=["header", "chunk", "body"],
)
def test_an_answer_that_drips_in_ends_with_its_time(scripted: Callable[..., Scripted], beginning: str) -> None:
    """Each byte in time does not make a whole in time, wherever in the answer it is."""
    over = threading.Event()

    def drip(peer: socket.socket) -> None:
        said(beginning)(peer)
        while not over.wait(0.05):
            peer.sendall(b"x")

    server = scripted(drip)
    threading.Timer(20, over.set).start()
    begun = time.monotonic()
    assert asked(server.url, 0.5) == (None, ["gateway_failed"])
    assert time.monotonic() - begun < 10
    over.set()


@pytest.mark.parametrize("status", ["200 OK", "302 Found\nLocation: /elsewhere"], ids=["answer", "redirect"])
@pytest.mark.parametrize(
    "announced", [f"Content-Length: {HUGE}\n\ny", f"Transfer-Encoding: chunked\n\n{HUGE:x}\ny"], ids=["length", "chunk"]
)
def test_no_room_is_made_for_what_is_announced(scripted: Callable[..., Scripted], status: str, announced: str) -> None:
    """An exabyte that is only promised takes no memory, and fails as one gateway."""
    block, reports = asked(scripted(said(f"HTTP/1.1 {status}\n{announced}")).url)
    assert (block, len(reports)) == (None, 1)


@pytest.mark.parametrize("scheme", ["ftp", "file", "gopher"])
def test_a_redirect_leads_to_http_alone(scripted: Callable[..., Scripted], scheme: str) -> None:
    """No other protocol is spoken with whom a gateway names."""
    named = scripted(said("220 hello\n"))
    moved = f"HTTP/1.1 302 Found\nLocation: {scheme}://127.0.0.1:{named.port}/x\nContent-Length: 0\n\n"
    assert asked(scripted(said(moved)).url) == (None, ["gateway_failed"])
    assert not named.asked


def test_a_redirect_to_another_gateway_is_followed(scripted: Callable[..., Scripted]) -> None:
    """As the public ones redirect to a host of each CID's own."""
    holder = scripted(said("HTTP/1.1 200 OK\nContent-Length: 1\n\nx"))
    moved = f"HTTP/1.1 301 Moved\nLocation: {holder.url}/ipfs/{CID}\nContent-Length: 0\n\n"
    assert asked(scripted(said(moved)).url) == (b"x", [])


def test_a_gateway_that_redirects_to_itself_is_left(scripted: Callable[..., Scripted]) -> None:
    """A circle ends after a few rounds."""
    numbers = itertools.count()

    def circle(peer: socket.socket) -> None:
        said(f"HTTP/1.1 302 Found\nLocation: /{next(numbers)}\nContent-Length: 0\n\n")(peer)

    server = scripted(circle)
    assert asked(server.url) == (None, ["gateway_failed"])
    assert server.asked < 20


def test_a_host_that_cannot_be_one_is_a_failed_gateway() -> None:
    """A label of 300 characters is refused by the resolver's encoding, not by an error of its own kind."""
    assert asked(f"http://{'a' * 300}/") == (None, ["gateway_failed"])


def test_a_secure_gateway_is_asked_and_its_certificate_held_against_its_name(
    scripted: Callable[..., Scripted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the authority known the block comes; without, the gateway has failed."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    made = ["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", certificate, *made],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = scripted(said("HTTP/1.1 200 OK\nContent-Length: 1\n\nx"), context)
    assert asked(server.url) == (None, ["gateway_failed"])
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asked(server.url) == (b"x", [])
