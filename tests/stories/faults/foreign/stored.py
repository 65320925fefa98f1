"""What lies on this machine: records, values, artifacts, rows, notes, settings."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import json
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy
from stories.faults.foreign.reader import Reader, reader

from cachekit import distributed_cache
from cachekit.artifacts.manifest import EXECUTABLE, PLAIN, File, Manifest
from cachekit.cache import notes
from cachekit.cache.default import ROOT, configure, default
from cachekit.calls.answers.replies import pack_reply, unpack_reply
from cachekit.calls.streams.recording import PiecesCodec
from cachekit.cli import explain
from cachekit.commands import outputs
from cachekit.config.resolve import resolve
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.files import places
from cachekit.files.digest_cache import Digests
from cachekit.keys.code import shelf
from cachekit.keys.keyer import parse_key
from cachekit.model import EVERYWHERE, Key, Mark, Record, Reply, Saving
from cachekit.plan.retrying import retry_after
from cachekit.tiers import records
from cachekit.tiers.disk import DiskTier
from cachekit.tiers.ledger import Ledger
from cachekit.values.codecs import codec_for

KEY = Key("team", bytes(range(32)), "module.function")
NOW = 1_700_000_000_000_000_000


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    left: int
    right: str


@dataclasses.dataclass
class Point:
    x: float
    name: Colour | None = None


VALUES: list[Any] = [
    *(
        {"role": "user", "content": "hello " * 9},
        [0.25] * 20,
        "text\ud800",
        b"\0\xff" * 9,
        numpy.arange(6.0).reshape(2, 3),
    ),
    *((1, {2, 3}, {"a": b"x"}), {1: 2**70, "z": float("nan")}, Decimal("1.50"), timedelta(days=-1), Pair(1, "b")),
    *(Point(0.5, Colour.RED), [Point(1.0), Colour.BLUE], numpy.float32(1.5), "plain", 7, None),
    datetime(2024, 5, 17, 12, 30, tzinfo=timezone(timedelta(hours=2), "here")),
]
REPLIES = [
    Reply("plain", b'{"answer": 1}', {"model": "m"}, Saving(3, 4, 0.5)),
    Reply("stream", b"data: 1\n\ndata: 2\n\n", {}, Saving(1), ((5, 9), (7, 9))),
]
_FILES = (
    File("bin/run", 3, EXECUTABLE, hashlib.sha256(b"abc").hexdigest(), "b" + "a" * 58, ""),
    File("bin/walk", 0, PLAIN, "", "", "run"),
    File("data.txt", 5, PLAIN, hashlib.sha256(b"hello").hexdigest(), "", ""),
)
MANIFESTS = [
    Manifest("tree", "model", _FILES, ("bin", "empty"), False, {"function": "m.f"}),
    Manifest("file", "a.bin", (_FILES[2]._replace(path=""),), (), True, {}),
]
CODEC = codec_for("auto", lambda: tuple[Point, Pair, Colour])


def readers(place: Path) -> Iterator[Reader]:
    """Every reader of what lies on this machine; files are made in `place`."""
    yield from _records()
    yield from _values()
    yield from _calls(place)
    yield from _rows(place)
    yield from _files(place)
    yield from _words()


def stored() -> list[Record]:
    dumped = [(name, payload) for value in VALUES for name, payload in [CODEC.dump(value)]]
    return [Record(name, payload, NOW, NOW + 10**9, 60.0, 0.5, ("tag", "user:7")) for name, payload in dumped]


def _records() -> Iterator[Reader]:
    encoded = [records.encode(KEY, record) for record in stored()[:6]]
    yield reader("record", lambda data: records.decode(KEY, data), encoded, IntegrityError, verifies=True)
    bodies = [data[20:] for data in encoded]
    yield reader(
        "record with a right checksum", lambda body: _used(records.decode(KEY, checked(body))), bodies, IntegrityError
    )
    yield reader("record's header", lambda data: records.peek(data).over(NOW), encoded, IntegrityError)


def checked(body: bytes, key: Key = KEY) -> bytes:
    return records.MAGIC + hashlib.sha256(key.digest + body).digest()[:16] + body


def _used(record: Record) -> Any:
    return record.fresh(NOW), record.usable(NOW, record.grace), record.seconds + 1, str(record.tags)


def _values() -> Iterator[Reader]:
    by_name: dict[str, list[bytes]] = {}
    for value in VALUES:
        name, payload = CODEC.dump(value)
        by_name.setdefault(name, []).append(payload)
    tensors = codec_for("safetensors", lambda: None).dump({"b": numpy.ones((2, 2), "float32"), "a": numpy.arange(3)})
    by_name.setdefault(tensors[0], []).append(tensors[1])
    for name, seeds in by_name.items():
        yield reader(f"value in {name}", lambda data, name=name: CODEC.load(name, data), seeds, IntegrityError)
    pieces = PiecesCodec(CODEC)
    recorded = [pieces.dump(VALUES[:4])[1], pieces.dump([])[1], pieces.dump(["a"] * 9)[1]]
    yield reader("recorded stream", lambda data: pieces.load("stream", data), recorded, IntegrityError)
    packed = [pack_reply(reply) for reply in REPLIES]
    yield reader("reply", lambda data: _told(unpack_reply(data)), packed, IntegrityError)
    heads = [data[8 : -len(one.body)] for data, one in zip(packed, REPLIES, strict=True)]
    yield reader("reply with a right length", lambda head: _told(unpack_reply(_headed(head))), heads, IntegrityError)
    yield reader(
        "manifest", lambda data: Manifest.decode(data).digest, [one.encode() for one in MANIFESTS], IntegrityError
    )


def _headed(head: bytes) -> bytes:
    return b"CKA1" + len(head).to_bytes(4, "little") + head + REPLIES[1].body


def _told(reply: Reply) -> Any:
    """What hits and `show` do with one."""
    return list(reply.told()), dict(reply.about), sum(reply.saving), reply.kind + ""


def _calls(place: Path) -> Iterator[Reader]:
    """What a caller sees of it: a value, always."""

    @distributed_cache(version="1", stale_if_error="1h", tags="tag")
    def ask(x: int) -> Any:
        return VALUES

    before = ROOT.overrides
    configure(dir=place / "cache", ipfs="off")
    key, sketch = ask.key_for(1), ask.explain(1).sketch
    ROOT.replace(before)
    made = [CODEC.dump(VALUES), CODEC.dump("text"), CODEC.dump([1])]
    bodies = [records.encode(key, Record(*one, time.time_ns(), tags=("tag",)))[20:] for one in made]

    def hit(body: bytes) -> Any:
        cache = default()
        assert cache.disk is not None
        ask(1)
        cache.disk._writer.add(key.digest, checked(body, key), "-")
        cache.ledger.bump()
        return ask(1)

    def explained(data: bytes) -> Any:
        cache = default()
        assert cache.noted is not None
        cache.noted.write(notes._NAME + key.function.encode(), zlib.compress(data, 1))
        return str(ask.explain(2)), repr(ask.explain(1).as_dict() if hasattr(ask.explain(1), "as_dict") else "")

    yield reader("hit", hit, bodies, costs=10)
    assert sketch is not None
    noted = {
        "codes": {sketch.code_id: sketch.code},
        "notes": [["k", sketch.arguments_id, sketch.code_id, 1, 0, "", sketch.call]],
    }
    yield reader("explained", explained, [json.dumps(noted).encode()], costs=10)


# -- rows: what a bit in SQLite's own file makes of them, which SQLite does not see -------------


def _rows(place: Path) -> Iterator[Reader]:
    yield _marks(place / "marks")
    yield _entries(place / "disk")


def row_of(data: bytes, width: int) -> list[Any]:
    """A row's values out of JSON, `{"$": hex}` for bytes; raises ValueError for what no row can hold."""
    try:
        values = json.loads(data)
    except RecursionError:
        raise ValueError from None
    if not isinstance(values, list) or len(values) != width:
        raise ValueError
    return [bytes.fromhex(v["$"]) if isinstance(v, dict) and isinstance(v.get("$"), str) else _cell(v) for v in values]


