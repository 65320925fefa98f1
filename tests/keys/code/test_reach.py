"""What a key follows: every row of the tables in docs/keys.md, edited in its file, as a new process would see it."""

from __future__ import annotations

import sys
from typing import Any

import pytest

HEAD = "from cachekit import distributed_cache\n"


HELPER = HEAD + "from lib import helper\n@distributed_cache\ndef ask(x): return helper(x)\n"
PROMPTS = HEAD + "import prompts\n@distributed_cache\ndef ask(x): return prompts.P + x\n"

REACHED = {
    "a helper": ({"main": HELPER, "lib": "def helper(x): return x + '1'\n"}, {"lib": ("'1'", "'2'")}),
    "a helper of a helper": (
        {"main": HELPER, "lib": "import deep\ndef helper(x): return deep.f(x)\n", "deep": "def f(x): return x + '1'\n"},
        {"deep": ("'1'", "'2'")},
    ),
    "a lambda": ({"main": HELPER, "lib": "helper = lambda x: x + '1'\n"}, {"lib": ("'1'", "'2'")}),
    "a module's attribute": ({"main": PROMPTS, "prompts": "P = 'a'\n"}, {"prompts": ("'a'", "'b'")}),
    "a dict constant": (
        {"main": HEAD + "C = {'m': ['a']}\n@distributed_cache\ndef ask(x): return C['m'][0] + x\n"},
        {"main": ("['a']", "['b']")},
    ),
    "a helper's default": (
        {"main": HELPER, "lib": "def helper(x, suffix='1'): return x + suffix\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "a class attribute": (
        {
            "main": HEAD + "from lib import C\n@distributed_cache\ndef ask(x): return C.NAME + x\n",
            "lib": "class C:\n  NAME = 'a'\n",
        },
        {"lib": ("'a'", "'b'")},
    ),
    "a method": (
        {
            "main": HEAD + "from lib import C\n@distributed_cache\ndef ask(x): return C().run(x)\n",
            "lib": "class C:\n  def run(self, x): return x + '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "a base class's method": (
        {
            "main": HEAD + "from lib import C\n@distributed_cache\ndef ask(x): return C().run(x)\n",
            "lib": "from base import B\nclass C(B): pass\n",
            "base": "class B:\n  def run(self, x): return x + '1'\n",
        },
        {"base": ("'1'", "'2'")},
    ),
    "a property": (
        {
            "main": HEAD + "from lib import C\n@distributed_cache\ndef ask(x): return C().name + x\n",
            "lib": "class C:\n  @property\n  def name(self): return '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "a cached property": (
        {
            "main": HEAD + "from lib import C\n@distributed_cache\ndef ask(x): return C().name + x\n",
            "lib": "import functools\nclass C:\n  @functools.cached_property\n  def name(self): return '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "an import inside the function": (
        {
            "main": HEAD + "@distributed_cache\ndef ask(x):\n  from lib import helper\n  return helper(x)\n",
            "lib": "def helper(x): return x + '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "an import of an import inside the function": (
        {
            "main": HEAD + "@distributed_cache\ndef ask(x):\n  import lib\n  return lib.helper(x)\n",
            "lib": "import deep\ndef helper(x): return deep.f(x)\n",
            "deep": "def f(x): return x + '1'\n",
        },
        {"deep": ("'1'", "'2'")},
    ),
    "a submodule": (
        {
            "main": HEAD + "from pack import lib\n@distributed_cache\ndef ask(x): return lib.P + x\n",
            "pack/__init__": "",
            "pack/lib": "P = 'a'\n",
        },
        {"pack/lib": ("'a'", "'b'")},
    ),
    "a remembering helper": (
        {"main": HELPER, "lib": "import functools\n@functools.lru_cache\ndef helper(x): return x + '1'\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "a decorator of own code": (
        {
            "main": HELPER,
            "lib": "from deco import twice\n@twice\ndef helper(x): return x\n",
            "deco": "import functools\ndef twice(f):\n  @functools.wraps(f)\n  def g(x): return f(x) * 2\n  return g\n",
        },
        {"deco": ("* 2", "* 3")},
    ),
    "a registered function": (
        {
            "main": HELPER,
            "lib": (
                "import functools\n@functools.singledispatch\ndef helper(x): return x\n"
                "@helper.register\ndef _(x: str): return x + '1'\n"
            ),
        },
        {"lib": ("'1'", "'2'")},
    ),
    "a partial": (
        {"main": HELPER, "lib": "import functools\ndef f(s, x): return x + s\nhelper = functools.partial(f, '1')\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "a function in a container": (
        {
            "main": HEAD
            + "from lib import f\nTOOLS = {'a': f}\n@distributed_cache\ndef ask(x): return TOOLS['a'](x)\n",
            "lib": "def f(x): return x + '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "a function as an argument": (
        {
            "main": HEAD + "from lib import f\nCALL = (f,)\n@distributed_cache\ndef ask(g): return g('x')\n",
            "lib": "def f(x): return x + '1'\n",
        },
        {"lib": ("'1'", "'2'")},
    ),
    "a method of the instance": (
        {
            "main": (
                HEAD + "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Bot:\n  name: str\n"
                "  def prompt(self): return '1'\n  @distributed_cache\n  def ask(self, x): return self.prompt() + x\n"
                "CALL = (Bot('n'), 'x')\nask = Bot.ask\n"
            )
        },
        {"main": ("return '1'", "return '2'")},
    ),
    "super()": (
        {
            "main": (
                HEAD
                + "from dataclasses import dataclass\nfrom base import B\n@dataclass(frozen=True)\nclass Bot(B):\n  name: str\n"
                "  @distributed_cache\n  def ask(self, x): return super().prompt() + x\nCALL = (Bot('n'), 'x')\nask = Bot.ask\n"
            ),
            "base": "class B:\n  def prompt(self): return '1'\n",
        },
        {"base": ("'1'", "'2'")},
    ),
    "a class as an argument": (
        {
            "main": HEAD
            + "from lib import A\nCALL = (A,)\n@distributed_cache\ndef ask(schema): return sorted(schema.model_fields)\n",
            "lib": "import pydantic\nclass A(pydantic.BaseModel):\n  x: int = 1\n",
        },
        {"lib": ("x: int", "y: int")},
    ),
    "a pydantic default": (
        {
            "main": HEAD + "from lib import A\n@distributed_cache\ndef ask(x): return A().n\n",
            "lib": "import pydantic\nclass A(pydantic.BaseModel):\n  n: int = 1\n",
        },
        {"lib": ("= 1", "= 2")},
    ),
    "a dataclass default": (
        {
            "main": HEAD + "from lib import A\n@distributed_cache\ndef ask(x): return A().n\n",
            "lib": "import dataclasses\n@dataclasses.dataclass\nclass A:\n  n: int = 1\n",
        },
        {"lib": ("= 1", "= 2")},
    ),
    "a default factory": (
        {
            "main": HEAD + "from lib import A\n@distributed_cache\ndef ask(x): return A().n\n",
            "lib": (
                "import dataclasses\n@dataclasses.dataclass\nclass A:\n"
                "  n: int = dataclasses.field(default_factory=lambda: 1)\n"
            ),
        },
        {"lib": ("lambda: 1", "lambda: 2")},
    ),
    "an enum's member": (
        {
            "main": HEAD + "from lib import M\n@distributed_cache\ndef ask(x): return M.SMALL.value\n",
            "lib": "import enum\nclass M(enum.Enum):\n  SMALL = ('gpt', 1)\n",
        },
        {"lib": ("1)", "2)")},
    ),
    "a named tuple's default": (
        {
            "main": HEAD + "from lib import A\n@distributed_cache\ndef ask(x): return A().n\n",
            "lib": "import typing\nclass A(typing.NamedTuple):\n  n: int = 1\n",
        },
        {"lib": ("= 1", "= 2")},
    ),
    "another cached function": (
        {"main": HELPER, "lib": HEAD + "@distributed_cache\ndef helper(x): return x + '1'\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "another cached function's version": (
        {"main": HELPER, "lib": HEAD + "@distributed_cache(version='1')\ndef helper(x): return x + '1'\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "a template": (
        {
            "main": HEAD
            + "import string\nT = string.Template('a $x')\n@distributed_cache\ndef ask(x): return T.substitute(x=x)\n",
        },
        {"main": ("'a ", "'b ")},
    ),
    "a pattern": (
        {"main": HEAD + "import re\nT = re.compile('x')\n@distributed_cache\ndef ask(x): return bool(T.match(x))\n"},
        {"main": ("'x'", "'y'")},
    ),
    "a mapping proxy": (
        {
            "main": HEAD
            + "import types\nT = types.MappingProxyType({'a': '1'})\n@distributed_cache\ndef ask(x): return T['a']\n",
        },
        {"main": ("'1'", "'2'")},
    ),
    "a deque": (
        {
            "main": HEAD
            + "from collections import deque\nT = deque(['1'])\n@distributed_cache\ndef ask(x): return T[0]\n"
        },
        {"main": ("'1'", "'2'")},
    ),
    "a class made at run time": (
        {
            "main": HEAD + "A = type('A', (), {'n': 1})\n@distributed_cache\ndef ask(x): return A.n\n",
        },
        {"main": ("'n': 1", "'n': 2")},
    ),
    "a docstring that is read": (
        {"main": HELPER.replace("helper(x)", "helper.__doc__"), "lib": "def helper(x):\n  'one'\n"},
        {"lib": ("'one'", "'two'")},
    ),
    "an attribute by name": (
        {
            "main": HEAD + "import prompts\n@distributed_cache\ndef ask(x): return getattr(prompts, 'P' + x[1:])\n",
            "prompts": "P = 'a'\n",
        },
        {"prompts": ("'a'", "'b'")},
    ),
    "a settings object behind its method": (
        {
            "main": HEAD + "from lib import settings\n@distributed_cache\ndef ask(x): return settings.get('model')\n",
            "lib": (
                "class S:\n  def __init__(self): self.model = 'a'; self.me = self\n"
                "  def get(self, n): return getattr(self, n)\nsettings = S()\n"
            ),
        },
        {"lib": ("'a'", "'b'")},
    ),
    "a settings object": (
        {
            "main": HEAD + "from lib import settings\n@distributed_cache\ndef ask(x): return settings.model\n",
            "lib": "class S:\n  def __init__(self): self.model = 'a'\nsettings = S()\n",
        },
        {"lib": ("'a'", "'b'")},
    ),
}

UNREACHED = {
    "a docstring": ({"main": HELPER, "lib": "def helper(x):\n  'one'\n  return x\n"}, {"lib": ("'one'", "'two'")}),
    "a comment": ({"main": HELPER, "lib": "def helper(x):\n  return x  # one\n"}, {"lib": ("# one", "# two")}),
    "formatting": (
        {"main": HELPER, "lib": "def helper(x): return x + '1'\n"},
        {"lib": ("return x + '1'", "return (x\n   + '1')")},
    ),
    "another function": (
        {"main": HELPER, "lib": "def helper(x): return x\ndef other(x): return '1'\n"},
        {"lib": ("'1'", "'2'")},
    ),
    "a counter of a module": (
        {
            "main": HEAD + "import lib\n@distributed_cache\ndef ask(x):\n  lib.calls += 1\n  return x\n",
            "lib": "calls = 0\n",
        },
        {"lib": ("= 0", "= 5")},
    ),
    "another attribute": ({"main": PROMPTS, "prompts": "P = 'a'\nQ = 'a'\n"}, {"prompts": ("Q = 'a'", "Q = 'b'")}),
    "a line at the end": (
        {"main": HELPER, "lib": "def helper(x): return x\n"},
        {"lib": ("return x\n", "return x\nprint()\n")},
    ),
    "an annotation": ({"main": HELPER, "lib": "def helper(x: int): return x\n"}, {"lib": ("x: int", "x: str")}),
    "a policy": (
        {"main": HELPER, "lib": "def helper(x): return x\n"},
        {"main": ("@distributed_cache\n", "@distributed_cache(ttl='2h')\n")},
    ),
    "the order": (
        {"main": HELPER, "lib": "def a(x): return x\ndef b(x): return x\ndef helper(x): return a(b(x))\n"},
        {"lib": ("def a(x): return x\ndef b(x): return x\n", "def b(x): return x\ndef a(x): return x\n")},
    ),
    "the policy of a method's class": (
        {
            "main": (
                HEAD + "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass Bot:\n  name: str\n"
                "  @distributed_cache(ttl='1h')\n  def ask(self, x): return self.name + x\n"
                "CALL = (Bot('n'), 'x')\nask = Bot.ask\n"
            )
        },
        {"main": ("ttl='1h'", "ttl='2h'")},
    ),
    "the body of another cached function with a version": (
        {"main": HELPER, "lib": HEAD + "@distributed_cache(version='1')\ndef helper(x): return x + '1'\n"},
        {"lib": ("x + '1'", "x + '2'")},
    ),
}


@pytest.mark.parametrize("name", REACHED)
def test_what_is_reached_counts(project: Any, name: str) -> None:
    """An edit of what the function reaches is another call."""
    modules, edits = REACHED[name]
    made = project(**modules)
    before = made.outcome()
    assert made.outcome() == before
    made.edit(**edits)
    after = made.outcome()
    assert after.key != before.key
    assert after.answer != before.answer or name == "another cached function's version"


@pytest.mark.parametrize(
    "line", ["import wave", "from wave import Error", "import xml.dom.minidom", "from xml.dom import minidom"]
)
def test_whether_a_foreign_module_is_loaded_does_not_count(
    project: Any, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import inside a function, of the standard library or an installed package: its first caller has the same key."""
    for name in [one for one in sys.modules if one == "wave" or one.startswith("xml.dom")]:
        monkeypatch.delitem(sys.modules, name)
    made = project(main=HEAD + f"@distributed_cache\ndef ask(x):\n  {line}\n  return x\n")
    main = made.imported()
    before = main.ask.key_for("x")
    assert main.ask("x") == "x"
    main.ask.__wrapped__("x")
    assert made.imported().ask.key_for("x") == before


@pytest.mark.parametrize("name", UNREACHED)
def test_what_is_not_reached_does_not_count(project: Any, name: str) -> None:
    """An edit of anything else pays for nothing again."""
    modules, edits = UNREACHED[name]
    made = project(**modules)
    before = made.outcome()
    made.edit(**edits)
    assert made.outcome().key == before.key
