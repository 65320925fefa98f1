"""A counting relay before a real peer: what went over the wire, and so what did not."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

from .scripted import Reply, Request, Scripted, scripted_server

# What concerns one connection is not passed on (RFC 9110, 7.6.1), nor what the relay itself tells anew.
_OWN = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-type", "host", "te", "upgrade"}


@contextlib.contextmanager
def relay(url: str) -> Iterator[Scripted]:
    """Pass every request on to `url` and its answer back, event by event; `requests` are kept as they came."""
    with scripted_server(lambda request: _passed_on(url, request)) as server:
        yield server


def _passed_on(url: str, request: Request) -> Reply:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    kept = {name: value for name, value in request.headers.items() if name not in _OWN - {"content-type"}}
    connection.request(request.method, request.path, request.body or None, kept)
    response = connection.getresponse()
    headers = {name: value for name, value in response.getheaders() if name.lower() not in _OWN}
    kind = response.getheader("content-type") or "application/octet-stream"
    if response.getheader("content-length") is None:
        return Reply(response.status, _pieces(connection, response), headers, kind, "chunked")
    with contextlib.closing(connection):
        return Reply(response.status, response.read(), headers, kind)


def _pieces(connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> Iterator[bytes]:
    # A reader that leaves ends this generator, and the peer sees the connection close.
    with contextlib.closing(connection):
        while piece := response.read1(1 << 16):
            yield piece
