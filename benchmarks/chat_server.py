"""A STAND-IN for a model's server, in a process of its own: chat completions of 2 kB, plain or streamed, on loopback.

It answers from bytes made beforehand, so that what the client does is most of a call; each plain answer has an `id` of
its own, and a GET is told how many questions came. The request's `user` is the number of chunks of a stream, "first-N" one that rests behind its first chunk.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
import socket
import socketserver
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from inputs import completion

SDKS = {"groq": ("Groq", ""), "openai": ("OpenAI", "/v1")}
"""{module: (its client, what it wants behind the server's URL)} of the SDKs that can ask the stand-in."""

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKS = re.compile(rb'"user": ?"(first-)?(\d+)"')
REST = 0.02
"""Seconds between the first chunk and the others, where the request wants it."""

_COUNT = b"GET"
_numbers = itertools.count(1)


class ChatServer:
    """The parent's end. `url` is without a trailing slash."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}"

    def __enter__(self) -> ChatServer:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)


def asked(url: str) -> int:
    """How many questions the server at `url` has got."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
        return int(answer.read())


def _framed(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


@functools.cache
def _template() -> bytes:
    body = json.dumps(completion()).encode()
    # What may be cached by the rules of HTTP is said, for the peer that keeps to them.
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncache-control: max-age=3600\r\n"
    return head + b"content-length: %d\r\n\r\n%s" % (len(body), body)


def _plain() -> bytes:
    return _template().replace(b"chatcmpl-%012d" % 0, b"chatcmpl-%012d" % next(_numbers), 1)


@functools.cache
def _stream(count: int) -> tuple[bytes, bytes]:
    """The head with the first chunk, and the rest: one HTTP chunk per event, as servers send them."""
    told: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000}
    told["model"] = "llama-3.3-70b-versatile"
    deltas = [{"role": "assistant", "content": ""}, *({"content": f" word{at}"} for at in range(count - 2)), {}]
    ends = [None] * (count - 1) + ["stop"]
    events = [
        b"data: %s\n\n" % json.dumps({**told, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}).encode()
        for delta, end in zip(deltas, ends)
    ]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    rest = [*events[1:], b"data: [DONE]\n\n"]
    return head + _framed(events[0]), b"".join(map(_framed, rest)) + b"0\r\n\r\n"


class _Handler(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True

    def handle(self) -> None:
        while body := self._body():
            if body == _COUNT:
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n%012d" % self.server.count)  # type: ignore[attr-defined]
                continue
            self.server.count += 1  # type: ignore[attr-defined]
            wanted = _CHUNKS.search(body) if b'"stream":true' in body or b'"stream": true' in body else None
            if wanted is None:
                self.wfile.write(_plain())
                continue
            first, rest = _stream(int(wanted[2]))
            if wanted[1]:
                self.wfile.write(first)
                time.sleep(REST)
                self.wfile.write(rest)
            else:
                self.wfile.write(first + rest)

    def _body(self) -> bytes:
        size = 0
        is_count = False
        while (line := self.rfile.readline()) not in (b"\r\n", b""):
            is_count = is_count or line.startswith(b"GET ")
            if found := _LENGTH.match(line):
                size = int(found[1])
        if is_count:
            return _COUNT
        return self.rfile.read(size) if line else b""


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    count = 0
    address_family = socket.AF_INET


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        import threading

        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        print(server.server_address[1], flush=True)
        sys.stdin.read()  # until the parent lets go
        server.shutdown()
