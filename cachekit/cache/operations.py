"""The module functions that act on the default cache: invalidate, flush, gc, warm, store, fetch, unpin, restore, …"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cachekit.cache.default import current_mode, default
from cachekit.errors import IntegrityError, TierError, TierUnavailable, UsageError
from cachekit.model import EVERYWHERE, Key, Mark

if TYPE_CHECKING:
    from cachekit.cache.registry import Registry
    from cachekit.ipfs.tier import IpfsTier


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
    return 0 if cache.shared is None else cache.shared.tier.pull(cache.settings.namespace)


def gc() -> dict[str, int]:
    """Drops what expired, what dead processes left, and what is over the limit; pinned things stay.

    Returns {"dropped": entries, "artifacts": contents, "leftovers": temporaries, contents
    that nothing has, and digests of files that nobody asked for in 30 days}.
    """
    cache = default()
    dropped = cache.disk.cull(everything_expired=True) if cache.disk is not None else 0
    if cache.artifacts is None or cache.disk is None:
        return {"dropped": dropped, "artifacts": 0, "leftovers": 0}
    now = time.time_ns()
    leftovers = cache.artifacts.collect(now) + (cache.digests.collect(now) if cache.digests is not None else 0)
    return {"dropped": dropped, "artifacts": registry().trim(cache.settings.size_limit), "leftovers": leftovers}


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
    """Gives up the references to a CID, or one key's; the daemon unpins with the last, at the next flush.

    An artifact's files go with it, but for those that another pinned artifact has. On disk it may then be evicted. The
    name of an artifact of this machine stands for its key. Raises UsageError where several have that name.
    """
    if isinstance(subject, str):
        subject = _named(subject)
    if isinstance(subject, str):
        tier = _ipfs()
        here = [one.key for one in registry().all() if one.cid == subject and one.key is not None]
        return sum([tier.unpin(subject), *map(_unpin_here, here)]) > 0
    ended_here = _unpin_here(subject)
    if ended_here and default().shared is None:
        return True
    return _ipfs().unpin(subject) > 0 or ended_here


def restore(name_or_cid_or_key: Key | str, output: str | os.PathLike[str] | None = None) -> Path:
    """An artifact's read-only path, its files fetched and verified; with `output` it is placed there, replacing what is.

    Takes a name, the beginning of a digest, a key, or the CID of a manifest. Raises TierError `not_found` where nothing
    like it is known here or to the team, UsageError where it fits several artifacts, or where replacing what stands at
    `output` would take more with it.
    """
    text = str(name_or_cid_or_key)
    if not text:
        raise UsageError("restore() takes an artifact's name, key or CID; `cachekit ls --artifacts` lists them")
    if output is not None:
        from cachekit.artifacts.output import refuse_place

        refuse_place(Path(output), default().settings.dir)
    known = registry()
    found = known.find(text) or known.find_far(text)
    if found is None:
        where = "" if default().shared is not None else ", and IPFS is off"
        raise TierError(
            f"no artifact is known as {text!r}{where}; `cachekit ls --artifacts` lists those of this machine",
            reason="not_found",
        )
    if output is not None and found.manifest.kind == "file" and os.path.isdir(output):
        name = os.path.join(output, found.manifest.name)
        raise UsageError(
            f"{os.fspath(output)!r} is a directory, and the artifact a file: name the file, such as {name!r}"
        )
    path = known.path(found, remember=current_mode() in ("on", "refresh"))
    if output is None:
        return path
    store = default().artifacts
    assert store is not None
    store.place(found.manifest, Path(output))
    return Path(output)


def registry() -> Registry:
    """The artifacts of the default cache. Raises TierUnavailable where there is no disk tier."""
    cache = default()
    if cache.artifacts is None or cache.disk is None:
        raise TierUnavailable(f"there is no disk tier: {cache.status()['disk'].reason}", reason="off")
    from cachekit.cache.registry import Registry

    return Registry(cache.artifacts, cache.disk, cache.shared, cache.ledger.covers, cache.settings.namespace)


def _named(text: str) -> Key | str:
    """The key that is written there, or of the artifact that is called so; `text` itself where it is a CID."""
    if "/" in text:
        return parse_key(text)
    found = registry().key(text) if text and default().artifacts is not None else None
    if found is not None:
        return found
    try:
        _check_cid(text)
    except UsageError as error:
        raise UsageError(f"no artifact of this machine is called {text!r}, and {error}") from error
    return text


def _unpin_here(key: Key) -> bool:
    cache = default()
    if cache.artifacts is None or cache.disk is None:
        return False
    if cache.memory is not None:
        cache.memory.drop(key)
    return registry().unpin(key)


def _check_cid(text: str) -> None:
    from cachekit.ipfs.content.cids import binary_cid

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
