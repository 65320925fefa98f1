"""In a living process: each thing that a function reads is changed in place, and the fast lane does not serve the old."""

from __future__ import annotations

import json
import sys
import textwrap
import types
from typing import Any
from unittest import mock

import pytest

from cachekit import stats

CHANGES: dict[str, tuple[str, str, str, str]] = {
    "inst attr": (
        "class S: pass\ns=S(); s.a='a'",
        "return s.a",
        "m.s.a='b'",
        "",
    ),
    "inst nested": (
        "class S: pass\ns=S(); s.a={'k':['a']}",
        "return s.a['k'][0]",
        "m.s.a['k'][0]='b'",
        "",
    ),
    "inst in list": (
        "class S: pass\ns=S(); s.a='a'\nL=[s]",
        "return L[0].a",
        "m.s.a='b'",
        "",
    ),
    "fn in dict swapped": (
        "def f(): return 'a'\nT={'f':f}",
        "return T['f']()",
        "m.T['f']=lambda: 'b'",
        "",
    ),
    "fn kwdefaults": (
        "def f(*,v='a'): return v",
        "return f()",
        "m.f.__kwdefaults__['v']='b'",
        "",
    ),
    "fn mutable default": (
        "def f(v=['a']): return v[0]",
        "return f()",
        "m.f.__defaults__[0][0]='b'",
        "",
    ),
    "fn closure cell": (
        ("def mk():\n  v='a'\n  def f(): return v\n  def s(n):\n    nonlocal v\n    v=n\n  return f,s\nf,s=mk()"),
        "return f()",
        "m.s('b')",
        "",
    ),
    "fn closure list": (
        "def mk():\n  v=['a']\n  def f(): return v[0]\n  return f,v\nf,v=mk()",
        "return f()",
        "m.v[0]='b'",
        "",
    ),
    "method patched": (
        "class C:\n  def f(self): return 'a'",
        "return C().f()",
        "m.C.f=lambda self:'b'",
        "",
    ),
    "base method patched": (
        "class B:\n  def f(self): return 'a'\nclass C(B): pass",
        "return C().f()",
        "m.B.f=lambda self:'b'",
        "",
    ),
    "subclass override added": (
        "class B:\n  def f(self): return 'a'\nclass C(B): pass",
        "return C().f()",
        "m.C.f=lambda self:'b'",
        "",
    ),
    "inst override": (
        "class C:\n  def f(self): return 'a'\nc=C()",
        "return c.f()",
        "m.c.f=lambda:'b'",
        "",
    ),
    "class attr list": (
        "class C:\n  L=['a']",
        "return C.L[0]",
        "m.C.L[0]='b'",
        "",
    ),
    "class attr added/removed": (
        "class B: v='a'\nclass C(B): v='c'",
        "return C.v",
        "del m.C.v",
        "",
    ),
    "meta attr": (
        "class M(type): v='a'\nclass C(metaclass=M): pass",
        "return C.v",
        "type(m.C).v='b'",
        "",
    ),
    "property swapped": (
        "class C:\n  p=property(lambda s:'a')",
        "return C().p",
        "m.C.p=property(lambda s:'b')",
        "",
    ),
    "module attr": (
        "import lib",
        "return lib.P",
        "m.lib.P='b'",
        "P='a'",
    ),
    "module attr deep": (
        "import lib",
        "return lib.P['k']",
        "m.lib.P['k']='b'",
        "P={'k':'a'}",
    ),
    "module helper's global": (
        "import lib",
        "return lib.f()",
        "m.lib.P='b'",
        "P='a'\ndef f(): return P\n",
    ),
    "local import patched": (
        "",
        "import lib\nreturn lib.P",
        "sys.modules['lib'].P='b'",
        "P='a'",
    ),
    "local import fn patched": (
        "",
        "from lib import f\nreturn f()",
        "sys.modules['lib'].f=lambda:'b'",
        "def f(): return 'a'\n",
    ),
    "local import fn global patched": (
        "",
        "from lib import f\nreturn f()",
        "sys.modules['lib'].P='b'",
        "P='a'\ndef f(): return P\n",
    ),
    "local import preloaded patched": (
        "import lib as _l",
        "from lib import f\nreturn f()",
        "sys.modules['lib'].f=lambda:'b'",
        "def f(): return 'a'\n",
    ),
    "absent then there": (
        "",
        "try: return Q\nexcept NameError: return 'a'",
        "m.Q='b'",
        "",
    ),
    "there then absent": (
        "Q='b'",
        "try: return Q\nexcept NameError: return 'a'",
        "del m.Q",
        "",
    ),
    "module attr absent": (
        "import lib",
        "return getattr(lib,'P','a')",
        "m.lib.P='b'",
        "",
    ),
    "module hasattr": (
        "import lib",
        "return hasattr(lib,'P')",
        "m.lib.P='b'",
        "",
    ),
    "partial in place": (
        "def g(v): return v[0]\nL=['a']\nf=functools.partial(g,L)",
        "return f()",
        "m.L[0]='b'",
        "",
    ),
    "singledispatch reg": (
        "@functools.singledispatch\ndef f(x): return 'a'",
        "return f(x)",
        "m.f.register(str, lambda x:'b')",
        "",
    ),
    "singledispatch reg local": (
        "@functools.singledispatch\ndef f(x): return 'a'\nT={'f':f}",
        "return T['f'](x)",
        "m.f.register(str, lambda x:'b')",
        "",
    ),
    "set in place": (
        "S={'a'}",
        "return sorted(S)",
        "m.S.add('b')",
        "",
    ),
    "deque in place": (
        "from collections import deque\nS=deque(['a'])",
        "return S[0]",
        "m.S[0]='b'",
        "",
    ),
    "bytearray": (
        "S=bytearray(b'a')",
        "return bytes(S).decode()",
        "m.S[0]=98",
        "",
    ),
    "ndarray": (
        "import numpy\nS=numpy.array([1])",
        "return int(S[0])",
        "m.S[0]=2",
        "",
    ),
    "1 vs True in list": (
        "S=[1]",
        "return repr(S[0])",
        "m.S[0]=True",
        "",
    ),
    "0.0 vs -0.0": (
        "S=0.0",
        "return repr(S)",
        "m.S=-0.0",
        "",
    ),
    "1 vs 1.0 in dict val": (
        "S={'a':1}",
        "return repr(S)",
        "m.S['a']=1.0",
        "",
    ),
    "dict order": (
        "S={'a':1,'b':2}",
        "return list(S)",
        "S=m.S; v=S.pop('a'); S['a']=v",
        "",
    ),
    "dict subclass": (
        "class Dd(dict): pass\nS=Dd(a=1)",
        "return S['a']",
        "m.S['a']=2",
        "",
    ),
    "list subclass in dict": (
        "class L(list): pass\nS={'k':L(['a'])}",
        "return S['k'][0]",
        "m.S['k'][0]='b'",
        "",
    ),
    "tuple w list": (
        "S=(['a'],)",
        "return S[0][0]",
        "m.S[0][0]='b'",
        "",
    ),
    "pydantic in place": (
        "import pydantic\nclass P(pydantic.BaseModel):\n  v:str='a'\np=P()",
        "return p.v",
        "m.p.v='b'",
        "",
    ),
    "pydantic private": (
        ("import pydantic\nclass P(pydantic.BaseModel):\n  _v:str=pydantic.PrivateAttr('a')\np=P()"),
        "return p._v",
        "m.p._v='b'",
        "",
    ),
    "dataclass field default changed": (
        "@dataclass\nclass Q:\n  v:str='a'",
        "return Q.v",
        "m.Q.v='b'",
        "",
    ),
    "cached fn version: other fn": (
        "@distributed_cache\ndef o(x): return P\nP='a'",
        "return o(x)",
        "m.P='b'",
        "",
    ),
    "chained alias": (
        "import lib\nL=lib",
        "return L.P",
        "m.lib.P='b'",
        "P='a'",
    ),
    "alias attr": (
        "import lib\nclass N: pass\nN.lib=lib",
        "return N.lib.P",
        "m.lib.P='b'",
        "P='a'",
    ),
    "module in dict": (
        "import lib\nT={'l':lib}",
        "return T['l'].P",
        "m.lib.P='b'",
        "P='a'",
    ),
    "fn attr": (
        "def f(): return f.v\nf.v='a'",
        "return f()",
        "m.f.v='b'",
        "",
    ),
    "fn attr direct": (
        "def f(): pass\nf.v='a'",
        "return f.v",
        "m.f.v='b'",
        "",
    ),
    "class through instance": (
        "class C:\n  v='a'\nc=C()",
        "return c.v",
        "m.C.v='b'",
        "",
    ),
    "class through list instance": (
        "class C:\n  v='a'\nc=[C()]",
        "return c[0].v",
        "m.C.v='b'",
        "",
    ),
    "class through type()": (
        "class C:\n  v='a'\nc=C()",
        "return type(c).v",
        "m.C.v='b'",
        "",
    ),
    "base reached by arg type": (
        "class C:\n  v='a'\nT={'C':C}",
        "return T['C'].v",
        "m.C.v='b'",
        "",
    ),
    "helper via getattr on class": (
        "class C:\n  def a(self): return H()\ndef H(): return 'a'",
        "return getattr(C(),'a')()",
        "m.H=lambda:'b'",
        "",
    ),
    "decorated helper state": (
        (
            "def deco(f):\n  cfg={'n':'a'}\n  @functools.wraps(f)\n  def w(): return cfg['n']\n"
            "  w.cfg=cfg\n  return w\n@deco\ndef f(): pass"
        ),
        "return f()",
        "m.f.cfg['n']='b'",
        "",
    ),
    "generator fn": (
        "def g():\n  yield P\nP='a'",
        "return list(g())",
        "m.P='b'",
        "",
    ),
    "lru helper patched under": (
        "def h(): return 'a'\n@functools.cache\ndef f(): return h()",
        "return f()",
        "m.h=lambda:'b'; m.f.cache_clear()",
        "",
    ),
    "template": (
        "import string\nT=string.Template('a')",
        "return T.substitute()",
        "m.T.template='b'",
        "",
    ),
    "contextvar in dict": (
        "import contextvars\nV=contextvars.ContextVar('V',default='a')\nT={'v':V}",
        "return T['v'].get()",
        "m.V.set('b')",
        "",
    ),
}
"""What stands above the function, its body, what is done to the module `m`, and a module `lib` beside it."""