def _cell(value: Any) -> Any:
    if isinstance(value, (dict, list)) or (isinstance(value, int) and abs(value) >= 2**63):
        raise ValueError
    return value


@contextlib.contextmanager
def sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def replaced(path: Path, table: str, row: list[Any]) -> None:
    """With this row alone. Raises ValueError where SQLite itself refuses it."""
    with sqlite(path) as connection:
        connection.execute(f"DELETE FROM {table}")
        try:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            raise ValueError from error


def _marks(place: Path) -> Reader:
    place.mkdir()
    ledger = Ledger(place)
    ledger.open()
    ledger.mark([Mark("team", "tag", "tag", NOW)])
    ledger.veil = lambda _key, _record: [("tag", "x")]
    rows = [["team", "tag", "tag", NOW], [EVERYWHERE, "namespace", "", NOW], ["team", "key", KEY.digest.hex(), NOW]]

    def read(data: bytes) -> Any:
        with contextlib.suppress(ValueError):
            replaced(place / "ledger.db", "marks", row_of(data, 4))
        ledger.generation[0] += 1
        return ledger.covers(KEY, stored()[0])

    return reader("invalidation's row", read, map(encoded_row, rows), TierError, costs=10)


def encoded_row(row: list[Any]) -> bytes:
    return json.dumps([{"$": cell.hex()} if isinstance(cell, bytes) else cell for cell in row]).encode()


