"""The digest of a function's code: blind to formatting, sensitive to everything else, true to what is loaded."""

from __future__ import annotations

import ast
import importlib.util
import linecache
import os
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cachekit.keys.code.source import documented, facts_of, module_name, source_digest
from cachekit.keys.code.text import dump_tree, parse

ROOT = Path(__file__).resolve().parents[3]
# The package without its __init__: other interpreters here lack the third-party parts, and sources.py needs none.
BARE = (
    f"import sys, types; p = types.ModuleType('cachekit'); p.__path__ = [{str(ROOT / 'cachekit')!r}]; "
    "sys.modules[p.__name__] = p"
)
Load = Callable[..., types.ModuleType]

VARIED = '''
from __future__ import annotations
import functools
X = 1
@functools.lru_cache
def a(x, /, y: int = 2, *args: str, k=None, **kw) -> str:
    """Doc."""
    try:
        with open(x) as f, open(y):
            return f"{x!r:>{y}} a" "b" f"{k}" + f.read() + f"" + f"{x}{{}}{y=}"
    except (OSError, ValueError) as error:
        raise KeyError from error
    finally:
        print(0x10, 1_000, 1.5, 2j, b"x", "é", "\\n", ..., None, True, sep="")
async def b(xs):
    async for x in xs:
        yield [i async for i in x if i], {**x}, {1: 2}, x[1:2, ::3], (lambda: x)
    match xs:
        case {"a": [1, *rest], **more} if rest: pass
        case str() | None: await xs
class C:
    def m(self, *, n: "int" = -1):
        global X
        def inner():
            "inner doc"
            nonlocal n
            n += 1
            return super().m
        if (z := n) > 1: X = z
        elif not n: del self.x
        else: assert n, "no"
        while n: n -= 1; continue
        return inner if n else inner, *(), ~n ** 2 @ n
c = lambda x, y=1, *z: (x for x in z)
'''


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes source text to a file and imports it; the same name is overwritten."""

    def run(text: str, name: str = "sample") -> types.ModuleType:
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__file__ = str(path)
        exec(compile(path.read_text(), str(path), "exec", dont_inherit=True), module.__dict__)  # noqa: S102
        return module

    return run


def digest(load: Load, text: str) -> str:
    function = load(text).f
    answer, portable = source_digest(getattr(function, "__wrapped__", function))
    assert portable
    return answer


def test_formatting_comments_docstring_and_decorators_do_not_count(load: Load) -> None:
    """Reformatting, comments, the docstring and the decorators leave the digest alone."""
    plain = digest(load, "def f(x, y=1):\n    return {'a': x, 'b': (y)}\n")
    dressed = '''
        import functools
        # a comment
        @functools.lru_cache(maxsize=None)
        def f(
            x,
            y = 1,
        ):
            """A docstring."""
            # another
            return {
                "a": x, "b": y,
            }
    '''
    assert digest(load, dressed) == plain


@pytest.mark.parametrize(
    "edited",
    [
        "def f(x):\n    return x + 2", "def f(x):\n    return x - 1", "def f(x, y=1):\n    return x + 1",
        "def f(x):\n    return x + 1.0", "def f(x):\n    return x + True", "async def f(x):\n    return x + 1",
        "def f(x):\n    return 'x + 1'", "def f(x):\n    return None", "def f(x):\n    return",
    ],
)  # fmt: skip
def test_an_edit_counts(load: Load, edited: str) -> None:
    """Any edit of signature or body changes the digest."""
    assert digest(load, edited) != digest(load, "def f(x):\n    return x + 1")


def test_docstrings_do_not_count(load: Load) -> None:
    """Neither the function's own docstring nor one inside it, but for code that reads docstrings."""
    text = "def f():\n    'doc'\n    def tool():\n        '{}'\n    return tool\n"
    assert digest(load, text.format("one")) == digest(load, text.format("two"))
    one, two = (documented(load(text.format(word)).f) for word in ("one", "two"))
    assert one != two


