"""The credential: who may read a namespace, who may make others believe, and what a payload looks like to strangers.

A writer is a machine with a key of its own, which the owner of a credential certified: it signs what the machine
publishes. Nothing here ever shows a secret, not in a repr, not in a message.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from cachekit.errors import IntegrityError, UsageError
from cachekit.files.secret_files import read_or_create
from cachekit.ipfs.trust.certificates import ANYWHERE, OWNER, Chain, Invitation, Issued
from cachekit.ipfs.trust.ciphers import SEED_BYTES, Cipher, public_of, sign, verify
from cachekit.model import EVERYWHERE, FOREVER

SIGNATURE_BYTES: Final = 64
KEY_BYTES: Final = 16
TAG_BYTES: Final = 8
_CHECK_BYTES: Final = 4
_PREFIX: Final = "ck1."
C = TypeVar("C")
_CERTIFICATE: Final = b"cachekit 1 writer\0"


@dataclass(frozen=True)
class Credential:
    """What a team shares: the namespace secret, the owner's public key and, for who may write, the owner's seed.

    Each is 32 bytes. `seed` is None in a credential that is not the owner's: it writes by its `invitation`, or only reads.
    """

    secret: bytes = field(repr=False)
    owner: bytes = field(repr=False)
    seed: bytes | None = field(default=None, repr=False)
    invitation: Invitation | None = None
    later: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)
    """Secrets of later generations, as they become known: what is sealed from then on opens with the last one."""
    _derived: dict[tuple[str, str], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    _ciphers: dict[tuple[int, str], list[Cipher]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def create(cls) -> Credential:
        """A new secret and a new owner."""
        seed = secrets.token_bytes(SEED_BYTES)
        return cls(secrets.token_bytes(SEED_BYTES), public_of(seed), seed)

    @classmethod
    def parse(cls, text: str) -> Credential:
        """Read what `to_text` gave; raises UsageError for anything else, without repeating it."""
        line = text.strip()
        try:
            packed = _unbase64(line.removeprefix(_PREFIX)) if line.startswith(_PREFIX) else b""
        except (binascii.Error, ValueError):
            packed = b""
        body, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
        # Written again and compared: base64 has several spellings for one value.
        if len(body) not in (64, 96) or check != _check(body) or _text(body) != line:
            raise UsageError(
                "CACHEKIT_SECRET is not a credential: it is one line that begins with ck1. and was cut or altered; "
                "copy it again from a machine that shares the cache, or unset it"
            )
        secret, owner, seed = body[:32], body[32:64], body[64:] or None
        if seed is not None and public_of(seed) != owner:
            raise UsageError("CACHEKIT_SECRET is not a credential: its halves do not belong together; copy it again")
        return cls(secret, owner, seed)

    def to_text(self) -> str:
        """One line that carries the whole credential. Treat it like a password."""
        return _text(self.secret + self.owner + (self.seed or b""))

    def reader(self) -> Credential:
        """The same without the owner's seed: reads everything, makes nobody accept anything."""
        return Credential(self.secret, self.owner)

    def invited(self, name: str, *, writes: bool, expires: int = FOREVER, scope: bytes = ANYWHERE) -> Credential:
        """The same without the owner's seed, with an invitation of that name; UsageError in one that is not the owner's."""
        if self.seed is None:
            raise UsageError("only the owner's machine can invite: the one whose credential began the team")
        made = Invitation.make(self.seed, name, writes=writes, expires=expires, scope=scope)
        return Credential(self.secret, self.owner, invitation=made)

    @property
    def writes(self) -> bool:
        """Whether the holder can make others accept what it writes; else it only reads."""
        return self.seed is not None or (self.invitation is not None and self.invitation.certificate.writes)

    @property
    def owner_id(self) -> str:
        """32 hex characters; public."""
        return hashlib.sha256(self.owner).hexdigest()[:32]

    def namespace_id(self, namespace: str) -> str:
        """32 hex characters that say nothing about the name to who lacks the secret."""
        return self.derived("namespace", namespace)[:16].hex()

    def index_key(self, namespace: str, digest: bytes) -> bytes:
        """What stands for a key in segments: 16 bytes."""
        return hmac.digest(self.derived("index", namespace), digest, "sha256")[:KEY_BYTES]

    def tag(self, namespace: str, tag: str) -> bytes:
        """A code of 8 bytes for a word."""
        return hmac.digest(self.derived("tag", namespace), tag.encode(), "sha256")[:TAG_BYTES]

    def tag_code(self, tag: str) -> bytes:
        """What stands for a tag in segments: the same in all namespaces, so that one mark can cover it in all of them."""
        return self.tag(EVERYWHERE, tag)

    def function_code(self, function: str) -> bytes:
        """What stands for a function in segments: 16 bytes, the same in all namespaces."""
        return hmac.digest(self.derived("function", EVERYWHERE), function.encode(), "sha256")[:KEY_BYTES]

    def seal(self, namespace: str, plaintext: bytes) -> bytes:
        """AES-256-GCM. Equal plaintext seals equally inside a namespace, so that equal content has one CID."""
        return self._ciphers_of(namespace)[0].seal(plaintext)

    def unseal(self, namespace: str, sealed: bytes) -> bytes:
        """Undo `seal`; raises IntegrityError `unsealable` for a wrong secret, another namespace or altered bytes."""
        return tried(self._ciphers_of(namespace), lambda cipher: cipher.unseal(sealed))

    def certify(self, writer: bytes) -> bytes:
        """What makes others believe the writer with this public key; UsageError in a credential that only reads.

        The owner's signature, or the invitation with its signature.
        """
        if self.seed is not None:
            return sign(self.seed, _CERTIFICATE + writer)
        if self.invitation is None or not self.writes:
            raise UsageError("this credential only reads; writing needs an invitation that is not --read-only")
        return self.invitation.certify(writer)

    def issuer(self, writer: bytes, certificate: bytes, space: bytes) -> Issued:
        """Who lets the writer with this public key write in the namespace with this id (16 bytes).

        Raises IntegrityError: `foreign_writer` (nobody), `expired_certificate`, `wrong_namespace`.
        """
        if len(certificate) == SIGNATURE_BYTES:
            if not verify(self.owner, certificate, _CERTIFICATE + writer):
                raise IntegrityError("nobody certified this writer", reason="foreign_writer")
            return OWNER
        return Chain.read(certificate).issued(self.owner, writer, space)

    def derived(self, purpose: str, namespace: str) -> bytes:
        """A key of 32 bytes for one purpose in one namespace."""
        key = self._derived.get((purpose, namespace))
        if key is None:
            info = f"cachekit 1 {purpose}\0{namespace}".encode()
            key = self._derived[purpose, namespace] = hmac.digest(self.secret, info, "sha256")
        return key

    def generations(self, purpose: str, namespace: str) -> list[bytes]:
        """The same key of each generation of the secret, the newest first."""
        info = f"cachekit 1 {purpose}\0{namespace}".encode()
        return [hmac.digest(secret, info, "sha256") for secret in (*reversed(self.later), self.secret)]

    def _ciphers_of(self, namespace: str) -> list[Cipher]:
        known = len(self.later), namespace
        if known not in self._ciphers:
            binding = self.derived("namespace", namespace)[:16]
            keys = zip(self.generations("seal", namespace), self.generations("nonce", namespace), strict=True)
            self._ciphers[known] = [Cipher(key, nonce_key, binding) for key, nonce_key in keys]
        return self._ciphers[known]


