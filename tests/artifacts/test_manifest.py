"""Manifests: what they say, and what they must never be made to say."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cachekit.artifacts.manifest import EXECUTABLE, PLAIN, File, Manifest
from cachekit.artifacts.portable import path_problem, tree_problem
from cachekit.errors import IntegrityError

SHA = "ab" * 32
TREE = Manifest(
    "tree",
    "model",
    (
        File("a.bin", 3, PLAIN, SHA, "bafy1"),
        File("b/run", 4, EXECUTABLE, SHA),
        File("link", 0, PLAIN, "", link="b/run"),
    ),
    ("empty",),
    about={"function": "tests.f"},
)


def shape(**changes: Any) -> bytes:
    """The manifest TREE, altered, in canonical JSON."""
    found = {**json.loads(TREE.encode()), **changes}
    return json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def entry(path: str, link: str = "") -> list[Any]:
    return [path, 0, PLAIN, "", "", link] if link else [path, 1, PLAIN, SHA, "", ""]


def test_a_manifest_comes_back() -> None:
    """Encoded and decoded it is equal, and its bytes are the same again."""
    found = Manifest.decode(TREE.encode())
    assert found == TREE
    assert found.encode() == TREE.encode()
    assert found.size == 7


def test_the_digest_is_of_the_content() -> None:
    """Name, cids and history do not count; paths, modes, bytes, links and directories do."""
    files = TREE.files
    same = Manifest("tree", "other", (files[0]._replace(cid="x"), *files[1:]), ("empty",), False, {})
    assert same.digest == TREE.digest
    others = [
        Manifest("tree", "model", (files[0]._replace(path="a.bim"), *files[1:]), ("empty",)),
        Manifest("tree", "model", (files[0]._replace(mode=EXECUTABLE), *files[1:]), ("empty",)),
        Manifest("tree", "model", (files[0]._replace(sha256="cd" * 32), *files[1:]), ("empty",)),
        Manifest("tree", "model", (*files[:2], files[2]._replace(link="a.bin")), ("empty",)),
        Manifest("tree", "model", files),
    ]
    assert len({TREE.digest, *(other.digest for other in others)}) == 6


ESCAPING = [
    *(
        "../x",
        "/x",
        "a/../x",
        "a/./x",
        "a//x",
        "",
        ".",
        "..",
        "a/..",
        "a/",
        "x\0y",
        "a\\b",
        "..\\x",
        "C:",
        "C:x",
        "C:/x",
    ),
    *("a:stream", "CON", "con.txt", "a/NUL", "nul.tar.gz", "COM1", "lpt9.x", "COM¹", "aux .c", "CONIN$"),
    *("a*b", "a?b", 'a"b', "a<b", "a>b", "a|b", "a/b*", "\x1f", "/".join("d" * 201)),
    *("dot.", "space ", "a./b", "a /b", "new\nline", "\x7f", "\ud800", "x" * 256),
]


@pytest.mark.parametrize("path", ESCAPING)
def test_decode_refuses_a_path(path: str) -> None:
    """Whatever could leave the tree, or cannot be had on another system."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(files=[entry(path)], directories=[]))
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(files=[], directories=[path]))


@pytest.mark.parametrize("name", [*ESCAPING, "a/b"])
def test_decode_refuses_a_name(name: str) -> None:
    """The artifact's own name becomes a path too."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(name=name))
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(kind="file", name=name, files=[entry("")], directories=[]))


@pytest.mark.parametrize(
    "paths",
    [
        ("A", "a"),
        ("A/x", "a/y"),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "strasse"),
        ("a", "a"),
        ("a", "a/b"),
        ("x/A/1", "x/a"),
    ],
)
def test_decode_refuses_paths_that_meet(paths: tuple[str, ...]) -> None:
    """Two names that are one on some system, and what would lie below a file."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(files=[entry(path) for path in sorted(paths)], directories=[]))


