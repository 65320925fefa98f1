"""The module functions that act on the default cache: invalidate, clear, flush, sync, gc, warm, store, fetch, pins, unpin."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachekit.cids import binary_cid
from cachekit.default import default
from cachekit.errors import IntegrityError, TierUnavailable, UsageError
from cachekit.model import EVERYWHERE, Key, Mark

if TYPE_CHECKING:
    from cachekit.tiers.ipfs import IpfsTier


def invalidate(*, tag: str | None = None, namespace: str | None = None, key: Key | str | None = None) -> bool:
    """Ends hits for a tag, a namespace, a tag of a namespace, or one key; returns whether something was removed."""
    for name, value in (("tag", tag), ("namespace", namespace)):
        if value == "" or value == EVERYWHERE:
            raise UsageError(
                f"invalidate({name}={value!r}): the {name} must be named; clear() ends the namespace's hits"
            )
    cache = default()
    if key is not None:
        return cache.drop(parse_key(key))
    if tag is not None:
        return cache.drop_marked([Mark(namespace or EVERYWHERE, "tag", tag, time.time_ns())])
    if namespace is not None:
        return cache.drop_marked([Mark(namespace, "namespace", "", time.time_ns())])
    raise UsageError("invalidate() takes tag=, namespace= or key=; clear() ends every hit of the namespace")


def parse_key(key: Key | str) -> Key:
    """The Key of `<namespace>/<hex digest>`, which is what `str(key)` gives."""
    if isinstance(key, Key):
        return key
    namespace, _, digest = key.rpartition("/")
    try:
        return Key(namespace, bytes.fromhex(digest))
    except ValueError as error:
        raise UsageError(f"{key!r} is not a key; str(f.key_for(...)) and `cachekit ls` give one") from error


def clear() -> bool:
    """Ends hits for every entry of the namespace stored before now, whoever wrote it."""
    return invalidate(namespace=default().settings.namespace)


def flush(timeout: float | None = None) -> None:
    """Returns when what was queued stands in the daemon; raises TierError where it does not within `timeout` seconds."""
    default().flush(timeout)


def sync() -> int:
    """Pulls what other writers published; returns how many entries are new since the last `sync()`."""
    cache = default()
    return 0 if cache.shared is None else cache.shared.pull(cache.settings.namespace)


def gc() -> dict[str, int]:
    """Drops what expired and what is over the limit; returns {"dropped": entries}."""
    disk = default().disk
    return {"dropped": disk.cull(everything_expired=True) if disk is not None else 0}


def warm(
    function: Callable[..., Any],
    calls: Iterable[Any],
    *,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Calls `function` for each of `calls` (a tuple of arguments, a dict of keywords, or one argument) on threads.

    `progress` is told how many are done. Returns their number; the first exception of the origin is raised.
    """

    def one(call: Any) -> None:
        if isinstance(call, dict):
            function(**call)
        elif isinstance(call, tuple):
            function(*call)
        else:
            function(call)

    # Imported where it is wanted: `import cachekit` does without.
    from concurrent.futures import ThreadPoolExecutor

    done = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="cachekit-warm") as pool:
        for _ in pool.map(one, calls):
            done += 1
            if progress is not None:
                progress(done)
    return done


def store(data: bytes | str | os.PathLike[str], pin: bool = False) -> str:
    """Puts bytes, or a file's bytes, into IPFS as they are, unencrypted; returns the CID.

    Raises UsageError for a file that cannot be read, TierError where the daemon does not take it.
    """
    try:
        content = data if isinstance(data, bytes) else Path(data).read_bytes()
    except OSError as error:
        raise UsageError(f"{os.fspath(data)!r} cannot be read: {error.strerror or error}") from error
    return _ipfs().store(content, pin=pin)


def fetch(cid: str) -> bytes:
    """The verified bytes of a CID. Raises UsageError for what is no CID, TierError where they cannot be had."""
    _check_cid(cid)
    return _ipfs().fetch(cid)


def pins() -> list[dict[str, Any]]:
    """What this machine asked the daemon to keep."""
    return [pin._asdict() for pin in _ipfs().pins()]


def unpin(subject: Key | str) -> bool:
    """Gives up the references to a CID, or one key's; the daemon unpins with the last, at the next flush."""
    if isinstance(subject, str):
        _check_cid(subject)
    return _ipfs().unpin(subject) > 0


def _check_cid(text: str) -> None:
    try:
        binary_cid(text)
    except IntegrityError as error:
        raise UsageError(
            f"{text!r} is not a CID that cachekit reads: those have 59 characters and begin with bafk or bafy. "
            "`ipfs cid base32 CID` turns an older one (Qm…) into such a one"
        ) from error


def _ipfs() -> IpfsTier:
    cache = default()
    if cache.shared is None:
        raise TierUnavailable(f"IPFS is off: {cache.status()['ipfs'].reason}", reason="off")
    return cache.shared.tier
