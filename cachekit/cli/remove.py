"""The commands that remove: hits that end, and room that is made."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from cachekit.cache import operations
from cachekit.cache.default import default, disk
from cachekit.cli.report import NO, YES, Report, find_key
from cachekit.errors import UsageError
from cachekit.model import EVERYWHERE


def invalidate(options: argparse.Namespace) -> Report:
    group = {"tag": options.tag, "namespace": options.namespace}
    if (options.key is None) == (group == {"tag": None, "namespace": None}):
        raise UsageError("`cachekit invalidate` takes a KEY, or --tag, or --namespace, or a tag of a namespace")
    # An empty word or `*` would cover more than anybody means by it.
    if "" in group.values() or options.namespace == EVERYWHERE:
        raise UsageError("--tag and --namespace take a name that is not empty and not '*'")
    if options.key is None:
        return _removed(operations.invalidate(**group))
    return _removed(operations.invalidate(key=find_key(options.key)))


def _removed(removed: bool) -> Report:
    text = "removed" if removed else "nothing was there to remove"
    return Report({"removed": removed}, text, YES if removed else NO)


def clear(options: argparse.Namespace) -> Report:
    name = default().settings.namespace
    if options.function is not None:
        return _removed(operations.invalidate(function=options.function))
    if not options.yes and (options.json or not sys.stdin.isatty()):
        raise UsageError(f"`cachekit clear` ends every hit of namespace {name!r}; say --yes where nobody can answer")
    question = f"End every hit of namespace {name!r}, for everybody who shares it? [y/N] "
    if options.yes or input(question).lower() in ("y", "yes"):
        return _removed(operations.clear())
    return Report({"removed": False}, "nothing was changed", NO)


_FREED: Final = {
    "disk_bytes": "bytes freed of entries",
    "artifact_bytes": "bytes freed of artifacts",
    "index_rows": "rows dropped of what is known of the team",
    "ipfs_pins": "CIDs let go of in IPFS",
    "ipfs_lines": "lines fewer in the shared index",
    "ipfs_segments": "segments fewer in the shared index",
}


def gc(_options: argparse.Namespace) -> Report:
    disk()  # else there is nothing to drop from
    dropped = operations.gc()
    lines = [
        f"{dropped['dropped']} entries and {dropped['artifacts']} artifacts dropped, {dropped['leftovers']} leftovers",
        *(f"{text}: {dropped[what]}" for what, text in _FREED.items() if what in dropped),
    ]
    return Report(dropped, "\n".join(lines))
