"""The module functions that act on the default cache: invalidate, flush, gc, warm, unpin, restore, …"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cachekit.cache.by_cid import check_cid, check_limit, ipfs
from cachekit.cache.default import beside, current_mode, default, registry
from cachekit.errors import TierError, UsageError
from cachekit.files.places import set_aside
from cachekit.files.temporary import remove
from cachekit.keys.keyer import parse_key
from cachekit.model import EVERYWHERE, Event, Key, Mark

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache
    from cachekit.config.settings import Ipfs
    from cachekit.tiers.disk import DiskTier


def invalidate(
    *,
    tag: str | None = None,
    namespace: str | None = None,
    key: Key | str | None = None,
    function: str | Callable[..., Any] | None = None,
) -> bool:
    """Makes stored answers count no more, in every process of the machine; returns whether there were any.

    Args:
        tag: entries with this tag, in all namespaces unless `namespace` names one.
        namespace: every entry of the namespace, or those of it that have `tag`.
        key: one entry: a Key, or its text, as `cachekit ls` prints it.
        function: the entries of a decorated function, or of the one with that dotted name, as `cachekit stats` prints it.

    Other machines follow when they have read it from IPFS. Raises UsageError for no argument, for an empty name, and
    where the invalidation cannot be written.
    """
    for name, value in (("tag", tag), ("namespace", namespace), ("function", function)):
        if value == "" or value == EVERYWHERE:
            raise UsageError(
                f"invalidate({name}={value!r}): the {name} must be named; clear() ends the namespace's hits"
            )
    cache = default()
    if function is not None:
        name = function if isinstance(function, str) else f"{function.__module__}.{function.__qualname__}"
        return cache.drop_marked([Mark(namespace or EVERYWHERE, "function", name, time.time_ns())])
    if key is not None:
        return cache.drop(parse_key(key) if isinstance(key, str) else key)
    if tag is not None:
        return cache.drop_marked([Mark(namespace or EVERYWHERE, "tag", tag, time.time_ns())])
    if namespace is not None:
        return cache.drop_marked([Mark(namespace, "namespace", "", time.time_ns())])
    raise UsageError("invalidate() takes tag=, namespace=, function= or key=; clear() ends every hit of the namespace")


def clear() -> bool:
    """Invalidates every entry of the namespace of the settings, whoever stored it; returns whether there were any."""
    return invalidate(namespace=default().settings.namespace)


def flush(timeout: float | None = None, *, ipfs: Ipfs | None = None) -> None:
    """Waits until everything that is to be uploaded is in the IPFS daemon, at most `timeout` seconds (60 if None).

    Raises TierError where that takes longer or the daemon refuses; what is queued stays queued. Returns at once where
    IPFS is off. `ipfs` wins over CACHEKIT_IPFS for this call, as in `store`.
    """
    beside(ipfs).flush(timeout)


def sync() -> int:
    """Reads what other machines published and invalidated; returns how many entries are new since the last `sync()`.

    0 where IPFS is off. Raises TierError where the daemon does not answer.
    """
    cache = default()
    return 0 if cache.team is None else cache.team.tier.pull(cache.settings.namespace)


def gc() -> dict[str, int]:
    """Deletes from this machine what expired, and what is over `CACHEKIT_SIZE_LIMIT`; pinned entries stay.

    In IPFS it lets go of pins whose time is over or that were given up, and takes what is dead out of what this machine
    published; how much the daemon frees then is its own collection's business.

    Returns how many of each: {"dropped": entries, "artifacts": artifacts, "leftovers": what killed processes left,
    contents of no artifact, digests of files that nobody asked for in 30 days, what was set aside as corrupt, and blocks
    in the directory of `CACHEKIT_STORE` that nobody used in 30 days}; and, where anything was freed there: "disk_bytes",
    "artifact_bytes", "index_rows": of what is known of the team, "ipfs_pins": CIDs let go of, "ipfs_lines" and
    "ipfs_segments": fewer of ours in the shared index. A daemon that fails is counted.
    Raises TierError where the disk lets nothing be deleted.
    """
    cache = default()
    if cache.disk is None or cache.artifacts is None or cache.digests is None:
        return {"dropped": 0, "artifacts": 0, "leftovers": 0}
    volumes = _stored(cache.disk), cache.artifacts.volume()
    now, aside = time.time_ns(), set_aside(cache.settings.dir)
    # First what goes without a word to SQLite, which needs room itself.
    for path in aside:
        remove(path)
    leftovers = len(aside) + cache.artifacts.collect(now) + cache.digests.collect(now) + cache.disk.collect(now)
    if cache.noted is not None:
        leftovers += cache.noted.collect(now)
    trimmed = registry().trim(cache.settings.size_limit)
    gone = {
        "dropped": cache.disk.cull(everything_expired=True),
        "artifacts": trimmed,
        "leftovers": leftovers + _collected(cache),
    }
    bytes_here = {
        "disk_bytes": max(0, volumes[0] - _stored(cache.disk)),
        "artifact_bytes": max(0, volumes[1] - cache.artifacts.volume()),
    }
    freed = {**bytes_here, **_collected_far(cache)}
    return {**gone, **{what: count for what, count in freed.items() if count}}


_FAR_SECONDS: Final = 30.0


def _stored(disk: DiskTier) -> int:
    try:
        return disk.stored()
    except TierError:  # a full disk lets nothing be asked; what is deleted next may give room
        return 0


def _collected_far(cache: Cache) -> dict[str, int]:
    if cache.team is None:
        return {}
    found = dict[str, int]()
    try:
        found["index_rows"] = cache.team.table.collect()
        if cache.team.breaker.allows():
            found |= cache.team.tier.collect(_FAR_SECONDS)
    except TierError as error:
        cache.tell(Event("error", "", "ipfs", error.reason, error=error))
    return found


def _collected(cache: Cache) -> int:
    try:
        return cache.team.collect() if cache.team is not None else 0
    except TierError as error:
        # What this machine has is collected all the same.
        cache.tell(Event("error", "", "ipfs", error.reason, error=error))
        return 0


def warm(
    function: Callable[..., Any],
    calls: Iterable[Any],
    *,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> int:
    """Fills the cache ahead of time: calls `function` for each of `calls`, and returns how many there were.

    Args:
        calls: for each call a tuple of arguments, a dict of keyword arguments, or the only argument.
        workers: how many threads call at the same time.
        progress: called after each with the number of calls that are done.

    The first exception that `function` raises is raised.
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


