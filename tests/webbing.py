"""A directory behind a static web server on loopback: Python's own, which stands for any."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Quiet(SimpleHTTPRequestHandler):
    """Kept-alive connections, and nothing on stderr; `asked` has the paths."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    asked: list[str] = []

    def log_message(self, *_: Any) -> None:
        self.asked.append(self.path)

    def list_directory(self, path: Any) -> None:
        """What production servers do with a directory."""
        self.send_error(404)


@contextmanager
def served(root: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """The URL under which `root` can be read."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="static", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
