"""The tags of what is kept of a service, so that a change ends what it may have changed, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Tags(NamedTuple):
    """The tags of one `host` of a `service`; a host that is not known ("") may be any."""

    service: str
    host: str

    @property
    def all(self) -> str:
        """The tag of all that is kept of the host."""
        return f"{self.service}:{self.host}" if self.host else self.service

    def area(self, name: str) -> str:
        """The tag of what is kept of one repository, or ("") of what reaches over several: searches, lists, GraphQL."""
        return f"{self.service}:{self.host}/{name.lower() or '*'}"

    def changed(self, names: Iterable[str]) -> tuple[str, ...]:
        """What a change ends: its repositories' tags and what reaches over several; all where one is not known ("")."""
        known = sorted(set(names))
        if not self.host or not known or "" in known:
            return (self.all,)
        return (*(self.area(name) for name in known), self.area(""))
