"""What a Python program imports, found without executing it.

The interpreter that is asked about runs this file, so it needs nothing but a standard library (3.8 and later):
`python -c <this text> script|module|code WORD` prints JSON.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import io
import json
import os
import re
import site
import sys
import sysconfig
import tokenize
from typing import Any

MOST = 4096
"""Modules that are looked at; beyond, `sure` is False."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Walk:
    """`modules` are own code, by name; `installed` the first names of what comes from each directory of distributions.

    `watched` are paths: as long as all are as they were, so is what was found.
    """

    def __init__(self, first: str | None) -> None:
        if first is not None and sys.path[:1] == [""]:  # neither -I nor -P
            sys.path[0] = first
        self.modules: dict[str, str] = {}
        self.installed: dict[str, dict[str, str]] = {}
        self.watched: dict[str, None] = {}
        self.sure = True
        self._waiting: list[tuple[str, str, str]] = []
        self._seen: set[str] = set()
        self._outside: set[str] = set()
        paths = sysconfig.get_paths()
        self.sites = _both([*(paths[name] for name in ("purelib", "platlib")), *_sites()])
        self._standard = _both([paths["stdlib"], paths["platstdlib"]])
        self._own = [path for path in sys.path if os.path.isdir(path) and not self._is_foreign(path)]
        self._here = _names(self._own)
        self._folders: dict[str, list[str]] = {}

    def of_script(self, path: str) -> None:
        self.modules["__main__"] = path
        self._read("__main__", path, "")

    def of_code(self, text: str) -> None:
        self._walk(text, "")

    def of_module(self, name: str) -> None:
        self._find(name)
        self._find(name + ".__main__")

    def finish(self) -> None:
        while self._waiting:
            if len(self.modules) > MOST:
                self.sure = False
                return
            self._read(*self._waiting.pop())

    def _read(self, name: str, path: str, package: str) -> None:
        try:
            with open(path, "rb") as stream:
                data = stream.read()
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
            text = data.decode(encoding)
        except (OSError, SyntaxError, UnicodeDecodeError, LookupError):
            return  # no source: it counts by its content all the same
        self._walk(text, package)

    def _walk(self, text: str, package: str) -> None:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return  # running it will tell
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._find(alias.name)
            elif isinstance(node, ast.ImportFrom):
                above = package.split(".")
                base = ".".join(above[: len(above) - node.level + 1]) if node.level else ""
                base = ".".join(filter(None, (base, node.module)))
                if base:
                    self._find(base)
                    for alias in node.names:
                        self._find(base + "." + alias.name)
            elif isinstance(node, ast.Call) and node.args and "import" in ast.dump(node.func):
                called = [one.value for one in node.args if isinstance(one, ast.Constant)]  # import_module("name")
                if called and isinstance(called[0], str):
                    self._called(*map(str, called[:2]))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self._named(node.value, package)

    def _called(self, name: str, anchor: str = "") -> None:
        whole = anchor + name if name.startswith(".") else name
        if NAME.fullmatch(whole):
            self._find(whole)

    def _named(self, text: str, package: str) -> None:
        """A text that names a module of own code: in `__all__`, a table of plugins, an argument of what imports it."""
        name = text.partition(":")[0].lstrip(".")
        if NAME.fullmatch(name):
            first = name.partition(".")[0]
            if first in self._here:
                self._find(name)
            if package and first in _names(list(self._folders.get(package, ()))):
                self._find(package + "." + name)

    def _find(self, name: str) -> None:
        """Notes a module and the packages above it."""
        places: Any = None
        whole = ""
        for part in name.split("."):
            whole = whole + "." + part if whole else part
            spec = _spec(whole, places)
            if whole not in self._seen:
                self._seen.add(whole)
                self._watch(part, self._own if places is None else places, spec)
                if not self._note(whole, spec):
                    return
            elif spec is None or whole in self._outside:
                return
            places = [] if spec is None else list(spec.submodule_search_locations or [])

    def _note(self, name: str, spec: Any) -> bool:
        """Whether modules below it may be own code."""
        if spec is None:
            return False
        origin = spec.origin if spec.has_location else None
        if origin is None:
            if spec.submodule_search_locations is None or spec.origin in ("built-in", "frozen"):
                self._outside.add(name)
                return False
            return True
        home = next((place for place in self.sites if origin.startswith(place)), None)
        if home is not None:
            self._outside.add(name)
            self.installed.setdefault(home.rstrip(os.sep), {})[name.partition(".")[0]] = origin
            return False
        if self._is_foreign(origin):
            self._outside.add(name)
            return False
        self.modules[name] = origin
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        self._folders.setdefault(name, list(spec.submodule_search_locations or []))
        self._waiting.append((name, origin, package))
        return True

    def _watch(self, part: str, places: Any, spec: Any) -> None:
        """Where it would be found before where it is, or beside that."""
        found = "" if spec is None or not spec.has_location else spec.origin
        for place in places:
            for ending in ("", ".py", *importlib.machinery.EXTENSION_SUFFIXES):
                self.watched[os.path.join(place, part + ending)] = None
            if found.startswith(os.path.join(place, "")):
                return

    def _is_foreign(self, path: str) -> bool:
        return os.path.join(os.path.abspath(path), "").startswith(tuple(self._standard + self.sites))


