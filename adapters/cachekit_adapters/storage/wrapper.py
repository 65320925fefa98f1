"""`StorageWrapper`: write bytes under a name, read them by name or by what `write_file` answered.

With a daemon they are in IPFS, and here as well; without one they are here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final, Literal

import cachekit
from cachekit import MISS, Event, TierError, UsageError, distributed_cache
from cachekit_adapters.storage.local import Entry, LocalFiles, digest_of

Data = bytes | bytearray | memoryview | str
_SECONDS: Final = 10.0


class StorageWrapper:
    """Files in IPFS where a daemon answers, else in `cache_dir` alone.

    Args:
        enable_distributed: True and False decide, whatever the environment says; None asks the settings of cachekit.
        cache_dir: where contents stand; `storage` in the cache's directory if None. Nothing outside it is read or written.
        auto_detect_ci: False overlooks that this is CI; the settings else keep IPFS off there.
        force_fallback: True is the local directory alone, and wins over everything.
        encrypt: seal what goes into IPFS under the namespace's secret. The CID is that of what the daemon holds.
        gateways: HTTP gateways for what neither the daemon nor its peers have; None for CACHEKIT_GATEWAYS.

    Names are shared with the team where `cache_dir` is None: what was written under one there is found here. Nothing
    happens before the first call.
    """

    def __init__(
        self,
        enable_distributed: bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        auto_detect_ci: bool = True,
        *,
        force_fallback: bool = False,
        encrypt: bool = True,
        gateways: Sequence[str] | None = None,
    ) -> None:
        self._wanted = False if force_fallback else enable_distributed
        self._detect_ci = auto_detect_ci
        self._given = None if cache_dir is None else Path(os.path.abspath(cache_dir))
        self._encrypt = encrypt
        self._gateways = gateways
        self._files: LocalFiles | None = None

    # -- where ------------------------------------------------------------------------------------------------

    @property
    def is_distributed(self) -> bool:
        """Whether what is written now goes into IPFS: asked for, and a daemon answers at this moment."""
        return bool(self.backend_status["distributed"])

    @property
    def backend_status(self) -> dict[str, Any]:
        """`distributed`, `backend` ("ipfs" or "local"), `reason` (why, naming the variable or the error), `cache_dir`."""
        directory = str(self.get_cache_dir())
        if self._wanted is False:
            return {"distributed": False, "backend": "local", "reason": "asked for in code", "cache_dir": directory}
        try:
            on, reason = astuple(cachekit.status(ipfs=self._ipfs)["ipfs"])
        except UsageError as error:  # a credential, say, that only the user can repair: what is written stays here
            on, reason = False, str(error)
        if on and self._read_only:
            on, reason = False, f"read-only: {_names.cache.resolved.reason('ipfs')}"
        return {"distributed": on, "backend": "ipfs" if on else "local", "reason": reason, "cache_dir": directory}

    def get_cache_dir(self) -> Path:
        """The directory of the local contents; it need not exist."""
        return self._local.directory

    def ensure_cache_dir(self) -> Path:
        """The same, made. Raises OSError."""
        directory = self.get_cache_dir()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    # -- what -------------------------------------------------------------------------------------------------

    def write_file(self, data: Data, filename: Any = None, pin: bool = False) -> str:
        """Stores bytes, or text as UTF-8; the CID where they are in IPFS, else the path of the copy here.

        Args:
            data, filename: in either order: bytes are the data; of two strings the one with whitespace or braces is, where
                neither or both have them the first. The name is any text or path; it is only a name.
            pin: the daemon keeps them until `delete`; what is not pinned may be collected there, and stays here.

        Raises UsageError for no data or several, OSError where nothing could be stored.
        """
        content, name = _sorted(data, filename)
        digest = digest_of(content)
        cid = self._stored(content, pin)
        name = name or cid or digest
        before = self._local.entry(name)
        entry = Entry(name, digest, len(content), cid=cid, pinned=pin)
        path = self._local.write(entry, content)
        if before is not None and before.cid not in ("", cid):
            self._released(before)
        if not cid:
            return str(path)
        if name != cid:
            self._local.write(entry._replace(name=cid), content)
        if self._shares_names:
            _tell_team(name, cid, len(content))
        return cid

    def read_file(self, identifier: Any, pin: bool = False) -> bytes | None:
        """The bytes of a name, a CID, or a path that `write_file` gave; None where they cannot be had.

        With `pin` the daemon keeps them from now on.
        """
        text = _name(identifier)
        here = self._local.read(text)
        if here is None and (found := self._local.at(text)) is not None:
            here = found[1]
        data = self._fetched(text) if here is None else here
        if pin and data is not None:
            self._stored(data, pin=True)
        return data

    def exists(self, identifier: Any) -> bool:
        """Whether `read_file` finds it here or, for a CID or a shared name, in IPFS."""
        return self.read_file(identifier) is not None

    def list_files(self, pattern: str | None = None) -> list[str]:
        """The names that were written here, sorted; those that match `pattern`, as in a shell, if it is given."""
        from fnmatch import fnmatchcase

        names = {entry.name for entry in self._local.all() if entry.name not in (entry.cid, entry.digest)}
        return sorted(name for name in names if pattern is None or fnmatchcase(name, pattern))

    def delete(self, identifier: Any) -> bool:
        """Forgets a name, CID or path here, and gives its pin up; whether it was known."""
        text = _name(identifier)
        name = text if self._local.entry(text) is not None else self._local.name_of(text)
        entry = None if name is None else self._local.entry(name)
        if name is None or entry is None:
            return False
        if self._shares_names and entry.cid:
            cachekit.unpin(_names.key_for(name))
            _names.invalidate(name)
        dropped = self._local.drop(name)
        self._released(entry)
        return dropped

    # -- how --------------------------------------------------------------------------------------------------

    @property
    def _local(self) -> LocalFiles:
        if self._files is None:
            self._files = LocalFiles(self._given or _names.cache.settings.dir / "storage")
        return self._files

    @property
    def _shares_names(self) -> bool:
        return self._given is None and cachekit.current_mode() in ("on", "refresh")

    @property
    def _ipfs(self) -> Literal["rw", "auto"] | None:
        """What wins over the settings: what is said in code; and where only CI keeps IPFS off, which is overlooked."""
        if self._wanted:
            return "rw"
        return "auto" if not self._detect_ci and _names.cache.resolved.origins["ipfs"].source == "ci" else None

    @property
    def _read_only(self) -> bool:
        return self._ipfs is None and bool(_names.cache.settings.ipfs == "ro")

    def _stored(self, content: bytes, pin: bool) -> str:
        """The CID; "" where IPFS is off or fails, which is counted."""
        if self._wanted is False or self._read_only:
            return ""
        try:
            return cachekit.store(content, pin, encrypt=self._encrypt, timeout=_SECONDS, ipfs=self._ipfs)
        except (TierError, UsageError) as error:
            _count(error)
            return ""

    def _fetched(self, text: str) -> bytes | None:
        if self._wanted is False:
            return None
        shared = _shared(text) if self._given is None else MISS
        cid, limit = (text, None) if shared is MISS else (shared["cid"], shared["size"] + 4096)
        try:
            return cachekit.fetch(
                cid, limit=limit, timeout=_SECONDS, peers=True, gateways=self._gateways, ipfs=self._ipfs
            )
        except UsageError:  # a name that nobody wrote
            return None
        except TierError as error:
            _count(error)
            return None

    def _released(self, entry: Entry) -> None:
        """Lets go of the CID of an entry that is gone, unless another name has it."""
        if not entry.cid or any(one.cid == entry.cid != one.name for one in self._local.all()):
            return
        self._local.drop(entry.cid)
        try:
            if entry.pinned and self._wanted is not False:
                cachekit.unpin(entry.cid)
        except TierError as error:
            _count(error)


@distributed_cache(ttl=None, version="1", pin=True)
def _names(name: str) -> dict[str, Any]:
    """Which CID a name has, and of how many bytes; told by `put`, read by `peek`, and never computed."""
    raise LookupError(name)


def _tell_team(name: str, cid: str, size: int) -> None:
    try:
        _names.put({"cid": cid, "size": size}, name)
    except UsageError as error:  # a name that is no text for a key
        _count(error)


def _shared(name: str) -> Any:
    try:
        return _names.peek(name)
    except UsageError:
        return MISS


def _count(error: Exception) -> None:
    cachekit.tell(Event("error", "storage", "ipfs", getattr(error, "reason", "storage"), error=error))


def _sorted(data: Any, filename: Any) -> tuple[bytes, str]:
    """The content, and its name or ""."""
    given = [one for one in (data, filename) if one is not None]
    binary = [one for one in given if isinstance(one, (bytes, bytearray, memoryview))]
    texts = [one for one in given if isinstance(one, str)]
    likely = [text for text in texts if any(character.isspace() or character in "{}" for character in text)]
    candidates = binary or (likely if len(likely) == 1 else texts)
    if len(binary) > 1 or not candidates:
        raise UsageError("write_file() takes the data, bytes or text, and a name for it, which is any text or path")
    content = candidates[0]
    rest = [one for one in given if one is not content]
    return content.encode() if isinstance(content, str) else bytes(content), _name(rest[0]) if rest else ""


def _name(name: Any) -> str:
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else name
    if not isinstance(text, str) or not text:
        raise UsageError(f"{name!r} is no name: give a text, a path, or a CID")
    return text


_WRAPPERS: dict[tuple[Any, ...], StorageWrapper] = {}
_LOCK = threading.Lock()


def get_storage_wrapper(
    enable_distributed: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    auto_detect_ci: bool = True,
    *,
    force_fallback: bool = False,
    encrypt: bool = True,
) -> StorageWrapper:
    """The wrapper with these flags: one for each combination, so that nobody gets another caller's."""
    given = None if cache_dir is None else os.path.abspath(cache_dir)
    key = enable_distributed, given, auto_detect_ci, force_fallback, encrypt
    with _LOCK:
        if key not in _WRAPPERS:
            _WRAPPERS[key] = StorageWrapper(
                enable_distributed, given, auto_detect_ci, force_fallback=force_fallback, encrypt=encrypt
            )
        return _WRAPPERS[key]


def reset_storage_wrapper() -> None:
    """Forgets the wrappers that were handed out; what they stored stays."""
    with _LOCK:
        _WRAPPERS.clear()
