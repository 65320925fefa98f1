"""CIDs computed here, held against the ones a real Kubo computes."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachekit.errors import IntegrityError
from cachekit.ipfs.content import cids

MIB = 1 << 20


@pytest.fixture(scope="session")
def kubo_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    from cachekit.ipfs.node import daemon, install

    home = tmp_path_factory.mktemp("kubo-cids")
    api = daemon.start(home, binary=Path(install.install(home).path)).api
    yield int(api.rpartition("/")[2])
    daemon.stop(home)


def _post(port: int, call: str, data: bytes) -> bytes:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n' + data + b"\r\n--x--\r\n"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", f"/api/v0/{call}", body, {"Content-Type": "multipart/form-data; boundary=x"})
    answer = connection.getresponse()
    read = answer.read()
    connection.close()
    assert answer.status == 200, read
    return read


def _added(port: int, data: bytes, options: str) -> str:
    call = f"add?only-hash=true&cid-version=1&raw-leaves=true&hash=sha2-256&{options}"
    told: Any = json.loads(_post(port, call, data))
    return str(told["Hash"])


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 5 * MIB])
def test_a_file_has_the_cid_that_kubo_gives_it(kubo_port: int, size: int) -> None:
    """On both sides of every boundary of one chunk."""
    data = os.urandom(size)
    assert cids.file_cid(data) == _added(kubo_port, data, "chunker=size-1048576&max-file-links=174")


@pytest.mark.parametrize("count", [1, 3, 4, 5, 16, 17, 18, 64, 65, 80])
def test_a_deep_tree_has_the_cid_that_kubo_gives_it(
    kubo_port: int, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Up to four levels; with small nodes and chunks, so that it need not be a gigabyte."""
    monkeypatch.setattr(cids, "CHUNK_BYTES", 1024)
    monkeypatch.setattr(cids, "LINKS", 4)
    data = os.urandom(1024 * count - 3)
    assert cids.file_cid(data) == _added(kubo_port, data, "chunker=size-1024&max-file-links=4")


def test_a_raw_block_is_the_file_of_one_chunk() -> None:
    """Up to one chunk the two agree; beyond it a file is another thing."""
    assert cids.raw_cid(b"x" * MIB) == cids.file_cid(b"x" * MIB)
    assert cids.raw_cid(b"x" * (MIB + 1)) != cids.file_cid(b"x" * (MIB + 1))


def test_a_known_cid() -> None:
    """The CID of `hello`, as anyone's tools print it."""
    assert cids.raw_cid(b"hello") == "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq"


@pytest.mark.parametrize("codec", [cids.RAW, cids.DAG_PB])
def test_a_cid_goes_to_its_digest_and_back(codec: int) -> None:
    """Nothing is lost on the way."""
    digest = hashlib.sha256(b"hello").digest()
    cid = cids.cid_from(codec, digest)
    assert cids.digest_of(cid) == digest
    assert cids.binary_cid(cid) == bytes([1, codec, 0x12, 0x20]) + digest


_GOOD = cids.raw_cid(b"hello")


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "b",
        "bé",
        _GOOD[:-1],
        _GOOD + "a",
        _GOOD.upper(),
        "z" + _GOOD[1:],
        _GOOD[:-1] + "r",
        "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn",
        "../" + _GOOD,
    ],
)
def test_what_is_no_such_cid_is_refused(bad: str) -> None:
    """Other versions, bases and spellings included: a CID has one spelling here."""
    with pytest.raises(IntegrityError):
        cids.binary_cid(bad)


def test_kubo_reads_our_car_and_has_every_block(kubo_port: int) -> None:
    """The archive is one that Kubo imports whole."""
    blocks = [os.urandom(size) for size in (0, 1, 127, 128, 2048, MIB)]
    car = cids.encode_car([(cids.binary_cid(cids.raw_cid(block)), block) for block in blocks])
    told = json.loads(_post(kubo_port, "dag/import?pin-roots=false&stats=true", car))
    assert told["Stats"]["BlockCount"] == len(blocks)
    for block in blocks:
        assert _post(kubo_port, f"block/get?arg={cids.raw_cid(block)}&offline=true", b"") == block


def test_a_car_of_nothing_is_refused() -> None:
    """It would have no root."""
    with pytest.raises(ValueError, match="at least one"):
        cids.encode_car([])