def _entries(place: Path) -> Reader:
    place.mkdir()
    disk = DiskTier(place, 1 << 20)
    record = Record("json", b"[1]", NOW)
    disk.put(KEY, record)
    seeds = [
        encoded_row([KEY.digest, 1, records.encode(KEY, record), None, 1, 3, "-\x1fteam\x1f"]),
        encoded_row([KEY.digest, 1, None, f"ab/cd/{'e' * 28}.val", 2, 3, "-\x1fteam\x1f"]),
    ]

    def read(data: bytes) -> Any:
        with contextlib.suppress(ValueError):
            row = row_of(data, 7)
            with sqlite(place / "cache.db") as connection:
                connection.execute("DELETE FROM Cache")
            disk.put(KEY, record)
            with sqlite(place / "cache.db") as connection, contextlib.suppress(sqlite3.Error, UnicodeError):
                connection.execute(
                    "UPDATE Cache SET key = ?, raw = ?, value = ?, filename = ?, mode = ?, size = ?, tag = ?", row
                )
        list(disk.entries())
        disk.cull(everything_expired=True)
        disk.drop_where("team")
        found = disk.get(KEY)
        return None if found is None else (found.codec, found.payload)

    return reader("entry's row", read, seeds, TierError, verifies=False, costs=20)


# -- files of small things ----------------------------------------------------------------------


class Kept:
    """Stands for a shelf of Digests that has these bytes under every name; what was torn it does not show."""

    def __init__(self) -> None:
        self.data: bytes | None = None

    def read(self, _name: bytes, longest: int) -> bytes | None:
        return self.data if self.data is not None and len(self.data) <= longest else None

    def write(self, _name: bytes, body: bytes) -> None:
        self.data = body


def _files(place: Path) -> Iterator[Reader]:
    yield _digests(place / "digests")
    yield from _notes()
    yield _shelf()
    yield _settings(place / "cachekit.toml")
    yield _exported(place / "exported.json")
    yield _modes(place / "kept")
    yield _stamp(place / "stamped")


def _digests(place: Path) -> Reader:
    digests, known = Digests(place, lambda: "on"), (1, 2, 3, 4, 5)
    digests.put("/file", known, bytes(32))  # type: ignore[arg-type]
    file = next(path for path in place.rglob("*") if path.is_file())

    def read(data: bytes) -> Any:
        file.write_bytes(data)
        return digests.get("/file", known)  # type: ignore[arg-type]

    return reader("file's digest", read, [file.read_bytes()], verifies=True, miss=None, costs=3)


def _notes() -> Iterator[Reader]:
    trait = ["d" * 20, "shown", True]
    note = ["0123456789ab", "args", "code", 1_700_000_000_000, 0, "", {"x": trait}]
    text = json.dumps({"codes": {"code": {"function": trait}}, "notes": [note, [*note[:6], None]]}).encode()

    def read(data: bytes) -> Any:
        kept = Kept()
        kept.data = data
        found = notes._read("m.f", kept)  # type: ignore[arg-type]
        return len(found.notes), [note.created + note.expires for note in found.notes], notes._packed(found)

    yield reader("notes", read, [zlib.compress(text)])
    yield reader("notes, compressed", lambda data: read(zlib.compress(data, 1)), [text])


