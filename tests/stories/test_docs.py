"""The pages: their code runs, their links lead somewhere, and nothing public is missing from them."""

from __future__ import annotations

import ast
import json
import linecache
import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit.config.settings import TABLE
from tests.test_rooms import CORE, FLOORS

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EVERY_PAGE = [*PAGES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


ROOMS = {room for floor in FLOORS["cachekit"] for room in floor}
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FIGURE_FLOOR = re.compile(r"^(\d) │ (.*?) +│$", re.MULTILINE)
FIGURE_ROOM = re.compile(r"([a-z_]+)(?: \(([a-z, ]+)\))?")
ROOM_ROW = re.compile(r"^\| `([a-z/]+)/?` \| .* \|$", re.MULTILINE)
PLACE = re.compile(r"`([a-z_]+/[a-z_/]*)`")


def blocks(page: Path) -> list[tuple[int, str]]:
    """(line of the page, code) of each block."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start(1)), found[1]) for found in BLOCK.finditer(text)]


def run(page: Path, line: int, code: str, namespace: dict[str, Any]) -> None:
    # Blank lines in front give tracebacks the page's line numbers; linecache gives source digests their text.
    name, text = f"<{page.name}:{line}>", "\n" * line + code
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), namespace)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[None]:
    """A cache directory of the test's own, and no daemon."""
    with cachekit.configure(dir=tmp_path / "docs", ipfs="off"):
        yield


def relative(page: Path) -> str:
    return str(page.relative_to(ROOT))


def rooms_inside(room: Path) -> list[str]:
    return sorted(inner.parent.name for inner in room.glob("*/__init__.py"))


def room_rows(package: Path) -> list[str]:
    """The rows of the page's tables: each room, from the top, and the first line of its docstring; then the rooms within."""
    core = [room for floor in reversed(FLOORS["cachekit"]) for room in floor if not room.startswith("__")]
    inner = [f"{room}/{name}" for room in core for name in rooms_inside(package / room)]
    return [room_row(package, room) for room in [*core, *inner]]


def room_row(package: Path, room: str) -> str:
    folder = (package / room).is_dir()
    source = package / room / "__init__.py" if folder else package / f"{room}.py"
    sentence = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return f"| `{room}{'/' * folder}` | {sentence.partition(chr(10))[0]} |"


@pytest.mark.usefixtures("local")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=relative)
def test_code_runs(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of a page runs, one after the other in one namespace."""
    module = types.ModuleType(f"docs_{page.stem.replace('-', '_').lower()}")
    # dataclasses and type hints look their module up by name.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for line, code in blocks(page):
        run(page, line, code, module.__dict__)


@pytest.mark.usefixtures("local")
def test_a_block_that_fails_fails_the_test() -> None:
    """The runner hides nothing: a false assertion in a block is raised, with the line of the page."""
    with pytest.raises(AssertionError) as raised:
        run(ROOT / "README.md", 41, "assert 1 == 2\n", {})
    assert raised.traceback[-1].lineno == 41


@pytest.mark.usefixtures("local")
def test_functions_of_blocks_have_a_source() -> None:
    """A function from a page is keyed by its source, as one from a file is, so its entries may be shared."""
    namespace: dict[str, Any] = {"__name__": "docs_none"}
    code = "import cachekit\n\n@cachekit.distributed_cache\ndef f(x: int) -> int:\n    return x\n"
    run(ROOT / "README.md", 7, code, namespace)
    assert namespace["f"].key_for(1).shareable


@pytest.mark.parametrize("variable", TABLE, ids=lambda variable: variable.name)
def test_settings_are_documented(variable: Any) -> None:
    """Every variable stands in docs/configuration.md."""
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert re.search(rf"\b{variable.name}\b", text)


@pytest.mark.parametrize("name", cachekit.__all__)
def test_public_names_are_documented(name: str) -> None:
    """Every public name stands in README.md or docs/ as code."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    spans = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    assert any(re.search(rf"\b{name}\b", span) for span in spans)


@pytest.mark.parametrize("page", EVERY_PAGE, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of the repository leads to one."""
    targets = [link for link in LINK.findall(page.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in targets if not (page.parent / link).exists()] == []


def test_the_tables_of_rooms_are_the_sentences_of_rooms() -> None:
    """A row of docs/architecture.md for each room, with the sentence that stands in its `__init__`."""
    rows = [found[0] for found in ROOM_ROW.finditer(ARCHITECTURE.read_text(encoding="utf-8"))]
    expected = room_rows(CORE)
    assert rows == expected, "\n".join(["the rows of docs/architecture.md should be:", *expected])


def test_a_room_without_a_row_is_found(tmp_path: Path) -> None:
    """A room that is added to another one needs a row of its own."""
    copy = Path(shutil.copytree(CORE, tmp_path / "cachekit", ignore=shutil.ignore_patterns("__pycache__")))
    (copy / "ipfs" / "gossip").mkdir()
    (copy / "ipfs" / "gossip" / "__init__.py").write_text('"""What daemons tell each other."""\n', encoding="utf-8")
    assert set(room_rows(copy)) - set(room_rows(CORE)) == {"| `ipfs/gossip/` | What daemons tell each other. |"}


def test_the_figure_of_the_house_is_the_house() -> None:
    """The figure of docs/architecture.md has the floors that tests/test_rooms.py keeps, and names the rooms within rooms."""
    figure = FIGURE_FLOOR.findall(ARCHITECTURE.read_text(encoding="utf-8"))
    drawn = {int(number): [FIGURE_ROOM.findall(cell)[0] for cell in cells.split("│")] for number, cells in figure}
    assert [tuple(room for room, _ in drawn[number]) for number in sorted(drawn)] == list(FLOORS["cachekit"])
    inside = {room: inner.split(", ") if inner else [] for floor in drawn.values() for room, inner in floor}
    assert inside == {room: rooms_inside(CORE / room) for room in inside}


@pytest.mark.parametrize("page", [ARCHITECTURE, ROOT / "CONTRIBUTING.md"], ids=relative)
def test_places_that_pages_name_are_there(page: Path) -> None:
    """Where a page says `room/module`, there is such a module, or such a room."""
    named = {place for place in PLACE.findall(page.read_text(encoding="utf-8")) if place.split("/")[0] in ROOMS}
    assert [place for place in named if not (CORE / place).is_dir() and not (CORE / f"{place}.py").exists()] == []


def test_the_openvex_file_says_what_scanners_look_for() -> None:
    """One statement, for the diskcache CVE and our package, with a justification from OpenVEX's list."""
    document = json.loads((ROOT / "security" / "cachekit.openvex.json").read_text(encoding="utf-8"))
    assert document["@context"] == "https://openvex.dev/ns/v0.2.0"
    (statement,) = document["statements"]
    assert statement["vulnerability"]["name"] == "CVE-2025-69872"
    assert [product["@id"] for product in statement["products"]] == ["pkg:pypi/cachekit-ipfs"]
    assert (statement["status"], statement["justification"]) == ("not_affected", "vulnerable_code_not_in_execute_path")
