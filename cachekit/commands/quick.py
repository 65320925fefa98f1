"""A hit of `cachekit run` without the cache: one note says what must still hold, and where the outcome lies.

It was left by a run that had the outcome the whole way (`commands/notes`). Whatever is in doubt (another file, another
generation of the ledger, an option that is not known here) is for that way to decide. People put `cachekit run` before
everything, so this imports almost nothing.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from stat import S_IMODE, S_ISREG

from cachekit.files.frames import CHECKED, checksum, place_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HITS = "hits"
"""The file in the cache directory where a hit leaves the seconds that it saved, a line each."""
UNREAD = 128 + 13  # `SIGPIPE`, as for most commands: the reader has seen enough (`| head`)
LONGEST = 1 << 22
"""Bytes that a note has at most."""
_TAKING = ("--input", "--output", "--env", "--ttl")
_BARE = ("--pin", "--cwd", "--store-failures", "--json")
_HEEDED = ("CACHEKIT_", "PYTHON", "XDG_", "IPFS_KIT_DISABLE", "STORAGE_FORCE_LOCAL")
"""How the names of variables begin that decide which outcome it is, besides PATH, HOME and those named by --env."""
_FORMAT = b"cachekit quick 1"
_WIDTH = 6
_HEAD = 9


class Output:
    """A file that the command makes: where, in which real directory, its signature there; the store's copy, its mode and
    SHA-256.
    """

    __slots__ = ("digest", "mode", "parent", "path", "signature", "source")

    def __init__(self, path: bytes, parent: bytes, signature: bytes, source: bytes, mode: bytes, digest: bytes) -> None:
        self.path, self.parent, self.signature, self.source = path, parent, signature, source
        self.mode, self.digest = mode, digest

    def fields(self) -> tuple[bytes, ...]:
        return self.path, self.parent, self.signature, self.source, self.mode, self.digest


class Note:
    """What must still hold, and the outcome.

    `head`: until when (ns since the epoch), the ledger's generation, the status, the seconds saved, the outcome's path,
    what `--json` prints, the `instance` where that matters, and the SHA-256 of `stdout` and `stderr`. `seen` are paths
    with their signatures, b"" for nothing.
    """

    __slots__ = (
        *("generation", "head", "instance", "outcome", "outputs", "report", "saved", "seen", "status", "stderr", "stdout"),
        "until",
    )  # fmt: skip

    def __init__(self, head: Sequence[bytes], outputs: Sequence[Output], seen: Sequence[tuple[bytes, bytes]]) -> None:
        self.head, self.outputs, self.seen = head, outputs, seen
        self.until, self.generation, self.status, self.saved, self.outcome, self.report, self.instance = head[:7]
        self.stdout, self.stderr = head[7:]

    def packed(self) -> bytes:
        outputs = [field for output in self.outputs for field in output.fields()]
        seen = [field for pair in self.seen for field in pair]
        return b"\0".join([*self.head, b"%d" % len(self.outputs), *outputs, *seen])


def replayed(words: Sequence[str]) -> int | None:
    """The exit status of a hit, after it was replayed; None where the whole way has to be gone."""
    if "cachekit.cache.default" in sys.modules or not _is_plain(words):  # `configure()` may say another directory
        return None
    try:
        directory, name = directory_of(os.environ), name_of(words, os.environ)
        note = None if directory is None or name is None else _read(directory, name)
        if directory is None or note is None or not _holds(note, directory):
            return None
        changed = [output for output in note.outputs if look(output.path) != output.signature]
        if not all(map(_may_restore, changed)):
            return None
        for output in changed:
            _restore(output)
        sources = [_right(note.outcome + b"/stdout", note.stdout), _right(note.outcome + b"/stderr", note.stderr)]
        _count(directory, note)
    except (OSError, ValueError):
        return None
    return _told(note, sources, aside="--json" in (_options(words) or ()))


def _told(note: Note, sources: Sequence[int], *, aside: bool) -> int:
    try:
        for source, to in zip(sources, (2 if aside else 1, 2), strict=True):
            _copy(source, to)
        _write(1, note.report)
    except BrokenPipeError:
        return UNREAD
    except OSError as error:
        sys.stderr.write(f"cachekit: {error}\n")
        return 1
    return int(note.status)


def _is_plain(words: Sequence[str]) -> bool:
    return os.name == "posix" and sys.stdout is not None and sys.stderr is not None and _options(words) is not None


def _options(words: Sequence[str]) -> Sequence[str] | None:
    """What stands before the command; None for what only the whole parser knows."""
    place = 0
    while place < len(words) and words[place].startswith("-"):
        word = words[place]
        if word == "--":
            return words[:place]
        if word in _TAKING:
            place += 1
        elif word not in _BARE and word.partition("=")[0] not in _TAKING:
            return None
        place += 1
    return words[:place] if place < len(words) else None


def directory_of(environ: Mapping[str, str]) -> str | None:
    """The cache directory, where the environment alone says it plainly; a settings file that says another is seen later."""
    place = environ.get("CACHEKIT_DIR", "").strip()
    if place:
        # A home that is not the environment's to say is left to the whole way.
        return None if place.startswith("~") else os.path.join(os.getcwd(), place)
    if sys.platform != "linux":
        return None
    home = environ.get("XDG_CACHE_HOME", "").strip() or os.path.join(environ.get("HOME", ""), ".cache")
    return os.path.join(home, "cachekit") if os.path.isabs(home) else None


def name_of(words: Sequence[str], environ: Mapping[str, str]) -> bytes | None:
    """What a note is written under: the words, the directory, the variables that count; None where there is none."""
    options = _options(words)
    if options is None:
        return None
    named = {options[i + 1] if word == "--env" else word[6:] for i, word in enumerate(options) if word[:5] == "--env"}
    held = sorted(name for name in environ if name.startswith(_HEEDED) or name in ("PATH", "HOME") or name in named)
    values = [f"{name}={environ[name]}" for name in held]
    fields = [os.getcwd(), str(os.isatty(1)), str(os.isatty(2)), given(), *words, "", *values]
    return _FORMAT + b"\0" + b"\0".join(map(os.fsencode, fields))


def given() -> str:
    """The digest of the rest of standard input where that is a file, "" for anything else. It is not moved on.

    Who runs us in a loop over that file (`while read …; done < FILE`) reads the next line of it.
    """
    digest = hashlib.sha256()
    for piece in rest_of_stdin():
        digest.update(piece)
    return digest.hexdigest() if is_file(0) else ""


def rest_of_stdin() -> Iterator[bytes]:
    """The pieces of the rest of standard input where that is a file."""
    place = os.lseek(0, 0, os.SEEK_CUR) if is_file(0) else 0
    while is_file(0) and (piece := os.pread(0, 1 << 20, place)):
        place += len(piece)
        yield piece


def is_file(descriptor: int) -> bool:
    """Whether that is open, and a regular file."""
    try:
        return S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def look(path: str | bytes) -> bytes:
    """The signature of what stands at a path, as `files.digests` has it; b"" where nothing does."""
    try:
        status = os.stat(path)
    except OSError:
        return b""
    return b"%d %d %d %d %d" % (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def generation(directory: str) -> bytes:
    """The ledger's counter, which every invalidation moves."""
    with open(os.path.join(directory, "generation"), "rb", buffering=0) as stream:
        return b"%d" % int.from_bytes(stream.read(8), sys.byteorder)


