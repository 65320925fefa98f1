"""CARv1 files: what is written is read again, and what is not whole, or says more than there may be, is refused."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.car import FAN_OUT, CarFile, CarWriter
from cachekit.ipfs.content.cids import RAW, binary_cid, car_header, car_section, cid_from, encode_car, file_cid, raw_cid
from cachekit.ipfs.content.unixfs import blocks, directory, read_file
from cachekit.ipfs.kubo.transport import KuboTransport

MIB = 1 << 20


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + MIB] for at in range(0, max(len(data), 1), MIB)]


def _pair(data: bytes) -> tuple[bytes, bytes]:
    return binary_cid(raw_cid(data)), data


def _reason(data: bytes) -> str:
    with pytest.raises(IntegrityError) as caught:
        CarFile(io.BytesIO(data))
    return caught.value.reason


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, 5 * MIB, 176 * MIB])
def test_a_file_comes_back(size: int, tmp_path: Path) -> None:
    """Of any size: its CID is the one that it has elsewhere, and its blocks are all there."""
    piece = os.urandom(MIB)
    pieces = [piece] * (size // MIB) + ([piece[: size % MIB]] if size % MIB or not size else [])
    with (tmp_path / "x.car").open("w+b") as file:
        car = CarWriter(file)
        root, _ = car.file(pieces)
        car.end(root)
        file.seek(0)
        with CarFile(file) as found:
            assert found.root == root == file_cid(b"".join(pieces))
            assert found.blocks == car.blocks
            assert read_file(root, found.block, limit=size) == b"".join(pieces)


def test_many_links_hang_from_shelves() -> None:
    """No directory is larger than what Kubo leaves in one block, and all are found."""
    file = io.BytesIO()
    car = CarWriter(file)
    links = [car.file([b"%d" % number]) for number in range(FAN_OUT + 5)]
    root, stored = car.shelves(links)
    car.end(root)
    file.seek(0)
    with CarFile(file) as found:
        above = directory(root, found.block) or []
        below = [child for _, shelf in above for child in directory(shelf, found.block) or []]
        assert [cid for _, cid in below] == [cid for cid, _ in links]
        assert stored > sum(size for _, size in links)


def test_the_order_means_nothing() -> None:
    """Blocks may stand anywhere, and twice."""
    pairs = [_pair(b"one"), _pair(b"two"), _pair(b"one")]
    with CarFile(io.BytesIO(encode_car(pairs))) as car:
        assert [car.block(raw_cid(data)) for data in (b"two", b"one", b"three")] == [b"two", b"one", None]


@pytest.mark.parametrize("where", [0, 5, 30, 61, 70, 99, 105])
def test_an_altered_byte_is_found(where: int) -> None:
    """In the header, a length, a CID or a block."""
    whole = bytearray(encode_car([_pair(b"x" * 20)]))
    whole[where] ^= 1
    assert _reason(bytes(whole)) in ("not_a_car", "truncated", "oversized", "bad_cid", "wrong_bytes")


def test_a_cut_file_is_refused() -> None:
    """Wherever it ends; at the end of a block, where the root is missing."""
    whole = car_header(_pair(b"two")[0]) + encode_car([_pair(b"one"), _pair(b"two")])[len(HEAD) :]
    assert {_reason(whole[:end]) for end in range(len(whole))} == {"not_a_car", "truncated"}


HEAD = car_header(_pair(b"x")[0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not_a_car"),
        (b"\xff" * 64, "not_a_car"),
        (b"\x80" * 64, "not_a_car"),
        (HEAD.replace(b"\x81\xd8", b"\x9f\xd8"), "not_a_car"),
        (HEAD.replace(b"\x58\x25", b"\x5b\xff"), "not_a_car"),
        (HEAD.replace(b"version\x01", b"version\x02"), "not_a_car"),
        (HEAD + b"\xff" * 10 + b"\x01", "oversized"),
        (HEAD + b"\xff\xff\xff\x7f" + bytes(100), "oversized"),
        (HEAD + b"\x00" * 10, "oversized"),
        (HEAD + b"\xa8\x00" + bytes(40), "oversized"),
        (HEAD + b"\x80\x80\x80\x80\x80\x01", "oversized"),
        (HEAD + b"\x24" + b"\x00" * 36, "bad_cid"),
        (HEAD + b"\x28" + b"\x12\x20" + bytes(38), "bad_cid"),
        (HEAD + car_section(binary_cid(raw_cid(b"x")), b"y") + b"y", "wrong_bytes"),
    ],
)  # fmt: skip
def test_what_says_more_than_there_may_be_is_refused(data: bytes, reason: str) -> None:
    """Hostile lengths, heads of CBOR, CIDs of other kinds: none is read further, whatever it asks for."""
    assert _reason(data) == reason


def test_a_block_that_is_too_large_is_refused() -> None:
    """IPFS hands none around that is larger."""
    block = bytes((2 << 20) + 1)
    assert _reason(HEAD + car_section(_pair(block)[0], block) + block) == "oversized"


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    """Behind a good head: with a word of ours, whatever it is."""
    for garbage in (data, HEAD + data):
        try:
            CarFile(io.BytesIO(garbage)).close()
        except IntegrityError:
            continue
        raise AssertionError(garbage)


def test_all_blocks_of_a_file_are_given() -> None:
    """Those of its nodes too, each verified."""
    file, data = io.BytesIO(), os.urandom(2 * MIB + 1)
    car = CarWriter(file)
    root, _ = car.file(_pieces(data))
    car.end(root)
    file.seek(0)
    with CarFile(file) as found:
        given_blocks = list(blocks(root, found.block))
        assert len(given_blocks) == car.blocks == 4
        assert all(cid_from(cid[1], cid[4:]) == file_cid(block) or cid[1] != RAW for cid, block in given_blocks)


def test_a_part_that_is_named_often_is_given_once() -> None:
    """Or a small file that names one block without end would be read without end."""
    file = io.BytesIO()
    car = CarWriter(file)
    root, _ = car.file([bytes(MIB)] * 400)
    car.end(root)
    file.seek(0)
    with CarFile(file) as found:
        given_blocks = [cid for cid, _ in blocks(root, found.block)]
        assert len(given_blocks) == len(set(given_blocks)) == 4


def test_kubo_gives_what_was_written(kubo_api: str, run_ipfs: Callable[..., str], tmp_path: Path) -> None:
    """`ipfs dag import` takes the file, and what `ipfs dag export` writes is read again."""
    data = os.urandom(3 * MIB)
    with (tmp_path / "x.car").open("wb") as file:
        car = CarWriter(file)
        root, _ = car.directory([("data", car.file(_pieces(data)))])
        car.end(root)
    assert root in run_ipfs("dag", "import", tmp_path / "x.car")
    kubo = KuboTransport(kubo_api)
    assert kubo.cat(file_cid(data), size=len(data), timeout=20) == data
    kubo.close()
    (tmp_path / "y.car").write_bytes(run_ipfs("dag", "export", root, binary=True))  # type: ignore[arg-type]
    with (tmp_path / "y.car").open("rb") as file, CarFile(file) as found:
        assert found.root == root
        assert read_file(file_cid(data), found.block, limit=len(data)) == data