ABOVE = "import functools\nfrom dataclasses import dataclass\nfrom cachekit import distributed_cache\n"


def written(project: Any, above: str, body: str, lib: str = "") -> Any:
    main = f"{ABOVE}{above}\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    return project(main=main, lib=lib).imported()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_place_is_another_call(project: Any, name: str) -> None:
    """After three calls that the lane knows, the changed function answers as it does now."""
    above, body, change, lib = CHANGES[name]
    m = written(project, above, body, lib)
    before = m.ask("x")
    assert m.ask("x") == m.ask("x") == before
    exec(change, {"m": m, "sys": sys})  # noqa: S102
    assert m.ask("x") == m.ask("x") == m.ask.__wrapped__("x") != before


@pytest.mark.parametrize("imported", ["import json", "import json as j", "from json import dumps"])
def test_a_patched_foreign_function(project: Any, imported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock in the place of a package's function passes the cache by; a function of one's own is followed."""
    name = {"import json": "json.dumps", "import json as j": "j.dumps"}.get(imported, "dumps")
    m = written(project, imported, f"return {name}(x)")
    home = m if name == "dumps" else json
    assert m.ask("x") == m.ask("x") == '"x"'
    with mock.patch.object(home, "dumps", return_value="mocked"):
        assert m.ask("x") == "mocked"
    assert stats(m.ask).as_dict()["bypasses"]["mocked"] == 1
    monkeypatch.setattr(home, "dumps", lambda _: "patched")
    assert m.ask("x") == m.ask("x") == "patched"
    monkeypatch.undo()


def test_an_import_inside_keeps_its_key(project: Any) -> None:
    """The calls of a process share one form of key, whether the function's import was run already or not."""
    m = written(project, "", "from lib import helper\nreturn helper(x)", "def helper(x): return x")
    first = m.ask.key_for("x")
    assert m.ask("x") == m.ask("x") == "x"
    assert m.ask.key_for("x") == first
    sys.modules["lib"].helper = lambda x: "patched"  # type: ignore[attr-defined]
    assert m.ask("x") == "patched"
    assert m.ask.key_for("x") != first


def test_code_that_is_put_into_a_function(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something that reloads code in place is loaded, as IPython's autoreload, a function is what it is now."""
    monkeypatch.setitem(sys.modules, "IPython.extensions.autoreload", types.ModuleType("autoreload"))
    m = written(project, "def f(v='a'): return v", "return f()")
    assert m.ask("x") == m.ask("x") == m.ask("x") == "a"
    m.f.__defaults__ = ("b",)
    assert m.ask("x") == m.ask("x") == "b"
    m.f.__code__ = (lambda v: v + "c").__code__
    assert m.ask("x") == m.ask("x") == "bc"
