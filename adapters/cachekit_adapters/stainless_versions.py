"""Which model a server serves, for `wrap(client, version="server")`: its list of models, asked at most once a minute."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any, Final

FRESH: Final = 60.0
"""Seconds that an answer is believed: a redeployed model misses at the latest after them."""

_CHANGING: Final = frozenset({"created", "created_at", "modified_at", "permission"})
"""Fields that some servers fill in anew for every request or at every start."""


class Versions:
    """The version of one client's server. `client` is the bare one: what it asks is not cached."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._text: str | None = None
        self._until = 0.0

    def known(self) -> str | None:
        """What the server said, while it is believed."""
        return self._text if time.monotonic() < self._until else None

    def ask(self) -> str | None:
        """None where the server does not say: the call then goes uncached."""
        if self.known() is None:
            try:
                self._note(self._client.models.list().data)
            except Exception:  # a server without such a list: told by the caller as a bypass
                return None
        return self._text

    async def aask(self) -> str | None:
        if self.known() is None:
            try:
                self._note((await self._client.models.list()).data)
            except Exception:  # a server without such a list: told by the caller as a bypass
                return None
        return self._text

    def _note(self, models: Any) -> None:
        entries = [_lasting(model.to_dict()) for model in models]
        text = json.dumps(entries, sort_keys=True, default=str)
        self._text = hashlib.sha256(text.encode()).hexdigest()[:32]
        self._until = time.monotonic() + FRESH


def _lasting(entry: Any) -> Any:
    if isinstance(entry, dict):
        return {name: _lasting(value) for name, value in entry.items() if name not in _CHANGING}
    return [_lasting(item) for item in entry] if isinstance(entry, list) else entry
