"""Files and directories by the CID that Kubo itself would give them, readable with `ipfs cat` and `ipfs ls`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cachekit.artifacts.portable import DEEPEST, TOO_DEEP, name_problem
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.chunks import pieces as file_pieces
from cachekit.ipfs.content.cids import CHUNK_BYTES, FileCid, binary_cid, directory_block
from cachekit.ipfs.content.engine import Engine
from cachekit.ipfs.content.transfer import IDLE_SECONDS
from cachekit.ipfs.content.unixfs import BlockOf, directory, pieces

_MOST_ENTRIES: Final = 4096
"""Of one directory: Kubo cuts larger ones into several blocks."""


def add(path: Path, transport: Engine, deadline: Deadline, depth: int = 0) -> tuple[str, int]:
    """The CID of a file or directory, all of which the daemon has afterwards, unpinned; and how many bytes that are.

    Raises UsageError for what is neither, links included, and TierError.
    """
    mode = path.lstat().st_mode if depth else path.stat().st_mode
    if stat.S_ISREG(mode):
        return _added(path, transport, deadline)
    names = sorted(os.listdir(path)) if stat.S_ISDIR(mode) else []
    if not stat.S_ISDIR(mode) or depth == DEEPEST or len(names) > _MOST_ENTRIES:
        what = f"has more than {_MOST_ENTRIES} entries" if names else "is no file and no directory"
        raise UsageError(f"{path} {TOO_DEEP if depth == DEEPEST else what}")
    entries = [(name, *add(path / name, transport, deadline, depth + 1)) for name in names]
    cid, block, stored = directory_block(entries)
    if len(block) > CHUNK_BYTES:
        raise UsageError(f"{path} is too large a directory for one block")
    transport.import_blocks([(binary_cid(cid), block)], timeout=deadline.left())
    return cid, stored


def _added(path: Path, transport: Engine, deadline: Deadline) -> tuple[str, int]:
    made = FileCid()

    def fed() -> Iterator[bytes]:
        with path.open("rb") as file:
            for piece in file_pieces(file, size, CHUNK_BYTES):
                deadline.left()
                made.update(piece)
                yield piece

    size = path.stat().st_size
    answered = transport.add_stream(fed(), size=size, pin_name=None, idle=min(IDLE_SECONDS, deadline.left()))
    cid, stored = made.measured()
    if answered != cid:
        raise IntegrityError("the daemon stored other bytes than it was given", reason="wrong_cid")
    return cid, stored


def write(cid: str, output: Path, block_of: BlockOf, *, limit: int, depth: int = 0) -> int:
    """Makes `output`, where nothing stands, what `cid` names; how many bytes that are.

    Raises as `unixfs.pieces`; IntegrityError `bad_manifest` for a name that leads out or is none everywhere.
    """
    entries = directory(cid, block_of)
    if entries is None:
        with output.open("xb") as file:
            return sum(map(file.write, pieces(cid, block_of, limit=limit)))
    if depth == DEEPEST:
        raise IntegrityError(f"{cid} {TOO_DEEP}", reason="bad_manifest")
    output.mkdir()
    size = 0
    for number, (name, child) in enumerate(entries):
        if problem := name_problem(name):
            raise IntegrityError(f"{name!r} in {cid} {problem}", reason="bad_manifest")
        # An entry costs at least its inode: a small DAG may name one file any number of times.
        if size > limit or number > _MOST_ENTRIES:
            raise TierError(f"{cid} has more than {limit} bytes", reason="oversized")
        try:
            size += write(child, output / name, block_of, limit=limit - size, depth=depth + 1) + _ENTRY_BYTES
        except FileExistsError as error:  # nothing stood there but what came of this very directory
            raise IntegrityError(f"{cid} has two entries that would be {name!r}", reason="bad_manifest") from error
    return size


_ENTRY_BYTES: Final = 4096