@pytest.mark.parametrize(
    "links",
    [
        {"l": "/etc/passwd"},
        {"l": "../x"},
        {"a/l": "../../x"},
        {"l": "a/../../x"},
        {"l": ".."},
        {"l": "C:/x"},
        {"l": "a\\..\\..\\x"},
        {"l": "x\0"},
        {"l": "l"},
        {"a": "b", "b": "a"},
        {"a/b/c": "../..", "out": "a/b/c/../.."},  # by its text it stays inside; followed it does not
        {"a/b/c": "../..", "out": "A/B/C/../x"},  # the same where case does not count
    ],
)
def test_decode_refuses_links_that_leave(links: dict[str, str]) -> None:
    """By their text, or by way of other links."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(files=[entry(path, links[path]) for path in sorted(links)], directories=[]))


def test_nothing_lies_behind_a_link() -> None:
    """A file below a link would be written where the link leads."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(files=[entry("a", "b"), entry("a/x")], directories=["b"]))


def test_links_inside_are_kept() -> None:
    """Up and down, by way of other links, and dangling ones."""
    links = {"a/up": "../b", "b/c/top": "../..", "dangling": "b/nothing", "via": "b/c/top/a"}
    Manifest.decode(shape(files=[entry(path, links[path]) for path in sorted(links)], directories=[]))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "device"},
        {"sealed": 1},
        {"about": {"a": 1}},
        {"about": []},
        {"version": 2},
        {"more": 1},
        {"files": [["a", -1, PLAIN, SHA, "", ""]]},
        {"files": [["a", True, PLAIN, SHA, "", ""]]},
        {"files": [["a", 1, 0o4755, SHA, "", ""]]},
        {"files": [["a", 1, 420.0, SHA, "", ""]]},
        {"files": [["a", 1, PLAIN, SHA.upper(), "", ""]]},
        {"files": [["a", 1, PLAIN, "../" + SHA[3:], "", ""]]},
        {"files": [["a", 1, PLAIN, SHA, "../cid", ""]]},
        {"files": [["a", 1, PLAIN, SHA, "", "b"]]},
        {"files": [["a", 1, PLAIN]]},
        {"files": [entry("b"), entry("a")]},
        {"files": 3},
        {"directories": ["b", "a"]},
        {"directories": "ab"},
        {"kind": "file"},
        {"kind": "file", "files": [entry("", "x")], "directories": []},
    ],
)
def test_decode_refuses_other_shapes(changes: dict[str, Any]) -> None:
    """What `encode` would not have written is no manifest."""
    with pytest.raises(IntegrityError):
        Manifest.decode(shape(**changes))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, TREE.encode() + b" "])
def test_decode_refuses_other_bytes(data: bytes) -> None:
    """Nor is anything else."""
    with pytest.raises(IntegrityError):
        Manifest.decode(data)


NAMES = st.sampled_from(["a", "A", "b", "..", ".", "", "con", "x.", "é", "e\u0301", "C:", "a\\b"]) | st.text(max_size=3)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@settings(max_examples=500)
@given(PATHS)
def test_no_accepted_path_escapes(path: str) -> None:
    """What is accepted has only plain names in it, so joining it to a directory stays there."""
    if path_problem(path) == "":
        parts = path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert not any(c in part for part in parts for c in "\\:\0")
        assert not any(part[-1] in ". " for part in parts)


@settings(max_examples=500)
@given(st.dictionaries(PATHS, PATHS, max_size=4), st.lists(PATHS, max_size=3))
def test_an_accepted_tree_has_no_two_spellings(links: dict[str, str], files: list[str]) -> None:
    """However case and normalisation are taken, as many names remain; and no link climbs above its tree."""
    leaves = sorted({*links, *files})
    if tree_problem(leaves, [], links) == "":
        for take in (str.lower, str.upper, str.casefold, lambda text: unicodedata.normalize("NFC", text)):
            assert len({take(leaf) for leaf in leaves}) == len(leaves)
        for path, target in links.items():
            depth = path.count("/")
            assert target.split("/").count("..") <= depth + target.count("/")
            assert not target.startswith("/")
