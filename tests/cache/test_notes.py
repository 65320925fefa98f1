"""What is remembered of calls: when it is saved, and what that may cost."""

from __future__ import annotations

from pathlib import Path

import cachekit
from cachekit.cache.counters import INBOX_LIMIT
from cachekit.cache.default import default
from cachekit.files.digest_cache import Digests


def test_saving_ends_while_calls_go_on(tmp_path: Path) -> None:
    """What is noted during a save waits for the next one; else it would never end in a program that goes on missing."""

    @cachekit.distributed_cache(version="1")
    def answer(number: int) -> int:
        return number

    class Busy(Digests):
        written = 0

        def write(self, name: bytes, body: bytes) -> None:
            Busy.written += 1
            assert Busy.written < 10
            answer(Busy.written)
            super().write(name, body)

    answer(0)
    default().notes.save(Busy(tmp_path / "kept", lambda: "on"))
    assert Busy.written == 1
    default().notes.save(Busy(tmp_path / "kept", lambda: "on"))
    assert len(default().notes.of(answer.key_for(0).function, Digests(tmp_path / "kept", lambda: "on")).notes) == 3


def test_a_crowd_of_events_is_counted_without_a_save() -> None:
    """Many misses in a row are counted in the background as they come, and noted on disk only now and then."""

    @cachekit.distributed_cache(version="1")
    def answer(number: int) -> int:
        return number

    for number in range(INBOX_LIMIT // 4):
        answer(number)
    cache = default()
    cache._house._keeper.join(10)
    assert len(cache.stats.inbox) < INBOX_LIMIT
    assert cache.notes.of(answer.key_for(0).function, None).notes
    assert not list((cache.settings.dir / "notes").rglob("??/*"))
