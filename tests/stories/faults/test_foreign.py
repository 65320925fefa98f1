"""Bytes from elsewhere: each reader gives a value, or raises the one class that it documents, whatever comes.

10 000 changed inputs; with `CACHEKIT_TEST_FAULTS=all` a million. `foreign/guided.py` tries the same readers under atheris.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

pytest.importorskip("resource")
pytest.importorskip("tritonclient.http")

from stories.faults.foreign import stored
from stories.faults.foreign.reader import BYTES, Reader, grown
from stories.faults.foreign.shared import LINES, OWNER, WRITER
from stories.faults.foreign.table import faults, readers, share

from cachekit import distributed_cache, gc, stats
from cachekit.ipfs.index import segments
from cachekit.model import Record
from cachekit.tiers import records

INPUTS: Final = 1_000_000 if os.environ.get("CACHEKIT_TEST_FAULTS") == "all" else 10_000
DEEP: Final = b"[" * 5000
HUGE: Final = 10**400
OUTCOMES: Final = (
    *(b'{"status":0,"modes":%s}' % modes for modes in (b"[[]]", b'[{"":0.5}]', b"[]", b"[1]")),
    *(b"\xff", b"{}", b"[]", b'{"status":"0","modes":[{}]}', DEEP),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> list[Reader]:
    return readers(tmp_path_factory.mktemp("foreign"))


@pytest.mark.timeout(3600)
def test_whatever_comes_is_read_or_refused(table: list[Reader]) -> None:
    """No other exception, no other value than the original's where bytes verify, within bounds of time and memory."""
    inputs, found = share(table, INPUTS), dict[str, list[str]]()
    for number, reader in enumerate(table):
        before = grown()
        told = list(itertools.islice(faults(reader, inputs[reader.name], number), 3))
        if grown() - before > BYTES:
            told.append(f"{reader.name}: the process grew by {(grown() - before) >> 20} MiB")
        found |= {reader.name: told} if told else {}
    assert not found


def test_every_seed_is_read(table: list[Reader]) -> None:
    """What a real writer wrote has a value: else nothing is said of what is made of it."""
    for reader in table:
        for seed in reader.seeds:
            if reader.name != "Kubo's HTTP" or b"500 " not in seed:
                reader.read(seed)


def _body(**fields: Any) -> bytes:
    return records.encode(stored.KEY, Record("json", b"1", stored.NOW, stored.NOW, **fields))


def _segment(**fields: Any) -> bytes:
    """As a certified writer may write it, unsigned."""
    signed = segments.encode(LINES[:1], credential=OWNER, namespace="team", writer=WRITER, sequence=7)[:-64]
    line = LINES[0]._replace(**fields)
    return signed[: -segments._LINE.size] + segments._pack(line)


def _row(*cells: Any) -> bytes:
    return json.dumps(cells).encode()


def _found() -> Iterator[tuple[str, bytes]]:
    yield "record with a right checksum", _body(grace=math.nan)[20:]
    yield "record's header", _body(grace=math.nan)
    yield "reply with a right length", b'{"kind":1,"about":{},"saving":[3,4,0.5],"pieces":[]}'
    yield "reply with a right length", b'{"kind":"plain","about":3,"saving":["3"],"pieces":[]}'
    yield "reply with a right length", b'{"kind":"plain","about":{},"saving":[1],"pieces":["a","b"]}'
    yield "invalidation's row", _row("team", "tag", {"$": "00"}, stored.NOW)
    yield "invalidation's row", _row("team", "tag", "tag", "then")
    yield "entry's row", _row({"$": "00"}, 1, None, "x", 2, -math.inf, "-")
    yield "entry's row", _row(7, 1, {"$": "00"}, None, 1, 1 << 30, "-")
    yield "entry's row", _row({"$": stored.KEY.digest.hex()}, 1, None, {"$": "00"}, 2, 3, "-")
    yield "entry's row", _row({"$": stored.KEY.digest.hex()}, 1, None, "a\0b", 2, 3, "-")
    yield "notes, compressed", DEEP
    yield "notes, compressed", b'{"codes":{},"notes":[["k","a","c",[1],0,"",null]]}'
    yield from (("what was read of sources", data) for data in (b"{", b"-1", b"\xff", DEEP))
    yield from (("command's permissions", data) for data in OUTCOMES)
    yield "exported explanation", json.dumps(dict.fromkeys(EXPORTED, {}) | {"call": 1}).encode()
    yield "arguments of explain", DEEP
    yield "settings file", b"x = " + DEEP
    yield "Retry-After", b"Wed, 21 Oct 2026 07:184467440737095516164:00 GMT"
    yield "retry_after", b"%d" % HUGE
    yield "signed segment", _segment(size=2**64 - 1)
    yield "signed segment", _segment(expires=1, grace=math.nan)
    yield "index's row", _row(*INDEXED, 60.0, 0.5, 255)
    yield "index's row", _row(*INDEXED, "x", 0.5, {"$": "00"})
    yield "outbox's row", _row(*QUEUED, "[1", 0, 1)
    yield "outbox's row", _row(*QUEUED[:4], "é", *QUEUED[5:], "", 0, 1)
    yield "node's address", b"\xaf"
    yield from (("node's configuration", data) for data in (b"{", b"[]", b"\xff"))
    yield "message as a stream", b'{"type":"message","content":[{"type":"text","citations":NaN}]}'
    yield "message as a stream", b'{"type":"message","content":[{"type":"text","citations":"%b"}]}' % (b"a" * 1_000_000)
    yield "TEI's /embed", b"[%d,%d]" % (HUGE, HUGE)
    yield "TEI's /predict", b'[[{"label":%d}],[{"label":1}]]' % HUGE
    yield "counting header", b"9" * 5000
    yield "answer's head", b'{"headers":' + DEEP + b"\n"
    yield "prices", b'{"gpt":{"input_cost_per_token":%d}}' % HUGE


EXPORTED: Final = ("cachekit", "python", "call", "arguments", "key", "code", "arguments_seen")
INDEXED: Final = (
    *(OWNER.namespace_id("team"), {"$": LINES[0].key.hex()}, WRITER.id, 2, {"$": "64" * 32}, 100),
    *(stored.NOW, stored.NOW),
)
QUEUED: Final = (1, "entry", "team", {"$": "00"}, "json", {"$": "31"}, stored.NOW, 0, 0.0, 0.5)


@pytest.mark.parametrize(("name", "data"), [pytest.param(*case, id=f"{at}") for at, case in enumerate(_found())])
def test_what_was_found_once_is_refused(table: list[Reader], name: str, data: bytes) -> None:
    """Each of these raised another exception than the reader documents, or would have gone on for ever."""
    reader = next(reader for reader in table if reader.name == name)
    assert not reader.fault(data)


def test_a_window_without_an_end_is_one() -> None:
    """`stale_if_error="forever"` serves what is long past its TTL, and housekeeping keeps it."""
    down = threading.Event()

    @distributed_cache(version="1", ttl=0.01, stale_if_error="forever")
    def ask(x: int) -> int:
        if down.is_set():
            raise OSError("down")
        return x

    assert ask(1) == 1
    down.set()
    end = time.monotonic() + 10
    while not stats().as_dict()["stale"] and time.monotonic() < end:
        assert ask(1) == 1
    assert gc()["dropped"] == 0
    assert ask(1) == 1
