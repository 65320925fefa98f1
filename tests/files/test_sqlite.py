"""SQLite files that several threads and processes open at once."""

from __future__ import annotations

import threading
from pathlib import Path

from cachekit.files.sqlite import Database


def test_many_threads_make_one_new_file(tmp_path: Path) -> None:
    """Threads that open a new file in the same instant all get in: none is told that it is locked."""
    failed: list[Exception] = []
    for number in range(20):
        database = Database(tmp_path / f"{number}.db", "CREATE TABLE IF NOT EXISTS seen (n);", lambda _: None)
        start = threading.Barrier(6)

        def write(database: Database = database, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                with database.transaction() as connection:
                    connection.execute("INSERT INTO seen VALUES (1)")
            except Exception as error:  # told by the assertion
                failed.append(error)

        threads = [threading.Thread(target=write) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database.close()
    assert not failed
