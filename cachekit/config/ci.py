"""Where the environment asks for IPFS to stay off: continuous integration, and two variables older than cachekit.

A build machine seldom has a Kubo daemon, and one that trusts pull requests must not write into a team's cache, so in CI
IPFS is off unless somebody asks for it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from cachekit.errors import UsageError

BOOLEANS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}
BOOLEAN_TEXT: Final = "1/true/yes/on or 0/false/no/off"
LEGACY: Final = ("IPFS_KIT_DISABLE", "STORAGE_FORCE_LOCAL")

# A flag says yes or no; an identifier says yes by being there: Jenkins' first build could well be BUILD_ID=0.
_VENDORS: Final[tuple[tuple[str, str, Literal["flag", "present"]], ...]] = (
    ("GitHub Actions", "GITHUB_ACTIONS", "flag"),
    ("GitLab CI", "GITLAB_CI", "flag"),
    ("Jenkins", "BUILD_ID", "present"),
    ("Jenkins", "JENKINS_URL", "present"),
    ("CircleCI", "CIRCLECI", "flag"),
    ("Travis CI", "TRAVIS", "flag"),
    ("Azure Pipelines", "TF_BUILD", "flag"),
    ("Buildkite", "BUILDKITE", "flag"),
    ("AppVeyor", "APPVEYOR", "flag"),
    ("AWS CodeBuild", "CODEBUILD_BUILD_ID", "present"),
    ("Bitbucket Pipelines", "BITBUCKET_BUILD_NUMBER", "present"),
    ("Cirrus CI", "CIRRUS_CI", "flag"),
    ("Drone", "DRONE", "flag"),
    ("Semaphore", "SEMAPHORE", "flag"),
    ("TeamCity", "TEAMCITY_VERSION", "present"),
    ("any other", "CI", "flag"),
)


def detect_ci(environ: Mapping[str, str]) -> str | None:
    """The variable that says this is CI, or None. `CI=false` silences `CI` alone, not a vendor's own variable."""
    return next((name for _, name, kind in _VENDORS if _says_yes(environ.get(name, ""), kind)), None)


def _says_yes(text: str, kind: Literal["flag", "present"]) -> bool:
    text = text.strip()
    return bool(text) and (kind == "present" or BOOLEANS.get(text.lower(), True))


def legacy_refusal(environ: Mapping[str, str]) -> str | None:
    """The first legacy variable that turns IPFS off, as `NAME=value`, or None. Raises UsageError for a bad value."""
    refusals = [f"{name}={environ[name].strip()}" for name in LEGACY if _legacy(environ, name)]
    return refusals[0] if refusals else None


def _legacy(environ: Mapping[str, str], name: str) -> bool:
    text = environ.get(name, "").strip()
    if text and text.lower() not in BOOLEANS:
        msg = f"{name}={text!r} is not accepted; write {BOOLEAN_TEXT}"
        raise UsageError(msg)
    return BOOLEANS.get(text.lower(), False)


def render_vendors() -> str:
    """The vendor table in markdown, for docs/configuration.md."""
    rows = [f"| {vendor} | `{name}` | {_KINDS[kind]} |" for vendor, name, kind in _VENDORS]
    return "\n".join(["| CI service | variable | means CI when |", "|---|---|---|", *rows])


_KINDS: Final = {"flag": "set, and not 0/false/no/off", "present": "set"}
