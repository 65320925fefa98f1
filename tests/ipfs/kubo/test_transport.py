"""KuboTransport: the ordinary calls against a real Kubo; the faults against a scripted stand-in (`faults.py`)."""

from __future__ import annotations

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Exchange, Script, black_hole, certificate, refusing, serving
from stopping import stop

from cachekit.errors import IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.ipfs.content.cids import binary_cid, file_cid, raw_cid
from cachekit.ipfs.kubo.transport import KuboTransport

MIB = 1 << 20
LONG = 20.0
SHORT = 0.3
ABSENT = raw_cid(b"nobody ever stored this block")
VERSION = {"Version": "0.43.0"}


@pytest.fixture(scope="session")
def kubo_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from cachekit.ipfs.node import daemon, install

    home = tmp_path_factory.mktemp("kubo")
    yield daemon.start(home, binary=Path(install.install(home).path))
    daemon.stop(home)


@pytest.fixture(scope="session")
def kubo_api(kubo_node: Any) -> str:
    return str(kubo_node.api)


@pytest.fixture
def kubo(kubo_api: str) -> Iterator[KuboTransport]:
    transport = KuboTransport(kubo_api)
    yield transport
    transport.close()


def _store(kubo: KuboTransport, *blocks: bytes) -> list[str]:
    names = [raw_cid(block) for block in blocks]
    kubo.import_blocks([(binary_cid(cid), block) for cid, block in zip(names, blocks, strict=True)], timeout=LONG)
    return names


# -- what a real Kubo answers ------------------------------------------------------------------------


def test_it_says_which_kubo_answers(kubo: KuboTransport) -> None:
    """As the daemon writes it."""
    assert kubo.version() == "0.43.0"


def test_blocks_come_back_as_imported(kubo: KuboTransport) -> None:
    """A batch of one CAR: every block of it can be read, the empty one too, and one of 1 MiB."""
    blocks = [b"", *(os.urandom(2048) for _ in range(50)), os.urandom(MIB)]
    for cid, block in zip(_store(kubo, *blocks), blocks, strict=True):
        assert kubo.block_get(cid, timeout=LONG) == block


def test_importing_nothing_asks_nobody() -> None:
    """An empty batch is done without a daemon."""
    KuboTransport(refusing()).import_blocks([], timeout=SHORT)


def test_a_block_under_a_false_cid_is_refused(kubo: KuboTransport) -> None:
    """Kubo verifies what it imports; that is a TierError, and the block is not there afterwards."""
    false = raw_cid(b"a" + os.urandom(16))
    with pytest.raises(TierError):
        kubo.import_blocks([(binary_cid(false), b"not that")], timeout=LONG)
    assert kubo.block_get(false, timeout=LONG) is None


def test_a_missing_block_is_none(kubo: KuboTransport) -> None:
    """Not an error, and no search in the network."""
    assert kubo.block_get(ABSENT, timeout=LONG) is None
    assert kubo.cat(ABSENT, size=5, timeout=LONG) is None


@pytest.mark.parametrize("size", [0, 5, MIB, 5 * MIB + 1])
def test_a_file_comes_back_as_added(kubo: KuboTransport, size: int) -> None:
    """`add` gives the CID computed here, and `cat` the bytes."""
    data = os.urandom(size)
    cid = kubo.add(data, timeout=LONG)
    assert cid == file_cid(data)
    assert kubo.cat(cid, size=size, timeout=LONG) == data


@pytest.mark.parametrize("size", [4, 6])
def test_a_file_of_another_size_is_refused(kubo: KuboTransport, size: int) -> None:
    """`cat` gives exactly the bytes it was told to expect, or none."""
    cid = kubo.add(b"hello", timeout=LONG)
    with pytest.raises(IntegrityError):
        kubo.cat(cid, size=size, timeout=LONG)