def instance() -> bytes:
    """Stands for this start of the system, or of the container: what lies in its image is the same for so long.

    b"" where the system does not say.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as boot, open("/proc/1/stat", "rb") as first:
            return boot.read().strip() + b" " + first.read().rpartition(b")")[2].split()[19]
    except (OSError, IndexError):
        return b""


def _read(directory: str, name: bytes) -> Note | None:
    status = os.stat(directory)
    if status.st_uid != os.geteuid() or S_IMODE(status.st_mode) & 0o022:
        return None
    with open(os.path.join(directory, "notes", place_of(name)), "rb", buffering=0) as stream:
        data = stream.read(LONGEST)
    body = data[:-CHECKED]
    if data[-CHECKED:] != checksum(name, body):
        return None
    fields = body.split(b"\0")
    end = _HEAD + 1 + _WIDTH * int(fields[_HEAD])
    outputs = [Output(*fields[place : place + _WIDTH]) for place in range(_HEAD + 1, end, _WIDTH)]
    return Note(fields[:_HEAD], outputs, list(zip(fields[end::2], fields[end + 1 :: 2], strict=True)))


def _holds(note: Note, directory: str) -> bool:
    return (
        time.time_ns() < int(note.until)
        and generation(directory) == note.generation
        and note.instance in (b"", instance())
        and all(look(path) == signature for path, signature in note.seen)
    )


def _right(path: bytes, digest: bytes) -> int:
    """A file of the store, opened and read once. Raises ValueError where it is not what it was.

    Its signature does not say: the store gives equal files of other outcomes the same inode.
    """
    source = os.open(path, os.O_RDONLY)
    if _copy(source, None) != digest:
        raise ValueError("the store's copy has other bytes")
    os.lseek(source, 0, os.SEEK_SET)
    return source


def _may_restore(output: Output) -> bool:
    """Whether a file, and nothing else, is to be put where a file or nothing stands."""
    plain = not os.path.lexists(output.path) or S_ISREG(os.lstat(output.path).st_mode)
    return plain and os.path.realpath(os.path.dirname(output.path)) == output.parent


def _restore(output: Output) -> None:
    new = os.path.join(output.parent, b".cachekit-%d-0-%s" % (os.getpid(), os.urandom(6).hex().encode()))
    mask = os.umask(0o077)
    os.umask(mask)
    source, target = os.open(output.source, os.O_RDONLY), os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if _copy(source, target) != output.digest:
            raise ValueError("the store's copy has other bytes")
        status = os.fstat(source)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fchmod(target, int(output.mode) & ~mask)
        os.rename(new, output.path)
    except BaseException:
        os.unlink(new)
        raise
    finally:
        os.close(source)
        os.close(target)


def _copy(source: int, target: int | None) -> bytes:
    """The SHA-256 of the rest of a file, in hex, which is written to `target`."""
    digest = hashlib.sha256()
    while piece := os.read(source, 1 << 20):
        digest.update(piece)
        if target is not None:
            _write(target, piece)
    return digest.hexdigest().encode()


def _write(target: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(target, rest) :]


def _count(directory: str, note: Note) -> None:
    file = os.open(os.path.join(directory, HITS), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, note.saved + b"\n")
    finally:
        os.close(file)
