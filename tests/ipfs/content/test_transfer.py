"""Files in a real Kubo: added, fetched, resumed. What no Kubo does is done by a scripted stand-in (`faults.py`)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import tracemalloc
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import Exchange, refusing, serving

from cachekit.errors import IntegrityError, TierError, TierFull, TierUnavailable
from cachekit.ipfs.content.chunks import PLAIN_BYTES, ChunkCipher, sealed_size
from cachekit.ipfs.content.cids import file_cid, raw_cid
from cachekit.ipfs.content.transfer import Remote, Transfer
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.trust.credential import Credential

MIB = 1 << 20
SHORT = 0.3
CIPHER = ChunkCipher.of(Credential.create(), "team")
VERSION = {"Version": "0.43.0"}


class Counting(KuboTransport):
    """The real one, and how many bytes came over the wire."""

    fetched = 0

    def block_get(self, cid: str, *, timeout: float) -> bytes | None:
        block = super().block_get(cid, timeout=timeout)
        self.fetched += len(block or b"")
        return block

    def cat_stream(self, cid: str, *, offset: int, length: int, idle: float) -> Generator[bytes, None, None]:
        with contextlib.closing(super().cat_stream(cid, offset=offset, length=length, idle=idle)) as pieces:
            for piece in pieces:
                self.fetched += len(piece)
                yield piece


@pytest.fixture
def kubo(kubo_api: str) -> Iterator[Counting]:
    transport = Counting(kubo_api)
    yield transport
    transport.close()


@pytest.fixture(params=["plain", "sealed"])
def transfer(request: pytest.FixtureRequest, kubo: KuboTransport) -> Transfer:
    return Transfer(kubo, CIPHER if request.param == "sealed" else None)


class Interrupted(Exception):
    """What somebody raises who does not want to go on."""


def stored(transfer: Transfer, path: Path, size: int, name: str = "weights") -> tuple[Remote, bytes]:
    data = os.urandom(size)
    path.write_bytes(data)
    return Remote(name, transfer.add(path, name, pin=False), size, hashlib.sha256(data).hexdigest()), data


def fetch(transfer: Transfer, remote: Remote, partial: Path, **options: Any) -> None:
    transfer.fetch(remote, partial, **options)


def pins(kubo: KuboTransport) -> dict[str, str]:
    told = kubo.ask("pin/ls", {"type": "recursive", "names": "true"}, 20)
    return {cid: entry.get("Name", "") for cid, entry in told["Keys"].items()}


@pytest.mark.parametrize("size", [0, 1, PLAIN_BYTES, MIB, MIB + 1, 5 * MIB + 17, 13 * MIB])
def test_a_file_comes_back(transfer: Transfer, tmp_path: Path, size: int) -> None:
    """The bytes, under the CID that was computed without a daemon; what is told adds up to the size, both ways."""
    told: list[int] = []
    remote, data = stored(transfer, tmp_path / "from", size)
    assert transfer.cid_of(tmp_path / "from") == remote.cid
    fetch(transfer, remote, tmp_path / "to", progress=told.append)
    assert (tmp_path / "to").read_bytes() == data
    assert sum(told) == size


def test_plain_files_are_what_anybody_fetches(kubo: KuboTransport, tmp_path: Path) -> None:
    """Unsealed, the CID is the ordinary one, and an ordinary `cat` gives the bytes; sealed, it gives others."""
    remote, data = stored(Transfer(kubo, None), tmp_path / "from", 2 * MIB)
    assert remote.cid == file_cid(data)
    assert kubo.cat(remote.cid, size=2 * MIB, timeout=20) == data
    sealed = Transfer(kubo, CIPHER).add(tmp_path / "from", "weights", pin=False)
    found = kubo.cat(sealed, size=sealed_size(2 * MIB), timeout=20)
    assert found is not None
    assert data[:64] not in found


def test_a_pin_has_its_name_from_the_one_call(transfer: Transfer, kubo: KuboTransport, tmp_path: Path) -> None:
    """Pinned and named by `add` itself; without `pin` it is neither."""
    (tmp_path / "file").write_bytes(os.urandom(2 * MIB))
    cid = transfer.add(tmp_path / "file", "cachekit/x/ä & b", pin=False)
    assert cid not in pins(kubo)
    assert transfer.add(tmp_path / "file", "cachekit/x/ä & b", pin=True) == cid
    assert pins(kubo)[cid] == "cachekit/x/ä & b"
    kubo.unpin(cid, timeout=20)


def test_adding_tells_every_byte(transfer: Transfer, tmp_path: Path) -> None:
    """What `add` tells adds up to the size of the file."""
    told: list[int] = []
    (tmp_path / "file").write_bytes(bytes(3 * MIB + 5))
    transfer.add(tmp_path / "file", "weights", pin=False, progress=told.append)
    assert sum(told) == 3 * MIB + 5
    assert len(told) == 4


def test_an_interrupted_add_stores_nothing(transfer: Transfer, kubo: KuboTransport, tmp_path: Path) -> None:
    """What `told` raises comes out as it was, and no pin was left."""
    before = pins(kubo)
    (tmp_path / "file").write_bytes(os.urandom(3 * MIB))

    def told(_: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        transfer.add(tmp_path / "file", "weights", pin=True, progress=told)
    assert pins(kubo) == before


def test_an_interrupted_fetch_fetches_only_the_rest(transfer: Transfer, kubo: Counting, tmp_path: Path) -> None:
    """By the count of bytes that came over the wire: at most the missing chunks, and the nodes above them."""
    remote, data = stored(transfer, tmp_path / "from", 40 * MIB)
    done = 0

    def told(more: int) -> None:
        nonlocal done
        done += more
        if done >= 29 * MIB:
            raise Interrupted

    with pytest.raises(Interrupted):
        fetch(transfer, remote, tmp_path / "to", progress=told)
    kept = (tmp_path / "to").stat().st_size
    assert 29 * MIB <= kept < 40 * MIB
    before = kubo.fetched
    fetch(transfer, remote, tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == data
    assert 40 * MIB - kept <= kubo.fetched - before <= 40 * MIB - kept + 64 * 1024


def test_a_whole_partial_fetches_nothing(transfer: Transfer, kubo: Counting, tmp_path: Path) -> None:
    """A process killed between its last byte and the end has only to verify."""
    remote, data = stored(transfer, tmp_path / "from", 2 * MIB + 1)
    (tmp_path / "to").write_bytes(data)
    fetch(transfer, remote, tmp_path / "to")
    assert kubo.fetched == 0


def test_half_a_chunk_is_fetched_again(transfer: Transfer, kubo: Counting, tmp_path: Path) -> None:
    """What follows the last whole chunk was never verified: it is cut off, whatever it is."""
    remote, data = stored(transfer, tmp_path / "from", 3 * MIB)
    (tmp_path / "to").write_bytes(data[: MIB + 3] + b"torn")
    fetch(transfer, remote, tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == data
    assert kubo.fetched < 2 * MIB + 4096


def test_a_partial_that_is_too_long_starts_anew(transfer: Transfer, tmp_path: Path) -> None:
    """It can only be another file's."""
    remote, data = stored(transfer, tmp_path / "from", 2 * MIB)
    (tmp_path / "to").write_bytes(bytes(3 * MIB))
    fetch(transfer, remote, tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == data


def test_a_spoilt_partial_is_emptied(transfer: Transfer, tmp_path: Path) -> None:
    """A partial that lost its bytes on disk is no file; the next fetch starts from nothing, and succeeds."""
    remote, data = stored(transfer, tmp_path / "from", 3 * MIB)
    (tmp_path / "to").write_bytes(bytes(MIB))
    with pytest.raises(IntegrityError):
        fetch(transfer, remote, tmp_path / "to")
    assert (tmp_path / "to").stat().st_size == 0
    fetch(transfer, remote, tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == data


def test_one_partial_has_one_writer(transfer: Transfer, tmp_path: Path) -> None:
    """Who comes second is told so, and spoils nothing; afterwards the way is free."""
    remote, data = stored(transfer, tmp_path / "from", 3 * MIB)
    refused: list[str] = []

    def told(_: int) -> None:
        with pytest.raises(TierError) as caught:
            fetch(transfer, remote, tmp_path / "to")
        refused.append(caught.value.reason)

    fetch(transfer, remote, tmp_path / "to", progress=told)
    assert set(refused) == {"busy"}
    assert (tmp_path / "to").read_bytes() == data
    fetch(transfer, remote, tmp_path / "to")


@pytest.mark.parametrize("claimed", [0, 5 * MIB - 1, 5 * MIB + 1, 9 * MIB, 20 * MIB])
def test_another_size_is_refused(transfer: Transfer, tmp_path: Path, claimed: int) -> None:
    """A file that is longer or shorter than the manifest says never passes for whole."""
    remote, _ = stored(transfer, tmp_path / "from", 5 * MIB)
    with pytest.raises(TierError):
        fetch(transfer, remote._replace(size=claimed), tmp_path / "to")


def test_another_file_of_the_same_size_is_refused(transfer: Transfer, tmp_path: Path) -> None:
    """Its chunks verify one by one, and the whole does not."""
    one, _ = stored(transfer, tmp_path / "one", 2 * MIB)
    other, _ = stored(transfer, tmp_path / "other", 2 * MIB)
    with pytest.raises(IntegrityError):
        fetch(transfer, one._replace(cid=other.cid), tmp_path / "to")
    assert (tmp_path / "to").stat().st_size == 0


def test_a_lost_leaf_leaves_verified_chunks_only(kubo: KuboTransport, tmp_path: Path) -> None:
    """Kubo ends such an answer like a whole one; here it is an error, and what came before stays for the next try."""
    transfer = Transfer(kubo, None)
    remote, data = stored(transfer, tmp_path / "from", 12 * MIB)
    kubo.ask("block/rm", {"arg": raw_cid(data[9 * MIB : 10 * MIB])}, 20)
    with pytest.raises(TierError):
        fetch(transfer, remote, tmp_path / "to")
    kept = (tmp_path / "to").read_bytes()
    assert kept == data[: 9 * MIB]


def test_a_file_that_is_not_there_is_not_found(transfer: Transfer, tmp_path: Path) -> None:
    """A TierError of that reason, and at once: other daemons are not asked."""
    with pytest.raises(TierError) as caught:
        transfer.fetch(Remote("x", file_cid(os.urandom(2 * MIB)), 2 * MIB, "0" * 64), tmp_path / "to")
    assert caught.value.reason == "not_found"


def test_memory_does_not_grow_with_the_file(transfer: Transfer, tmp_path: Path) -> None:
    """Neither way, by far, does a file of 64 MiB stand in memory."""
    with (tmp_path / "from").open("wb") as file:
        file.truncate(64 * MIB)
    digest = hashlib.sha256(bytes(64 * MIB)).hexdigest()
    tracemalloc.start()
    try:
        cid = transfer.add(tmp_path / "from", "weights", pin=False)
        adding = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        transfer.fetch(Remote("weights", cid, 64 * MIB, digest), tmp_path / "to")
        fetching = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert adding < 8 * MIB
    assert fetching < 24 * MIB


def test_the_disk_is_somebody_to_blame_too(transfer: Transfer, tmp_path: Path) -> None:
    """A file that cannot be read, or a partial that cannot be written, is a TierError that blames no daemon."""
    remote, _ = stored(transfer, tmp_path / "from", 5)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for work in (
        lambda: transfer.add(tmp_path / "absent", "weights", pin=False),
        lambda: fetch(transfer, remote, tmp_path / "link"),
    ):
        with pytest.raises(TierError) as caught:
            work()
        assert caught.value.reason == "file"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_full(kubo: KuboTransport, tmp_path: Path) -> None:
    """Counted under its own name."""

    def publish(_remote: Remote, _partial: Path, _known: object) -> None:
        with open("/dev/full", "wb") as full:
            full.write(b"x")

    transfer = Transfer(kubo, None)
    remote, _ = stored(transfer, tmp_path / "from", 5)
    with pytest.raises(TierFull):
        transfer.fetch_all([remote], lambda _: tmp_path / "to", publish)


# -- several at once ---------------------------------------------------------------------------------


def test_files_are_fetched_at_once_and_published_when_whole(transfer: Transfer, tmp_path: Path) -> None:
    """Four workers stand in `publish` together, each with a whole file: a barrier only they can open."""
    together = threading.Barrier(4, timeout=60)
    files = {}
    for number in range(8):
        remote, data = stored(transfer, tmp_path / f"from{number}", number * 300_000, f"part{number}")
        files[remote] = data
    names: set[str] = set()
    told: dict[str, int] = {}

    def publish(remote: Remote, partial: Path, known: object) -> None:
        together.wait()
        names.add(threading.current_thread().name)
        partial.rename(tmp_path / remote.name)

    def tell(remote: Remote, more: int) -> None:
        told[remote.name] = told.get(remote.name, 0) + more

    transfer.fetch_all(list(files), lambda remote: tmp_path / f"{remote.name}.partial", publish, progress=tell)
    assert all((tmp_path / remote.name).read_bytes() == data for remote, data in files.items())
    assert all(name.startswith("cachekit-fetch") for name in names)
    assert told == {remote.name: remote.size for remote in files}


def test_the_first_error_stops_the_rest(transfer: Transfer, tmp_path: Path) -> None:
    """One file is spoilt: its error is raised, no thread is left, and what had not begun is not fetched."""
    good, _ = stored(transfer, tmp_path / "good", 2 * MIB)
    bad = good._replace(name="bad", sha256="0" * 64)
    later = [good._replace(name=f"later{number}") for number in range(50)]
    published: list[Remote] = []
    with pytest.raises(IntegrityError):
        transfer.fetch_all(
            [bad, *later],
            lambda remote: tmp_path / f"{remote.name}.partial",
            lambda remote, _path, _known: published.append(remote),
            workers=2,
        )
    assert len(published) < len(later)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("cachekit-fetch")]


def test_fetching_nothing_asks_nobody() -> None:
    """An artifact of no files is done without a daemon."""
    Transfer(KuboTransport(refusing()), None).fetch_all([], lambda _: Path(), lambda _remote, _path, _known: None)


# -- faults that no real daemon can be made to commit ------------------------------------------------


def _calls(exchange: Exchange, **answers: Any) -> bool:
    call = exchange.line.split("/api/v0/")[1].split("?")[0].split(" ")[0]
    return exchange.json(VERSION) if call == "version" else answers[call](exchange)


def test_another_cid_than_ours_is_refused(tmp_path: Path) -> None:
    """A daemon that names other bytes than it was sent has not stored them."""
    (tmp_path / "file").write_bytes(b"hello")
    wrong = {"Name": "file", "Hash": raw_cid(b"other"), "Size": "5"}
    with serving(lambda exchange: _calls(exchange, add=lambda it: it.json(wrong))) as server:
        with pytest.raises(IntegrityError, match="other bytes"):
            Transfer(KuboTransport(server.api), None).add(tmp_path / "file", "weights", pin=False)
        assert "pin=false" in server.lines[-1]
        assert "max-file-links=174" in server.lines[-1]


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"hello"])
def test_an_answer_that_names_nothing_is_refused(tmp_path: Path, body: bytes) -> None:
    """An error in a trailer leaves a 200 with nothing in it."""
    (tmp_path / "file").write_bytes(b"hello")
    with serving(
        lambda exchange: _calls(exchange, add=lambda it: it.chunked(body) if body else it.chunked())
    ) as server:
        with pytest.raises(IntegrityError):
            Transfer(KuboTransport(server.api), None).add(tmp_path / "file", "weights", pin=False)


