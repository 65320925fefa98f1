"""The HTTP server for those who watch."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from cachekit.errors import UsageError
from cachekit.ipfs.node.endpoint import Answer, Endpoint, place

STALLED = 12


@pytest.fixture
def asked() -> list[str]:
    """A line for each time that the answer was made."""
    return []


@pytest.fixture
def endpoint(asked: list[str]) -> Iterator[Endpoint]:
    def make() -> Answer:
        asked.append("made")
        return Answer(200, "text/plain", b"hello\n")

    with closing(Endpoint(("127.0.0.1", 0), {"/hello": make})) as made:
        yield made


def ask(endpoint: Endpoint, path: str, method: str = "GET") -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(endpoint.url.removeprefix("http://"), timeout=30)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()


def test_a_path_is_answered(endpoint: Endpoint) -> None:
    """What was given for a path is answered there, with a query too, and nothing is elsewhere."""
    assert ask(endpoint, "/hello?x=1") == (200, b"hello\n")
    assert ask(endpoint, "/other")[0] == 404


def test_a_head_has_no_body(endpoint: Endpoint) -> None:
    """HEAD is answered as GET is, but for the body."""
    assert ask(endpoint, "/hello", "HEAD") == (200, b"")


def test_nothing_else_is_taken(endpoint: Endpoint) -> None:
    """There is nothing to be posted."""
    assert ask(endpoint, "/hello", "POST")[0] == 501


def test_who_asks_at_once_gets_one_answer(endpoint: Endpoint, asked: list[str]) -> None:
    """Many who ask within a second have the answer made once."""
    with_all = [threading.Thread(target=ask, args=(endpoint, "/hello")) for _ in range(8)]
    for thread in with_all:
        thread.start()
    for thread in with_all:
        thread.join()
    assert len(asked) < 8


def test_clients_that_stall_keep_nobody_out(endpoint: Endpoint) -> None:
    """Connections on which nothing more comes make room for the next one."""
    host, port = endpoint.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        stalled = [stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(STALLED)]
        for one in stalled:
            one.sendall(b"GET /he")
        assert ask(endpoint, "/hello") == (200, b"hello\n")
        stalled[0].settimeout(30)
        assert stalled[0].recv(1) == b""


def test_a_place_that_is_taken(endpoint: Endpoint) -> None:
    """Where somebody listens already, the error says so and what to do."""
    with pytest.raises(UsageError, match="name another HOST:PORT"):
        Endpoint(place(endpoint.url.removeprefix("http://")), {})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("9559", ("127.0.0.1", 9559)),
        (":9559", ("127.0.0.1", 9559)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9559", ("::1", 9559)),
        ("node.lan:80", ("node.lan", 80)),
    ],
)
def test_places(text: str, where: tuple[str, int]) -> None:
    """A place without a host is on loopback."""
    assert place(text) == where


@pytest.mark.parametrize("text", ["", "host", "host:", "host:99999", "a b:1", "::1:80", "http://host:80"])
def test_what_is_no_place(text: str) -> None:
    """The error shows what a place looks like."""
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:9559"):
        place(text)
