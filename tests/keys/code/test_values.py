"""Data of own code: whatever a value is, another one that the answer shows is another key."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

Case = tuple[str, str, dict[str, str], dict[str, tuple[str, str]]]
"""What stands above the decorated function, its body, its neighbours, and an edit of these."""

VALUES: dict[str, Case] = {
    "wrapt proxy data": (
        "from lib import *",
        "return P['k']",
        {"lib": "import wrapt\nP=wrapt.ObjectProxy({'k':'a'})\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "contextvar default": (
        "from lib import *",
        "return V.get()",
        {"lib": "import contextvars\nV=contextvars.ContextVar('v',default='a')\n"},
        {"lib": ("='a'", "='b'")},
    ),
    "Decimal": (
        "from lib import *",
        "return str(V)",
        {"lib": "from decimal import Decimal\nV=Decimal('1.0')\n"},
        {"lib": ("'1.0'", "'1.00'")},
    ),
    "datetime": (
        "from lib import *",
        "return str(V)",
        {"lib": "import datetime\nV=datetime.date(2020,1,1)\n"},
        {"lib": ("1,1", "1,2")},
    ),
    "frozenset": (
        "from lib import *",
        "return sorted(V)",
        {"lib": "V=frozenset({'a'})\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "ndarray": (
        "from lib import *",
        "return int(V[1])",
        {"lib": "import numpy\nV=numpy.array([1,2])\n"},
        {"lib": ("1,2]", "1,3]")},
    ),
    "bytes": (
        "from lib import *",
        "return V",
        {"lib": "V=b'a'\n"},
        {"lib": ("b'a'", "b'b'")},
    ),
    "dict order": (
        "from lib import *",
        "return list(V)",
        {"lib": "V={'a':1,'b':2}\n"},
        {"lib": ("'a':1,'b':2", "'b':2,'a':1")},
    ),
    "OrderedDict order": (
        "from lib import *",
        "return list(V)",
        {"lib": "from collections import OrderedDict\nV=OrderedDict([('a',1),('b',2)])\n"},
        {"lib": ("('a',1),('b',2)", "('b',2),('a',1)")},
    ),
    "range": (
        "from lib import *",
        "return list(V)",
        {"lib": "V=range(3)\n"},
        {"lib": ("range(3)", "range(4)")},
    ),
    "slice": (
        "from lib import *",
        "return 'abc'[V]",
        {"lib": "V=slice(1)\n"},
        {"lib": ("slice(1)", "slice(2)")},
    ),
    "ChainMap": (
        "from lib import *",
        "return V['b']",
        {"lib": "from collections import ChainMap\nV=ChainMap({'a':1},{'b':2})\n"},
        {"lib": ("'b':2", "'b':3")},
    ),
    "itemgetter": (
        "from lib import *",
        "return V('ab')",
        {"lib": "import operator\nV=operator.itemgetter(0)\n"},
        {"lib": ("(0)", "(1)")},
    ),
    "methodcaller": (
        "from lib import *",
        "return V('aB')",
        {"lib": "import operator\nV=operator.methodcaller('upper')\n"},
        {"lib": ("upper", "lower")},
    ),
    "struct": (
        "from lib import *",
        "return V.pack(1)",
        {"lib": "import struct\nV=struct.Struct('>h')\n"},
        {"lib": (">h", "<h")},
    ),
    "re flags": (
        "from lib import *",
        "return bool(V.match('a'))",
        {"lib": "import re\nV=re.compile('A')\n"},
        {"lib": ("('A')", "('A',re.I)")},
    ),
    "timezone": (
        "from lib import *",
        "return str(V)",
        {"lib": "import datetime\nV=datetime.timezone(datetime.timedelta(hours=1))\n"},
        {"lib": ("=1", "=2")},
    ),
    "zoneinfo": (
        "from lib import *",
        "return V.key",
        {"lib": "import zoneinfo\nV=zoneinfo.ZoneInfo('Europe/Berlin')\n"},
        {"lib": ("Berlin", "Paris")},
    ),
    "uuid": (
        "from lib import *",
        "return str(V)",
        {"lib": "import uuid\nV=uuid.UUID(int=1)\n"},
        {"lib": ("=1)", "=2)")},
    ),
    "array.array": (
        "from lib import *",
        "return V[0]",
        {"lib": "import array\nV=array.array('i',[1])\n"},
        {"lib": ("[1]", "[2]")},
    ),
    "PurePath": (
        "from lib import *",
        "return str(V)",
        {"lib": "import pathlib\nV=pathlib.PurePosixPath('a')\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "ipaddress": (
        "from lib import *",
        "return str(V)",
        {"lib": "import ipaddress\nV=ipaddress.ip_address('1.1.1.1')\n"},
        {"lib": ("1.1.1.1", "1.1.1.2")},
    ),
    "int subclass": (
        "from lib import *",
        "return V+1",
        {"lib": "class I(int): pass\nV=I(3)\n"},
        {"lib": ("I(3)", "I(4)")},
    ),
    "str subclass": (
        "from lib import *",
        "return V+'1'",
        {"lib": "class I(str): pass\nV=I('a')\n"},
        {"lib": ("I('a')", "I('b')")},
    ),
    "dict subclass": (
        "from lib import *",
        "return V['a']",
        {"lib": "class I(dict): pass\nV=I(a=1)\n"},
        {"lib": ("a=1", "a=2")},
    ),
    "list subclass": (
        "from lib import *",
        "return V[0]",
        {"lib": "class I(list): pass\nV=I([1])\n"},
        {"lib": ("[1]", "[2]")},
    ),
    "UserDict": (
        "from lib import *",
        "return V['a']",
        {"lib": "import collections\nV=collections.UserDict(a=1)\n"},
        {"lib": ("a=1", "a=2")},
    ),
    "UserString": (
        "from lib import *",
        "return str(V)",
        {"lib": "import collections\nV=collections.UserString('a')\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "exception instance": (
        "from lib import *",
        "return str(V)",
        {"lib": "V=ValueError('a')\n"},
        {"lib": ("'a'", "'b'")},
    ),
    "cycle data": (
        "from lib import *",
        "return V['a']",
        {"lib": "V={'a':'a'}\nV['me']=V\n"},
        {"lib": ("'a':'a'", "'a':'b'")},
    ),
    "private method": (
        "from lib import *",
        "return B().m()",
        {"lib": "class B:\n  def __k(self): return 'a'\n  def m(self): return self.__k()\n"},
        {"lib": ("'a'", "'b'")},
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_an_edited_value_counts(project: Any, name: str) -> None:
    """A value in a module variable counts by all that it holds."""
    above, body, neighbours, edits = VALUES[name]
    main = f"from cachekit import distributed_cache\n{above}\n@distributed_cache\ndef ask(x):\n{textwrap.indent(body, '  ')}\n"
    made = project(main=main, **neighbours)
    before = made.outcome()
    assert made.outcome() == before
    made.edit(**edits)
    after = made.outcome()
    assert after.answer != before.answer
    assert after.key != before.key
    assert after.first != before.first
