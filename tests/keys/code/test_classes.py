"""What a class is: its fields in their order, what was said of them, how it was decorated, and what its annotations name."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

Case = tuple[str, str, dict[str, str], dict[str, tuple[str, str]]]
"""What stands above the decorated function, its body, its neighbours, and an edit of these."""

CLASSES: dict[str, Case] = {
    "namedtuple functional": (
        "from lib import *",
        "return N().b",
        {"lib": "from collections import namedtuple\nN=namedtuple('N','a b',defaults=(1,2))\n"},
        {"lib": ("(1,2)", "(1,3)")},
    ),
    "namedtuple fields": (
        "from lib import *",
        "return repr(N())",
        {"lib": "from collections import namedtuple\nN=namedtuple('N','a b',defaults=(1,2))\n"},
        {"lib": ("'a b'", "'a c'")},
    ),
    "make_dataclass": (
        "from lib import *",
        "return repr(N())",
        {"lib": ("from dataclasses import make_dataclass\nN=make_dataclass('N',[('a',int,1)])\n")},
        {"lib": ("('a',", "('b',")},
    ),
    "make_dataclass default": (
        "from lib import *",
        "return repr(N())",
        {"lib": ("from dataclasses import make_dataclass\nN=make_dataclass('N',[('a',int,1)])\n")},
        {"lib": ("int,1", "int,2")},
    ),
    "create_model": (
        "from lib import *",
        "return N().a",
        {"lib": "from pydantic import create_model\nN=create_model('N',a=(int,1))\n"},
        {"lib": ("int,1", "int,2")},
    ),
    "create_model type": (
        "from lib import *",
        "return str(N.model_json_schema())",
        {"lib": "from pydantic import create_model\nN=create_model('N',a=(int,1))\n"},
        {"lib": ("int,1", "float,1")},
    ),
    "create_model validator": (
        "from lib import *",
        "return N(a=1).a",
        {
            "lib": (
                "from pydantic import create_model, AfterValidator\nfrom typing import Annotated\n"
                "N=create_model('N',a=(Annotated[int, AfterValidator(lambda v: v+1)],1))\n"
            )
        },
        {"lib": ("v+1", "v+2")},
    ),
    "field constraint": (
        "from lib import *",
        "return str(N.model_json_schema())",
        {"lib": ("from pydantic import BaseModel, Field\nclass N(BaseModel):\n  a:int=Field(1,ge=1)\n")},
        {"lib": ("ge=1", "ge=2")},
    ),
    "field description": (
        "from lib import *",
        "return str(N.model_json_schema())",
        {"lib": ("from pydantic import BaseModel, Field\nclass N(BaseModel):\n  a:int=Field(1,description='x')\n")},
        {"lib": ("'x'", "'y'")},
    ),
    "field_validator": (
        "from lib import *",
        "return N(a=1).a",
        {
            "lib": (
                "from pydantic import BaseModel, field_validator\nclass N(BaseModel):\n  a:int=1\n"
                "  @field_validator('a')\n  def v(cls, v): return v+1\n"
            )
        },
        {"lib": ("v+1", "v+2")},
    ),
    "model docstring schema": (
        "from lib import *",
        "return str(N.model_json_schema())",
        {"lib": "from pydantic import BaseModel\nclass N(BaseModel):\n  'one'\n  a:int=1\n"},
        {"lib": ("'one'", "'two'")},
    ),
    "model_config": (
        "from lib import *",
        "return str(N(b=1).model_dump())",
        {"lib": ("from pydantic import BaseModel\nclass N(BaseModel):\n  model_config={'extra':'allow'}\n  a:int=1\n")},
        {"lib": ("'allow'", "'ignore'")},
    ),
    "nested model": (
        "from lib import N",
        "return str(N.model_json_schema())",
        {
            "lib": (
                "from pydantic import BaseModel\nclass M(BaseModel):\n  q:int=1\nclass N(BaseModel):\n  m:M|None=None\n"
            )
        },
        {"lib": ("q:int", "r:int")},
    ),
    "nested model list str ann": (
        "from lib import N",
        "return str(N.model_json_schema())",
        {
            "lib": (
                "from __future__ import annotations\nfrom pydantic import BaseModel\n"
                "class M(BaseModel):\n  q:int=1\nclass N(BaseModel):\n  m:list[M]=[]\n"
            )
        },
        {"lib": ("q:int", "r:int")},
    ),
    "dataclass future ann": (
        "from lib import N\nimport typing,dataclasses",
        ("return sorted(f.name for f in dataclasses.fields(typing.get_type_hints(N)['m']))"),
        {
            "lib": (
                "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\n"
                "class M:\n  q:int=1\n@dataclass\nclass N:\n  m:M\n"
            )
        },
        {"lib": ("q:int", "r:int")},
    ),
    "enum functional": (
        "from lib import *",
        "return E.B.value",
        {"lib": "import enum\nE=enum.Enum('E',{'A':1,'B':2})\n"},
        {"lib": ("'B':2", "'B':3")},
    ),
    "enum order": (
        "from lib import *",
        "return [e.name for e in E]",
        {"lib": "import enum\nclass E(enum.Enum):\n  A=1\n  B=2\n"},
        {"lib": ("  A=1\n  B=2\n", "  B=2\n  A=1\n")},
    ),
    "enum alias": (
        "from lib import *",
        "return E['B'].name",
        {"lib": "import enum\nclass E(enum.Enum):\n  A=1\n  B=1\n"},
        {"lib": ("B=1", "B=2")},
    ),
    "enum method": (
        "from lib import *",
        "return E.A.m()",
        {"lib": "import enum\nclass E(enum.Enum):\n  A=1\n  def m(self): return 'a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "auto order": (
        "from lib import *",
        "return int(E.B)",
        {"lib": "import enum\nclass E(enum.IntEnum):\n  A=enum.auto()\n  B=enum.auto()\n"},
        {"lib": ("  A=enum.auto()\n  B=enum.auto()\n", "  B=enum.auto()\n  A=enum.auto()\n")},
    ),
    "typeddict functional": (
        "from lib import *",
        "return sorted(T.__annotations__)",
        {"lib": "import typing\nT=typing.TypedDict('T',{'a':int})\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "typeddict total": (
        "from lib import *",
        "return sorted(T.__required_keys__)",
        {"lib": "import typing\nclass T(typing.TypedDict, total=False):\n  a:int\n"},
        {"lib": ("False", "True")},
    ),
    "dataclass field order": (
        "from lib import *",
        "return T(1,2).a",
        {"lib": ("from dataclasses import dataclass,astuple\n@dataclass\nclass T:\n  a:int\n  b:int\n")},
        {"lib": ("  a:int\n  b:int\n", "  b:int\n  a:int\n")},
    ),
    "dataclass opts": (
        "from lib import *",
        "try: return T(1)<T(2)\nexcept TypeError: return None",
        {"lib": "from dataclasses import dataclass\n@dataclass(order=True)\nclass T:\n  a:int\n"},
        {"lib": ("order=True", "order=False")},
    ),
    "dataclass eq": (
        "from lib import *",
        "return T(1)==T(1)",
        {"lib": "from dataclasses import dataclass\n@dataclass(eq=True)\nclass T:\n  a:int\n"},
        {"lib": ("eq=True", "eq=False")},
    ),
    "dataclass repr": (
        "from lib import *",
        "return repr(T())",
        {
            "lib": (
                "from dataclasses import dataclass,field\n@dataclass\nclass T:\n  a:int=field(default=1,repr=True)\n"
            )
        },
        {"lib": ("repr=True", "repr=False")},
    ),
    "dataclass metadata": (
        "from lib import *",
        "return fields(T)[0].metadata['d']",
        {
            "lib": (
                "from dataclasses import dataclass,field,fields\n@dataclass\nclass T:\n"
                "  a:int=field(default=1,metadata={'d':'x'})\n"
            )
        },
        {"lib": ("'x'", "'y'")},
    ),
    "slots class": (
        "from lib import *",
        "return t.a",
        {"lib": "class T:\n  __slots__=('a',)\n  def __init__(self): self.a='a'\nt=T()\n"},
        {"lib": ("='a'", "='b'")},
    ),
    "class decorator own": (
        "from lib import deco\n@deco\nclass T: pass",
        "return T.z",
        {"lib": "def deco(c):\n  c.z='a'\n  return c\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "class dunder attr": (
        "from lib import *",
        "return T.__version__",
        {"lib": "class T:\n  __version__='a'\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "class __slots__ read": (
        "from lib import *",
        "return T.__slots__",
        {"lib": "class T:\n  __slots__=('a',)\n"},
        {"lib": ("('a',)", "('b',)")},
    ),
    "class __match_args__": (
        "from lib import *",
        "match T():\n  case T(q): return q",
        {"lib": "class T:\n  __match_args__=('a','b')\n  a=1;b=2\n"},
        {"lib": ("('a','b')", "('b','a')")},
    ),
    "__init_subclass__ arg": (
        "from lib import *",
        "return T.n",
        {"lib": "class B:\n  def __init_subclass__(cls, n): cls.n=n\nclass T(B, n=1): pass\n"},
        {"lib": ("n=1)", "n=2)")},
    ),
    "metaclass attr": (
        "from lib import *",
        "return T.z",
        {"lib": ("class M(type):\n  @property\n  def z(cls): return 'a'\nclass T(metaclass=M): pass\n")},
        {"lib": ("'a'", "'b'")},
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_an_edited_class_counts(project: Any, name: str) -> None:
    """Whatever of a class changes the answer changes the key, in a process that has run nothing too."""
    above, body, neighbours, edits = CLASSES[name]
    main = f"from cachekit import distributed_cache\n{above}\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    made = project(main=main, **neighbours)
    before = made.outcome()
    assert made.outcome() == before
    made.edit(**edits)
    after = made.outcome()
    assert after.answer != before.answer
    assert after.key != before.key
    assert after.first != before.first
