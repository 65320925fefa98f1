"""Scans kept as SARIF: with bandit, a real producer, and with a script that stands in for the codeql executable."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import UsageError
from cachekit_adapters import codeql

SHA = "1" * 40
SOURCE = """
import subprocess, hashlib
def f(text):
    subprocess.call(text, shell=True)
    assert text
    return hashlib.md5(text.encode()).hexdigest(), eval(text)
"""
CODEQL = '''#!{python}
"""Stands in for CodeQL's executable: counts its calls, writes one finding."""
import json, pathlib, sys
log = pathlib.Path({log!r})
log.write_text((log.read_text() if log.exists() else "") + " ".join(sys.argv[1:3]) + "\\n")
if sys.argv[1] == "version":
    print(json.dumps({{"version": {version!r}}}))
elif sys.argv[2] == "analyze":
    output = next(word for word in sys.argv if word.startswith("--output=")).partition("=")[2]
    document = {{"version": "2.1.0", "runs": [{{"tool": {{"driver": {{"name": "CodeQL"}}}}, "results": [{{"level": "error"}}]}}]}}
    pathlib.Path(output).write_text(json.dumps(document))
'''


def git(place: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(["git", *identity, "-C", str(place), *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "-q")
    (place / "app.py").write_text(SOURCE)
    git(place, "add", "app.py")
    git(place, "commit", "-q", "-m", "first")
    return place


@pytest.fixture
def executable(tmp_path: Path) -> Callable[[str], tuple[str, Callable[[], list[str]]]]:
    """A stand-in of a version, and what it was called with but for its version."""

    def make(version: str) -> tuple[str, Callable[[], list[str]]]:
        path, log = tmp_path / f"codeql-{version}", tmp_path / f"log-{version}"
        path.write_text(CODEQL.format(python=sys.executable, log=str(log), version=version))
        path.chmod(0o755)
        return str(path), lambda: [line for line in log.read_text().splitlines() if not line.startswith("version")]

    return make


def bandit(repository: Path, runs: list[int]) -> Callable[[Path], object]:
    def produce(output: Path) -> None:
        runs.append(1)
        command = [sys.executable, "-m", "bandit", "-q", "-f", "sarif", "-o", str(output), "app.py", "--exit-zero"]
        subprocess.run(command, cwd=repository, check=True)

    return produce


def test_a_real_scan_is_made_once(repository: Path) -> None:
    """bandit runs for the first call; the second one has its SARIF, with the same findings."""
    runs: list[int] = []
    made = [
        codeql.scan("a/b", bandit(repository, runs), tool={"bandit": "1"}, source=repository, language="python")
        for _ in range(2)
    ]
    assert len(runs) == 1
    assert made[0].read_bytes() == made[1].read_bytes()


def test_a_finding_without_a_level_is_a_warning(repository: Path) -> None:
    """bandit leaves the level of MEDIUM findings out, and SARIF's default for it is a warning."""
    sarif = codeql.scan("a/b", bandit(repository, []), tool={"bandit": "1"}, source=repository)
    found = codeql.summary(sarif)
    results = json.loads(sarif.read_text())["runs"][0]["results"]
    severities = [result["properties"]["issue_severity"] for result in results]
    assert [result["properties"]["issue_severity"] for result in results if "level" not in result] == ["MEDIUM"]
    assert found.levels == {
        "error": severities.count("HIGH"),
        "warning": severities.count("MEDIUM"),
        "note": severities.count("LOW"),
        "none": 0,
    }
    assert found.rules["B307"] == 1


def test_a_tag_ends_all_scans_of_a_repository(repository: Path) -> None:
    """`invalidate(tag="repo:…")`: the next call scans again; another repository's scans stay."""
    runs: list[int] = []
    ask = [
        lambda name=name: codeql.scan(name, bandit(repository, runs), tool={"bandit": "1"}, source=repository)
        for name in ("a/b", "a/c")
    ]
    for one in ask:
        one()
    assert cachekit.invalidate(tag="repo:a/b")
    for one in ask:
        one()
    assert len(runs) == 3


def test_what_counts_makes_another_scan(repository: Path, tmp_path: Path) -> None:
    """Commit, tool, its version, language and the configuration's content; where things lie does not."""
    config = tmp_path / "config.yml"
    config.write_text("paths: [src]")
    same = tmp_path / "elsewhere.yml"
    same.write_text("paths: [src]")
    runs: list[int] = []
    usual: dict[str, Any] = {
        "tool": {"x": "1"},
        "language": "python",
        "commit": SHA,
        "config": config,
        "source": tmp_path,
    }

    def scan(**changed: Any) -> None:
        def produce(output: Path) -> None:
            runs.append(1)
            output.write_text('{"version": "2.1.0", "runs": [{"results": []}]}')

        codeql.scan("a/b", produce, **{**usual, **changed})

    scan()
    scan(config=same)
    assert len(runs) == 1
    config.write_text("paths: [lib]")
    for change in ({}, {"commit": "2" * 40}, {"tool": {"x": "2"}}, {"language": "go"}, {"config": None}):
        scan(**change)
    assert len(runs) == 6


def test_a_changed_working_tree_is_scanned_each_time(repository: Path) -> None:
    """It is not the commit that git names, so nothing of it is kept, and it is counted."""
    (repository / "app.py").write_text("x = 1\n")
    runs: list[int] = []
    for _ in range(2):
        sarif = codeql.scan("a/b", bandit(repository, runs), tool={"bandit": "1"}, source=repository)
        assert codeql.summary(sarif).total == 0
    assert len(runs) == 2
    assert cachekit.stats().as_dict()["bypasses"]["dirty"] == 2


def submodule(place: Path) -> None:
    git(place, "-c", "protocol.file.allow=always", "submodule", "add", str(place), "module")
    git(place, "commit", "-q", "-m", "module")
    git(place, "config", "submodule.module.ignore", "all")
    (place / "module" / "new.py").write_text("x = 1\n")


def unseen(place: Path) -> None:
    git(place, "update-index", "--assume-unchanged", "app.py")
    (place / "app.py").write_text("x = 1\n")


def untracked(place: Path) -> None:
    git(place, "config", "status.showUntrackedFiles", "no")
    (place / "new.py").write_text("x = 1\n")


def unreadable(place: Path) -> None:
    (place / ".git" / "HEAD").write_text("nothing that git knows")


@pytest.mark.parametrize("change", [submodule, unseen, untracked, unreadable])
def test_changes_that_git_does_not_tell_by_itself_are_changes(
    repository: Path, change: Callable[[Path], object]
) -> None:
    """In a submodule that the settings ignore, in a file that git was told not to look at, where git does not answer."""
    change(repository)
    runs: list[int] = []
    commit = SHA if change is unreadable else None
    for _ in range(2):
        codeql.scan("a/b", bandit(repository, runs), tool={"bandit": "1"}, source=repository, commit=commit)
    assert len(runs) == 2


def test_a_directory_of_a_repository_is_not_the_whole_of_it(repository: Path) -> None:
    """Each has a scan of its own, made once."""
    (repository / "below").mkdir()
    (repository / "below" / "fine.py").write_text("x = 1\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "second")
    runs: list[int] = []
    for _ in range(2):
        for place in (repository, repository / "below"):
            codeql.scan("a/b", bandit(place, runs), tool={"bandit": "1"}, source=place)
    assert len(runs) == 2


def test_a_scan_of_another_commit_is_not_kept(repository: Path) -> None:
    """Who names another commit than the one that is checked out gets the scan of what is there, and no entry."""
    runs: list[int] = []
    for _ in range(2):
        codeql.scan("a/b", bandit(repository, runs), tool={"bandit": "1"}, source=repository, commit=SHA)
    assert len(runs) == 2


@pytest.mark.parametrize(
    "document", ["{}", "no json", '{"version": "2.1.0", "runs": [{"invocations": [{"executionSuccessful": false}]}]}']
)
def test_a_failed_scan_is_not_kept(document: str, tmp_path: Path) -> None:
    """No SARIF, or SARIF that says that its tool failed: the caller has it, and the next one scans again."""
    runs: list[int] = []

    def produce(output: Path) -> None:
        runs.append(1)
        output.write_text(document)

    for _ in range(2):
        sarif = codeql.scan("a/b", produce, tool={"x": "1"}, commit=SHA, source=tmp_path)
        assert sarif.read_text() == document
    assert len(runs) == 2


def test_codeql_is_asked_once_for_a_commit(repository: Path, executable: Any) -> None:
    """A database and an analysis for the first call; nothing but the version for the second; all again for a new version."""
    path, calls = executable("2.20.1")
    for _ in range(2):
        sarif = codeql.analyze("a/b", language="python", source=repository, codeql=path)
    assert calls() == ["database create", "database analyze"]
    assert codeql.summary(sarif).errors == 1
    newer, later = executable("2.20.2")
    codeql.analyze("a/b", language="python", source=repository, codeql=newer)
    assert later() == ["database create", "database analyze"]


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ({"packs": ("codeql/python-queries",)}, "1.2.3"),
        ({"codeql": "/nowhere/codeql"}, "codeql="),
        ({"source": "/nowhere"}, "source"),
        ({"config": "/nowhere.yml"}, "config"),
        ({"commit": "main"}, "40 hex digits"),
    ],
)
def test_wrong_input_is_refused(wrong: dict[str, Any], remedy: str, repository: Path, executable: Any) -> None:
    """Each error names what to pass."""
    usual = {"language": "python", "source": repository, "codeql": executable("1")[0]}
    with pytest.raises(UsageError, match=remedy):
        codeql.analyze("a/b", **{**usual, **wrong})


RULES = [
    {"id": "A", "defaultConfiguration": {"level": "error"}, "properties": {"security-severity": "9.8"}},
    {"id": "B", "properties": {"security-severity": "5.0"}},
    {"id": "C", "defaultConfiguration": {"level": "note"}},
]


@pytest.mark.parametrize(
    ("result", "level"),
    [
        ({"ruleId": "A"}, "error"),
        ({"ruleIndex": 0}, "error"),
        ({"ruleId": "A", "level": "note"}, "note"),
        ({"ruleId": "B"}, "warning"),
        ({"ruleId": "nobody's"}, "warning"),
        ({"ruleId": "C/2"}, "note"),
        ({"ruleId": "A", "kind": "pass"}, "none"),
        ({"rule": {"index": 0, "toolComponent": {"index": 0}}}, "note"),
        ({"ruleId": "C", "provenance": {"invocationIndex": 0}}, "error"),
        ({"ruleIndex": 99, "level": "absurd"}, "warning"),
    ],
)
def test_levels_are_those_of_the_standard(result: dict[str, Any], level: str) -> None:
    """Said by the result, by the invocation, by the rule of the driver or an extension, or by nobody: a warning."""
    override = {"descriptor": {"id": "C"}, "configuration": {"level": "error"}}
    run = {
        "tool": {
            "driver": {"name": "x", "rules": RULES},
            "extensions": [{"name": "y", "rules": [{"id": "Y", "defaultConfiguration": {"level": "note"}}]}],
        },
        "invocations": [{"executionSuccessful": True, "ruleConfigurationOverrides": [override]}],
        "results": [result],
    }
    found = codeql.summary({"version": "2.1.0", "runs": [run]})
    assert [name for name, count in found.levels.items() if count] == [level]


def test_security_severities_have_their_names_and_suppressed_ones_do_not_count() -> None:
    """Scores become critical, high, medium and low; suppressed results and those gone since the baseline are no findings."""
    results = [
        {"ruleId": "A"},
        {"ruleId": "B"},
        {"ruleId": "C", "properties": {"security-severity": "7.0"}},
        {"ruleId": "A", "suppressions": [{"kind": "inSource"}]},
        {"ruleId": "A", "suppressions": [{"kind": "external", "status": "rejected"}]},
        {"ruleId": "A", "baselineState": "absent"},
    ]
    run = {"tool": {"driver": {"name": "x", "rules": RULES}}, "results": results}
    found = codeql.summary({"version": "2.1.0", "runs": [run]})
    assert found.security == {"critical": 2, "high": 1, "medium": 1, "low": 0}
    assert (found.total, found.suppressed) == (4, 1)
    assert found.rules == {"A": 2, "B": 1, "C": 1}
