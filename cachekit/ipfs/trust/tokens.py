"""A token: one line of text with which another machine joins a team, its node and its credential with it.

Where a credential is wanted, a token will do: a build machine has one variable, CACHEKIT_SECRET.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cachekit.errors import UNREADABLE, IntegrityError, UsageError
from cachekit.files.secret_files import read_or_create
from cachekit.ipfs.trust.certificates import Certificate, Invitation
from cachekit.ipfs.trust.ciphers import SEED_BYTES, public_of
from cachekit.ipfs.trust.credential import Credential

_PREFIX: Final = "ck2."
_CHECK_BYTES: Final = 4
KEY_BYTES: Final = 32
"""Of a swarm's key."""
_LONGEST: Final = 4000
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
        invitation = self.credential.invitation
        said = {
            "credential": self.credential.to_text(),
            "invitation": None if invitation is None else _base64(invitation.seed + invitation.certificate.to_bytes()),
            "swarm_key": self.swarm_key.hex(),
            "namespace": self.namespace,
            "name": self.name,
        }
        # As many of the peers as fit into what a variable and a line of a terminal take.
        texts = (_packed({**said, "peers": self.peers[:count]}) for count in range(len(self.peers), -1, -1))
        return next(text for text in texts if len(text) <= _LONGEST)

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read what `to_text` gave; raises UsageError for anything else, without repeating it."""
        line = text.strip()
        try:
            said = _said(line)
            credential, key = _credential(said), bytes.fromhex(said["swarm_key"])
            if len(key) != KEY_BYTES:
                raise ValueError
            peers = tuple(str(peer) for peer in said["peers"])
            return cls(credential, key, peers, str(said["namespace"]), str(said["name"]))
        except (*UNREADABLE, binascii.Error, IntegrityError):
            raise UsageError(_ALTERED) from None


def parse_credential(text: str) -> Credential:
    """What a credential's text or a token carries; UsageError for anything else, without repeating it."""
    return Token.parse(text).credential if text.strip().startswith(_PREFIX) else Credential.parse(text)


def load_credential(text: str | None, file: Path) -> Credential:
    """The credential in `text`; else the one in `file`, which is created, 0600, where it is missing.

    Processes that create it at once agree on one. Raises UsageError for a malformed credential, for a file that others
    can read or that belongs to another user, and where it cannot be created.
    """
    if text:
        return parse_credential(text)
    line = read_or_create(file, lambda: Credential.create().to_text())
    try:
        return parse_credential(line)
    except UsageError as error:
        message = f"{file} holds no credential (what CACHEKIT_SECRET would carry); restore it or delete it"
        raise UsageError(message) from error


def _credential(said: Any) -> Credential:
    shared = Credential.parse(said["credential"])
    if said["invitation"] is None:
        return shared
    packed = base64.b64decode(said["invitation"], validate=True)
    certificate, rest = Certificate.read(packed[SEED_BYTES:])
    seed = packed[:SEED_BYTES]
    if rest or public_of(seed) != certificate.public:
        raise ValueError
    return replace(shared, invitation=Invitation(seed, certificate))


def _packed(said: Mapping[str, Any]) -> str:
    body = json.dumps(said, separators=(",", ":")).encode()
    return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode("ascii").rstrip("=")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


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