def _both(names: list[str]) -> list[str]:
    both = {os.path.join(place, "") for name in names for place in (os.path.abspath(name), os.path.realpath(name))}
    return sorted(both, key=len, reverse=True)


def _names(places: list[str]) -> set[str]:
    """What could be modules in these directories."""
    found: set[str] = set()
    for place in filter(os.path.isdir, places):
        found.update(name.partition(".")[0] for name in os.listdir(place))
    return found


def _sites() -> list[str]:
    found = [*getattr(site, "getsitepackages", list)(), site.getusersitepackages()]
    return found + [path for path in sys.path if os.path.basename(path) in ("site-packages", "dist-packages")]


def _spec(name: str, places: Any) -> Any:
    for finder in sys.meta_path if places is None else [importlib.machinery.PathFinder]:
        try:
            spec = finder.find_spec(name, places)
        except Exception:  # a finder of somebody else's may raise anything: the next one is asked
            spec = None
        if spec is not None:
            return spec
    return None


def distributions(installed: dict[str, dict[str, str]]) -> tuple[dict[str, str], dict[str, str]]:
    """The versions of the distributions that have these modules, and of what those require; and modules that none has."""
    every: dict[str, Any] = {}
    for one in importlib.metadata.distributions():
        try:
            every.setdefault(_plain(one.metadata["Name"]), one)
        except (TypeError, KeyError, AttributeError):
            continue  # a directory that somebody left there, with nothing in it
    wanted, lost = [], {}
    records = {name: _record(one) for name, one in every.items()} if installed else {}
    for names in installed.values():
        for top, origin in names.items():
            owners = [name for name, record in records.items() if _has(record, top)]
            wanted += owners
            if not owners:
                lost[top] = origin
    found: dict[str, str] = {}
    while wanted:
        name = wanted.pop()
        if name not in found and name in every:
            found[name] = _version(every[name])
            for requirement in every[name].requires or ():
                words, _, marker = requirement.partition(";")
                match = NAME.match(words)
                if match and "extra" not in marker:
                    wanted.append(_plain(match.group()))
    return found, lost


def _version(distribution: Any) -> str:
    version = str(distribution.version)
    if "dir_info" in (distribution.read_text("direct_url.json") or ""):
        # Built from a directory: its author changes it without another version.
        lines = [line for line in (distribution.read_text("RECORD") or "").splitlines() if ".dist-info/" not in line]
        version += "+" + hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
    return version


def _record(distribution: Any) -> str:
    for name in ("RECORD", "installed-files.txt"):
        text = str(distribution.read_text(name) or "")
        if text:
            return "\n" + text
    return "\n" + "\n".join(name + "/" for name in (distribution.read_text("top_level.txt") or "").split())


def _has(record: str, top: str) -> bool:
    return any("\n" + top + end in record for end in ("/", ".py", ".cpython-", ".abi3", ".so"))


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(kind: str, word: str) -> None:
    walk = Walk({"script": os.path.dirname(os.path.realpath(word))}.get(kind, os.getcwd()))
    {"script": walk.of_script, "module": walk.of_module, "code": walk.of_code}[kind](word)
    for name in () if sys.flags.no_site else ("sitecustomize", "usercustomize"):
        walk.of_module(name)
    walk.finish()
    versions, lost = distributions(walk.installed)
    places = [place.rstrip(os.sep) for place in walk.sites]
    outside = [*walk.sites, *_both([sysconfig.get_paths()["stdlib"]])]
    sys.stdout.write(
        json.dumps(
            {
                "version": sys.version,
                "executable": os.path.realpath(sys.executable),
                "modules": {**walk.modules, **lost},
                "distributions": versions,
                "watched": [
                    *walk.watched,
                    *(place for place in places if place in sys.path),
                    sys.prefix + "/pyvenv.cfg",
                ],
                "outside": outside,
                "searched": [os.path.realpath(place) for place in sys.path],
                "sure": walk.sure,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
