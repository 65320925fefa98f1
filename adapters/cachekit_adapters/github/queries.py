"""GraphQL documents: which operation is asked, and one text for all ways of writing it.

A reader of tokens as GraphQL's specification (October 2021, §2.1) has them; what it does not know is not cached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_TOKEN: Final = re.compile(
    r"""(?P<ignored>[\ufeff\s,]+|\#[^\r\n]*)
      |(?P<block>\"{3}(?:\\\"{3}|(?!\"{3})[\s\S])*\"{3})
      |(?P<text>"(?:[^"\\\r\n]|\\.)*")
      |(?P<name>[_A-Za-z][_0-9A-Za-z]*)
      |(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![.0-9_A-Za-z]))
      |(?P<mark>\.{3}|[!$&()\[\]{}:=@|])""",
    re.VERBOSE | re.ASCII,
)
_OPENING: Final = {"{": 1, "(": 1, "[": 1, "}": -1, ")": -1, "]": -1}
_KINDS: Final = frozenset({"query", "mutation", "subscription"})


class Query(NamedTuple):
    """A document: its `text` without what does not count, and the `kind` of the operation that is asked for.

    `kind` is query, mutation, subscription, or "" where that cannot be told. `names` are all names in it.
    """

    text: str
    kind: str
    names: frozenset[str]


def query_of(document: str, operation: str | None = None) -> Query:
    """The document as it counts. `operation` is the name of the one that is asked for, where there are several."""
    tokens = list(_tokens(document))
    if not tokens or any(kind == "" for kind, _ in tokens):
        return Query(document, "", frozenset())
    found = list(_operations([text for _, text in tokens]))
    asked = [kind for kind, name in found if operation in (None, "", name)]
    text = " ".join(text for _, text in tokens)
    return Query(text, asked[0] if len(asked) == 1 else "", frozenset(text for kind, text in tokens if kind == "name"))


def _tokens(document: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(document):
        found = _TOKEN.match(document, place)
        if found is None:
            yield "", ""
            return
        place = found.end()
        if found.lastgroup != "ignored":
            yield str(found.lastgroup), found[0]


def _operations(words: list[str]) -> Iterator[tuple[str, str]]:
    """Kind and name of each operation; a document that is not balanced has none."""
    depth, found, fresh = 0, list[tuple[str, str]](), True
    for at, word in enumerate(words):
        if depth == 0 and fresh and word in _KINDS:
            found.append((word, words[at + 1] if at + 1 < len(words) else ""))
        if depth == 0 and fresh and word == "{":
            found.append(("query", ""))
        fresh = False
        depth += _OPENING.get(word, 0)
        if depth == 0 and word == "}":
            fresh = True
        if depth < 0:
            return
    if depth == 0:
        yield from found
