"""Small projects of own code, written to a directory and imported anew after each edit, as a new process would."""

from __future__ import annotations

import importlib
import linecache
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """What a call gives, its key, and its key before anything was run."""

    answer: Any
    key: str
    first: str


class Project:
    """Modules by name. `main` has `call()`, which calls the decorated function `ask`, and `key()`, which gives its key."""

    def __init__(self, place: Path, **modules: str) -> None:
        self.place = place
        self.modules = {name: textwrap.dedent(text) for name, text in modules.items()}
        sys.path.insert(0, str(place))
        self.write()

    def write(self) -> None:
        for name, text in self.modules.items():
            path = (self.place / name).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def edit(self, **edits: tuple[str, str]) -> None:
        """Replaces (old text, new text) in modules."""
        for name, (old, new) in edits.items():
            assert old in self.modules[name], old
            self.modules[name] = self.modules[name].replace(old, new)
        self.write()

    def imported(self) -> ModuleType:
        """`main`, imported anew with all its neighbours."""
        self.forget()
        return importlib.import_module("main")

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
            if any(str(place).startswith(str(self.place)) for place in places):
                del sys.modules[name]
        importlib.invalidate_caches()
        linecache.clearcache()
        for cached in self.place.rglob("__pycache__"):
            for compiled in cached.iterdir():
                compiled.unlink()

    def outcome(self) -> Outcome:
        main = self.imported()
        ask, call = main.ask, getattr(main, "CALL", ("x",))
        first = str(ask.key_for(*call))
        return Outcome(ask.__wrapped__(*call), str(ask.key_for(*call)), first)

    def close(self) -> None:
        self.forget()
        sys.path.remove(str(self.place))
