"""No room in the cache directory (a file size limit stands in for the full disk)."""

from __future__ import annotations

from pathlib import Path

from programs import told


def test_flush_raises_nothing_of_sqlites(own_cache: Path) -> None:
    """The machine's totals cannot be written: it is counted, and what was computed stays right."""
    script = """
import resource
@distributed_cache(version="1")
def square(x): return x * x
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
square(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
assert square(2) == 4
flush()
say(errors())
"""
    (reasons,) = told(script, own_cache)
    assert "housekeeping" in reasons