def _shelf() -> Reader:
    kept, mark, header = Kept(), "m" * 64, shelf._header()
    data = json.dumps(
        {mark: ["d" * 64, True, {"json": 0, "x": [True, ["a", "b"]]}, [[0, "os", ["path"]]], "f:1", "int"]}
    )

    def read(data: bytes) -> Any:
        kept.data = header + data
        for memo in (shelf._found, shelf._kept):
            memo.clear()
        with mock.patch.object(shelf, "shelf", lambda: kept):
            shelf.recall(_shelf)  # type: ignore[arg-type]
            return shelf.facts_at(mark)

    return reader("what was read of sources", read, [data.encode()])


def _settings(path: Path) -> Reader:
    text = b'ttl = "30m"\nsize_limit = "4GB"\nipfs = "off"\nipfs_timeout = 0.5\nnamespace = "n"\ndir = "x"\npatience = 10\n'

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        return resolve({}, toml=path).settings

    return reader("settings file", read, [text, b"ttl = 3\n"], UsageError, costs=3)


def _exported(path: Path) -> Reader:
    trait = ["d", "text", False]
    found = {
        **{"cachekit": "0.1.0", "python": "3.11", "call": "m:f", "arguments": [1], "key": f"team/{'0' * 64}"},
        **{"code": {"function": trait}, "arguments_seen": {"x": trait}},
    }

    def read(data: bytes) -> Any:
        path.write_bytes(data)
        theirs = explain._read(str(path))
        return (
            theirs["call"] + theirs["key"],
            f"{theirs['cachekit']}",
            dict(theirs["code"]),
            dict(theirs["arguments_seen"]),
        )

    return reader("exported explanation", read, [json.dumps(found).encode()], UsageError, costs=3)


def _modes(place: Path) -> Reader:
    output = place / "out.txt"
    place.mkdir()
    output.write_text("hello")
    kept = place / "kept"
    kept.mkdir()
    outputs.write_about(kept, 0, outputs.collect([output], kept))
    file = kept / outputs.ABOUT

    def read(data: bytes) -> Any:
        file.write_bytes(data)
        outputs.place(kept, [output], outputs.read_about(kept, 1)[1])
        return output.read_text()

    return reader("command's permissions", read, [file.read_bytes()], UsageError, IntegrityError, costs=20)


def _stamp(place: Path) -> Reader:
    places.prepare(place)

    def read(data: bytes) -> Any:
        (place / "cachekit-format").write_bytes(data)
        places.prepare(place)

    return reader("directory's stamp", read, [b"1\n"], UsageError, costs=3)


# -- one line that somebody wrote ---------------------------------------------------------------


class Refused(Exception):
    """What an SDK raises for a 429."""


def _words() -> Iterator[Reader]:
    yield reader("key", lambda data: parse_key(_text(data)), [str(KEY).encode()], UsageError)
    yield reader("arguments of explain", lambda data: explain._parsed(_text(data)), [b'{"x": [1, "a"]}'], UsageError)
    names = ("TTL", "SIZE_LIMIT", "IPFS_API", "IPFS_TIMEOUT", "DIR", "MODE", "NAMESPACE", "STRICT", "IPFS_AUTH")
    values = (b"30m", b"4GB", b"/ip4/127.0.0.1/tcp/5001", b"0.5", b"~/x", b"on", b"team", b"1", b"basic:u:p")

    def setting(name: str) -> Callable[[bytes], Any]:
        return lambda data: resolve({f"CACHEKIT_{name}": _text(data).replace("\0", ""), "HOME": "/home"}, toml=None)

    for name, value in zip(names, values, strict=True):
        yield reader(f"CACHEKIT_{name}", setting(name), [value], UsageError)
    dates = [b"Wed, 21 Oct 2026 07:28:00 GMT", b"120", b"1.5", b"Wed, 21 Oct 2026 07:28:00 +0200"]
    yield reader("Retry-After", _after, dates)
    yield reader("retry_after", lambda data: _after(data, number=True), [b"2", b"0.5"])


def _after(data: bytes, *, number: bool = False) -> Any:
    error: Any = Refused()
    if number:
        with contextlib.suppress(ValueError, RecursionError):
            error.retry_after = json.loads(data)
    else:
        error.headers = {"Retry-After": _text(data)}
    seconds = retry_after(error, time.time())
    assert seconds is None or seconds >= 0
    return seconds


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
