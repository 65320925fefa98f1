"""`store` and `fetch`: bytes in IPFS by what they are, whoever asks for them."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cachekit.cache.default import beside
from cachekit.errors import IntegrityError, TierUnavailable, UsageError
from cachekit.model import Event

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.config.settings import Ipfs
    from cachekit.ipfs.content.unixfs import BlockOf
    from cachekit.ipfs.sharing import Team

_BOUND: Final = 60.0
"""Seconds that it may take where nobody says."""


def store(
    data: bytes | str | os.PathLike[str],
    pin: bool = False,
    *,
    encrypt: bool = False,
    timeout: float | None = None,
    ipfs: Ipfs | None = None,
) -> str:
    """Puts `data`, bytes or the path of a file or directory, into IPFS; returns the CID of what the daemon holds.

    Args:
        pin: the daemon keeps it until `unpin(cid)`.
        encrypt: seal it under the namespace's secret; `fetch` opens it for who has that secret. Else it is stored as it
            is, and `ipfs cat` shows it; directories are.
        timeout: seconds to wait at most; 60 if None.
        ipfs: wins over CACHEKIT_IPFS for this call.

    Raises UsageError for a file that cannot be read, and for links in a directory, TierError where the daemon does not
    take it, TierUnavailable where IPFS is off.
    """
    cache, bound = beside(ipfs), _BOUND if timeout is None else timeout
    team = _team(cache)
    try:
        if not isinstance(data, bytes) and not encrypt:
            return team.tier.by_hand.add(Path(data), pin=pin, timeout=bound)
        content = data if isinstance(data, bytes) else Path(data).read_bytes()
    except OSError as error:
        raise UsageError(f"{os.fspath(data)!r} cannot be read: {error.strerror or error}") from error
    if encrypt:
        from cachekit.ipfs.content.sealed import seal

        content = seal(team.credential, cache.settings.namespace, content)
    return team.tier.by_hand.store(content, pin=pin, timeout=bound)


def pin(cid: str, *, timeout: float | None = None, ipfs: Ipfs | None = None) -> None:
    """Has the daemon keep what it has under `cid`, a file or a directory, until `unpin(cid)`.

    Waits at most `timeout` seconds (60 if None). Raises UsageError for a text that is no CID, TierError `not_found` where
    the daemon lacks some of it, TierUnavailable where IPFS is off.
    """
    check_cid(cid)
    _team(beside(ipfs)).tier.by_hand.pin(cid, timeout=_BOUND if timeout is None else timeout)


def fetch(
    cid: str,
    *,
    limit: int | None = None,
    timeout: float | None = None,
    peers: bool = False,
    gateways: Sequence[str] | None = None,
    ipfs: Ipfs | None = None,
) -> bytes:
    """The bytes of the file that `cid` names, verified against it; what `store(encrypt=True)` sealed is opened.

    The daemon is asked for what it has; then with `peers` the daemons that it knows, then each gateway.

    Args:
        limit: the most bytes that it may have; None for CACHEKIT_MEMORY_LIMIT, as they come into memory.
        timeout: seconds for all of it; 60 if None.
        gateways: URLs of trustless HTTP gateways, such as `https://ipfs.io`; None for CACHEKIT_GATEWAYS. They see the CID.
        ipfs: wins over CACHEKIT_IPFS for this call.

    Raises UsageError for a text that is no CID, TierError where the bytes cannot be had (TierUnavailable: IPFS is off, and
    there is no gateway; reason `oversized`: they are more than `limit`; `unsealable`: they are sealed under another secret).
    """
    check_cid(cid)
    check_limit(limit)
    cache = beside(ipfs)
    settings = cache.settings
    most = min(settings.memory_limit or settings.size_limit, settings.size_limit) if limit is None else limit
    from cachekit.ipfs.content.sealed import opened
    from cachekit.ipfs.content.unixfs import read_file

    content = read_file(cid, _blocks(cache, timeout, peers, gateways), limit=most)
    return opened(None if cache.team is None else cache.team.credential, settings.namespace, content)


def fetch_to(
    cid: str,
    output: str | os.PathLike[str],
    *,
    limit: int | None = None,
    timeout: float | None = None,
    peers: bool = False,
    gateways: Sequence[str] | None = None,
    ipfs: Ipfs | None = None,
) -> Path:
    """Makes `output` the file or directory that `cid` names, verified, in constant memory, whole or not at all.

    `limit` is CACHEKIT_SIZE_LIMIT if None; the rest is as in `fetch`, but that nothing is opened which was sealed. Raises
    UsageError where something stands at `output` that is no file, no link and no empty directory, or that cannot be written.
    """
    check_cid(cid)
    check_limit(limit)
    cache, place = beside(ipfs), Path(output)
    from cachekit.artifacts.output import put_path, refuse_place
    from cachekit.files.temporary import temporary
    from cachekit.ipfs.content import trees

    refuse_place(place, cache.settings.dir)
    _refuse_taken(place)
    blocks = _blocks(cache, timeout, peers, gateways)
    try:
        with temporary(cache.settings.dir / "artifacts" / "tmp") as work:
            trees.write(cid, work / "fetched", blocks, limit=cache.settings.size_limit if limit is None else limit)
            put_path(work / "fetched", place, movable=True)
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror or error}") from error
    return place


def _refuse_taken(place: Path) -> None:
    """Raises UsageError where putting a file in the place of what stands there would lose more than a file."""
    try:
        mode = place.lstat().st_mode
        free = stat.S_ISREG(mode) or stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and not any(place.iterdir()))
    except OSError:  # nothing stands there, or writing there fails as well, and says why
        return
    if not free:
        raise UsageError(f"{place} is there, and no file: name another place, or remove it first")


def _blocks(cache: Cache, timeout: float | None, peers: bool, gateways: Sequence[str] | None) -> BlockOf:
    from cachekit.ipfs.breaker import Deadline
    from cachekit.ipfs.content.gateways import Gateways

    urls = cache.settings.gateways if gateways is None else _urls(gateways)
    gates = Gateways(urls, functools.partial(_refused, cache))
    bound = _BOUND if timeout is None else timeout
    if cache.team is None and urls:
        deadline = Deadline(bound)
        return lambda cid: gates.block(cid, deadline)
    return _team(cache).tier.sources(bound, peers=peers, gateways=gates).block


def _urls(gateways: Sequence[str]) -> tuple[str, ...]:
    from cachekit.config.settings import TABLE

    urls: tuple[str, ...] = next(one for one in TABLE if one.setting == "gateways").read(gateways, "fetch(gateways=)")
    return urls


def _refused(cache: Cache, reason: str) -> None:
    cache.tell(Event("error", "", "ipfs", reason))


def ipfs() -> Team:
    """What the default cache shares. Raises TierUnavailable where IPFS is off, with the reason."""
    return _team(beside(None))


def _team(cache: Cache) -> Team:
    if cache.team is None:
        raise TierUnavailable(f"IPFS is off: {cache.status()['ipfs'].reason}", reason="off")
    return cache.team


def check_limit(limit: int | None) -> None:
    """Raises UsageError for what is no number of bytes, nor None."""
    if limit is not None and (type(limit) is not int or limit <= 0):
        raise UsageError(f"limit={limit!r} is no size; give a number of bytes, more than 0, or None for the settings'")


def check_cid(text: str) -> None:
    """Raises UsageError for what is no CID that we read."""
    from cachekit.ipfs.content.cids import binary_cid

    try:
        binary_cid(text if isinstance(text, str) else "")
    except IntegrityError as error:
        raise UsageError(
            f"{text!r} is not a CID that cachekit reads: those have 59 characters and begin with bafk or bafy. "
            "`ipfs cid base32 CID` turns an older one (Qm…) into such a one"
        ) from error
