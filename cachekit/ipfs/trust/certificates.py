"""Who may write besides the owner: an invitation, which the owner signed, and the machines that it lets in.

An invitation is a key pair whose public half, with a name, a scope and an end, the owner signed. Who holds the other half
certifies the writer key of its own machine with it: so two machines with one invitation are two writers, under one name.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from cachekit.errors import UNREADABLE, IntegrityError
from cachekit.ipfs.trust.ciphers import SEED_BYTES, public_of, sealing_public, sign, verify
from cachekit.model import FOREVER, SKEW

_INVITATION: Final = b"cachekit 2 invitation\0"
_WRITER: Final = b"cachekit 2 writer\0"
_FIXED: Final = struct.Struct(">32s32s16sqBB")
_SIGNATURE_BYTES: Final = 64
_LONGEST_NAME: Final = 64
ANYWHERE: Final = bytes(16)
"""The scope of an invitation to all namespaces."""
MOST_BYTES: Final = _FIXED.size + _LONGEST_NAME + 2 * _SIGNATURE_BYTES


class Issued(NamedTuple):
    """Under which invitation somebody writes: its id, 32 hex characters, and its name; both empty for the owner's own."""

    id: str
    name: str


OWNER: Final = Issued("", "")


class Certificate(NamedTuple):
    """What the owner signed. `sealing` is the X25519 key for what only this invitation may read; `expires` in ns."""

    public: bytes
    sealing: bytes
    scope: bytes
    expires: int
    writes: bool
    name: str
    signature: bytes = b""

    @property
    def id(self) -> str:
        """32 hex characters."""
        return hashlib.sha256(self.public).hexdigest()[:32]

    def unsigned(self) -> bytes:
        """What the owner signs."""
        name = self.name.encode()
        fixed = _FIXED.pack(self.public, self.sealing, self.scope, self.expires, self.writes, len(name))
        return fixed + name

    def to_bytes(self) -> bytes:
        return self.unsigned() + self.signature

    @classmethod
    def read(cls, data: bytes) -> tuple[Certificate, bytes]:
        """The certificate at the beginning of `data`, and the rest. IntegrityError `foreign_writer` for what is none."""
        try:
            public, sealing, scope, expires, writes, length = _FIXED.unpack_from(data)
            end = _FIXED.size + length
            name, signature = data[_FIXED.size : end].decode(), data[end : end + _SIGNATURE_BYTES]
        except (*UNREADABLE, struct.error):
            raise _foreign() from None
        if length > _LONGEST_NAME or not name.isprintable() or len(signature) != _SIGNATURE_BYTES or writes > 1:
            raise _foreign()
        made = cls(public, sealing, scope, expires, bool(writes), name, signature)
        return made, data[end + _SIGNATURE_BYTES :]


@dataclass(frozen=True)
class Invitation:
    """What a token carries: the half that signs, and what the owner said of the other."""

    seed: bytes = field(repr=False)
    certificate: Certificate

    @classmethod
    def make(
        cls, owner_seed: bytes, name: str, *, writes: bool, expires: int = FOREVER, scope: bytes = ANYWHERE
    ) -> Invitation:
        """A new one, signed by the owner."""
        seed = secrets.token_bytes(SEED_BYTES)
        bare = Certificate(public_of(seed), sealing_public(seed), scope, expires, writes, name)
        return cls(seed, bare._replace(signature=sign(owner_seed, _INVITATION + bare.unsigned())))

    def certify(self, writer: bytes) -> bytes:
        """The chain that lets others believe the writer with this public key."""
        return self.certificate.to_bytes() + sign(self.seed, _WRITER + writer)


class Chain(NamedTuple):
    """An invitation's certificate, and its signature over a writer."""

    certificate: Certificate
    signature: bytes

    @classmethod
    def read(cls, data: bytes) -> Chain:
        """IntegrityError `foreign_writer` for what is none."""
        certificate, signature = Certificate.read(data[:MOST_BYTES])
        if len(data) > MOST_BYTES or len(signature) != _SIGNATURE_BYTES:
            raise _foreign()
        return cls(certificate, signature)

    def issued(self, owner: bytes, writer: bytes, space: bytes) -> Issued:
        """Who lets `writer` write; IntegrityError as `Credential.issuer`."""
        one = self.certificate
        if not one.writes or not verify(owner, one.signature, _INVITATION + one.unsigned()):
            raise _foreign()
        if not verify(one.public, self.signature, _WRITER + writer):
            raise _foreign()
        if one.scope not in (ANYWHERE, space):
            raise IntegrityError("an invitation to another namespace", reason="wrong_namespace")
        if one.expires != FOREVER and one.expires + SKEW < time.time_ns():
            raise IntegrityError("an invitation that is over", reason="expired_certificate")
        return Issued(one.id, one.name)


def _foreign() -> IntegrityError:
    return IntegrityError("nobody certified this writer", reason="foreign_writer")