def test_file_edited_after_import_does_not_lend_its_source(load: Load, tmp_path: Path) -> None:
    """The digest is of the loaded code: an edited file is not believed, an unrelated edit above is harmless."""
    module = load("def f(x):\n    return 'old'\n")
    (tmp_path / "sample.py").write_text("def f(x):\n    return 'edited'\n")
    stale, portable = source_digest(module.f)
    assert not portable
    fresh = load("def f(x):\n    return 'edited'\n")
    assert source_digest(fresh.f) != (stale, False)
    assert source_digest(fresh.f)[1]
    shifted = load("def f(x):\n    return 'old'\n")
    (tmp_path / "sample.py").write_text("import os\n\n\ndef f(x):\n    return 'old'\n")
    assert source_digest(shifted.f) == source_digest(load("def f(x):\n    return 'old'\n").f)


def test_without_source_the_code_object_counts() -> None:
    """Code from nowhere has a digest that differs with the code and is not portable."""
    spaces: list[dict[str, Any]] = [{}, {}, {}]
    for space, text in zip(spaces, ("def f(): return 1", "def f(): return 2", "def f(): return 1"), strict=True):
        exec(compile(text, "<nowhere>", "exec"), space)  # noqa: S102
    one, two, again = (source_digest(space["f"]) for space in spaces)
    assert one == again
    assert one != two
    assert not one[1]
    assert not two[1]


def test_lambdas_on_one_line_are_told_apart(load: Load) -> None:
    """Two different lambdas on one line have two digests, both from source; equal ones have one."""
    module = load("fs = [lambda x: x + 1, lambda x: x + 2, lambda x:x+1]\n")
    digests = [source_digest(f) for f in module.fs]
    assert digests[0] == digests[2]
    assert digests[0] != digests[1]
    assert all(portable for _, portable in digests)


def test_lambdas_that_compile_alike_and_read_differently_are_not_guessed(load: Load) -> None:
    """Lambdas with one code object but other defaults on one line: their source is not claimed."""
    module = load("fs = [lambda x, n=1: x, lambda x, n=2: x]\n")
    assert [source_digest(f)[1] for f in module.fs] == [False, False]


def test_a_lambda_elsewhere_does_not_lend_its_source(load: Load) -> None:
    """Of two indistinguishable lambdas on a line, neither takes the source of a third one that stands alone."""
    module = load("fs = [lambda x, n=1: x, lambda x, n=2: x]\nalone = lambda x, n=1: x\n")
    assert source_digest(module.alone)[1]
    assert [source_digest(f)[1] for f in module.fs] == [False, False]


def test_every_definition_of_a_varied_file_is_found(load: Load) -> None:
    """Decorated, nested, async, generator functions, methods and lambdas are all found in their file."""
    module = load(VARIED)
    functions = [module.a.__wrapped__, module.b, module.C.m, module.c]
    assert all(source_digest(function)[1] for function in functions)


def test_annotations_do_not_count(load: Load) -> None:
    """What only checkers read is no code; what comes back is annotated for codecs, and stands apart."""
    module = load("class A:\n    def m(self, x: int): return x\nclass B:\n    def m(self, x: str) -> str: return x\n")
    assert source_digest(module.A.m) == source_digest(module.B.m)
    assert source_digest(module.A.m)[1]
    assert facts_of(module.A.m).returns != facts_of(module.B.m).returns


def interpreters() -> list[str]:
    """Every other Python between 3.10 and 3.14 that can be found here."""
    found = sorted(Path("~/.pyenv/versions").expanduser().glob("3.1[0-4]*/bin/python"))
    return [str(path) for path in found]