def test_older_ones_are_told_the_name_in_a_second_call(tmp_path: Path) -> None:
    """Before 0.38 `add` overlooks `pin-name`."""
    (tmp_path / "file").write_bytes(b"hello")
    added = {"Name": "file", "Hash": raw_cid(b"hello"), "Size": "5"}

    def old(exchange: Exchange) -> bool:
        if "/v0/version?" in exchange.line:
            return exchange.json({"Version": "0.35.0"})
        return exchange.json(added if "/add?cid" in exchange.line else {"Pins": [raw_cid(b"hello")]})

    with serving(old) as server:
        Transfer(KuboTransport(server.api), None).add(tmp_path / "file", "weights", pin=True)
        assert "/pin/add?" in server.lines[-1]
        assert "name=weights" in server.lines[-1]


def _refuse(exchange: Exchange) -> bool:
    exchange.answer(403, b"403 - Access Denied", "text/plain")
    return False


@pytest.mark.parametrize("size", [5, 64 * MIB])
def test_a_refused_upload_says_so(tmp_path: Path, size: int) -> None:
    """Before or after all of it was sent, the error is the refusal."""
    with (tmp_path / "file").open("wb") as file:
        file.truncate(size)
    with serving(lambda exchange: _calls(exchange, add=_refuse)) as server:
        with pytest.raises(TierUnavailable) as caught:
            Transfer(KuboTransport(server.api), None).add(tmp_path / "file", "weights", pin=False)
    assert caught.value.reason == "forbidden"


