"""Where a command of `gh` is called from: its program, configuration, host, and the directory's repository.

gh's own rules decide; where they need more than is looked at here, the host is not known, and nothing is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cachekit import UsageError
from cachekit_adapters._revalidating.accounts import mark
from cachekit_adapters.github.client import TOKENS
from cachekit_adapters.github.commands import Command, named

_SHAPING: Final = (
    *("GH_FORCE_TTY", "GH_DEBUG", "DEBUG", "GH_MDWIDTH", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "GLAMOUR_STYLE"),
    *("TZ", "GH_HOST", "GH_REPO"),
)
"""Variables that change what gh prints, or whom it asks."""

_HOST: Final = re.compile(r"^([^\s:#][^\s]*):\s*$", re.MULTILINE)
_REMOTE: Final = re.compile(r"^remote\..*\.url$")
_URL: Final = re.compile(r"^(?:[a-z+]+://)?(?:[^@/]*@)?([^/:]+(?::\d+)?)[:/]")
_SECONDS: Final = 10.0


class Place(NamedTuple):
    """`identity` is what of it decides an answer; `secret` is what the account is learnt from, `host` "" if unknown."""

    program: str
    host: str
    secret: bytes
    identity: dict[str, Any]


def place_of(command: Command, directory: Path, environment: Mapping[str, str], gh: str) -> Place:
    """Where `command` is called. Raises FileNotFoundError where there is no gh."""
    program = shutil.which(gh, path=environment.get("PATH"))
    if program is None:
        raise FileNotFoundError(f"there is no {gh!r} on the PATH; install GitHub's command line, or pass gh=PATH")
    home = _configuration(environment)
    hosts, settings = _text(home / "hosts.yml"), _text(home / "config.yml")
    repository = _repository(directory, environment) if command.located and not environment.get("GH_REPO") else None
    host = _host(command, environment, hosts, repository)
    # Whichever gh takes: it says itself whose it is.
    secrets = [environment.get(name, "") for name in TOKENS] + [hosts]
    status = os.stat(program)
    identity = {
        "program": [status.st_size, status.st_mtime_ns],
        "settings": mark(settings.encode()),
        "environment": {name: environment[name] for name in _SHAPING if name in environment},
        "repository": None if repository is None else mark(repository.encode()),
    }
    return Place(program, host, "\0".join(secrets).encode() if any(secrets) else b"", identity)


def _configuration(environment: Mapping[str, str]) -> Path:
    if environment.get("GH_CONFIG_DIR"):
        return Path(environment["GH_CONFIG_DIR"])
    base = environment.get("XDG_CONFIG_HOME") or os.path.join(environment.get("HOME", ""), ".config")
    return Path(base, "gh")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _host(command: Command, environment: Mapping[str, str], hosts: str, repository: str | None) -> str:
    """Whom gh asks, by its own order; "" where it would choose between several."""
    said = command.host or named(environment.get("GH_REPO", ""))[0] or environment.get("GH_HOST", "").lower()
    if said:
        return said
    remotes = _remotes(repository or "")
    if remotes and not command.api:  # `gh api` asks the default host, whatever the remotes are
        return remotes.pop() if len(remotes) == 1 else ""
    known = set(_HOST.findall(hosts))
    return known.pop().lower() if len(known) == 1 else "github.com"


def _remotes(settings: str) -> set[str]:
    found = set()
    for entry in settings.split("\0"):
        name, _, value = entry.partition("\n")
        if _REMOTE.match(name) and (url := _URL.match(value)):
            found.add(url[1].lower().removeprefix("ssh.").replace("ssh.github.com", "github.com"))
    return found


def _repository(directory: Path, environment: Mapping[str, str]) -> str:
    """What git says of the directory's repository, its remotes and its branch; "" where there is none."""
    said = []
    for question in (("config", "--list", "-z"), ("symbolic-ref", "-q", "HEAD")):
        try:
            done = subprocess.run(
                ["git", *question],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError:  # no git: gh has none to ask either
            return ""
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"git did not say which repository {directory} is ({error}); name it: --repo") from error
        said.append(done.stdout.decode("utf-8", "replace"))
    return "\0".join(said)
