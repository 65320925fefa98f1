"""How a module is reached: by every form of an import, inside a function or above it, and by names that only a run knows."""

from __future__ import annotations

import sys
import textwrap
import zipfile
import zipimport
from pathlib import Path
from typing import Any

import pytest

Case = tuple[str, str, dict[str, str], dict[str, tuple[str, str]]]
"""What stands above the decorated function, its body, its neighbours, and an edit of these."""

IMPORTS: dict[str, Case] = {
    "import pkg.sub inside": (
        "",
        "import pkg.sub\nreturn pkg.sub.P",
        {"pkg/__init__": "", "pkg/sub": "P='a'\n"},
        {"pkg/sub": ("'a'", "'b'")},
    ),
    "from pkg import sub inside": (
        "",
        "from pkg import sub\nreturn sub.P",
        {"pkg/__init__": "", "pkg/sub": "P='a'\n"},
        {"pkg/sub": ("'a'", "'b'")},
    ),
    "from pkg.sub import P inside": (
        "",
        "from pkg.sub import P\nreturn P",
        {"pkg/__init__": "", "pkg/sub": "P='a'\n"},
        {"pkg/sub": ("'a'", "'b'")},
    ),
    "import pkg.sub as s inside": (
        "",
        "import pkg.sub as s\nreturn s.P",
        {"pkg/__init__": "", "pkg/sub": "P='a'\n"},
        {"pkg/sub": ("'a'", "'b'")},
    ),
    "namespace pkg inside": (
        "",
        "from ns import sub\nreturn sub.P",
        {"ns/sub": "P='a'\n"},
        {"ns/sub": ("'a'", "'b'")},
    ),
    "namespace import pkg.sub inside": (
        "",
        "import ns.sub\nreturn ns.sub.P",
        {"ns/sub": "P='a'\n"},
        {"ns/sub": ("'a'", "'b'")},
    ),
    "namespace top": (
        "import ns.sub",
        "return ns.sub.P",
        {"ns/sub": "P='a'\n"},
        {"ns/sub": ("'a'", "'b'")},
    ),
    "namespace top from": (
        "from ns import sub",
        "return sub.P",
        {"ns/sub": "P='a'\n"},
        {"ns/sub": ("'a'", "'b'")},
    ),
    "pkg unloaded init imports sub rel": (
        "",
        "from pkg import P\nreturn P",
        {"pkg/__init__": "from .sub import P\n", "pkg/sub": "P='a'\n"},
        {"pkg/sub": ("'a'", "'b'")},
    ),
    "pkg getattr const": (
        "import lib",
        "return lib.P",
        {"lib": "def __getattr__(n):\n  return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "pkg getattr from": (
        "from lib import P",
        "return P",
        {"lib": "def __getattr__(n):\n  return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "pkg getattr import inside": (
        "",
        "import lib\nreturn lib.P",
        {"lib": "def __getattr__(n):\n  return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "try import": (
        "",
        ("try:\n  from fast import f\nexcept ImportError:\n  from slow import f\nreturn f(x)"),
        {"slow": "def f(x): return 'a'\n"},
        {"slow": ("'a'", "'b'")},
    ),
    "try import appears": (
        "",
        ("try:\n  from fast import f\nexcept ImportError:\n  from slow import f\nreturn f(x)"),
        {"slow": "def f(x): return 'a'\n", "fas": "def f(x): return 'c'\n"},
        {"slow": ("'a'", "'b'")},
    ),
    "global lazy import": (
        "lib=None",
        "global lib\nif lib is None: import lib\nreturn lib.P",
        {"lib": "P='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "getter lazy import": (
        ("_lib=None\ndef get():\n  global _lib\n  if _lib is None:\n    import lib as _lib\n  return _lib"),
        "return get().P",
        {"lib": "P='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "import for effect": (
        "import reg",
        "import plug\nreturn reg.R['a']",
        {"reg": "R={}\n", "plug": "import reg\nreg.R['a']='a'\n"},
        {"plug": ("='a'", "='b'")},
    ),
    "star import": (
        "from lib import *",
        "return P",
        {"lib": "P='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "module __version__": (
        "import lib",
        "return lib.__version__",
        {"lib": "__version__='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "module __all__": (
        "import lib",
        "return [getattr(lib,n) for n in lib.__all__]",
        {"lib": "__all__=['a']\na=1;b=2\n"},
        {"lib": ("['a']", "['b']")},
    ),
    "vars(module)": (
        "import lib",
        "return vars(lib)['P']",
        {"lib": "P='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "module dict": (
        "import lib",
        "return lib.__dict__['P']",
        {"lib": "P='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "globals() of lib": (
        "from lib import f",
        "return f()",
        {"lib": "P='a'\ndef f(): return globals()['P']\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "globals()": (
        "from lib import f",
        "return f()",
        {"lib": "P='a'\ndef f():\n  return globals()['P']\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "sys.modules[__name__]": (
        "from lib import f",
        "return f()",
        {"lib": "import sys\nP='a'\ndef f():\n  return getattr(sys.modules[__name__],'P')\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "eval": (
        "from lib import f",
        "return f()",
        {"lib": "P='a'\ndef f():\n  return eval('P')\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "locals/exec": (
        "from lib import f",
        "return f()",
        {"lib": "P='a'\ndef f():\n  d={}\n  exec('q=P',globals(),d)\n  return d['q']\n"},
        {"lib": ("'a'", "'b'")},
    ),
}


@pytest.mark.parametrize("name", IMPORTS)
def test_an_edited_module_counts(project: Any, name: str) -> None:
    """An edit of a module is another call, whether the module was imported before the first key or not."""
    above, body, neighbours, edits = IMPORTS[name]
    main = f"from cachekit import distributed_cache\n{above}\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    made = project(main=main, **neighbours)
    before = made.outcome()
    assert made.outcome() == before
    made.edit(**edits)
    after = made.outcome()
    assert after.answer != before.answer
    assert after.key != before.key
    assert after.first != before.first


def zipped(place: Path, text: str) -> Path:
    path = place / "lib.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inzip.py", text)
    return path


@pytest.mark.parametrize("inside", [True, False])
def test_a_module_in_a_zip_file(project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    """Its functions are found there, and so is a module that was not imported yet."""
    monkeypatch.syspath_prepend(str(zipped(tmp_path, "def helper(x): return x + '1'\n")))
    above = "" if inside else "import inzip\n"
    head = f"from cachekit import distributed_cache\n{above}@distributed_cache\n"
    main = f"{head}def ask(x):\n  import inzip\n  return inzip.helper(x)\n"
    made, outcomes = project(main=main), []
    helper = "def helper(x): return x + '1'"
    for text in (helper, f"\n\n{helper}  # why\n", helper.replace("1", "2")):
        zipped(tmp_path, text)
        monkeypatch.delitem(sys.modules, "inzip", raising=False)
        zipimport._zip_directory_cache.clear()  # type: ignore[attr-defined]
        sys.path_importer_cache.clear()
        outcomes.append(made.outcome())
    assert outcomes[0].key == outcomes[1].key != outcomes[2].key
    assert outcomes[0].first == outcomes[1].first != outcomes[2].first
    sys.modules.pop("inzip")
