"""What HfApi's methods do: which of them read what for how long, and by what it is known that an answer is still so."""

from __future__ import annotations

from typing import Any, Final, NamedTuple


class Reading(NamedTuple):
    """A method that reads: `ttl` in seconds; `kind`, the type of repo that it is about, "" for the argument `repo_type`.

    `confirmed`: by the repo's commit. `several`: it gives an iterator. `bounded`: kept only with a `limit`.
    """

    ttl: float
    kind: str = ""
    confirmed: bool = False
    several: bool = False
    bounded: bool = False


READS: Final = {
    "model_info": Reading(3600.0, "model", confirmed=True),
    "dataset_info": Reading(3600.0, "dataset", confirmed=True),
    "space_info": Reading(1800.0, "space", confirmed=True),
    "list_repo_files": Reading(1800.0, confirmed=True),
    "list_repo_tree": Reading(1800.0, confirmed=True, several=True),
    "get_paths_info": Reading(1800.0, confirmed=True),
    "list_repo_refs": Reading(300.0),
    "list_repo_commits": Reading(300.0),
    "list_models": Reading(600.0, several=True, bounded=True),
    "list_datasets": Reading(600.0, several=True, bounded=True),
    "list_spaces": Reading(600.0, several=True, bounded=True),
}

THROUGH: Final = frozenset({"repo_info"})
"""What reads by other methods of the same client, which are kept."""

_LOOKING: Final = (
    *("get_", "list_", "search_", "inspect_", "fetch_", "hf_hub_", "snapshot_", "parse_", "run_as_", "whoami"),
    *("download_", "read_", "resolve_", "verify_", "wait_for_"),
)
_LOOKS: Final = ("_exists", "_check", "_info", "_details", "_download")

FIELDS: Final = {
    "model": ["sha", "private", "gated", "disabled"],
    "dataset": ["sha", "private", "gated", "disabled"],
    "space": ["sha", "private", "disabled", "runtime"],
}
"""What is asked to confirm an answer: what changes with content and access. Downloads and likes do neither."""

_UNSEEN: Final = ("expand", "securityStatus", "last_commit", "expiration")
"""Arguments that ask for what changes without a commit."""

LARGEST: Final = 1000
"""Entries that a search may have to be kept."""


def does(name: str) -> str:
    """read, look (asked each time), or change, for a public method of HfApi. What is not known changes something."""
    if name in READS:
        return "read"
    looks = name in THROUGH or name.startswith(_LOOKING) or name.endswith(_LOOKS)
    return "look" if looks else "change"


def confirmable(arguments: dict[str, Any]) -> bool:
    """Whether a commit says all of what is asked for."""
    return not any(arguments.get(name) for name in _UNSEEN)


def validator(info: Any) -> str:
    """What an answer is known by; "" where the Hub does not say its commit."""
    if not info.sha:
        return ""
    runtime = getattr(info, "runtime", None)
    stage = getattr(runtime, "stage", None), getattr(runtime, "hardware", None)
    access = [getattr(info, name, None) for name in ("private", "gated", "disabled")]
    return "/".join(str(part) for part in (info.sha, *access, *stage))
