"""What a run leaves for the next one: a note of all that must still hold, so that a hit costs little (`commands/quick`)."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from cachekit.commands import quick
from cachekit.commands.process import shell_status
from cachekit.commands.quick import Note, Output
from cachekit.errors import TierError
from cachekit.files.digest_cache import telling
from cachekit.files.digests import LINE, SHELVED, Signature, file_digest, settled, signature
from cachekit.model import NANOSECONDS, Record

if TYPE_CHECKING:
    from cachekit.cache.cache import Cache

FUNCTION: Final = "cachekit.cli.outcome"
"""What statistics call a command."""
_MOST: Final = 4096
"""Paths that a note has at most: beyond, the whole way costs little more."""
_HOUR: Final = 3600 * NANOSECONDS
"""For so long a note holds by itself; then the whole way is gone once, which tells the store that it is used."""
_TOLD: Final = 300 * NANOSECONDS
"""The same where other machines may say that it is invalid."""
_TICK: Final = 0.012
"""Seconds after which a signature is settled."""
_YOUNG_NS: Final = 60 * NANOSECONDS

Seen = Mapping[str, Signature | None]


class Left(NamedTuple):
    """What an outcome's note is made of: where it stands, its record, status and outputs; and what was seen, and which
    generation of the ledger held, before its key was made.
    """

    place: Path
    record: Record
    status: int
    outputs: Sequence[Path]
    modes: Sequence[Mapping[str, int] | None]
    seen: Seen
    generation: int


def seen_of(paths: Iterable[str], trees: Iterable[Path], began: int) -> Seen | None:
    """The signatures of these paths, and of all below these; None for what is not there; no Seen where one may not last.

    To be called before their content is read, and after `began` (ns), when the look at them began.
    """
    found: dict[str, Signature | None] = {}
    for path in (*paths, *(below for tree in trees for below in _below(os.fspath(tree)))):
        try:
            known = found[path] = _written_out(path, began)
        except (FileNotFoundError, NotADirectoryError):
            found[path] = None
            continue
        except OSError:
            return None
        if not settled(known, began) or len(found) > _MOST:
            return None
    return found


def _written_out(path: str, began: int) -> Signature:
    status = os.stat(path)
    young = not settled(signature(status), began - _YOUNG_NS)
    # A store through a memory map moves the signature only when the page was written out since the last one; whoever
    # digests a large file sees to that.
    if young and stat.S_ISREG(status.st_mode) and status.st_size < SHELVED:
        with suppress(OSError), open(path, "rb", buffering=0) as stream:
            os.fsync(stream.fileno())
    return signature(status)


def _below(path: str) -> Iterator[str]:
    yield path
    if os.path.isdir(path):
        for above, directories, names in os.walk(path, followlinks=True):
            yield from (os.path.join(above, name) for name in (*directories, *names))


def settings_files() -> Iterator[str]:
    """Where a file of settings would be looked for."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        yield from (str(folder / "cachekit.toml"), str(folder / "pyproject.toml"))


def leave(cache: Cache, words: Sequence[str], left: Left, *, report: bool) -> None:
    """Writes the note of an outcome that was just had or kept; nothing where it would not say all."""
    directory, name = quick.directory_of(os.environ), quick.name_of(words, os.environ)
    if directory is None or name is None or cache.noted is None or Path(directory) != cache.settings.dir:
        return
    if left.outputs:
        time.sleep(_TICK)  # what was put there in this instant could be changed in it, and nobody would see it
    now = time.time_ns()
    outputs, trees = _outputs(left, now), seen_of((), _trees(left), now)
    if outputs is None or trees is None:
        return
    every = {**left.seen, **trees}
    # Of an image built with set times another one may have the same: it lasts as long as this system runs.
    lasting = all(known is None or telling(known) for known in every.values())
    instance = b"" if lasting else quick.instance()
    if not instance and not lasting:
        return
    until = min(now + (_HOUR if cache.settings.ipfs == "off" else _TOLD), left.record.expires or now + _HOUR)
    data = {
        "hit": True,
        "status": shell_status(left.status),
        "kept": True,
        "outputs": [str(path) for path in left.outputs],
    }
    head = (
        b"%d" % until,
        b"%d" % left.generation,
        b"%d" % shell_status(left.status),
        repr(left.record.seconds).encode(),
        os.fsencode(left.place),
        json.dumps(data, indent=2).encode() + b"\n" if report else b"",
        instance,
        _hex(left.place / "stdout"),
        _hex(left.place / "stderr"),
    )
    seen = [(os.fsencode(path), LINE % known if known else b"") for path, known in every.items()]
    note = Note(head, outputs, seen).packed()
    if len(note) < quick.LONGEST:
        cache.noted.write(name, note)


def _hex(path: Path) -> bytes:
    return file_digest(path).hex().encode()


def _trees(left: Left) -> Iterator[Path]:
    """The outputs that are trees, which a hit leaves as they are."""
    return (path for path, modes in zip(left.outputs, left.modes, strict=True) if modes is not None and path.is_dir())


def _outputs(left: Left, now: int) -> list[Output] | None:
    found = []
    for number, (path, modes) in enumerate(zip(left.outputs, left.modes, strict=True)):
        if modes is None or path.is_dir():
            continue
        if path.is_symlink():
            return None
        known = signature(path.stat())
        line = LINE % known if settled(known, now) and telling(known) else b"-"
        source = left.place / "outputs" / str(number) / path.name
        fields = (os.fsencode(path), os.fsencode(os.path.realpath(path.parent)), line, os.fsencode(source))
        found.append(Output(*fields, b"%d" % modes[""], _hex(source)))
    return found


def fold(cache: Cache) -> None:
    """Adds the hits that were counted by notes to the machine's totals."""
    mine = cache.settings.dir / f"{quick.HITS}-{os.getpid()}"
    with suppress(OSError, ValueError, TierError):  # a hit that is not counted is one all the same
        os.rename(cache.settings.dir / quick.HITS, mine)
        saved = [float(line) for line in mine.read_bytes().split()]
        mine.unlink()
        cache.ledger.add_totals({FUNCTION: {"calls": len(saved), "hits.disk": len(saved), "seconds.saved": sum(saved)}})
