"""What of a module that was not imported yet decides what is read of it: enough, and no more."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

Case = tuple[str, dict[str, str], tuple[str, str, str]]
"""The body of the decorated function, its neighbours, and an edit of one of these: its name, the old text and the new."""

UNREAD: dict[str, Case] = {
    "another function": (
        "import lib\nreturn lib.f()",
        {"lib": "def f(): return 'a'\ndef g(): return 'b'\n"},
        ("lib", "'b'", "'c'"),
    ),
    "another constant": ("from lib import P\nreturn P", {"lib": "P = 'a'\nQ = 'b'\n"}, ("lib", "'b'", "'c'")),
    "of what it imports": (
        "import lib\nreturn lib.f()",
        {"lib": "import other\ndef f(): return other.P\n", "other": "P = 'a'\nQ = 'b'\n"},
        ("other", "'b'", "'c'"),
    ),
    "of what a name is imported from": (
        "import lib\nreturn lib.P",
        {"lib": "from other import P, Q\n", "other": "P = 'a'\nQ = 'b'\n"},
        ("other", "'b'", "'c'"),
    ),
    "a wrapped function": (
        "import lib\nreturn lib.f()",
        {
            "lib": "def deco(f):\n  def made(): return f()\n  return made\n"
            "@deco\ndef g(): return 'b'\n@deco\ndef f(): return 'a'\n"
        },
        ("lib", "'b'", "'c'"),
    ),
    "a local name of the same spelling": (
        "import lib\nreturn lib.f()",
        {"lib": "def f(): return [q for q in 'a']\nR = ['b' for q in 'x']\n"},
        ("lib", "'b'", "'c'"),
    ),
    "a docstring": (
        "import lib\nreturn lib.f()",
        {"lib": "'b'\ndef f():\n  'b'\n  return 'a'\n"},
        ("lib", "'b'", "'c'"),
    ),
}

READ: dict[str, Case] = {
    "a helper's helper": (
        "import lib\nreturn lib.f()",
        {"lib": "def f(): return g()\ndef g(): return P\nP = 'a'\n"},
        ("lib", "'a'", "'b'"),
    ),
    "under if": ("import lib\nreturn lib.P", {"lib": "if True:\n  P = 'a'\n"}, ("lib", "'a'", "'b'")),
    "changed below": ("import lib\nreturn lib.D['k']", {"lib": "D = {}\nD['k'] = 'a'\n"}, ("lib", "'a'", "'b'")),
    "appended": ("import lib\nreturn lib.L[0]", {"lib": "L = []\nL.append('a')\n"}, ("lib", "'a'", "'b'")),
    "added to": ("import lib\nreturn lib.P", {"lib": "P = 'x'\nP += 'a'\n"}, ("lib", "'a'", "'b'")),
    "changed by a call": (
        "import lib\nreturn lib.D['k']",
        {"lib": "D = {}\ndef put(v): D['k'] = v\n_ = put('a')\n"},
        ("lib", "'a'", "'b'"),
    ),
    "changed by a default": (
        "import lib\nreturn lib.L[0]",
        {"lib": "L = []\ndef unread(x=L.append('a')): pass\n"},
        ("lib", "'a'", "'b'"),
    ),
    "changed in a class body": (
        "import lib\nreturn lib.L[0]",
        {"lib": "L = []\nclass Unread:\n  L.append('a')\n"},
        ("lib", "'a'", "'b'"),
    ),
    "registered by a decorator": (
        "import lib\nreturn lib.run()",
        {
            "lib": "R = []\ndef reg(f):\n  R.append(f)\n  return f\n@reg\ndef g(): return 'a'\ndef run(): return R[0]()\n"
        },
        ("lib", "'a'", "'b'"),
    ),
    "registered on a function": (
        "import lib\nreturn lib.f(1)",
        {
            "lib": "from functools import singledispatch\n@singledispatch\ndef f(x): pass\n"
            "@f.register(int)\ndef _(x): return 'a'\n"
        },
        ("lib", "'a'", "'b'"),
    ),
    "registered by a base class": (
        "import lib\nreturn lib.R[0].P",
        {"lib": "R = []\nclass B:\n  def __init_subclass__(cls): R.append(cls)\nclass C(B): P = 'a'\n"},
        ("lib", "'a'", "'b'"),
    ),
    "a global of a function": (
        "import lib\nlib.g()\nreturn lib.P",
        {"lib": "P = ''\ndef g():\n  global P\n  P = 'a'\n"},
        ("lib", "'a'", "'b'"),
    ),
    "a star": (
        "import lib\nreturn lib.P",
        {"lib": "from other import *\n", "other": "P = 'a'\n"},
        ("other", "'a'", "'b'"),
    ),
    "globals": (
        "import lib\nreturn lib.f()",
        {"lib": "def f(): return globals()['P']\nP = 'a'\n"},
        ("lib", "'a'", "'b'"),
    ),
    "by name": ("import lib\nreturn getattr(lib, 'P'.upper())", {"lib": "P = 'a'\n"}, ("lib", "'a'", "'b'")),
    "imported for what it does": (
        "import lib\nreturn lib.P[0]",
        {
            "lib": "import other\nfrom base import P\n",
            "base": "P = []\n",
            "other": "from base import P\nP.append('a')\n",
        },
        ("other", "'a'", "'b'"),
    ),
    "registered elsewhere": (
        "import lib\nreturn lib.P[0]()",
        {
            "lib": "import other\nfrom base import P\n",
            "base": "P = []\ndef reg(f):\n  P.append(f)\n  return f\n",
            "other": "from base import reg\n@reg\ndef f(): return 'a'\n",
        },
        ("other", "'a'", "'b'"),
    ),
    "a package above": (
        "import pkg.sub\nreturn pkg.sub.P[0]",
        {"pkg/__init__": "from pkg.sub import P\nP.append('a')\n", "pkg/sub": "P = []\n"},
        ("pkg/__init__", "'a'", "'b'"),
    ),
    "a submodule by its package": (
        "import lib\nreturn lib.f()",
        {"lib": "import pkg.sub\ndef f(): return pkg.sub.P\n", "pkg/__init__": "", "pkg/sub": "P = 'a'\n"},
        ("pkg/sub", "'a'", "'b'"),
    ),
    "relative": (
        "from pkg import f\nreturn f()",
        {
            "pkg/__init__": "from . import sub\ndef f(): return sub.P\n",
            "pkg/sub": "from .deep import P\n",
            "pkg/deep": "P = 'a'\n",
        },
        ("pkg/deep", "'a'", "'b'"),
    ),
}


def outcomes(project: Any, case: Case) -> tuple[Any, Any]:
    body, neighbours, (name, old, new) = case
    main = f"from cachekit import distributed_cache\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    made = project(main=main, **neighbours)
    before = made.outcome()
    made.edit(**{name: (old, new)})
    return before, made.outcome()


@pytest.mark.parametrize("name", UNREAD)
def test_an_edit_beside_what_is_read_is_the_same_call(project: Any, name: str) -> None:
    """What is not read of a module that is imported inside a function costs nothing."""
    before, after = outcomes(project, UNREAD[name])
    assert after == before


@pytest.mark.parametrize("name", READ)
def test_an_edit_of_what_is_read_is_another_call(project: Any, name: str) -> None:
    """However the edited text comes to what is read."""
    before, after = outcomes(project, READ[name])
    assert after.answer != before.answer
    assert after.first != before.first
    assert after.key != before.key