def tried(ciphers: Sequence[C], unseal: Callable[[C], bytes]) -> bytes:
    """What the first of several ciphers opens; raises IntegrityError `unsealable` where none does."""
    for cipher in ciphers[:-1]:
        with contextlib.suppress(IntegrityError):
            return unseal(cipher)
    return unseal(ciphers[-1])


@dataclass(frozen=True)
class WriterKey:
    """This machine's own Ed25519 key, and the owner's signature over it. `path` is where it lives."""

    seed: bytes = field(repr=False)
    public: bytes
    certificate: bytes
    path: Path

    @classmethod
    def load(cls, config: Path, credential: Credential) -> WriterKey:
        """Read `<config>/writers/<owner id>.key`, made here the first time.

        Raises UsageError when the credential cannot certify, or when the file is not ours alone.
        """
        path = config / "writers" / f"{credential.owner_id}.key"
        text = read_or_create(path, lambda: base64.b64encode(secrets.token_bytes(SEED_BYTES)).decode("ascii"))
        try:
            seed = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            seed = b""
        if len(seed) != SEED_BYTES:
            raise UsageError(f"{path} is not a writer key; delete it and a new one is made")
        public = public_of(seed)
        return cls(seed, public, credential.certify(public), path)

    @property
    def id(self) -> str:
        """32 hex characters: the name of this writer's directory."""
        return writer_id(self.public)

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return sign(self.seed, data)


def writer_id(public: bytes) -> str:
    """The directory name of the writer with this public key: 32 hex characters."""
    return hashlib.sha256(public).hexdigest()[:32]


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"cachekit 1 credential\0" + body).digest()[:_CHECK_BYTES]


def _text(body: bytes) -> str:
    return _PREFIX + base64.urlsafe_b64encode(body + _check(body)).decode("ascii").rstrip("=")


def _unbase64(text: str) -> bytes:
    # altchars with validate, where urlsafe_b64decode would skip what it does not know.
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
