"""The entries of compilers, with a stand-in for the compiler: pulled whole, pushed as a union, never half an entry."""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

import cachekit
from cachekit import configure
from cachekit_adapters import compile_cache
from cachekit_adapters.compile_cache import shared
from cachekit_adapters.compile_cache.shared import entries

IDENTITY = {"tool": "stand-in", "versions": {"stand-in": "1"}}


def compiled(names: str, **changed: str) -> set[str]:
    """What was there at the beginning of a run that compiles these entries."""
    with entries({**IDENTITY, **changed}) as directory:
        before = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
        for name in names.split():
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_text(f"code of {name}")
    return before


def test_the_next_run_has_what_was_compiled() -> None:
    """In the same places below the directory, with the same bytes."""
    compiled("a deep/b")
    assert compiled("") == {"a", "deep/b"}
    with entries(IDENTITY) as directory:
        assert (directory / "deep/b").read_text() == "code of deep/b"


def test_entries_of_all_runs_come_together() -> None:
    """A run that compiles one more pushes the others with it."""
    compiled("a")
    compiled("b")
    assert compiled("") == {"a", "b"}


def test_two_runs_at_once_keep_both_their_entries() -> None:
    """Who ends later has pulled what the other one pushed meanwhile."""
    with entries(IDENTITY) as directory:
        (directory / "mine").write_text("code")
        compiled("theirs")
    assert compiled("") == {"mine", "theirs"}


@pytest.mark.parametrize("changed", [{"machine": "another"}, {"flags": "-O0"}, {"tool": "other"}])
def test_another_identity_has_entries_of_its_own(changed: dict[str, str]) -> None:
    """Of another processor, of other flags, of another tool."""
    compiled("a")
    assert compiled("", **changed) == set()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_pushes_nothing(error: type[BaseException]) -> None:
    """Its last entry may be half written."""
    with pytest.raises(error):
        with entries(IDENTITY) as directory:
            (directory / "half").write_text("co")
            raise error
    assert compiled("") == set()


def test_what_is_no_entry_is_not_pushed() -> None:
    """Access times, locks and what is being written stay where they are, and so do links."""
    with entries(IDENTITY) as directory:
        half = ("k/tmp.pid_12_ab/kernel.cubin", "k/kernel.json.tmp.pid_12_ab", "k/lock")  # Triton's, by its versions
        for name in ("a", "a-atime", ".lock", "b.tmp", *half):
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text("x")
        (directory / "link").symlink_to("/etc/hostname")
    assert compiled("") == {"a"}


def test_groups_of_triton_are_found_in_another_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold absolute paths (a stand-in of its layout): after a move these lead to the files beside the group."""
    monkeypatch.setitem(sys.modules, "triton", types.ModuleType("triton"))
    with compile_cache.triton() as first:
        (first / "k").mkdir()
        (first / "k" / "f.cubin").write_text("code")
        (first / "k" / "__grp__f.json").write_text(json.dumps({"child_paths": {"f.cubin": str(first / "k/f.cubin")}}))
    with compile_cache.triton() as second:
        (place,) = json.loads((second / "k" / "__grp__f.json").read_text())["child_paths"].values()
        assert second != first
        assert Path(place).read_text() == "code"


def test_the_set_is_bounded_and_ones_own_entries_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit older entries are left out of what is pushed."""
    compiled("a b")
    monkeypatch.setattr(shared, "LIMIT", 25)
    compiled("c")
    assert "c" in compiled("")
    assert len(compiled("")) == 2


@pytest.mark.parametrize("off", [lambda: configure(mode="off"), lambda: configure(mode="read-only")])
def test_where_nothing_may_be_stored_the_compiler_still_compiles(off: Callable[[], object]) -> None:
    """Nothing is raised, and nothing kept."""
    off()
    compiled("a")
    configure(mode="on")
    assert compiled("") == set()


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories of a block are gone at its end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    os.mkdir(tmp_path / "tmp")
    compiled("a")
    assert compiled("") == {"a"}
    assert not list((tmp_path / "tmp").iterdir())
    assert not cachekit.stats().as_dict()["errors"]
