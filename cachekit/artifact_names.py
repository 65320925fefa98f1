"""What names an artifact: its own name, a key, the CID of its manifest, the beginning of its digest."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, NamedTuple

from cachekit.artifacts.manifest import Manifest
from cachekit.errors import UsageError
from cachekit.model import Key

CID: Final = re.compile(r"baf[ky][a-z2-7]{55}")
_SHOWN: Final = 20
_FEWEST: Final = 4
"""Digits of a digest that may stand for it."""


class Artifact(NamedTuple):
    """An artifact and its `key`, None where nothing says it; `cid` is its manifest's, "" where it is in no IPFS.

    `used` is when it was last used here (ns since the epoch, to the hour), 0 where its content is elsewhere. Its files
    are sealed for `namespace`.
    """

    manifest: Manifest
    namespace: str
    key: Key | None
    cid: str
    pinned: bool
    used: int
    entry: bool
    """Whether its record is on this machine's disk, and good."""


def key_of(manifest: Manifest, namespace: str = "") -> Key | None:
    """The key that the manifest says it was built for; None for one of another namespace than `namespace`."""
    try:
        key = parsed(manifest.about.get("key", ""))
    except UsageError:
        return None
    fits = namespace in ("", key.namespace)
    return replace(key, function=manifest.about.get("function", "")) if fits else None


def parsed(text: str) -> Key:
    """The key of `<namespace>/<64 hex digits>`; UsageError for anything else."""
    namespace, _, digits = text.rpartition("/")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if not namespace or len(digest) != 32:
        raise UsageError(f"{text!r} is not a key; `cachekit ls --artifacts` gives one")
    return Key(namespace, digest)


def fits(found: Artifact, text: str) -> bool:
    """Whether `text` names it: all of its name, key or CID, or the beginning of its digest."""
    begins = len(text) >= _FEWEST and found.manifest.digest.startswith(text)
    return begins or text in (found.manifest.name, found.cid) or (found.key is not None and text == str(found.key))


def only(text: str, fitting: list[Artifact]) -> Artifact | None:
    """The one of `fitting` to take; None where there is none, UsageError where their contents differ."""
    fitting = preferred(fitting)
    if len({found.manifest.digest for found in fitting}) > 1:
        raise several(text, fitting)
    return max(fitting, key=lambda found: (found.entry, found.used), default=None)


def preferred(fitting: list[Artifact]) -> list[Artifact]:
    """What a call would be answered with goes before what merely lies in the store."""
    return [found for found in fitting if found.entry] or fitting


def several(text: str, fitting: list[Artifact]) -> UsageError:
    """What is said where `text` is not enough: a line for each, with its key and when it was made."""
    lines = [f"  {found.key or found.manifest.digest}  made {_made(found)}" for found in fitting[:_SHOWN]]
    more = [f"  and {len(fitting) - _SHOWN} more"] if len(fitting) > _SHOWN else []
    said = f"{text!r} fits {len(fitting)} artifacts; give one's key or the beginning of its digest:"
    return UsageError("\n".join([said, *lines, *more]))


def _made(found: Artifact) -> str:
    made = found.manifest.about.get("made", "")
    return made if made and made.isprintable() else "at an unknown time"
