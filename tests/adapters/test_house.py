"""The shape of the adapters: public names of cachekit only, and no SDK before it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import cachekit

PACKAGE = Path(__file__).parents[2] / "adapters" / "cachekit_adapters"
VENDORS = {"groq", "openai", "anthropic", "huggingface_hub", "tritonclient", "httpx", "httpx2", "numpy", "pydantic"}
MODULES = sorted(str(path.relative_to(PACKAGE).with_suffix("")) for path in PACKAGE.rglob("*.py"))


def tree(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_only_public_names(module: str) -> None:
    """An adapter imports from `cachekit` itself, and only what is in its `__all__`."""
    for item in ast.walk(tree(module)):
        if isinstance(item, ast.ImportFrom) and item.module and item.module.partition(".")[0] == "cachekit":
            assert item.module == "cachekit", f"{module} imports {item.module}"
            assert {alias.name for alias in item.names} <= set(cachekit.__all__)
        elif isinstance(item, ast.Import):
            assert not [alias.name for alias in item.names if alias.name.startswith("cachekit.")]


@pytest.mark.parametrize("module", MODULES)
def test_no_vendor_at_import(module: str) -> None:
    """SDKs are imported inside functions."""
    for item in tree(module).body:
        names = [alias.name for alias in item.names] if isinstance(item, ast.Import) else []
        if isinstance(item, ast.ImportFrom) and item.level == 0 and item.module:
            names = [item.module]
        assert VENDORS.isdisjoint(name.partition(".")[0] for name in names), f"{module} imports {names}"


def test_importing_the_adapters_loads_no_sdk() -> None:
    """`import cachekit_adapters` and its vendor modules leave every SDK unloaded."""
    code = (
        "import sys, cachekit_adapters, cachekit_adapters.groq, cachekit_adapters.claude, cachekit_adapters.openai; "
        f"print(sorted(set(sys.modules) & {VENDORS!r}))"
    )
    paths = {"PYTHONPATH": f"{PACKAGE.parent}:{PACKAGE.parents[1]}"}
    found = subprocess.run([sys.executable, "-c", code], env=paths, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("module", MODULES)
def test_a_vendor_knows_no_other_vendors_inside(module: str) -> None:
    """Another vendor's public module may be imported, what lies below it not."""
    own = module.partition("/")[0]
    for item in ast.walk(tree(module)):
        if isinstance(item, ast.ImportFrom) and item.module and item.module.startswith("cachekit_adapters."):
            _, vendor, *inside = item.module.split(".")
            assert vendor.startswith("_") or vendor == own or not inside, f"{module} imports {item.module}"
