"""Texts for people: what is masked in them, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from cachekit.keys.parts import of_arguments
from cachekit.keys.secrets import hidden, without_secrets

S = "Zq9plantedZq9planted"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"-HX-Api-Key: {S}", "-HX-Api-Key: <secret>"),
        (f"GET /\nCookie: a={S}; b={S}\nAccept: x", "GET /\nCookie: <secret>\nAccept: x"),
        (f"https://u:p@{S}@host/x", "https://u:<secret>@host/x"),
        (f"https://u:{S}@host/?api_key={S}&b=2", "https://u:<secret>@host/?api_key=<secret>&b=2"),
        (f"--password=two words {S}", "--password=<secret>"),
        (f"x --token {S} --user 'me:{S}' -v", "x --token <secret> --user 'me:<secret>' -v"),
        (f'{{"password": "{S}", "a": 1}}', '{"password": "<secret>", "a": 1}'),
        (f"say bearer {S}, now", "say bearer <secret>, now"),
        (f"x=gsk_{S} y", "x=<secret> y"),
        (f"join ck2.{S} y", "join <secret> y"),
        (f"join ck1.{S}", "join <secret>"),
    ],
)
def test_a_secret_is_masked_and_the_rest_stays(text: str, shown: str) -> None:
    """In its place: people still recognise what was said."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("What is a token? It is a word.", "the secret of life", "Basic tutorial", "bearer of news"),
        *("risk-averse-people-are-fine-x", "task-scheduling-for-everybody", "https://h:80/x@y"),
        *("python -u script.py --key 3", "--bypass x", "C:\\Users\\u: x", "db://h:5432/d?x=a@b"),
    ],
)
def test_what_only_looks_alike_stays(text: str) -> None:
    """Prose, ports, paths and options that carry no secret."""
    assert without_secrets(text) == text


def test_what_a_neighbour_hides() -> None:
    """An option hides what follows it, curl's -u only a pair, a header's name its value."""
    assert hidden(["curl", "-u", "a:b", "--token", "x", "-u", "y", "--pass", "z"]) == {2, 4, 8}
    assert hidden(["Authorization", "x"]) == {1}


def test_what_follows_the_last_item_that_is_remembered_one_by_one() -> None:
    """An option that is the 64th item hides the 65th."""
    items: Any = [*map(str, range(63)), "--token", S]
    assert S not in str(of_arguments({"command": items}, lambda value: repr(value).encode()))
