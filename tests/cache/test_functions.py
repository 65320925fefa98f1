"""One function's entries: ended together, whoever holds them, and nobody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cachekit
from cachekit import MISS, UsageError, distributed_cache


@distributed_cache
def one(text: str) -> str:
    """Its entries are ended."""
    return text.upper()


@distributed_cache
def two(text: str) -> str:
    """Its entries are not."""
    return text.lower()


@distributed_cache(namespace="elsewhere")
def three(text: str) -> str:
    """In a namespace of its own."""
    return text.title()


class Service:
    """Methods are functions too."""

    @staticmethod
    @distributed_cache
    def rate(text: str) -> int:
        """Of no instance."""
        return len(text)

    @distributed_cache(ignore=("self",))
    def judge(self, text: str) -> int:
        """Of an instance."""
        return len(text)


@pytest.mark.parametrize(
    "end",
    [
        one.clear,
        lambda: cachekit.invalidate(function=one),
        lambda: cachekit.invalidate(function=f"{__name__}.one"),
        lambda: cachekit.invalidate(function=one, namespace="default"),
    ],
)
def test_all_entries_of_a_function_end_and_no_others(own_cache: Path, end: object) -> None:
    """In memory and on disk; what is stored after it counts."""
    for function in (one, two, three):
        for text in ("a", "b"):
            function(text)
    assert callable(end)
    assert end() is True
    assert [one.peek("a"), one.peek("b")] == [MISS, MISS]
    assert [two.peek("a"), three.peek("a")] == ["a", "A"]
    assert one("a") == one.peek("a") == "A"
    assert one.clear() is True
    assert one.clear() is False


def test_methods_have_it_too(own_cache: Path) -> None:
    """Shown by an instance or by the class."""
    service = Service()
    assert [service.rate("abc"), service.judge("abc")] == [3, 3]
    assert [service.judge.clear(), Service.rate.clear()] == [True, True]
    assert [service.rate.peek("abc"), service.judge.peek("abc")] == [MISS, MISS]


def test_another_process_heeds_it(own_cache: Path, tmp_path: Path) -> None:
    """`cachekit clear FUNCTION` ends hits in a process that has them in memory."""
    one("a")
    assert one("a") == "A"
    command = [sys.executable, "-m", "cachekit", "clear", f"{__name__}.one"]
    done = subprocess.run(
        command, env={"CACHEKIT_DIR": str(own_cache), "CACHEKIT_IPFS": "off", "HOME": str(tmp_path)}, check=False,
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "removed\n"), done.stderr
    assert one.peek("a") is MISS


def test_a_function_must_be_named(own_cache: Path) -> None:
    """An empty name would be nobody's."""
    with pytest.raises(UsageError, match="function"):
        cachekit.invalidate(function="")
