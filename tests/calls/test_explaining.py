"""`explain` and the log say what counted, what is not followed, and what differs from the nearest earlier call."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from keys.projects import Project

import cachekit
from cachekit import distributed_cache
from cachekit.cache.default import ROOT

MAIN = """
import prompts
from cachekit import distributed_cache
from helpers import clean

LIMITS = {"words": 3}

class Style:
    tone = "dry"
    def text(self):
        return self.tone

@distributed_cache
def ask(text, temperature=0.0, **more):
    return prompts.P + clean(text) + Style().text() + str(LIMITS)
"""
MODULES = {
    "main": MAIN,
    "prompts": '\nP = "Summarise this"\n',
    "helpers": "def clean(text):\n    return str(text).strip()\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project", **MODULES)
    yield made
    made.close()


def differs_after(project: Project, **edits: tuple[str, str]) -> tuple[str, ...]:
    """What `explain` says differs, when the call was made before the edit."""
    project.imported().ask("a")
    project.edit(**edits)
    told: tuple[str, ...] = project.imported().ask.explain("a").differs
    return told


def test_the_tree_shows_what_counted_where_it_stands_and_below_what(project: Project) -> None:
    """Each function, class and value has a line with file, line and digest, indented below what reached it."""
    lines = str(project.imported().ask.explain("a")).splitlines()
    shapes = [re.sub(r"  [0-9a-f]{12}$", "", line) for line in lines]
    assert "  function main.ask (main.py:13)" in shapes
    assert "    function helpers.clean (helpers.py:1)" in shapes
    assert "    class main.Style (main.py:8)" in shapes
    assert "      value Style.tone (main.py:9) = 'dry'" in shapes
    assert "    value prompts.P (prompts.py:2) = 'Summarise this'" in shapes
    assert "    value LIMITS (main.py:6) = {'words': 3}" in shapes
    assert "  argument text  'a'" in shapes


def test_what_is_not_followed_is_listed_with_its_class(tmp_path: Path) -> None:
    """A client has no honest value, so only its class counts, and `explain` says so."""
    text = "import sqlite3\nfrom cachekit import distributed_cache\ncon = sqlite3.connect(':memory:')\n"
    text += "@distributed_cache\ndef ask(text):\n    return con.total_changes\n"
    project = Project(tmp_path / "p", main=text)
    try:
        assert project.imported().ask.explain("a").unfollowed == (("con", "sqlite3.Connection"),)
    finally:
        project.close()


def test_an_edited_prompt_of_another_module_is_named_with_both_texts(project: Project) -> None:
    """A changed constant is a line with its module's name, its place, what it was and what it is."""
    lines = differs_after(project, prompts=("Summarise", "Translate"))
    assert lines == ("prompts.P (prompts.py:2) was 'Summarise this', is 'Translate this'",)


def test_an_edited_helper_is_named(project: Project) -> None:
    """Changed code is a line with its name and place."""
    assert differs_after(project, helpers=("strip", "lstrip")) == ("helper helpers.clean (helpers.py:1) changed",)


def test_an_edited_class_attribute_is_named(project: Project) -> None:
    """A class attribute counts by its value, and is named with its class."""
    assert differs_after(project, main=('"dry"', '"warm"')) == ("Style.tone (main.py:9) was 'dry', is 'warm'",)


def test_a_new_helper_and_one_that_is_gone_are_named(project: Project) -> None:
    """What is reached now and was not, and the other way, have a line each beside the function that changed."""
    lines = differs_after(project, main=("clean(text)", "text"))
    assert lines == ("helper main.ask (main.py:13) changed", "code helpers.clean counts no more")


def test_an_argument_that_differs_is_named_with_both_values(project: Project) -> None:
    """A short argument is shown as it was and as it is."""
    ask = project.imported().ask
    ask("a", temperature=0.0)
    assert ask.explain("a", temperature=0.2).differs == ("argument temperature was 0.0, is 0.2",)
    assert ask.explain("b", temperature=0.0).differs == ("argument text was 'a', is 'b'",)


def test_a_long_text_inside_an_argument_is_named_by_its_path_and_character(project: Project) -> None:
    """Of a long text the first character that differs is told, and where it lies in the arguments."""
    ask = project.imported().ask
    asked = [{"role": "user", "content": "x" * 118 + "old"}]
    ask(asked)
    line = ask.explain([{"role": "user", "content": "x" * 118 + "new"}]).differs[0]
    assert line == "argument text[0].content differs at character 118: was …'old', is …'new'"


def test_the_nearest_call_has_the_same_arguments_where_one_has(project: Project) -> None:
    """Among many earlier calls the one that differs in the fewest things is compared with."""
    ask = project.imported().ask
    for text in ("one", "two", "three"):
        ask(text, temperature=0.5)
    project.edit(prompts=("Summarise", "Translate"))
    assert len(project.imported().ask.explain("two", temperature=0.5).differs) == 1


def test_what_was_called_by_an_earlier_process_is_known(project: Project) -> None:
    """Notes outlive the process that made them: a closed cache has written them."""
    project.imported().ask("a")
    ROOT.cache().close()
    ROOT.cache().notes.renew_after_fork()  # as in a process that has noted nothing
    assert project.imported().ask.explain("b").differs == ("argument text was 'a', is 'b'",)


def test_a_function_that_was_never_called_says_so(project: Project) -> None:
    """Without an earlier call there is nothing to compare with."""
    explained = project.imported().ask.explain("a")
    assert (explained.reason, explained.differs) == ("this machine remembers no earlier call of it", ())


