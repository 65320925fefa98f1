"""`cachekit explain module:function`, and `cachekit doctor --compare` between two machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
APP = """
from cachekit import distributed_cache
from prompts import P

@distributed_cache
def ask(text, temperature=0.0, api_key=""):
    return P + text

class Service:
    @staticmethod
    @distributed_cache
    def rate(text):
        return len(text)

if __name__ == "__main__":
    ask("hi")
    print(ask.key_for("hi"))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    (tmp_path / "prompts.py").write_text('P = "Summarise"\n', encoding="utf-8")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")}
    environ |= {"CACHEKIT_DIR": str(tmp_path / "cache"), "CACHEKIT_IPFS": "off", "PYTHONPATH": str(ROOT)}

    def started(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environ, cwd=tmp_path, text=True, capture_output=True, timeout=60)  # noqa: S603

    return started


def cachekit(run: Run, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "cachekit", *arguments)


def test_a_call_is_explained_by_its_module_function_and_arguments(run: Run) -> None:
    """The tree, the arguments and the place of the answer; exit status 1 where there is none, 0 where there is."""
    done = cachekit(run, "explain", "app:ask", "--args", '{"text": "hi"}')
    assert done.returncode == 1, done.stderr
    assert "function app.ask (app.py:5)" in done.stdout
    assert "argument text  'hi'" in done.stdout
    run("-c", "import app; app.ask('hi')")
    assert cachekit(run, "explain", "app:ask", "--args", '["hi"]').returncode == 0


def test_json_holds_the_tree_and_what_differs(run: Run) -> None:
    """`--json` gives the same as data."""
    run("-c", "import app; app.ask('hi')")
    shown = json.loads(cachekit(run, "explain", "--json", "app:ask", "--args", '{"text": "ho"}').stdout)
    assert shown["differs"] == ["argument text was 'hi', is 'ho'"]
    assert shown["found"] == ""
    assert any("app.ask" in line for line in shown["tree"])


def test_a_scripts_function_has_the_key_that_it_has_when_the_script_runs(run: Run) -> None:
    """`script.py:function` is looked at as the script's own workers would have it; the script itself stays unrun."""
    key = run("app.py").stdout.strip()
    shown = json.loads(cachekit(run, "explain", "--json", "app.py:ask", "--args", '["hi"]').stdout)
    assert shown["key"] == key


def test_methods_are_named_with_their_class(run: Run) -> None:
    """`module:Class.method` is found."""
    assert "app.Service.rate" in cachekit(run, "explain", "app:Service.rate", "--args", '["x"]').stdout


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["app:ask", "--args", "["], "--args is not JSON"),
        (["app:ask", "--args", "3"], "--args is an object"),
        (["app:ask", "--args", '{"nobody": 1}'], "does not take these arguments"),
        (["app:nothing"], "is no decorated function"),
        (["nowhere:ask"], "cannot be imported here"),
        (["nowhere.py:ask"], "there is no script"),
        (["default/" + "0" * 64, "--args", "{}"], "belong to a call"),
    ],
)
def test_a_wrong_call_is_told_with_the_remedy(run: Run, arguments: list[str], remedy: str) -> None:
    """Exit status 2 and a sentence; no traceback."""
    done = cachekit(run, "explain", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


def test_two_machines_are_compared(run: Run, tmp_path: Path) -> None:
    """An exported explanation says on another machine what differs there, and that secrets were not compared."""
    call = ["explain", "app:ask", "--args", '{"text": "hi", "api_key": "hunter2hunter2"}', "--export", "call.json"]
    assert cachekit(run, *call).returncode == 1
    assert "hunter2" not in (tmp_path / "call.json").read_text(encoding="utf-8")
    (tmp_path / "prompts.py").write_text('P = "Translate"\n', encoding="utf-8")
    done = cachekit(run, "doctor", "--compare", "call.json")
    assert done.returncode == 1
    assert "P was 'Summarise', is 'Translate'" in done.stdout
    assert "argument api_key may be a secret: it was not compared" in done.stdout


def test_two_machines_with_one_key_agree(run: Run) -> None:
    """Exit status 0 where the keys are the same."""
    cachekit(run, "explain", "app:ask", "--args", '["hi"]', "--export", "call.json")
    done = cachekit(run, "doctor", "--compare", "call.json")
    assert (done.returncode, done.stdout.strip()) == (0, "the same key")


def test_what_is_no_export_is_told(run: Run, tmp_path: Path) -> None:
    """A file of anything else is a usage error with the remedy."""
    (tmp_path / "other.json").write_text('{"call": "app:ask"}', encoding="utf-8")
    done = cachekit(run, "doctor", "--compare", "other.json")
    assert done.returncode == 2
    assert "--export" in done.stderr
