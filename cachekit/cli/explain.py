"""Why a call hits or misses: `explain` for a key or for a call, and `doctor --compare` for two machines."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cachekit.cache.default import default, disk
from cachekit.cli.report import NO, YES, Report, find_key, instant, printable
from cachekit.errors import UNREADABLE, IntegrityError, UsageError
from cachekit.keys.outline import Explanation
from cachekit.keys.parts import Trait, Traits, differences, masked
from cachekit.model import FOREVER, Key, Record

_SCRIPT: Final = "__mp_main__"
"""What a spawned worker calls the script that it belongs to: the script's own `if __name__ == "__main__"` stays unrun."""


def explain(options: argparse.Namespace) -> Report:
    """A key, or `module:function` with `--args`."""
    if ":" not in options.key:
        if options.args is not None or options.export is not None:
            raise UsageError("--args and --export belong to a call: cachekit explain module:function --args JSON")
        return _standing(options.key)
    arguments = _parsed(options.args)
    explanation = _explained(options.key, arguments)
    data = {
        "key": None if explanation.key is None else str(explanation.key),
        "found": explanation.found,
        "tree": explanation.tree,
        "not_followed": dict(explanation.unfollowed),
        "reason": explanation.reason,
        "differs": explanation.differs,
        "notes": explanation.notes,
    }
    if options.export is not None:
        Path(options.export).write_text(json.dumps(_exported(options.key, arguments, explanation)), encoding="utf-8")
    text = "\n".join(printable(line) for line in str(explanation).splitlines())
    return Report(data, text, YES if explanation.found else NO)


def compare(path: str) -> Report:
    """Why a call has another key here than on the machine that exported it."""
    theirs = _read(path)
    ours = _explained(theirs["call"], theirs["arguments"])
    if ours.sketch is None:
        raise UsageError("; ".join(ours.notes) or "the call cannot be keyed here")
    here, there = (
        {**ours.sketch.code, **(ours.sketch.call or {})},
        _traits({**theirs["code"], **theirs["arguments_seen"]}),
    )
    secret = {
        name for name in (*here, *there) if "<secret>" in (here.get(name, _NONE).text, there.get(name, _NONE).text)
    }
    lines = differences(_without(there, secret), _without(here, secret))
    is_same = str(ours.sketch.key) == theirs["key"]
    lines += [f"{name} may be a secret: it was not compared" for name in sorted(secret) if not is_same]
    verdict = "the same key" if is_same else f"another key: {ours.sketch.key} here, {theirs['key']} there"
    if not is_same and not lines:
        lines = [f"something that is not compared; cachekit {theirs['cachekit']} and Python {theirs['python']} there"]
    data = {"same": is_same, "here": str(ours.sketch.key), "there": theirs["key"], "differs": lines}
    return Report(data, "\n".join([verdict, *(f"  {printable(line)}" for line in lines)]), YES if is_same else NO)


_NONE: Final = Trait("")


def _without(traits: Traits, names: set[str]) -> dict[str, Trait]:
    return {name: trait for name, trait in traits.items() if name not in names}


def _exported(call: str, arguments: Any, explanation: Explanation) -> dict[str, Any]:
    import platform
    from importlib.metadata import version

    sketch = explanation.sketch
    if sketch is None:
        raise UsageError("; ".join(explanation.notes) or "the call cannot be keyed")
    return {
        "cachekit": version("cachekit-ipfs"),
        "python": platform.python_version(),
        "call": call,
        "arguments": masked(arguments),
        "key": str(sketch.key),
        "code": sketch.code,
        "arguments_seen": sketch.call or {},
    }


def _read(path: str) -> dict[str, Any]:
    wanted = {"cachekit", "python", "call", "arguments", "key", "code", "arguments_seen"}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not wanted <= set(found):
            raise ValueError("something is missing in it")
        if not all(isinstance(found[name], str) for name in ("cachekit", "python", "call", "key")):
            raise ValueError("something in it is no text")
        _traits({**found["code"], **found["arguments_seen"]})
    except UNREADABLE as error:
        remedy = "make one with `cachekit explain module:function --args JSON --export FILE`"
        raise UsageError(f"{path} is not an exported explanation ({error}); {remedy}") from None
    return found


def _traits(found: Mapping[str, Any]) -> dict[str, Trait]:
    return {name: Trait(str(fields[0]), str(fields[1])) for name, fields in found.items()}


def _explained(call: str, arguments: Any) -> Explanation:
    function = _found(call)
    args, kwargs = ((), arguments) if isinstance(arguments, dict) else (tuple(arguments), {})
    try:
        explanation: Explanation = function.explain(*args, **kwargs)
    except TypeError as error:
        raise UsageError(f"{call} does not take these arguments: {error}") from None
    return explanation


def _parsed(text: str | None) -> Any:
    try:
        arguments = json.loads(text or "{}")
    except UNREADABLE as error:
        raise UsageError(f"--args is not JSON ({error}); an object for arguments by name, a list for others") from None
    if not isinstance(arguments, (dict, list)):
        raise UsageError("--args is an object for arguments by name, or a list for positional ones")
    return arguments


def _found(call: str) -> Any:
    """The decorated function behind `module:function` or `file.py:function`; importing its module runs its code."""
    name, _, attribute = call.rpartition(":")
    found: Any = _script(name) if name.endswith(".py") else _module(name)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not callable(getattr(found, "explain", None)):
        raise UsageError(f"{call} is no decorated function; name one as module:function or script.py:function")
    return found


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{name!r} cannot be imported here ({error}); run this where the program would run") from None


def _script(path: str) -> Any:
    """A script as its spawned workers have it, so that its functions have the keys that they have when it runs."""
    spec = importlib.util.spec_from_file_location(_SCRIPT, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        raise UsageError(f"there is no script {path}")
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    module = sys.modules[_SCRIPT] = importlib.util.module_from_spec(spec)
    module.__spec__ = None  # a script has none
    spec.loader.exec_module(module)
    return module


def _standing(text: str) -> Report:
    key = find_key(text)
    states = {"disk": _on_disk(key), "ipfs": _in_ipfs(key)}
    lines = [f"{name:<5} {printable(text)}" for name, text in {"key": str(key), **states}.items()]
    usable = any(state.startswith("usable") for state in states.values())
    return Report({"key": str(key), **states}, "\n".join(lines), YES if usable else NO)


def _on_disk(key: Key) -> str:
    cache = default()
    try:
        record: Record | None = disk().get(key)
    except IntegrityError as error:
        return f"dropped: {error}"
    if record is None:
        return "absent"
    if cache.ledger.covers(key, record):
        return f"invalidated, made {instant(record.created)}"
    if not record.fresh(time.time_ns()):
        return f"expired {instant(record.expires)}"
    end = "never" if record.expires == FOREVER else instant(record.expires)
    return f"usable: {len(record.payload)} bytes, made {instant(record.created)}, expires {end}"


def _in_ipfs(key: Key) -> str:
    cache = default()
    if cache.team is None:
        return f"off: {cache.status()['ipfs'].reason}"
    from cachekit.ipfs.index.rows import alive, cid_of

    entry = cache.team.table.find(key.namespace, key.digest)
    if entry is None:
        return "not in the index as last pulled; `cachekit sync` pulls"
    if not alive(entry, time.time_ns()):
        return f"expired {instant(entry.expires)}"
    if cache.team.table.covers(key.namespace, entry):
        return f"invalidated, made {instant(entry.created)}"
    return f"usable: {cid_of(entry)}, {entry.size} bytes, made {instant(entry.created)}"
