"""The shape of the house: which room may know which, what stands at its top, and where a third party lives."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import cachekit

ROOT = Path(__file__).parent.parent

FLOORS = {
    "cachekit": (
        ("errors", "model"),
        ("files", "values"),
        ("keys", "config", "tiers", "plan", "artifacts"),
        ("ipfs",),
        ("cache",),
        ("calls",),
        ("commands",),
        ("cli", "testing", "__init__"),
        ("__main__",),
    ),
    "cachekit_adapters": (
        ("_wire", "_building", "_revalidating"),
        ("_sdk", "command", "http"),
        (
            "agents",
            "claude",
            "codeql",
            "compile_cache",
            "containers",
            "coreml_models",
            "gguf",
            "github",
            "groq",
            "hub",
            "openai",
            "opea",
            "openvino_models",
            "ovms",
            "qualcomm_models",
        ),
        ("tei", "tgi", "transformers_models", "vectors", "vision"),
        ("huggingface", "mcp", "storage"),
        ("__init__",),
    ),
}
"""From the ground up. A room imports from lower floors only; the rooms of one floor do not know each other."""

HOMES = {
    "wrapt": {"calls.cached"},
    "tenacity": {"plan.retrying"},
    "diskcache": {"tiers.disk_writer"},
    "ipfshttpclient": {"ipfs.kubo.client"},
    "cryptography": {"ipfs.trust.ciphers"},
    "fcntl": {"files.locks"},
    "platformdirs": {"files.places"},
    "tqdm": {"artifacts.progress"},
    "orjson": {"keys.plain", "values.codecs", "values.tagged"},
}

PUBLIC_FUNCTIONS = (
    *("add_listener", "bypass", "clear", "configure", "fetch", "fetch_to", "flush", "gc", "invalidate", "mode", "pin"),
    *("pins", "restore", "sample", "stats", "status", "store", "sync", "tell", "unpin", "warm"),
)
"""No room bears one of these names: importing it would put the package in the place of the function."""

MOST_AT_THE_TOP = 17
MOST_IN_A_ROOM = 12
MOST_LINES = 300
DEPTH = 3


class Import(NamedTuple):
    """One imported name: `module` as it stands below its package, such as `calls.cached`."""

    module: str
    name: str


def sources(package: Path) -> list[Path]:
    """Every module of a package, at any depth."""
    return sorted(package.rglob("*.py"))


def module_of(path: Path, package: Path) -> str:
    """`calls.cached` of calls/cached.py; a folder's own name of its `__init__.py`."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def statements(tree: ast.Module) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports of a module, lazy ones included; those for type checkers only are left out."""
    skipped = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for inner in ast.walk(statement)
    }
    for item in ast.walk(tree):
        if isinstance(item, (ast.Import, ast.ImportFrom)) and id(item) not in skipped:
            yield item


def named(item: ast.Import | ast.ImportFrom, path: Path, package: Path) -> Iterator[Import]:
    """What a statement imports, relative imports resolved; (`""`, package) stands for the package itself."""
    if isinstance(item, ast.Import):
        yield from (Import(alias.name, "") for alias in item.names)
        return
    base = item.module or ""
    if item.level:
        folder = path.parent
        for _ in range(item.level - 1):
            folder = folder.parent
        above = folder.relative_to(package.parent).parts
        base = ".".join([*above, *([item.module] if item.module else [])])
    yield from (Import(base, alias.name) for alias in item.names)


def inner_imports(path: Path, package: Path) -> Iterator[str]:
    """The modules of its own package that a module imports, named as `module_of` names them."""
    modules = {module_of(other, package) for other in sources(package)}
    for item in statements(ast.parse(path.read_text(encoding="utf-8"))):
        for imported in named(item, path, package):
            top, _, rest = imported.module.partition(".")
            if top != package.name:
                continue
            longer = f"{rest}.{imported.name}".strip(".")
            yield longer if longer in modules else rest or "__init__"


def rooms_of(package: Path) -> set[str]:
    """What stands at the top: rooms and single modules."""
    return {module_of(path, package).partition(".")[0] for path in sources(package)}


def wrong_floors(package: Path) -> Iterator[str]:
    """Imports that run up or sideways, and rooms that have no floor."""
    floor = {room: number for number, rooms in enumerate(FLOORS[package.name]) for room in rooms}
    for path in sources(package):
        module = module_of(path, package)
        room = module.partition(".")[0]
        if room not in floor:
            yield f"give {room} a floor"
            continue
        for imported in inner_imports(path, package):
            other = imported.partition(".")[0]
            if other != room and floor.get(other, len(floor)) >= floor[room]:
                yield f"{module} imports {imported}"


def circles(package: Path) -> Iterator[str]:
    """Modules that import each other, directly or round a few corners, lazy imports included."""
    arrows = {module_of(path, package): set(inner_imports(path, package)) for path in sources(package)}
    for module in arrows:
        seen, waiting = set[str](), set(arrows[module])
        while waiting:
            reached = waiting.pop()
            if reached == module:
                yield module
                break
            if reached not in seen:
                seen.add(reached)
                waiting |= arrows.get(reached, set())


