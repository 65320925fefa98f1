"""A STAND-IN for GitHub, not GitHub: TLS on loopback that speaks its REST and GraphQL shapes, so that the real `gh` drives it.

What it has: documents by path, with ETag and 304, pages with Link, rate limits with their headers, accounts by token,
and a GraphQL that a test scripts. As an Enterprise Server has them, its paths begin with `/api/v3` and `/api/graphql`.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import json
import select
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .places import gh_file

TOKENS = {"alice-1": ("alice", 1), "alice-2": ("alice", 1), "bob-1": ("bob", 2)}
"""Login and number behind each token; `app` is a token of nobody."""


def gh_program() -> str | None:
    """The `gh` that `make peers` provided, or the machine's own."""
    return str(gh_file()) if gh_file().exists() else shutil.which("gh")


@dataclass(frozen=True)
class Asked:
    """One request: `path` without the API's prefix and without its query."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


Refusal = tuple[int, Mapping[str, str], Any]


@dataclass
class Service:
    """The running stand-in. A test writes `documents` (path to JSON), `refusals` (answered first, one each) and `graphql`."""

    host: str
    certificate: Path
    documents: dict[str, Any] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    graphql: Callable[[str, Any], Any] = lambda query, variables: {"data": {"viewer": {"login": "alice"}}}
    requests: list[Asked] = field(default_factory=list)

    def asked(self, path: str = "", method: str = "GET") -> list[Asked]:
        """The requests for a path; for "" all but those that learn the account."""
        if path:
            return [each for each in self.requests if (each.path, each.method) == (path, method)]
        return [each for each in self.requests if each.path != "/user"]

    def answer(self, asked: Asked) -> Refusal:
        login = TOKENS.get(asked.headers.get("authorization", "").rpartition(" ")[2])
        if asked.path == "/user":
            return (200, {}, dict(zip(("login", "id"), login))) if login else (403, {}, {"message": "no user's token"})
        if self.refusals:
            return self.refusals.pop(0)
        if asked.path == "/graphql":
            told = json.loads(asked.body)
            return 200, {}, self.graphql(told["query"], told.get("variables"))
        if asked.method != "GET":
            return self._changed(asked)
        if asked.path not in self.documents:
            return 404, {}, {"message": "Not Found"}
        return self._shown(asked, self.documents[asked.path])

    def _changed(self, asked: Asked) -> Refusal:
        if asked.method == "DELETE":
            self.documents.pop(asked.path, None)
            return 204, {}, None
        told = json.loads(asked.body or b"{}")
        if asked.method == "POST":
            self.documents.setdefault(asked.path, []).append(told)
        else:
            self.documents[asked.path] = {**self.documents.get(asked.path, {}), **told}
        return 201 if asked.method == "POST" else 200, {}, told

    def _shown(self, asked: Asked, document: Any) -> Refusal:
        if not isinstance(document, list):
            return 200, {}, document
        page, size = (int(asked.query.get(name, [default])[0]) for name, default in (("page", "1"), ("per_page", "30")))
        there = f"https://{self.host}/api/v3{asked.path}?per_page={size}&page={page + 1}"
        link = {"Link": f'<{there}>; rel="next"'} if page * size < len(document) else {}
        return 200, link, document[(page - 1) * size : page * size]


@contextlib.contextmanager
def github_service(directory: Path) -> Iterator[Service]:
    """Run the stand-in with a certificate of its own, which lies in `directory`."""
    certificate, key = _certificate(directory)
    server = _Https(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.context = context
    server.service = Service(f"localhost:{server.server_address[1]}", certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def proxy_to(service: Service) -> Iterator[str]:
    """A proxy's URL: every host that a client wants to CONNECT to is the stand-in. gh forgets the port of a git remote."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Proxy)
    server.daemon_threads, server.block_on_close = True, False
    server.there = ("127.0.0.1", int(service.host.rpartition(":")[2]))  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Proxy(BaseHTTPRequestHandler):
    def do_CONNECT(self) -> None:  # noqa: N802 - the library's name
        with socket.create_connection(self.server.there, timeout=5) as there:  # type: ignore[attr-defined]
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            ways = {self.connection: there, there: self.connection}
            while ready := select.select(list(ways), [], [], 5)[0]:
                for end in ready:
                    data = end.recv(65536)
                    if not data:
                        return
                    ways[end].sendall(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the tests' standard error."""


class _Https(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    service: Service
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the connection's own thread: a client that does not end it holds nobody up.
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client may leave at any moment."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 5
    server: _Https  # pyright: ignore[reportIncompatibleVariableOverride] - it is never another one

    def _answer(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): text for name, text in self.headers.items()}
        content = self._content(headers)
        path = url.path.removeprefix("/api").removeprefix("/v3")
        asked = Asked(self.command, path, parse_qs(url.query), headers, content)
        self.server.service.requests.append(asked)
        status, said, document = self.server.service.answer(asked)
        body = b"" if document is None else json.dumps(document).encode()
        etag = f'W/"{hashlib.sha256(body).hexdigest()}"'
        if status == 200 and asked.method == "GET":
            said = {"ETag": etag, **said}
            if headers.get("if-none-match") == etag:
                status, body = 304, b""
        self.send_response(status)
        sent = {"Content-Type": "application/json; charset=utf-8", **self.server.service.headers, **said}
        for name, text in sent.items():
            self.send_header(name, text)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _content(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing on the tests' standard error."""


def _certificate(directory: Path) -> tuple[Path, Path]:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stand-in")]),
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    places = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.DNSName("git.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(places, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = directory / "certificate.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, secret