def test_a_file_with_a_missing_leaf_is_truncated_not_short(kubo: KuboTransport, kubo_api: str) -> None:
    """Kubo ends such an answer cleanly with status 200; here it is an IntegrityError."""
    data = os.urandom(5 * MIB)
    cid = kubo.add(data, timeout=LONG)
    leaf = raw_cid(data[3 * MIB : 4 * MIB])
    port = kubo_api.rpartition("/")[2]
    subprocess.run(
        [sys.executable, "-c", _POST, f"http://127.0.0.1:{port}/api/v0/block/rm?arg={leaf}"], check=True, timeout=LONG
    )
    with pytest.raises(IntegrityError) as caught:
        kubo.cat(cid, size=len(data), timeout=LONG)
    assert caught.value.reason == "truncated"


_POST = "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], data=b'', method='POST')).read()"


def test_mfs_files_are_written_listed_read_and_removed(kubo: KuboTransport) -> None:
    """The life of an index segment."""
    kubo.write("/seg/ns/w/1", b"second", timeout=LONG)
    assert kubo.list("/seg/ns/w", timeout=LONG) == [("1", raw_cid(b"second"), 6)]
    assert kubo.read("/seg/ns/w/1", limit=6, timeout=LONG) == b"second"
    assert kubo.stat("/seg/ns/w/1", timeout=LONG) == raw_cid(b"second")
    before = kubo.stat("/seg/ns", timeout=LONG)
    kubo.remove("/seg/ns/w/1", timeout=LONG)
    assert kubo.list("/seg/ns/w", timeout=LONG) == []
    assert kubo.stat("/seg/ns", timeout=LONG) not in {None, before}


def test_writing_again_replaces_the_whole_file(kubo: KuboTransport) -> None:
    """Nothing of a longer first version is left; the CID is then no longer that of a raw block."""
    kubo.write("/again", b"a longer first version", timeout=LONG)
    kubo.write("/again", b"second", timeout=LONG)
    assert kubo.read("/again", limit=100, timeout=LONG) == b"second"


def test_missing_paths_are_none_and_removing_them_is_fine(kubo: KuboTransport) -> None:
    """Absence is an answer, not an error."""
    assert kubo.stat("/no/such", timeout=LONG) is None
    assert kubo.list("/no/such", timeout=LONG) is None
    assert kubo.read("/no/such", limit=10, timeout=LONG) is None
    kubo.remove("/no/such", timeout=LONG)


def test_reading_more_than_the_limit_is_refused(kubo: KuboTransport) -> None:
    """A file longer than its reader allows never gets into memory as a whole."""
    kubo.write("/big", os.urandom(3 * MIB), timeout=LONG)
    for limit in (10, 3 * MIB - 1):
        with pytest.raises(IntegrityError) as caught:
            kubo.read("/big", limit=limit, timeout=LONG)
        assert caught.value.reason == "oversized"
    assert kubo.block_get(ABSENT, timeout=LONG) is None


def test_names_are_taken_literally(kubo: KuboTransport) -> None:
    """What is special in a URL is not special in a path."""
    path = "/odd/a b&c=d?e#f%2Fé"
    kubo.write(path, b"x", timeout=LONG)
    assert kubo.read(path, limit=1, timeout=LONG) == b"x"


def test_pins_come_and_go(kubo: KuboTransport) -> None:
    """Unpinning what is not pinned is fine; pinning what is not there is a TierError, at once."""
    (cid,) = _store(kubo, os.urandom(100))
    kubo.pin(cid, "a name", timeout=LONG)
    kubo.pin(cid, "another", timeout=LONG)
    kubo.unpin(cid, timeout=LONG)
    kubo.unpin(cid, timeout=LONG)
    with pytest.raises(TierError) as caught:
        kubo.pin(ABSENT, "x", timeout=LONG)
    assert caught.value.reason == "not_found"


