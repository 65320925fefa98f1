"""What a storage backend is usually asked for, on the daemon of the settings: bytes, blocks, files and directories by CID."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import cachekit
from cachekit import UsageError

_BLOCK_BYTES: Final = 1 << 20
_SECONDS: Final = 30.0


def add_bytes(data: bytes, *, pin: bool = True) -> str:
    """Stores bytes as they are; the CID that `ipfs add --cid-version 1` gives. Raises TierError, as all of these do."""
    return cachekit.store(data, pin=pin)


def cat(cid: str, *, timeout: float = _SECONDS) -> bytes:
    """The verified bytes of a file: from the daemon, then from those that it knows, then from CACHEKIT_GATEWAYS."""
    return fetch(cid, timeout=timeout)


def fetch(
    cid: str, *, timeout: float = _SECONDS, gateways: Sequence[str] | None = None, limit: int | None = None
) -> bytes:
    """The verified bytes of a file: from our own daemon, then its peers, then each of `gateways` until one has them.

    Args:
        timeout: seconds for all of it. Without a gateway the peers may use them all; with one, half.
        gateways: URLs such as `https://ipfs.io`; None for CACHEKIT_GATEWAYS. What they send is held against the CID.
        limit: bytes at most; None for CACHEKIT_MEMORY_LIMIT.

    Raises TierError (`not_found`, `oversized`, …), UsageError for what is no CID.
    """
    return cachekit.fetch(cid, timeout=timeout, peers=True, gateways=gateways, limit=limit)


def pin(cid: str) -> None:
    """Has the daemon keep what it has under `cid`, until `unpin`."""
    cachekit.pin(cid)


def unpin(cid: str) -> bool:
    """Gives the pin of this machine up, at the next flush; whether there was one. Pins of others stay."""
    return cachekit.unpin(cid)


def block_put(data: bytes, *, pin: bool = False) -> str:
    """Stores one raw block; its CID. Raises UsageError for more than 1 MiB, which IPFS cuts: `add_bytes` does that."""
    if len(data) > _BLOCK_BYTES:
        raise UsageError(f"a block of {len(data)} bytes is more than 1 MiB; add_bytes() takes any size")
    return cachekit.store(data, pin=pin)


def block_get(cid: str, *, timeout: float = _SECONDS) -> bytes:
    """The verified bytes of a raw block. Raises UsageError for the CID of a file in several blocks (`cat` reads it)."""
    if str(cid).startswith("bafybei"):
        raise UsageError(f"{cid} is no raw block, but a file or a directory: cat() or get_to_path() reads it")
    return fetch(cid, timeout=timeout, limit=2 * _BLOCK_BYTES)


def add_path(path: str | os.PathLike[str], *, pin: bool = True) -> str:
    """Stores a file of any size, or a directory; its CID. Raises UsageError for links and what cannot be read."""
    return cachekit.store(Path(path), pin=pin)


def get_to_path(cid: str, path: str | os.PathLike[str], *, timeout: float = 10 * _SECONDS) -> Path:
    """Makes `path` the file or directory of `cid`, whole or not at all, and returns it."""
    return cachekit.fetch_to(cid, path, timeout=timeout, peers=True)
