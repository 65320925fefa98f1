"""The shape of the house: who may import whom, and where a third party lives."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cachekit"

FLOORS = [
    {"errors", "protocols", "system"},
    {
        "model",
        "bounded",
        "effects",
        "places",
        "durations",
        "daemon_rpc",
        "framing",
        "binding",
        "shapes",
        "nameable",
        "lossless",
        "syntax",
        "portable",
        "at_once",
        "inputs",
    },
    {
        "content",
        "manifest",
        "temporaries",
        "plain",
        "scalars",
        "arrays",
        "instances",
        "tensors",
        "definitions",
        "sealing",
        "key_files",
    },
    {"readable", "leaves", "artifact_files", "artifact_tree", "digests"},
    {
        "artifact_blobs",
        "artifact_names",
        "progress",
        "steps",
        "canonical",
        "sources",
        "ci",
        "tagged",
        "database",
        "credentials",
        "request",
    },
    {"keeping", "artifact_store", "artifact_stage", "artifact_output"},
    {"surroundings", "artifacts"},
    {
        "snapshot",
        "chunks",
        "settings_table",
        "keys",
        "codecs",
        "records",
        "writers",
        "plan",
        "retrying",
        "path_codec",
        "flight",
        "leases",
        "ledger",
    },
    {
        "gate",
        "stats",
        "drive",
        "breaker",
        "cids",
        "directory",
        "kubo_http",
        "kubo_errors",
        "kubo_answers",
        "kubo_binary",
        "config_file",
        "daemon_repo",
        "daemon_traces",
        "segments",
    },
    {"unixfs", "kubo_streams", "chunked"},
    {"lanes", "config", "kubo_client", "kubo_streams", "kubo_release", "outbox", "index_rows", "unixfs", "chunked"},
    {"index_tree", "recording", "replies", "cooldown", "policies", "following", "streams", "blob_source"},
    {"index_table", "blobs"},
    {"index_pull"},
    {"index", "tiers", "kubo", "daemon", "errand", "targets"},
    {"tiers.disk_file", "tiers.ipfs_files"},
    {"tiers.ipfs_pins"},
    {
        "tiers.memory",
        "tiers.disk",
        "tiers.ipfs_guard",
        "tiers.ipfs_reading",
        "tiers.ipfs_sending",
        "tiers.ipfs_worker",
        "node",
    },
    {"tiers.ipfs_content", "tiers.ipfs_listening"},
    {"tiers.ipfs"},
    {"shared_files"},
    {"sharing"},
    {"registry"},
    {"opening", "housekeeping", "background", "lifetime"},
    {"cache"},
    {"default", "nearby"},
    {"prepare"},
    {"perform"},
    {"streaming", "artifact_origin", "artifact_about"},
    {"asking"},
    {"generators", "answering", "artifact_work"},
    {"answers"},
    {"calls", "methods", "operations"},
    {"artifact_calls"},
    {"cached"},
    {"decorating"},
    {"decorators"},
    {"cachekit"},
    {"cli_answer", "cli_command", "cli_outputs", "doctor"},
    {"cli_artifacts", "cli_run"},
    {"cli_look", "cli_node"},
    {"cli"},
    {"__main__"},
]
FLOOR = {module: number for number, floor in enumerate(FLOORS) for module in floor}

HOMES = {
    "wrapt": {"cached"},
    "tenacity": {"retrying"},
    "diskcache": {"tiers.disk"},
    "ipfshttpclient": {"kubo_client"},
    "cryptography": {"sealing"},
    "fcntl": {"system"},
    "orjson": {"plain", "codecs", "tagged"},
}


def modules() -> list[str]:
    found = [path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py")]
    return sorted(".".join(p.parts).removesuffix(".__init__").replace("__init__", "cachekit") for p in found)


def imports(module: str) -> list[tuple[str, bool]]:
    """(imported module, whether only for type checkers)."""
    relative = {"cachekit": "__init__", "tiers": "tiers/__init__"}.get(module, module.replace(".", "/"))
    tree = ast.parse((PACKAGE / f"{relative}.py").read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for statement in block.body
        for inner in ast.walk(statement)
    }
    found = []
    for item in ast.walk(tree):
        if isinstance(item, ast.Import):
            found += [(alias.name, id(item) in typing_only) for alias in item.names]
        elif isinstance(item, ast.ImportFrom) and item.module:
            names = [f"{item.module}.{alias.name}" for alias in item.names]
            found += [
                (n if n.removeprefix("cachekit.") in FLOOR else item.module, id(item) in typing_only) for n in names
            ]
    return found


@pytest.mark.parametrize("module", modules())
def test_imports_only_lower_floors(module: str) -> None:
    """A module imports from lower floors, never sideways or upwards."""
    assert module in FLOOR, f"give {module} a floor"
    for imported, typing_only in imports(module):
        name = imported.removeprefix("cachekit.")
        if imported.startswith("cachekit") and not typing_only and name != module:
            assert FLOOR[name] < FLOOR[module], f"{module} imports {name}"


@pytest.mark.parametrize("module", modules())
def test_third_parties_have_one_home(module: str) -> None:
    """Each third-party library is imported where it lives, and nowhere else."""
    for imported, _ in imports(module):
        top = imported.split(".")[0]
        assert module in HOMES.get(top, {module}), f"{module} imports {top}"


@pytest.mark.parametrize("module", modules())
def test_broad_excepts_say_why(module: str) -> None:
    """No bare except, and an `except Exception` has its reason on the same line."""
    relative = {"cachekit": "__init__", "tiers": "tiers/__init__"}.get(module, module.replace(".", "/"))
    for line in (PACKAGE / f"{relative}.py").read_text(encoding="utf-8").splitlines():
        text = line.strip()
        assert text != "except:"
        if text.startswith("except Exception"):
            assert "#" in text, f"{module}: {text}"