def test_a_unix_socket_serves_every_call() -> None:
    """Both ways to the daemon, the fast one and ipfshttpclient's, go through the socket."""
    from cachekit.ipfs.node import daemon, install

    with tempfile.TemporaryDirectory(prefix="ck") as short:
        home = Path(short)
        api = daemon.start(home, binary=Path(install.install(home).path), socket=True).api
        try:
            assert api.startswith("/unix/")
            kubo = KuboTransport(api)
            data = os.urandom(2 * MIB)
            assert kubo.cat(kubo.add(data, timeout=LONG), size=len(data), timeout=LONG) == data
            (cid,) = _store(kubo, b"over a socket")
            assert kubo.block_get(cid, timeout=LONG) == b"over a socket"
        finally:
            daemon.stop(home)


def test_a_stopped_daemon_is_a_timeout_and_serves_again_when_continued(kubo_node: Any) -> None:
    """SIGSTOP: both ways give up in time, and the connections they leave behind spoil nothing."""
    kubo = KuboTransport(kubo_node.api)
    (cid,) = _store(kubo, b"before the stop")
    stop(kubo_node.pid)
    try:
        for call in (lambda: kubo.block_get(cid, timeout=SHORT), lambda: kubo.add(b"x", timeout=SHORT)):
            with pytest.raises(TierUnavailable) as caught:
                call()
            assert caught.value.reason == "timeout"
    finally:
        os.kill(kubo_node.pid, signal.SIGCONT)
    assert kubo.block_get(cid, timeout=LONG) == b"before the stop"
    assert kubo.add(b"x", timeout=LONG) == raw_cid(b"x")


