"""A scan is made once for a commit, a tool and its configuration; what a changed working tree says is nobody's else."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import cachekit
from cachekit import Event, UsageError, persist_artifact
from cachekit_adapters._building import existing, named, run
from cachekit_adapters.codeql.sarif import whole

StrPath = str | os.PathLike[str]
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PACK: Final = re.compile(r"[\w.-]+/[\w.-]+@[\w.+-]+(:.*)?")


def analyze(
    repo: str,
    *,
    language: str,
    source: StrPath = ".",
    commit: str | None = None,
    config: StrPath | None = None,
    packs: Sequence[str] = (),
    codeql: StrPath = "codeql",
) -> Path:
    """The SARIF of CodeQL for the commit that is checked out at `source`: a read-only file.

    Args:
        repo: `owner/name`, which is the tag `repo:owner/name` too.
        commit: 40 hex digits; None asks git. A working tree with changes is scanned each time, counted as `dirty`.
        config: a code scanning configuration, counted by its content.
        packs: `scope/name@version` each; none stands for those of the CLI's bundle.
        codeql: the executable; its version counts, its place does not.

    Raises UsageError for a pack without a version, for no commit, and where a path does not exist; CalledProcessError with
    the tool's words where it fails. Nothing is kept then, nor of a scan that says that it failed.
    """
    loose = [pack for pack in packs if not _PACK.fullmatch(pack)]
    if loose:
        raise UsageError(f"{loose[0]!r} names no version, so it may be another pack tomorrow: write scope/name@1.2.3")
    place = existing(source, "source")
    tool = os.fspath(codeql)
    made = functools.partial(_codeql, tool, place, language, None if config is None else Path(config), packs)
    return scan(
        repo,
        made,
        tool={"codeql": version(tool), **dict.fromkeys(packs, "")},
        language=language,
        source=source,
        commit=commit,
        config=config,
    )


def scan(
    repo: str,
    produce: Callable[[Path], object],
    *,
    tool: Mapping[str, str],
    language: str = "",
    source: StrPath = ".",
    commit: str | None = None,
    config: StrPath | None = None,
) -> Path:
    """The same for any tool: `produce(output)` writes SARIF to the path `output`, in an empty directory of its own.

    `tool` has the name and version of all that decides what is found. Raises as `analyze`, and what `produce` raises.
    """
    owner, _, name = repo.partition("/")
    if not owner or not name:
        raise UsageError(f"repo={repo!r} is not of the form 'owner/name'")
    place = existing(source, "source")
    head, dirty, part = _state(place)
    wanted = (commit or head or "").lower()
    if not _COMMIT.fullmatch(wanted):
        raise UsageError(f"commit={commit!r}: {place} is no git working tree; name the commit by its 40 hex digits")
    known = None if config is None else existing(config, "config")
    # Of another commit than the one at `source`, or of changes, the scan would be kept under a name that is not its own.
    if dirty or head not in ("", wanted):
        cachekit.tell(Event("bypass", "codeql.scan", reason="dirty" if dirty else "other_commit"))
        with cachekit.bypass():
            return _scanned(repo, wanted, part, dict(tool), language, known, produce=produce)
    return _scanned(repo, wanted, part, dict(tool), language, known, produce=produce)


@persist_artifact(
    pin=False,
    version="2",  # the part of the commit counts
    ignore=("produce",),
    scratch="scratch",
    tags=("repo:{repo}", "commit:{commit}"),
    cacheable=whole,
)
@named("codeql.scan")
def _scanned(
    repo: str,
    commit: str,
    part: Sequence[str],
    tool: Mapping[str, str],
    language: str,
    config: Path | None,
    *,
    produce: Callable[[Path], object],
    scratch: Path | None = None,
) -> Path:
    assert scratch is not None
    output = scratch / "results.sarif"
    produce(output)
    if not output.is_file():
        raise UsageError(f"the scan of {repo} wrote no {output.name}: produce() is called with the path to write to")
    return output


def version(codeql: str) -> str:
    """What `codeql version` says. Raises UsageError where there is no such executable."""
    try:
        answer = run([codeql, "version", "--format=json"])
    except FileNotFoundError as error:
        raise UsageError(f"{codeql!r} is no executable; codeql= takes the path of CodeQL's CLI") from error
    try:
        return str(json.loads(answer)["version"])
    except (ValueError, LookupError, TypeError):
        return answer.strip()


def _codeql(codeql: str, source: Path, language: str, config: Path | None, packs: Sequence[str], output: Path) -> None:
    database = output.parent / "database"
    configured = [] if config is None else [f"--codescanning-config={config}"]
    create = ["database", "create", f"--language={language}", f"--source-root={source}", *configured, str(database)]
    run([codeql, *create])
    run([codeql, "database", "analyze", "--format=sarif-latest", f"--output={output}", str(database), *packs])


def _state(source: Path) -> tuple[str, bool, list[str]]:
    """The commit that is checked out, "" where git knows of none; whether there is anything beside it; and which part of it
    is at `source`: the directory, and submodules that are not there.
    """
    head = (_git(source, "rev-parse", "HEAD") or "").strip()
    if not head:  # no tree of git's; or one that it does not speak of (another owner's, no commit yet, no git here)
        return "", any((above / ".git").exists() for above in (source.resolve(), *source.resolve().parents)), []
    said = [
        # Whatever the user's settings leave out.
        _git(source, "status", "--porcelain", "--untracked-files=normal", "--ignore-submodules=none"),
        _git(source, "ls-files", "-v", "--full-name", ":/"),
        _git(source, "rev-parse", "--show-prefix"),
        _git(source, "submodule", "status", "--recursive"),
    ]
    changed, files, prefix, modules = ("" if text is None else text for text in said)
    # In lower case, or S: git was told not to look whether it was changed, or that it is not to be there.
    unseen = any(line[:1].islower() or line[:1] == "S" for line in files.splitlines())
    absent = [line for line in modules.splitlines() if line.startswith("-")]
    return head, bool(changed or unseen or None in said), [prefix.strip(), *absent]


def _git(source: Path, *words: str) -> str | None:
    """What git says; None where it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", os.fspath(source), *words], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
