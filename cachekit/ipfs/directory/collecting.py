"""Which blocks of a directory nobody needs any more.

What a payload's CID stands for only its team can tell, and a directory may serve several. So a block counts as needed
while somebody stored or read it within `UNUSED_SECONDS`, or a pin or link keeps it.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from cachekit.errors import IntegrityError, TierError
from cachekit.ipfs.content.unixfs import BlockOf, below
from cachekit.ipfs.directory.files import USED_SECONDS, Files
from cachekit.ipfs.directory.layout import BLOCKS, LINKS, PINS, TREE, Where, sharded

UNUSED_SECONDS: Final = 30 * 24 * 3600.0
_NAME_BYTES: Final = 4096


def all_below(cid: str, block_of: BlockOf) -> Iterator[str]:
    """`cid` and every CID below it, each once; raises as `unixfs.pieces` where a block with links is missing."""
    seen, waiting = set[str](), [cid]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += below(one, block_of)
            yield one


@dataclass(frozen=True)
class Collection:
    """One sweep over `files`. Everything raises TierError."""

    files: Files
    block_of: BlockOf

    def run(self, now: float, go_on: Callable[[], None]) -> int:
        """Remove what is needed no more at `now`, in s since the epoch, and what killed writers left; how many blocks.

        `go_on` is called now and then; what it raises ends the sweep.
        """
        kept, removed = self._kept(go_on), 0
        for shard in _directories(self.files, (BLOCKS,)):
            go_on()
            for name, found in self.files.entries(shard):
                if now - found.st_mtime > UNUSED_SECONDS and name not in kept and _is_block(shard, name):
                    self.files.remove((*shard, name))
                    removed += 1
        for kind in (BLOCKS, TREE, LINKS, PINS):
            for directory in all_directories(self.files, (kind,)):
                go_on()
                for left in self.files.abandoned(directory, now - USED_SECONDS):
                    self.files.remove(left)
        return removed

    def _kept(self, go_on: Callable[[], None]) -> set[str]:
        kept = set[str]()
        for root in self._roots():
            go_on()
            with contextlib.suppress(IntegrityError):  # no CID, or broken: there is nothing to keep
                kept.add(root)
                try:
                    kept.update(all_below(root, self.block_of))
                except TierError as error:
                    if error.reason != "not_found":
                        raise
        return kept

    def _roots(self) -> Iterator[str]:
        for shard in _directories(self.files, (PINS,)):
            yield from (name for name, _ in self.files.entries(shard))
        for directory in all_directories(self.files, (LINKS,)):
            for name, found in self.files.entries(directory):
                if stat.S_ISREG(found.st_mode):
                    yield (self.files.read((*directory, name), _NAME_BYTES) or b"").decode(errors="replace")


def all_directories(files: Files, where: Where) -> Iterator[Where]:
    """A directory and all below it, each before those in it."""
    yield where
    for inner in _directories(files, where):
        yield from all_directories(files, inner)


def _directories(files: Files, where: Where) -> list[Where]:
    return [(*where, name) for name, found in files.entries(where) if stat.S_ISDIR(found.st_mode)]


def _is_block(shard: Where, name: str) -> bool:
    # Whatever else somebody put there is none of our business.
    try:
        return sharded(BLOCKS, name) == (*shard, name)
    except IntegrityError:
        return False
