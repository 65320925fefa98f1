"""ipfshttpclient, made to dial as we dial: the one home of that library, imported on first use."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from cachekit.errors import TierUnavailable, UsageError
from cachekit.ipfs.kubo.answers import from_status, reject_html
from cachekit.ipfs.kubo.http import Dialer, KeptConnection, allowed


class Connections:
    """What belongs to one thread of one process."""

    def __init__(self, dialer: Dialer) -> None:
        self.pid = os.getpid()
        self.kept = KeptConnection(dialer)
        self._dialer = dialer
        self._client: Any = None

    def prepare(self) -> None:
        """Make the client; the first one of a process imports its library."""
        if self._client is None:
            self._client = _new_client(self._dialer)

    @contextmanager
    def using(self, seconds: float, limit: int) -> Iterator[Any]:
        """The prepared client, whose answers may take `seconds` and have `limit` bytes; dropped where a call failed."""
        errors = import_module("ipfshttpclient.exceptions")
        try:
            with allowed(seconds, limit):
                yield self._client
        except errors.ErrorResponse as error:
            raise from_status(error.original.response.status_code, str(error)) from error
        except BaseException:
            # What is left of this answer must never be read as the next one's.
            self._client.close()
            self._client = None
            raise


def authorization(auth: str | None) -> dict[str, str]:
    """The header of a credential, written as Kubo's own configuration does it. UsageError for what no header can carry."""
    if not auth:
        return {}
    if not auth.isprintable() or not auth.isascii():
        raise UsageError("the RPC credential has characters that no header can carry; check CACHEKIT_IPFS_AUTH")
    if auth.startswith(("Bearer ", "Basic ")):
        return {"Authorization": auth}
    if auth.startswith("bearer:") or ":" not in auth:
        return {"Authorization": f"Bearer {auth.removeprefix('bearer:')}"}
    return {"Authorization": "Basic " + base64.b64encode(auth.removeprefix("basic:").encode()).decode()}


def _new_client(dialer: Dialer) -> Any:
    try:
        package = import_module("ipfshttpclient")
        backend = import_module("ipfshttpclient.http_requests")
        wrapper = import_module("ipfshttpclient.requests_wrapper")
    except ImportError as error:
        message = f"ipfshttpclient cannot be imported ({error}); pip install 'ipfshttpclient>=0.7,<0.8'"
        raise TierUnavailable(message, reason="client_missing") from error
    # The address only names the host in the request; where the bytes go, and whether through TLS, is the dialer's.
    place = dialer.address
    address = "/dns/localhost/tcp/80" if place.kind == "unix" else f"/{place.kind}/{place.host}/tcp/{place.port}"
    client = package.Client(address, chunk_size=1 << 20)
    # Set, not configured: an environment variable could have chosen another backend.
    client._client = backend.ClientSync(address, "api/v0")
    client._client._session = _session(wrapper, dialer)
    return client


def _session(wrapper: Any, dialer: Dialer) -> Any:
    session = wrapper.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.headers.update(dialer.headers)
    session.hooks["response"].append(_reject_page)
    manager = session.get_adapter("http://").poolmanager
    # urllib3 warns of this argument, and an error under `-W error` is all that ipfshttpclient gets from it.
    manager.connection_pool_kw.pop("strict", None)
    connection = type("Connection", (wrapper.HTTPConnection,), {"_new_conn": lambda _: dialer.dial()})
    pool = type("Pool", (wrapper.HTTPConnectionPool,), {"ConnectionCls": connection})
    manager.pool_classes_by_scheme = {"http": pool}
    return session


def _reject_page(answer: Any, **_: Any) -> None:
    # ipfshttpclient takes any 200 for a success where it expects no content.
    if answer.ok:
        reject_html(answer.headers.get("Content-Type", ""))
