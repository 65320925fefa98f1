"""What a plain install brings: few packages, and the page names each."""

from __future__ import annotations

import re
from pathlib import Path

import dependencies

PAGE = Path(__file__).parents[2] / "docs" / "dependencies.md"
MOST = 21


def test_a_plain_install_stays_small() -> None:
    """At most 21 packages stand behind cachekit in this environment, those that they need themselves included."""
    brought = dependencies.brought()
    assert {"wrapt", "multiaddr", "cffi"} <= brought.keys()
    assert len(brought) <= MOST, sorted(brought)


def test_the_page_names_every_package() -> None:
    """docs/dependencies.md has each of them, and no other but the one that Python 3.10 needs."""
    named = set(re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert dependencies.brought().keys() - named <= {"typing-extensions"}
    assert named <= dependencies.brought().keys()


def test_the_size_of_a_package_is_that_of_its_files() -> None:
    """Whole files, without bytecode: what the page calls its size."""
    assert dependencies.size("cryptography") > 1_000_000 > dependencies.size("six") > 10_000