def test_an_invalidated_entry_is_told(project: Project) -> None:
    """Where the very call was stored and invalidated, that is the reason."""
    ask = project.imported().ask
    ask("a")
    ask.invalidate("a")
    assert re.fullmatch(r"the entry of 0 s ago was invalidated", ask.explain("a").reason)


def test_an_expired_entry_is_told() -> None:
    """An entry past its TTL that is not on disk any more is said to have expired."""

    @distributed_cache(ttl=0.001)
    def brief(text: str) -> str:
        return text

    brief("a")
    while time.time() < time.time_ns() / 1e9 and brief.peek("a") is not cachekit.MISS:
        pass
    cachekit.gc()
    assert "expired" in brief.explain("a").reason or "past its TTL" in brief.explain("a").found


def test_a_refused_answer_is_told_with_its_reason() -> None:
    """An answer that was not stored leaves the reason for who asks why it is called again."""

    @distributed_cache(cacheable=lambda value: False)
    def picky(text: str) -> str:
        return text

    picky("a")
    assert picky.explain("a").reason == "the call of 0 s ago was not stored: not_cacheable"


def test_a_culled_entry_is_told(project: Project, own_cache: Path) -> None:
    """An entry that is gone for no reason of its own is said to be culled or cleared."""
    ask = project.imported().ask
    ask("a")
    for tier in ROOT.cache().tiers.values():
        tier.drop(ask.key_for("a"))
    assert ask.explain("a").reason == "the entry of 0 s ago is not here any more: culled, or cleared"


def test_secrets_are_never_written_down(project: Project, own_cache: Path) -> None:
    """What is kept and shown of a secret is a digest: by its parameter's name, in a header, or by its form."""
    ask = project.imported().ask
    token = "sk-" + "proj4" * 6
    ask("a", api_key="hunter2hunter2", headers=[["Authorization", "opensesame"]], note=token)
    told = str(ask.explain("a", api_key="other", headers=[["Authorization", "x"]], note="sk-" + "other" * 6))
    ROOT.cache().close()
    import zlib

    kept = [path.read_bytes() for path in (own_cache / "notes").glob("??/*")]
    texts = [zlib.decompress(data[:-32]) for data in kept]
    assert texts
    for secret in (b"hunter2", b"opensesame", token.encode()):
        assert secret.decode() not in told
        assert all(secret not in text for text in texts)
    assert "argument more.api_key changed" in told


def test_a_miss_is_one_line_at_info_with_its_reason(project: Project, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why the origin is asked; without INFO nothing is read or said."""
    ask = project.imported().ask
    with caplog.at_level(logging.INFO, logger="cachekit"):
        ask("a")
        ask("b")
        ask("b")
    texts = [record.getMessage() for record in caplog.records if "miss" in record.getMessage()]
    assert len(texts) == 2
    assert texts[1].endswith("argument text was 'a', is 'b'")
    assert str(ask.key_for("b")) in texts[1]


def test_what_is_kept_is_small_beside_the_entries(own_cache: Path) -> None:
    """Notes take at most 2 % of what entries of 2 kB take on disk."""

    @distributed_cache(version="1")
    def answer(text: str) -> str:
        return text * 40

    for number in range(1_000):
        answer(f"question {number:04} " + "of many words " * 2)
    cachekit.flush()
    kept = sum(path.stat().st_size for path in (own_cache / "notes").rglob("*") if path.is_file())
    whole = sum(path.stat().st_size for path in own_cache.rglob("*") if path.is_file())
    assert 0 < kept <= 0.02 * whole


def test_torn_notes_are_no_notes(project: Project, own_cache: Path) -> None:
    """A file of notes that does not read costs the comparison and nothing else."""
    project.imported().ask("a")
    ROOT.cache().close()
    for path in (own_cache / "notes").glob("??/*"):
        path.write_bytes(path.read_bytes()[:-3])
    ROOT.cache().notes.renew_after_fork()
    assert project.imported().ask.explain("b").reason == "this machine remembers no earlier call of it"


def test_a_notebook_shows_explanations_keys_and_statistics_readably(project: Project) -> None:
    """What IPython asks of an object is its readable text."""

    class Printer:
        said = ""

        def text(self, said: str) -> None:
            self.said += said

    ask = project.imported().ask
    ask("a")
    for shown, word in (
        (ask.explain("a"), "found  memory"),
        (ask.key_for("a"), "prompts.P"),
        (cachekit.stats(), "misses"),
    ):
        printer = Printer()
        shown._repr_pretty_(printer, False)
        assert word in printer.said


def test_an_argument_that_raises_when_it_is_looked_at_again_costs_no_call() -> None:
    """What is noted of a call is taken after its key; what raises then is noted by its class."""

    class Fickle:
        asked = 0

        def __cachekit_key__(self) -> str:
            type(self).asked += 1
            if type(self).asked > 1:
                raise RuntimeError("only once")
            return "fickle"

    @distributed_cache(version="1")
    def answer(thing: object) -> str:
        return "fine"

    assert answer(Fickle()) == "fine"
    assert Fickle.asked == 2


def test_a_log_that_cannot_say_why_costs_no_call(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the ledger cannot be read when a miss is explained, the call goes on and the failure is counted."""
    ask = project.imported().ask
    ask("a")
    ask.invalidate("a")

    def broken(*_: object) -> bool:
        raise RuntimeError("unreadable")

    with caplog.at_level(logging.INFO, logger="cachekit"):
        monkeypatch.setattr("cachekit.cache.reasons._gone", broken)
        assert ask("a").startswith("Summarise")
    assert cachekit.stats(ask).as_dict()["errors"]["notes"] == {"RuntimeError": 1}
