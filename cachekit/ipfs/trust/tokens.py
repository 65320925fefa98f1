"""A token: one line of text with which another machine joins a team, its node and its credential with it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from cachekit.errors import UNREADABLE, UsageError
from cachekit.ipfs.trust.credential import Credential

_PREFIX: Final = "ck2."
_CHECK_BYTES: Final = 4
_LONGEST: Final = 8192
_MOST_PEERS: Final = 16
_ALTERED: Final = (
    "this is no token of `cachekit node invite`, or it was cut or altered: it is one line that begins with ck2."
)


@dataclass(frozen=True)
class Token:
    """`swarm_key` is 32 bytes; `peers` multiaddrs of daemons of the team; `name` what the team calls the new machine."""

    credential: Credential
    swarm_key: bytes = field(repr=False)
    peers: tuple[str, ...]
    namespace: str
    name: str

    def to_text(self) -> str:
        """One line. Treat it like a password."""
        said = {
            "credential": self.credential.to_text(),
            "swarm_key": self.swarm_key.hex(),
            "peers": self.peers[:_MOST_PEERS],
            "namespace": self.namespace,
            "name": self.name,
        }
        body = json.dumps(said, separators=(",", ":")).encode()
        return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode("ascii").rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read what `to_text` gave; raises UsageError for anything else, without repeating it."""
        line = text.strip()
        try:
            said = _said(line)
            credential, key = Credential.parse(said["credential"]), bytes.fromhex(said["swarm_key"])
            peers = tuple(str(peer) for peer in said["peers"])
            return cls(credential, key, peers, str(said["namespace"]), str(said["name"]))
        except (*UNREADABLE, binascii.Error):
            raise UsageError(_ALTERED) from None


def _said(line: str) -> Any:
    if not line.startswith(_PREFIX) or len(line) > _LONGEST:
        raise ValueError
    packed = line.removeprefix(_PREFIX)
    raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if check != _check(body):
        raise ValueError
    return json.loads(body)


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"cachekit 1 token\0" + body).digest()[:_CHECK_BYTES]