@pytest.mark.parametrize("python", [sys.executable, *interpreters()])
def test_digests_agree_between_processes_and_versions(tmp_path: Path, python: str) -> None:
    """Another process, hash seed and Python version gives the same digests, globals and module names."""
    (tmp_path / "varied.py").write_text(VARIED)
    script = (
        f"{BARE}; sys.path.insert(0, sys.argv[1])\n"
        "import varied\nfrom cachekit.keys.code.source import facts_of\n"
        "for f in (varied.a.__wrapped__, varied.b, varied.C.m, varied.c):\n"
        "    print(facts_of(f)[:2], sorted(facts_of(f).names.outer))\n"
    )
    outputs = []
    for executable, seed in ((sys.executable, "1"), (python, "2")):
        command = [executable, "-B", "-c", script, str(tmp_path)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)  # noqa: S603
        outputs.append(done.stdout)
    assert "True" in outputs[0]
    assert "False" not in outputs[0]
    assert outputs[0] == outputs[1]


SCRIPT = """
{bare}
from cachekit.keys.code.source import module_name
def ask(): return 1
print(module_name(ask))
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, cwd=cwd)  # noqa: S603
    return done.stdout.strip()


def test_a_script_is_main(tmp_path: Path) -> None:
    """A script's name says nothing of what else stands in it: its functions are what their code says."""
    (tmp_path / "one.py").write_text(SCRIPT.format(bare=BARE))
    assert run("one.py", cwd=tmp_path) == "__main__"


def test_dash_m_uses_the_spec_name(tmp_path: Path) -> None:
    """Under `python -m` the module has its importable name."""
    (tmp_path / "one.py").write_text(SCRIPT.format(bare=BARE))
    assert run("-m", "one", cwd=tmp_path) == "one"


def test_a_cell_has_a_source() -> None:
    """A cell known to linecache is its text, and a line more in it changes none of its functions."""
    digests = []
    for number, text in enumerate(("def f(): return 1\n", "def f(): return 1\nA = 2\n", "def f(): return 2\n")):
        filename = f"<cell {number}>"
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        space: dict[str, Any] = {"__name__": "__main__"}
        exec(compile(text, filename, "exec"), space)  # noqa: S102
        digests.append(source_digest(space["f"]))
    assert digests[0] == digests[1] and digests[0][1]
    assert digests[0] != digests[2]


def test_an_ordinary_module_keeps_its_name() -> None:
    """A function of an imported module has that module's name."""
    assert module_name(textwrap.dedent) == "textwrap"


def test_a_parse_that_another_thread_upset_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11's SystemError when two threads parse at once (python/cpython#106905) does not reach the caller."""
    real, upset = ast.parse, [SystemError("AST constructor recursion depth mismatch")]

    def parse_once_upset(text: str) -> ast.Module:
        if upset:
            raise upset.pop()
        return real(text)

    monkeypatch.setattr(ast, "parse", parse_once_upset)
    assert dump_tree(parse("x = 1")) == dump_tree(real("x = 1"))


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("def f(x):\n y: int = x\n return y", "def f(x):\n y: str = x\n return y", True),
        ("def f(x):\n y: int = x\n return y", "def f(x):\n y = x\n return y", True),
        ("def f(x):\n if x:\n  x.a: int = 1\n return x", "def f(x):\n if x:\n  x.a: str = 1\n return x", True),
        ("def f(x):\n y: int\n return y", "def f(x):\n y: str\n return y", True),
        ("def f(x):\n y: int\n return y", "def f(x):\n return y", False),
        ("def f(x):\n y: int = 1\n return y", "def f(x):\n y: int = 2\n return y", False),
        ("def f(x):\n class C:\n  y: int = 1\n return C", "def f(x):\n class C:\n  y: str = 1\n return C", False),
        ("y: int = 1", "y: str = 1", False),
    ],
)
def test_the_annotation_of_a_local_name_does_not_count(before: str, after: str, same: bool) -> None:
    """Python evaluates no annotation in a function; in a class or a module it does."""
    assert (dump_tree(parse(before)) == dump_tree(parse(after))) is same