def test_a_proxy_in_the_environment_is_ignored(kubo_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is cached never goes to a proxy, and the daemon is reached without it."""
    with serving(lambda exchange: exchange.answer(200, b"proxied")) as proxy:
        address = "http://127.0.0.1:" + proxy.api.rpartition("/")[2]
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, address)
        kubo = KuboTransport(kubo_api)
        assert kubo.version() == "0.43.0"
        assert kubo.cat(kubo.add(b"mine", timeout=LONG), size=4, timeout=LONG) == b"mine"
        assert KuboTransport(kubo_api.replace("/ip4/127.0.0.1", "/dns/localhost")).add(b"mine", timeout=LONG)
        assert proxy.connections == 0


def test_no_warning_escapes(kubo_api: str) -> None:
    """A process that turns warnings into errors can use both ways, and end with connections open."""
    code = (
        "import sys, threading\n"
        "from cachekit.ipfs.kubo.transport import KuboTransport\n"
        "t = KuboTransport(sys.argv[1])\n"
        "def use():\n"
        "    assert t.cat(t.add(b'hi', timeout=20), size=2, timeout=20) == b'hi'\n"
        "    t.write('/w', b'hi', timeout=20); t.stat('/w', timeout=20)\n"
        "use(); other = threading.Thread(target=use); other.start(); other.join(); t.close(); use()\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, kubo_api],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("trusted", [True, False])
def test_https_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """Both ways speak TLS with a host whose certificate is trusted, and neither sends anything to another."""
    cert, key = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with serving(_after_version(lambda x: x.json({"Hash": ABSENT})), tls=server_side) as server:
        kubo = KuboTransport(server.api.replace("/ip4/127.0.0.1", "/dns4/localhost") + "/https", auth="secret")
        if trusted:
            assert [kubo.version(), kubo.version(), kubo.add(b"x", timeout=LONG)] == ["0.43.0", "0.43.0", ABSENT]
            assert server.connections == 2
            return
        for call in (lambda: kubo.block_get(ABSENT, timeout=LONG), lambda: kubo.add(b"x", timeout=LONG)):
            with pytest.raises(TierUnavailable) as caught:
                call()
            assert caught.value.reason == "tls"
        assert server.headers == []


@pytest.mark.parametrize("fault", ["silent", "dripping headers", "dripping body"])
def test_tls_does_not_stretch_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """What holds for a plain connection holds for an encrypted one."""
    cert, key = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    with serving(_after_version(_FAULTS[fault][0]), tls=server_side) as server:
        kubo = KuboTransport(server.api.replace("/ip4/127.0.0.1", "/dns4/localhost") + "/https")
        for call in ("block_get", "add"):
            with pytest.raises(TierUnavailable) as caught:
                _CALLS[call](kubo)
            assert caught.value.reason == "timeout"


def test_a_tls_handshake_that_never_comes_is_a_timeout() -> None:
    """The handshake is part of the call."""
    with black_hole() as api, pytest.raises(TierUnavailable) as caught:
        KuboTransport(api + "/https").block_get(ABSENT, timeout=SHORT)
    assert caught.value.reason == "timeout"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_children_never_get_each_others_bytes(kubo: KuboTransport) -> None:
    """Eight children and their parent go on with a transport that was in use, each reading its own block and file."""
    blocks = [os.urandom(3000) for _ in range(9)]
    names = _store(kubo, *blocks)
    assert kubo.cat(names[8], size=3000, timeout=LONG) == blocks[8]

    def right(own: int) -> bool:
        return all(
            kubo.block_get(names[own], timeout=LONG) == blocks[own]
            and kubo.cat(names[own], size=3000, timeout=LONG) == blocks[own]
            for _ in range(50)
        )

    children = []
    for own in range(8):
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                status = 0 if right(own) else 2
            os._exit(status)
        children.append(child)
    mine = right(8)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    assert mine


def test_threads_share_a_transport(kubo: KuboTransport) -> None:
    """Sixteen threads, each with its own block, none with another's."""
    blocks = [os.urandom(3000) for _ in range(16)]
    names = _store(kubo, *blocks)
    wrong: list[int] = []

    def read(own: int) -> None:
        wrong.extend(own for _ in range(50) if kubo.block_get(names[own], timeout=LONG) != blocks[own])

    threads = [threading.Thread(target=read, args=(own,)) for own in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- what only a stand-in does -----------------------------------------------------------------------

_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
_HALF = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10
_PAGE = b"<html>Please log in</html>"
_REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: /api/v0/elsewhere\r\nContent-Length: 0\r\n\r\n"


def _dropped(exchange: Exchange, data: bytes) -> bool:
    exchange.send(data)
    return False


def _reset(exchange: Exchange) -> bool:
    exchange.send(_HALF)
    return exchange.reset()


_FAULTS: dict[str, tuple[Script, type[TierError], str]] = {
    "silent": (lambda x: x.silence(), TierUnavailable, "timeout"),
    "dripping headers": (lambda x: x.drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"), TierUnavailable, "timeout"),
    "dripping status": (lambda x: x.drip(b"HTTP/1.1 2", b"0"), TierUnavailable, "timeout"),
    "dripping body": (lambda x: x.drip(_HALF, b"x"), TierUnavailable, "timeout"),
    "dripping chunks": (lambda x: x.drip(_CHUNKED, b"1\r\nx\r\n"), TierUnavailable, "timeout"),
    "continuing for ever": (lambda x: x.drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), TierUnavailable, "timeout"),
    "reset in the body": (_reset, TierUnavailable, "reset"),
    "content-length too long": (lambda x: _dropped(x, _HALF), IntegrityError, "truncated"),
    "chunks broken off": (lambda x: x.chunked(b"abc", ended=False), IntegrityError, "truncated"),
    "closed without a word": (lambda _: False, TierUnavailable, "reset"),
    "500 of Kubo": (lambda x: x.json({"Message": "disk on fire", "Type": "error"}, 500), TierError, "http_500"),
    "500 of nobody": (lambda x: x.answer(500, b"oops", "text/plain"), TierError, "http_500"),
    "502 of a proxy": (lambda x: x.answer(502, _PAGE, "text/html"), TierError, "http_502"),
    "429": (lambda x: x.json({"Message": "slow down"}, 429), TierError, "http_429"),
    "403": (lambda x: x.answer(403, b"403 - Forbidden", "text/plain"), TierUnavailable, "forbidden"),
    "404 of another server": (lambda x: x.answer(404, b"404 page not found", "text/plain"), IntegrityError, "not_kubo"),
    "a page": (lambda x: x.answer(200, _PAGE, "text/html; charset=utf-8"), IntegrityError, "not_kubo"),
    "a redirect": (lambda x: _dropped(x, _REDIRECT), IntegrityError, "not_kubo"),
    "not even HTTP": (lambda x: _dropped(x, b"220 mail.example ESMTP\r\n"), IntegrityError, "not_kubo"),
}

_CALLS: dict[str, Callable[[KuboTransport], object]] = {
    "block_get": lambda kubo: kubo.block_get(ABSENT, timeout=SHORT),
    "list": lambda kubo: kubo.list("/x", timeout=SHORT),
    "cat": lambda kubo: kubo.cat(ABSENT, size=900, timeout=SHORT),
    "add": lambda kubo: kubo.add(b"x", timeout=SHORT),
    "write": lambda kubo: kubo.write("/x", b"x", timeout=SHORT),
    "import_blocks": lambda kubo: kubo.import_blocks([(binary_cid(ABSENT), b"x")], timeout=SHORT),
}


def _after_version(fault: Script) -> Script:
    # Where the call asks for the version first, the fault shall meet the call itself.
    return lambda x: x.json(VERSION) if "/version" in x.line else fault(x)


@pytest.fixture(scope="session", autouse=True)
def _client_imported() -> None:
    import ipfshttpclient  # noqa: F401 - its first import is slow, and nobody's timeout here


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_is_an_error_of_its_kind_in_bounded_time(fault: str, call: str) -> None:
    """Whichever way the call goes; a server that drips for ever does not keep it for ever."""
    script, kind, reason = _FAULTS[fault]
    with serving(_after_version(script)) as server, pytest.raises(kind) as caught:
        _CALLS[call](KuboTransport(server.api))
    assert caught.value.reason == reason
    assert not any("elsewhere" in line for line in server.lines)


@pytest.mark.parametrize("call", _CALLS)
def test_nobody_there_is_refused(call: str) -> None:
    """The most ordinary fault of all."""
    with pytest.raises(TierUnavailable) as caught:
        _CALLS[call](KuboTransport(refusing()))
    assert caught.value.reason == "refused"


@pytest.mark.parametrize("call", _CALLS)
def test_a_black_hole_is_a_timeout(call: str) -> None:
    """A port that lets connections in and never picks them up."""
    with black_hole() as api, pytest.raises(TierUnavailable) as caught:
        _CALLS[call](KuboTransport(api))
    assert caught.value.reason == "timeout"


def test_a_missing_socket_is_refused(tmp_path: Path) -> None:
    """As if nobody listened."""
    with pytest.raises(TierUnavailable) as caught:
        KuboTransport(f"/unix{tmp_path}/none.sock").block_get(ABSENT, timeout=SHORT)
    assert caught.value.reason == "refused"


def test_a_hung_resolver_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host name takes no longer than the call may."""
    over = threading.Event()
    monkeypatch.setattr("socket.getaddrinfo", lambda *_: over.wait(LONG) and [])
    with pytest.raises(TierUnavailable) as caught:
        KuboTransport("/dns/kubo.example/tcp/5001").block_get(ABSENT, timeout=SHORT)
    over.set()
    assert caught.value.reason == "timeout"


def test_a_silently_truncated_answer_is_caught_by_its_size() -> None:
    """A clean end of chunks after an `X-Stream-Error` trailer looks like success to every HTTP client."""
    script = _after_version(lambda x: x.chunked(b"x" * 300, trailer=b"X-Stream-Error: gone\r\n"))
    with serving(script) as server, pytest.raises(IntegrityError) as caught:
        KuboTransport(server.api).cat(ABSENT, size=1000, timeout=LONG)
    assert caught.value.reason == "truncated"


_VERSIONS = ("0.43.0-custom", "0.43.0+custom", "0.43.0custom", "v0.43.0", "0.43.x", "0.43", "0.43.0rc1")


@pytest.mark.parametrize("said", _VERSIONS)
def test_a_version_may_have_anything_behind_its_numbers(said: str) -> None:
    """Builds of one's own are Kubo too; too old is too old whatever they call themselves."""
    with serving(lambda x: x.json({"Version": said})) as server:
        assert KuboTransport(server.api).version() == said
    with (
        serving(lambda x: x.json({"Version": said.replace("0.43", "0.3")})) as server,
        pytest.raises(TierUnavailable) as caught,
    ):
        KuboTransport(server.api).version()
    assert caught.value.reason == "too_old"


@pytest.mark.parametrize("told", [[], {}, None, 7, {"Version": 7}, {"Version": "nonsense"}, {"Hash": None}])
def test_json_that_is_not_kubos_is_no_kubo(told: object) -> None:
    """Whatever shape it has, and whichever way it came."""
    with serving(lambda x: x.json(told)) as server:
        kubo = KuboTransport(server.api)
        for call in (kubo.version, *(lambda c=c: c(kubo) for c in (_CALLS["list"], _CALLS["add"]))):
            with pytest.raises(IntegrityError) as caught:
                call()
            assert caught.value.reason == "not_kubo"


@pytest.mark.parametrize("told", [{"Hash": 7}, [], {"Stats": {"BlockCount": 0}}])
@pytest.mark.parametrize("call", ["add", "import_blocks"])
def test_an_upload_that_was_not_acknowledged_is_an_error(call: str, told: object) -> None:
    """A 200 is not enough: the acknowledgement must say what was stored."""
    with serving(_after_version(lambda x: x.json(told))) as server, pytest.raises(IntegrityError):
        _CALLS[call](KuboTransport(server.api))


def test_a_flood_is_cut_off() -> None:
    """An endless body as fast as it can be sent ends at the size limit, not in a full memory."""

    def flood(exchange: Exchange) -> bool:
        exchange.send(_CHUNKED)
        while True:
            exchange.send(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    for call in (
        lambda kubo: kubo.block_get(ABSENT, timeout=LONG),
        lambda kubo: kubo.cat(ABSENT, size=1000, timeout=LONG),
        lambda kubo: kubo.add(b"x", timeout=LONG),
    ):
        with serving(_after_version(flood)) as server, pytest.raises(IntegrityError) as caught:
            call(KuboTransport(server.api))
        assert caught.value.reason == "oversized"


def test_wrong_bytes_pass_because_the_caller_verifies() -> None:
    """The transport promises no more: whoever asked compares the bytes with the CID."""
    with serving(lambda x: x.answer(200, b"wrong", "application/vnd.ipld.raw")) as server:
        assert KuboTransport(server.api).block_get(ABSENT, timeout=LONG) == b"wrong"


def test_a_kept_connection_that_was_closed_costs_nothing() -> None:
    """The next call finds it closed and opens another; the caller does not notice."""

    def once(exchange: Exchange) -> bool:
        exchange.json(VERSION)
        return False

    with serving(once) as server:
        kubo = KuboTransport(server.api)
        assert [kubo.version() for _ in range(5)] == ["0.43.0"] * 5
        assert server.connections == 5


def test_a_connection_closed_upon_the_request_is_tried_once_more() -> None:
    """Only where it had been kept from an earlier call: a new connection that closes is a failure at once."""

    def every_second(exchange: Exchange) -> bool:
        return len(server.lines) != 2 and exchange.json(VERSION)

    with serving(every_second) as server:
        kubo = KuboTransport(server.api)
        assert [kubo.version(), kubo.version()] == ["0.43.0"] * 2
        assert (len(server.lines), server.connections) == (3, 2)


def test_bytes_beyond_an_answer_never_answer_the_next_question() -> None:
    """Content-Length too short, and the surplus shaped like an answer: the connection is dropped."""
    planted = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 7\r\n\r\nPLANTED"
    asked = []

    def surplus(exchange: Exchange) -> bool:
        asked.append(exchange.line)
        if len(asked) == 1:
            exchange.answer(200, b"x" * 20_000, "text/plain")
            exchange.send(planted)
            sent.set()
            return True
        return exchange.answer(200, b"second", "text/plain")

    sent = threading.Event()
    with serving(surplus) as server:
        kubo = KuboTransport(server.api)
        kubo.block_get(ABSENT, timeout=LONG)
        assert sent.wait(LONG)
        assert kubo.block_get(ABSENT, timeout=LONG) == b"second"


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ("me:secret", "Basic bWU6c2VjcmV0"),
        ("Bearer a:b", "Bearer a:b"),
        ("token", "Bearer token"),
        (None, None),
    ],
)
def test_the_credential_goes_with_every_call(
    auth: str | None, header: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways, and a ~/.netrc has no say in it."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password wrong\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    with serving(_after_version(lambda x: x.json({"Hash": ABSENT}))) as server:
        KuboTransport(server.api, auth=auth).add(b"x", timeout=LONG)
        assert [headers.get("authorization") for headers in server.headers] == [header] * 2


@pytest.mark.parametrize("auth", ["a\nb", "a\r\nX-Evil: 1", "käse"])
def test_a_credential_that_no_header_can_carry_is_a_usage_error(auth: str) -> None:
    """And its text is not in the message."""
    with pytest.raises(UsageError) as caught:
        KuboTransport("/ip4/127.0.0.1/tcp/5001", auth=auth)
    assert auth not in str(caught.value)


@pytest.mark.parametrize(
    "api",
    [
        "",
        "http://127.0.0.1:5001",
        "/ip4/127.0.0.1",
        "/ip4/127.0.0.1/udp/5001",
        "/ip4/h/tcp/x",
        "/ip4/h/tcp/0",
        "/ip4/h/tcp/70000",
        "/ip4/h/tcp/1/ws",
        "/unix/",
        "ip4/127.0.0.1/tcp/5001",
        "/onion/x/tcp/1",
    ],
)
def test_what_is_no_address_is_a_usage_error(api: str) -> None:
    """Said when the transport is made, not at some later call."""
    with pytest.raises(UsageError):
        KuboTransport(api)


_VERSIONS = [("0.29.0", True), ("0.9.1", True), ("0.30.0", False), ("0.44.0-dev", False)]


@pytest.mark.parametrize(("version", "old"), _VERSIONS)
def test_an_old_kubo_is_told_from_a_new_one(version: str, old: bool) -> None:
    """By its number, before anything is written to it."""
    with serving(lambda x: x.json({"Version": version, "Hash": ABSENT})) as server:
        kubo = KuboTransport(server.api)
        if not old:
            assert kubo.add(b"x", timeout=LONG) == ABSENT
            return
        for call in (kubo.version, lambda: kubo.add(b"x", timeout=LONG)):
            with pytest.raises(TierUnavailable) as caught:
                call()
            assert caught.value.reason == "too_old"
        assert not any("/add" in line for line in server.lines)


def test_a_missing_ipfshttpclient_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lookups go on without it; the rest says what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "ipfshttpclient"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipfshttpclient", None)
    with serving(_after_version(lambda x: x.answer(200, b"block", "x/y"))) as server:
        kubo = KuboTransport(server.api)
        assert kubo.block_get(ABSENT, timeout=LONG) == b"block"
        with pytest.raises(TierUnavailable, match="pip install") as caught:
            kubo.add(b"x", timeout=LONG)
        assert caught.value.reason == "client_missing"
