"""Files sealed in chunks: each opens without the others, and in its own place only."""

from __future__ import annotations

import io
import os

import pytest

from cachekit.errors import IntegrityError
from cachekit.ipfs.content.chunks import OVERHEAD_BYTES, PLAIN_BYTES, ChunkCipher, sealed_size
from cachekit.ipfs.trust.credential import Credential

MIB = 1 << 20
CREDENTIAL = Credential.create()
CIPHER = ChunkCipher.of(CREDENTIAL, "team")


def seal(data: bytes, cipher: ChunkCipher = CIPHER) -> list[bytes]:
    return list(cipher.sealed(io.BytesIO(data), len(data)))


@pytest.mark.parametrize("size", [0, 1, PLAIN_BYTES - 1, PLAIN_BYTES, PLAIN_BYTES + 1, MIB, 3 * PLAIN_BYTES, 3 * MIB])
def test_chunks_open_one_by_one(size: int) -> None:
    """Every chunk but the last has 1 MiB exactly, the whole has the announced size, and each opens by itself."""
    data = os.urandom(size)
    chunks = seal(data)
    assert {len(chunk) for chunk in chunks[:-1]} <= {MIB}
    assert OVERHEAD_BYTES <= len(chunks[-1]) <= MIB
    assert sum(map(len, chunks)) == sealed_size(size)
    opened = {index: CIPHER.opened(index, chunks[index], size) for index in reversed(range(len(chunks)))}
    assert b"".join(opened[index] for index in sorted(opened)) == data


def test_equal_files_seal_equally_inside_a_namespace_only() -> None:
    """One content has one CID for a team, and nothing in common with another namespace's or secret's."""
    data = os.urandom(MIB + 5)
    assert seal(data) == seal(data, ChunkCipher.of(CREDENTIAL, "team"))
    for other in (ChunkCipher.of(CREDENTIAL, "others"), ChunkCipher.of(Credential.create(), "team")):
        assert not set(seal(data)) & set(seal(data, other))
        with pytest.raises(IntegrityError):
            other.opened(0, seal(data)[0], len(data))


def test_a_chunk_has_one_place() -> None:
    """Equal chunks cannot change places, and a file cannot be cut or made longer: neither opens."""
    size = 3 * PLAIN_BYTES
    chunks = seal(bytes(size))
    with pytest.raises(IntegrityError):
        CIPHER.opened(1, chunks[0], size)
    for other in (size - PLAIN_BYTES, size + 1):
        with pytest.raises(IntegrityError):
            CIPHER.opened(0, chunks[0], other)


def test_no_nonce_serves_two_places() -> None:
    """Equal plaintext at another index, or in a file of another size, has another nonce: GCM forgives no reuse."""
    chunks = seal(bytes(4 * PLAIN_BYTES)) + seal(bytes(2 * PLAIN_BYTES))
    assert len({chunk[:12] for chunk in chunks}) == len(chunks)


def test_keys_are_not_those_of_payloads() -> None:
    """A chunk does not open as a payload of the same namespace."""
    with pytest.raises(IntegrityError):
        CREDENTIAL.unseal("team", seal(b"hello")[0])


@pytest.mark.parametrize("at", [0, 12, 500, -1])
def test_an_altered_chunk_does_not_open(at: int) -> None:
    """One bit, in nonce, text or tag."""
    chunk = bytearray(seal(os.urandom(1000))[0])
    chunk[at] ^= 1
    with pytest.raises(IntegrityError):
        CIPHER.opened(0, bytes(chunk), 1000)


@pytest.mark.parametrize("chunk", [b"", b"x" * 27, b"x" * 28])
def test_a_stump_does_not_open(chunk: bytes) -> None:
    """What is too short to be a chunk is an IntegrityError, as everything else that does not verify."""
    with pytest.raises(IntegrityError):
        CIPHER.opened(0, chunk, 0)


@pytest.mark.parametrize("size", [9, 11, PLAIN_BYTES + 1])
def test_a_file_that_changes_is_not_sealed(size: int) -> None:
    """A file with more or fewer bytes than it had is noticed at the latest at its end."""
    with pytest.raises(IntegrityError, match="changed"):
        list(CIPHER.sealed(io.BytesIO(bytes(10)), size))
