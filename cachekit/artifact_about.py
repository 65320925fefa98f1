"""How an artifact came to be, for the people who find it: by which function, from what, on which machine, and when."""

from __future__ import annotations

import platform
import time
import types
from collections.abc import Mapping
from pathlib import Path

from cachekit.keys.keyer import ARGUMENT
from cachekit.keys.source import source_digest
from cachekit.model import Event
from cachekit.prepare import Prepared


def about(prepared: Prepared) -> Mapping[str, str]:
    """Texts by name, none of them a secret. What `encrypt=False` publishes says nothing of the arguments."""
    target = prepared.target
    version, function = target.policy.version, target.function
    if version is None and isinstance(function, types.FunctionType):
        version = f"source {source_digest(function)[0][:12]}"
    return {
        **(_arguments(prepared) if target.policy.encrypt else {}),
        "function": target.name,
        "key": str(prepared.key),
        "machine": platform.node(),
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": version or "",
    }


def _arguments(prepared: Prepared) -> dict[str, str]:
    target, key = prepared.target, prepared.key
    try:
        parts = target.explained(prepared.call, key.namespace, 0).parts
    except (
        Exception
    ) as error:  # a key= of the caller's may raise anything, and so do inputs that the function took away
        prepared.cache.tell(Event("error", target.name, "key", type(error).__name__, error=error))
        return {}
    given = target.keyer.bind(*prepared.call)
    found = {name: text for name, text in parts if name.startswith(ARGUMENT)}
    return {name: _named(text, given.get(name.removeprefix(ARGUMENT))) for name, text in found.items()}


def _named(text: str, value: object) -> str:
    return f"{value.name}: {text}" if isinstance(value, Path) and text.startswith("Path(") else text
