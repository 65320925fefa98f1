"""Functions behind decorators, in containers, bound, registered or passed: what runs in the end counts."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

Case = tuple[str, str, dict[str, str], dict[str, tuple[str, str]]]
"""What stands above the decorated function, its body, its neighbours, and an edit of these."""

WRAPPED: dict[str, Case] = {
    "wraps chain": (
        "from lib import f",
        "return f(1)",
        {
            "lib": (
                "import functools\ndef d(n):\n  def deco(f):\n    @functools.wraps(f)\n"
                "    def w(*a): return f(*a)+n\n    return w\n  return deco\n@d(1)\n@d(2)\n@d(3)\n"
                "def f(x): return x\n"
            )
        },
        {"lib": ("@d(2)", "@d(20)")},
    ),
    "wraps chain inner": (
        "from lib import f",
        "return f(1)",
        {
            "lib": (
                "import functools\ndef d(n):\n  def deco(f):\n    @functools.wraps(f)\n"
                "    def w(*a): return f(*a)+n\n    return w\n  return deco\n@d(1)\n@d(2)\n"
                "def f(x): return x+7\n"
            )
        },
        {"lib": ("x+7", "x+8")},
    ),
    "recursion": (
        "from lib import f",
        "return f(3)",
        {"lib": "def f(x): return 1 if x<1 else x*f(x-1)\n"},
        {"lib": ("x*f", "x+f")},
    ),
    "mutual": (
        "from lib import f",
        "return f(3)",
        {"lib": ("def f(x): return 1 if x<1 else g(x-1)\ndef g(x): return 'b' if x<1 else f(x-1)\n")},
        {"lib": ("'b'", "'c'")},
    ),
    "mutual imports": (
        "import a",
        "return a.f(3)",
        {"a": "import b\ndef f(x): return b.g(x)\ndef h(): return 'a'\n", "b": "import a\ndef g(x): return a.h()\n"},
        {"a": ("'a'", "'b'")},
    ),
    "partial kw": (
        "from lib import f",
        "return f()",
        {"lib": "import functools\ndef g(x,y): return x+y\nf=functools.partial(g,1,y=2)\n"},
        {"lib": ("y=2", "y=3")},
    ),
    "partial of partial": (
        "from lib import f",
        "return f()",
        {"lib": ("import functools\ndef g(x,y): return x+y\nf=functools.partial(functools.partial(g,1),2)\n")},
        {"lib": (",1)", ",5)")},
    ),
    "partialmethod": (
        "from lib import C",
        "return C().m()",
        {"lib": ("import functools\nclass C:\n  def g(self,x): return x\n  m=functools.partialmethod(g,1)\n")},
        {"lib": ("g,1", "g,2")},
    ),
    "lru_cache method": (
        "from lib import C",
        "return C().m()",
        {"lib": ("import functools\nclass C:\n  @functools.lru_cache\n  def m(self): return 'a'\n")},
        {"lib": ("'a'", "'b'")},
    ),
    "singledispatch later module": (
        "import lib,more",
        "return lib.f(x)",
        {
            "lib": "import functools\n@functools.singledispatch\ndef f(x): return 1\n",
            "more": "import lib\n@lib.f.register(str)\ndef _(x): return 'a'\n",
        },
        {"more": ("'a'", "'b'")},
    ),
    "singledispatchmethod": (
        "from lib import C",
        "return C().f(x)",
        {
            "lib": (
                "import functools\nclass C:\n  @functools.singledispatchmethod\n"
                "  def f(self,x): return 1\n  @f.register\n  def _(self,x:str): return 'a'\n"
            )
        },
        {"lib": ("'a'", "'b'")},
    ),
    "cached_property": (
        "from lib import C\nc=C()",
        "return c.f",
        {"lib": ("import functools\nclass C:\n  @functools.cached_property\n  def f(self): return 'a'\n")},
        {"lib": ("'a'", "'b'")},
    ),
    "property setter": (
        "from lib import C",
        "c=C(); c.f=1; return c.z",
        {"lib": ("class C:\n  @property\n  def f(self): return 1\n  @f.setter\n  def f(self,v): self.z=v+1\n")},
        {"lib": ("v+1", "v+2")},
    ),
    "wrapt function": (
        "from lib import f",
        "return f()",
        {"lib": ("import wrapt\n@wrapt.decorator\ndef d(w,i,a,k): return w(*a,**k)+'z'\n@d\ndef f(): return 'a'\n")},
        {"lib": ("'z'", "'y'")},
    ),
    "wrapt inner": (
        "from lib import f",
        "return f()",
        {"lib": ("import wrapt\n@wrapt.decorator\ndef d(w,i,a,k): return w(*a,**k)+'z'\n@d\ndef f(): return 'a'\n")},
        {"lib": ("'a'", "'y'")},
    ),
    "wrapt method": (
        "from lib import C",
        "return C().f()",
        {
            "lib": (
                "import wrapt\n@wrapt.decorator\ndef d(w,i,a,k): return w(*a,**k)+'z'\nclass C:\n"
                "  @d\n  def f(self): return 'a'\n"
            )
        },
        {"lib": ("'a'", "'y'")},
    ),
    "callable instance": (
        "from lib import f",
        "return f(1)",
        {"lib": ("class F:\n  def __init__(self,n): self.n=n\n  def __call__(self,x): return x+self.n\nf=F(1)\n")},
        {"lib": ("F(1)", "F(2)")},
    ),
    "tools dict": (
        "from lib import TOOLS",
        "return TOOLS['a'](x)",
        {"lib": "def f(x): return 'a'\nTOOLS={'a':f}\n"},
        {"lib": ("'a'\nT", "'b'\nT")},
    ),
    "tools tuple lambda": (
        "from lib import TOOLS",
        "return TOOLS[1](x)",
        {"lib": "TOOLS=(lambda x:'a', lambda x:'b')\n"},
        {"lib": ("'b'", "'c'")},
    ),
    "bound method": (
        "from lib import m",
        "return m(1)",
        {"lib": ("class C:\n  def __init__(self,n): self.n=n\n  def f(self,x): return x+self.n\nm=C(1).f\n")},
        {"lib": ("C(1)", "C(2)")},
    ),
    "bound method code": (
        "from lib import m",
        "return m(1)",
        {"lib": ("class C:\n  def __init__(self,n): self.n=n\n  def f(self,x): return x+self.n\nm=C(1).f\n")},
        {"lib": ("x+self", "x-self")},
    ),
    "classmethod bound": (
        "from lib import m",
        "return m()",
        {"lib": "class C:\n  n='a'\n  @classmethod\n  def f(cls): return cls.n\nm=C.f\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "fn arg": (
        "from lib import f\nCALL=(f,)",
        "return x()",
        {"lib": "from deep import g\ndef f(): return g()\n", "deep": "def g(): return 'a'\n"},
        {"deep": ("'a'", "'b'")},
    ),
    "partial arg": (
        "import functools\nfrom lib import f\nCALL=(functools.partial(f,1),)",
        "return x()",
        {"lib": "def f(a): return a\n"},
        {"lib": ("return a", "return a+1")},
    ),
    "list of fn arg": (
        "from lib import f\nCALL=([f],)",
        "return x[0]()",
        {"lib": "def f(): return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "dataclass inst arg method": (
        "from lib import C\nCALL=(C(1),)",
        "return x.f()",
        {
            "lib": (
                "from dataclasses import dataclass\n@dataclass(frozen=True)\nclass C:\n  n:int\n"
                "  def f(self): return 'a'\n"
            )
        },
        {"lib": ("'a'", "'b'")},
    ),
    "pydantic inst arg method": (
        "from lib import C\nCALL=(C(n=1),)",
        "return x.f()",
        {"lib": ("from pydantic import BaseModel\nclass C(BaseModel):\n  n:int\n  def f(self): return 'a'\n")},
        {"lib": ("'a'", "'b'")},
    ),
    "enum arg method": (
        "from lib import C\nCALL=(C.A,)",
        "return x.f()",
        {"lib": "from enum import Enum\nclass C(Enum):\n  A=1\n  def f(self): return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "generator helper": (
        "from lib import f",
        "return list(f())",
        {"lib": "def f(): yield 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "contextmanager helper": (
        "from lib import f",
        "with f() as v: return v",
        {"lib": "import contextlib\n@contextlib.contextmanager\ndef f(): yield 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "contextvar in lib via getter": (
        "from lib import get",
        "return get()",
        {"lib": ("import contextvars\nV=contextvars.ContextVar('v',default='a')\ndef get(): return V.get()\n")},
        {"lib": ("='a'", "='b'")},
    ),
    "tools dict order": (
        "from lib import T",
        "return [f() for f in T.values()]",
        {"lib": "T={'a':lambda:1,'b':lambda:2}\n"},
        {"lib": ("'a':lambda:1,'b':lambda:2", "'b':lambda:2,'a':lambda:1")},
    ),
    "generic alias": (
        "from lib import M\nimport pydantic\nTA=pydantic.TypeAdapter(list[M])",
        "return str(TA.json_schema())",
        {"lib": "import pydantic\nclass M(pydantic.BaseModel):\n  a:int=1\n"},
        {"lib": ("a:int", "b:int")},
    ),
    "cached other: helper of it": (
        "from lib import h",
        "return h(x)",
        {
            "lib": "from cachekit import distributed_cache\nfrom deep import g\n@distributed_cache\ndef h(x): return g()\n",
            "deep": "def g(): return 'a'\n",
        },
        {"deep": ("'a'", "'b'")},
    ),
    "descriptor class": (
        "from lib import C",
        "return C().d",
        {
            "lib": (
                "class D:\n  def __init__(self,v): self.v=v\n"
                "  def __get__(self,i,o): return self.v\nclass C:\n  d=D('a')\n"
            )
        },
        {"lib": ("'a'", "'b'")},
    ),
    "__getattr__ class": (
        "from lib import C",
        "return C().zz",
        {"lib": "class C:\n  def __getattr__(self,n): return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "__class_getitem__": (
        "from lib import C",
        "return C[1]",
        {"lib": "class C:\n  def __class_getitem__(cls,n): return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "nested class": (
        "from lib import C",
        "return C.D.v",
        {"lib": "class C:\n  class D:\n    v='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_edited_code_behind_something_counts(project: Any, name: str) -> None:
    """Whatever stands between the decorated function and the code that was edited."""
    above, body, neighbours, edits = WRAPPED[name]
    main = f"from cachekit import distributed_cache\n{above}\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    made = project(main=main, **neighbours)
    before = made.outcome()
    assert made.outcome() == before
    made.edit(**edits)
    after = made.outcome()
    assert after.answer != before.answer
    assert after.key != before.key
    assert after.first != before.first
