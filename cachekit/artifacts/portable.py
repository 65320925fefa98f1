"""Names that mean the same on every system: none escapes from its tree, no two meet, no link leads out.

What a manifest of another machine says is created here as files, so this is a border. Paths are posix and relative.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

_LONGEST: Final = 255
"""UTF-8 bytes of one name."""
DEEPEST: Final = 200
"""Names in one path. Python stops at 1000 nested calls, some of which are the caller's, and Linux at 4096 bytes a path;
what is walked one level a call stays far from both."""
TOO_DEEP: Final = f"is more than {DEEPEST} directories deep"
_HOPS: Final = 40
"""Links followed in one path, as Linux has it."""
_RESERVED: Final = frozenset('*?"<>|')
_DEVICES: Final = frozenset(
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"]
    + [f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789¹²³"]
)


def name_problem(name: str) -> str:
    """Why one name cannot be had everywhere; "" if it can."""
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not UTF-8"
    if name in ("", ".", ".."):
        return "is no name of its own"
    if any(character in "/\\:" or unicodedata.category(character) == "Cc" for character in name):
        return "has a separator, a colon or a control character in it"
    if not _RESERVED.isdisjoint(name):
        return 'has one of * ? " < > | in it, which Windows refuses'
    if name[-1] in ". ":
        return "ends in a dot or a space, which Windows drops"
    if name.split(".")[0].rstrip(" ").upper() in _DEVICES:
        return "names a device of Windows"
    return f"is longer than {_LONGEST} bytes" if size > _LONGEST else ""


def path_problem(path: str) -> str:
    """Why a relative path cannot be had everywhere; "" if it can."""
    names = path.split("/")
    if len(names) > DEEPEST:
        return f"{path[:80]!r}… {TOO_DEEP}"
    for name in names:
        if problem := name_problem(name):
            return f"{path!r} {problem}" if name == path else f"{path!r}: {name!r} {problem}"
    return ""


def tree_problem(leaves: Iterable[str], directories: Iterable[str], links: Mapping[str, str]) -> str:
    """Why these paths are no tree that can be had everywhere; "" if they are.

    `leaves` are files and links, `links` the targets of the latter. Refused are names that `name_problem` refuses, two
    paths that differ only in case or normalisation, what lies below a file or a link, and links that leave the tree.
    """
    spelled: dict[str, str] = {}
    ends: set[str] = set()
    for path in leaves:
        if problem := path_problem(path) or _meeting(path, spelled):
            return problem
        if path in ends:
            return f"{path!r} is there twice"
        ends.add(path)
    for path in directories:
        if problem := path_problem(path) or _meeting(path, spelled):
            return problem
    for path in spelled.values():
        above = path.rpartition("/")[0]
        if above in ends:
            return f"{path!r} lies below {above!r}, which is no directory"
    if path := next((path for path in directories if path in ends), ""):
        return f"{path!r} is a file and a directory"
    return _links_problem(links)


def fold(path: str) -> str:
    """Equal for paths that some file system takes for one: case and Unicode normalisation do not count."""
    return path if path.isascii() and path.islower() else _canonical(_canonical(path).casefold())


def _canonical(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def _meeting(path: str, spelled: dict[str, str]) -> str:
    """Notes how a path and those above it are spelled; tells of one that was spelled otherwise."""
    while path:
        known = spelled.setdefault(fold(path), path)
        if known != path:
            return f"{path!r} and {known!r} are one name on some systems"
        path = path.rpartition("/")[0]
    return ""


def _links_problem(links: Mapping[str, str]) -> str:
    folded = {fold(path): target for path, target in links.items()}
    for path, target in links.items():
        names = [name for name in target.split("/") if name not in (".", "..")]
        if target.startswith("/") or not target or any(map(name_problem, names)):
            return f"the link {path!r} leads to {target!r}, which is no portable path inside the tree"
        if _leaves(path, folded):
            return f"the link {path!r} leads out of the tree, or in a circle ({target!r})"
    return ""


def _leaves(link: str, links: Mapping[str, str]) -> bool:
    """Whether following `link` leaves the tree at any step, other links on the way included."""
    at: list[str] = []
    todo = fold(link).split("/")[::-1]
    hops = 0
    while todo:
        name = todo.pop()
        if name == "..":
            if not at:
                return True
            at.pop()
        elif name != ".":
            at.append(name)
            target = links.get("/".join(at))
            if target is not None:
                at.pop()
                hops += 1
                todo += fold(target).split("/")[::-1]
        if hops > _HOPS:
            return True
    return False