def untidy(package: Path) -> Iterator[str]:
    """Rooms without a sentence, too full or too small, too deep, or named like a public function."""
    folders = [folder for folder in package.rglob("*") if folder.is_dir() and list(folder.glob("*.py"))]
    for folder in folders:
        relative = folder.relative_to(package)
        entries = [
            entry for entry in folder.iterdir() if entry.suffix == ".py" or (entry.is_dir() and entry in folders)
        ]
        sentence = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        if not sentence or not sentence.partition("\n")[0].endswith("."):
            yield f"{relative} does not say in a sentence what it is"
        if len(entries) - 1 > MOST_IN_A_ROOM:
            yield f"{relative} has {len(entries) - 1} entries"
        if len(relative.parts) > DEPTH - 1:
            yield f"{relative} is too deep"
        if relative.parts[0] in PUBLIC_FUNCTIONS:
            yield f"{relative} bears the name of a public function"


def foreign(path: Path, package: Path) -> Iterator[str]:
    """The third parties that a module imports outside their homes."""
    module = module_of(path, package)
    for item in statements(ast.parse(path.read_text(encoding="utf-8"))):
        for imported in named(item, path, package):
            top = imported.module.partition(".")[0]
            if module not in HOMES.get(top, {module}):
                yield f"{module} imports {top}"


CORE = ROOT / "cachekit"
ADAPTERS = ROOT / "adapters" / "cachekit_adapters"


def paths(*packages: Path) -> Iterable[Path]:
    return [path for package in packages for path in sources(package)]


@pytest.mark.parametrize("package", [CORE, ADAPTERS], ids=lambda package: package.name)
def test_rooms_know_lower_floors_only(package: Path) -> None:
    """Nothing is imported from the same floor or from above, by any module of either package."""
    assert not list(wrong_floors(package))


@pytest.mark.parametrize("package", [CORE, ADAPTERS], ids=lambda package: package.name)
def test_no_circle_inside_a_room(package: Path) -> None:
    """Modules of one room may know each other as long as no way leads back."""
    assert not list(circles(package))


@pytest.mark.parametrize("package", [CORE, ADAPTERS], ids=lambda package: package.name)
def test_rooms_are_tidy(package: Path) -> None:
    """A room says in one sentence what it is, has at most 12 entries, and lies at most three deep."""
    assert not list(untidy(package))


def test_the_top_is_taken_in_at_a_glance() -> None:
    """At most 17 entries stand at the top of cachekit, and no package is hidden by a function of its name."""
    assert len(rooms_of(CORE)) <= MOST_AT_THE_TOP
    assert set(PUBLIC_FUNCTIONS) <= set(cachekit.__all__)


@pytest.mark.parametrize("path", paths(CORE, ADAPTERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_read_in_a_sitting(path: Path) -> None:
    """No module is longer than 300 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", paths(CORE), ids=lambda path: str(path.relative_to(CORE)))
def test_third_parties_have_one_home(path: Path) -> None:
    """Each third-party library is imported where it lives, and nowhere else."""
    assert not list(foreign(path, CORE))


@pytest.mark.parametrize("path", paths(CORE, ADAPTERS), ids=lambda path: str(path.relative_to(ROOT)))
def test_broad_excepts_say_why(path: Path) -> None:
    """No bare except, and an `except Exception` has its reason on the same line."""
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        assert text != "except:"
        if text.startswith("except Exception"):
            assert "#" in text, text


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the core that a test may spoil."""
    return Path(shutil.copytree(CORE, tmp_path / "cachekit", ignore=shutil.ignore_patterns("__pycache__")))


def test_an_import_from_above_is_found(copy: Path) -> None:
    """A module of a low room that imports a higher one, lazily and by a relative name, is named with what it imports."""
    (copy / "files" / "wrong.py").write_text("def f():\n    from ..calls import cached\n", encoding="utf-8")
    assert list(wrong_floors(copy)) == ["files.wrong imports calls.cached"]


def test_an_import_from_the_next_room_is_found(copy: Path) -> None:
    """Rooms of one floor do not know each other."""
    (copy / "keys" / "wrong.py").write_text("from cachekit.config import resolve\n", encoding="utf-8")
    assert list(wrong_floors(copy)) == ["keys.wrong imports config.resolve"]


def test_a_new_module_at_the_top_is_found(copy: Path) -> None:
    """Who puts a module beside the rooms must say on which floor it stands."""
    (copy / "helpers.py").write_text("", encoding="utf-8")
    assert list(wrong_floors(copy)) == ["give helpers a floor"]


def test_a_room_without_a_sentence_is_found(copy: Path) -> None:
    """A folder whose `__init__` says nothing is no room."""
    (copy / "keys" / "__init__.py").write_text("", encoding="utf-8")
    assert list(untidy(copy)) == ["keys does not say in a sentence what it is"]


def test_a_circle_is_found(copy: Path) -> None:
    """Two modules of one room that import each other are both named."""
    (copy / "keys" / "one.py").write_text("from cachekit.keys import other\n", encoding="utf-8")
    (copy / "keys" / "other.py").write_text("def f():\n    from cachekit.keys.one import f\n", encoding="utf-8")
    assert sorted(circles(copy)) == ["keys.one", "keys.other"]


def test_a_library_outside_its_home_is_found(copy: Path) -> None:
    """A second home for orjson's neighbours is named."""
    wrong = copy / "keys" / "wrong.py"
    wrong.write_text("import tenacity\n", encoding="utf-8")
    assert list(foreign(wrong, copy)) == ["keys.wrong imports tenacity"]