def test_a_daemon_that_falls_silent_after_an_upload_is_left(tmp_path: Path) -> None:
    """No answer within the idle time, and what its size may take to pin."""
    (tmp_path / "file").write_bytes(b"hello")
    with serving(lambda exchange: _calls(exchange, add=lambda it: it.silence())) as server:
        with pytest.raises(TierUnavailable) as caught:
            Transfer(KuboTransport(server.api), None, idle=SHORT).add(tmp_path / "file", "weights", pin=False)
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n"])
def test_a_stalled_download_ends(tmp_path: Path, head: bytes) -> None:
    """Silent from the start, or dripping a byte now and then for ever."""
    with serving(lambda exchange: _calls(exchange, cat=lambda it: it.drip(head, b"x" if head else b""))) as server:
        transfer = Transfer(KuboTransport(server.api), None, idle=SHORT)
        with pytest.raises(TierUnavailable) as caught:
            transfer.fetch(Remote("x", file_cid(bytes(MIB)), MIB, "0" * 64), tmp_path / "to")
    assert caught.value.reason == "timeout"


def test_other_bytes_never_reach_the_partial(tmp_path: Path) -> None:
    """Right length, wrong bytes: sealed or plain, nothing of it is kept."""
    for cipher in (None, CIPHER):
        with serving(lambda exchange: _calls(exchange, cat=lambda it: it.chunked(bytes(100)))) as server:
            transfer = Transfer(KuboTransport(server.api), cipher)
            size = 100 if cipher is None else 100 - 28
            with pytest.raises(IntegrityError):
                transfer.fetch(Remote("x", raw_cid(os.urandom(100)), size, "0" * 64), tmp_path / "to")
            assert (tmp_path / "to").stat().st_size == 0


@pytest.mark.parametrize("ended", [True, False])
def test_an_answer_that_ends_early_is_truncated(tmp_path: Path, ended: bool) -> None:
    """Cleanly, as Kubo does with its error in a trailer, or broken off."""

    def cut(exchange: Exchange) -> bool:
        return exchange.chunked(bytes(50), ended=ended, trailer=b"X-Stream-Error: lost\r\n" if ended else b"")

    with serving(lambda exchange: _calls(exchange, cat=cut)) as server:
        with pytest.raises(IntegrityError) as caught:
            Transfer(KuboTransport(server.api), None).fetch(
                Remote("x", raw_cid(bytes(100)), 100, "0" * 64), tmp_path / "to"
            )
    assert caught.value.reason == "truncated"
