"""CIDs of files fed piece by piece, against what a real Kubo answers, and the way back to the leaves."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from typing import Any

import pytest

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.content.chunks import ChunkCipher, pieces, sealed_size
from cachekit.ipfs.content.cids import DAG_PB, FileCid, binary_cid, cid_from, file_cid, raw_cid
from cachekit.ipfs.content.unixfs import leaves, read_file
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.trust.credential import Credential

MIB = 1 << 20
LONG = 20.0
SIZES = [0, 1, MIB - 1, MIB, MIB + 1, 3 * MIB, 174 * MIB, 174 * MIB + 1]


class Zeros(io.RawIOBase):
    """A file of zeros that is nowhere."""

    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = min(self.left, len(buffer))
        buffer[:got] = bytes(got)
        self.left -= got
        return got


@pytest.fixture
def kubo(kubo_api: str) -> Iterator[KuboTransport]:
    transport = KuboTransport(kubo_api)
    yield transport
    transport.close()


def cid_of(parts: Iterator[bytes]) -> str:
    cid = FileCid()
    for part in parts:
        cid.update(part)
    return cid.digest()


@pytest.mark.parametrize("size", SIZES)
def test_a_plain_file_has_the_cid_that_kubo_gives_it(kubo: KuboTransport, size: int) -> None:
    """Below, at and above one leaf and one full node."""
    cid = cid_of(pieces(io.BufferedReader(Zeros(size)), size, MIB))
    sent = pieces(io.BufferedReader(Zeros(size)), size, MIB)
    assert kubo.add_stream(sent, size=size, pin_name=None, idle=LONG) == cid


@pytest.mark.parametrize("size", SIZES)
def test_a_sealed_file_has_the_cid_that_kubo_gives_it(kubo: KuboTransport, size: int) -> None:
    """Its chunks are its leaves."""
    cipher = ChunkCipher.of(Credential.create(), "team")
    cid = FileCid()

    def sealed() -> Iterator[bytes]:
        for chunk in cipher.sealed(io.BufferedReader(Zeros(size)), size):
            cid.update(chunk)
            yield chunk

    assert kubo.add_stream(sealed(), size=sealed_size(size), pin_name=None, idle=LONG) == cid.digest()


@pytest.mark.parametrize("width", [1, 700_001, MIB, 5 * MIB])
def test_pieces_may_have_any_length(width: int) -> None:
    """The CID is the file's, however it was cut."""
    data = os.urandom(2 * MIB + 3 if width > 1 else 1000)
    assert cid_of(iter([data[at : at + width] for at in range(0, len(data), width)])) == file_cid(data)


def test_the_leaves_are_found_in_order(kubo: KuboTransport) -> None:
    """Through two levels of nodes, of which nothing below the first is read before it is needed."""
    blocks = [bytes([number]) * MIB for number in range(175)]
    cid = kubo.add_stream(blocks, size=175 * MIB, pin_name=None, idle=LONG)
    asked: list[str] = []

    def block_of(name: str) -> bytes | None:
        asked.append(name)
        return kubo.block_get(name, timeout=LONG)

    found = leaves(cid, block_of)
    assert next(found) == hashlib.sha256(blocks[0]).digest()
    assert len(asked) == 2
    assert [*found] == [hashlib.sha256(block).digest() for block in blocks[1:]]
    assert len(asked) == 3


def test_a_single_leaf_is_its_own_file() -> None:
    """Nobody is asked."""
    assert list(leaves(raw_cid(b"hello"), lambda _: None)) == [hashlib.sha256(b"hello").digest()]


def repeating(leaf: bytes, times: int, depth: int = 1) -> tuple[str, dict[str, bytes]]:
    """A file, with its blocks, that names one leaf `times` times; below `depth` levels of the same kind."""
    cid = raw_cid(leaf)
    blocks = {cid: leaf}
    for _ in range(depth):
        block = (b"\x12\x26\x0a\x24" + binary_cid(cid)) * times + b"\x0a\x02\x08\x02"
        cid = cid_from(DAG_PB, hashlib.sha256(block).digest())
        blocks[cid] = block
    return cid, blocks


@pytest.mark.parametrize(("leaf", "times", "depth"), [(b"x" * 14_000, 20_000, 1), (b"", 20_000, 1), (b"", 30, 12)])
def test_a_small_dag_of_many_bytes_or_parts_is_refused(leaf: bytes, times: int, depth: int) -> None:
    """It names one leaf again and again, with bytes or without: reading stops at the limit, and no part is asked for twice."""
    cid, blocks = repeating(leaf, times, depth)
    asked: list[str] = []

    def block_of(name: str) -> bytes | None:
        asked.append(name)
        return blocks[name]

    with pytest.raises(TierError) as caught:
        read_file(cid, block_of, limit=MIB)
    assert caught.value.reason == "oversized"
    assert asked.count(raw_cid(leaf)) == 1


def test_a_file_of_equal_parts_within_the_limit_is_read() -> None:
    """Files of zeros are files too."""
    cid, blocks = repeating(bytes(1024), 1024)
    assert read_file(cid, blocks.get, limit=MIB) == bytes(MIB)


def test_a_missing_node_is_not_found() -> None:
    """A TierError of that reason."""
    with pytest.raises(TierError) as caught:
        list(leaves(cid_from(DAG_PB, bytes(32)), lambda _: None))
    assert caught.value.reason == "not_found"


def test_another_block_is_not_believed() -> None:
    """Whatever the block says, it must be the one that was asked for."""
    with pytest.raises(IntegrityError, match="other bytes"):
        list(leaves(cid_from(DAG_PB, bytes(32)), lambda _: b"\x12\x00"))


@pytest.mark.parametrize("block", [b"", b"\x0a\x02\x08\x02", b"\x12", b"\x12\x26\x0a\x24", b"\x12\xff" + b"x" * 300])
def test_what_is_no_node_is_refused(block: bytes) -> None:
    """Under its true CID, but not what Kubo writes."""
    cid = cid_from(DAG_PB, hashlib.sha256(block).digest())
    with pytest.raises(IntegrityError, match="not a file"):
        list(leaves(cid, lambda _: block))


def test_a_node_that_links_too_deep_is_refused() -> None:
    """However many levels somebody piles up, reading them ends."""
    blocks: dict[str, bytes] = {}
    cid = raw_cid(b"x")
    for _ in range(40):
        block = b"\x12\x26\x0a\x24" + binary_cid(cid) + b"\x0a\x02\x08\x02"
        cid = cid_from(DAG_PB, hashlib.sha256(block).digest())
        blocks[cid] = block
    with pytest.raises(IntegrityError, match="not a file"):
        list(leaves(cid, blocks.get))