def pins() -> list[dict[str, Any]]:
    """What this machine asked the daemon to keep: a dict of `cid`, `namespace` and `key` for each entry that asks.

    `key` is the entry's key as others see it, 16 bytes. Raises TierUnavailable where IPFS is off.
    """
    return [pin._asdict() for pin in ipfs().tier.pins()]


def unpin(subject: Key | str) -> bool:
    """Lets go of what is pinned: a CID, a Key or its text, or an artifact's name; returns whether anything was.

    The daemon unpins at the next flush, unless another entry has the same content pinned. An artifact's files go with it,
    but for those of other pinned artifacts; on disk they may then be evicted. Raises UsageError for a text that names
    nothing, or several artifacts, TierUnavailable for a CID while IPFS is off.
    """
    if isinstance(subject, str):
        subject = _named(subject)
    if isinstance(subject, str):
        tier = ipfs().tier
        here = [one.key for one in registry().all() if one.cid == subject and one.key is not None]
        return sum([tier.unpin(subject), *map(_unpin_here, here)]) > 0
    ended_here = _unpin_here(subject)
    if ended_here and default().team is None:
        return True
    return ipfs().tier.unpin(subject) > 0 or ended_here


def restore(
    name_or_cid_or_key: Key | str, output: str | os.PathLike[str] | None = None, *, limit: int | None = None
) -> Path:
    """The path of an artifact; its files are fetched from the team where they are not here, and verified.

    Args:
        name_or_cid_or_key: an artifact's name, the beginning of its digest, its key, or the CID of its manifest.
        output: where a copy is to stand, replacing what stands there; else the path is the store's, and read-only.
        limit: the most bytes to fetch; None for CACHEKIT_SIZE_LIMIT.

    Raises TierError where no artifact here or in the team is called so (reason `not_found`) or its files cannot be had
    (`oversized`: they are more than `limit`), UsageError where several are, or where more than an earlier result stands at
    `output`.
    """
    text = str(name_or_cid_or_key)
    if not text:
        raise UsageError("restore() takes an artifact's name, key or CID; `cachekit ls --artifacts` lists them")
    check_limit(limit)
    if output is not None:
        from cachekit.artifacts.output import refuse_place

        refuse_place(Path(output), default().settings.dir)
    artifacts = registry()
    artifact = artifacts.find(text) or artifacts.find_far(text)
    if artifact is None:
        where = "" if default().team is not None else ", and IPFS is off"
        raise TierError(
            f"no artifact is known as {text!r}{where}; `cachekit ls --artifacts` lists those of this machine",
            reason="not_found",
        )
    if output is not None and artifact.manifest.kind == "file" and os.path.isdir(output):
        name = os.path.join(output, artifact.manifest.name)
        raise UsageError(
            f"{os.fspath(output)!r} is a directory, and the artifact a file: name the file, such as {name!r}"
        )
    most = default().settings.size_limit if limit is None else limit
    path = artifacts.path(artifact, remember=current_mode() in ("on", "refresh"), limit=most)
    if output is None:
        return path
    store = default().artifacts
    assert store is not None
    store.place(artifact.manifest, Path(output))
    return Path(output)


def _named(text: str) -> Key | str:
    """The key that is written there, or of the artifact that is called so; `text` itself where it is a CID."""
    if "/" in text:
        return parse_key(text)
    key = registry().key(text) if text and default().artifacts is not None else None
    if key is not None:
        return key
    try:
        check_cid(text)
    except UsageError as error:
        raise UsageError(f"no artifact of this machine is called {text!r}, and {error}") from error
    return text


def _unpin_here(key: Key) -> bool:
    cache = default()
    if cache.disk is None:
        return False
    if cache.memory is not None:
        cache.memory.drop(key)
    return registry().unpin(key)
