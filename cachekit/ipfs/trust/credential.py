"""The credential: who may read a namespace, who may make others believe, and what a payload looks like to strangers.

A writer is a machine with a key of its own, which the owner of a credential certified: it signs what the machine
publishes. Nothing here ever shows a secret, not in a repr, not in a message. Cryptography is imported on first use: a
cache that shares nothing never pays for it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cachekit.errors import IntegrityError, UsageError
from cachekit.files.secret_files import read_or_create
from cachekit.model import EVERYWHERE

SEED_BYTES: Final = 32
KEY_BYTES: Final = 16
TAG_BYTES: Final = 8
_CHECK_BYTES: Final = 4
_PREFIX: Final = "ck1."
_CERTIFICATE: Final = b"cachekit 1 writer\0"
_NONCE_BYTES: Final = 12
_GCM_TAG_BYTES: Final = 16


@dataclass(frozen=True)
class Credential:
    """What a team shares: the namespace secret, the owner's public key and, for who may write, the owner's seed.

    Each is 32 bytes. `seed` is None in a credential that only reads.
    """

    secret: bytes = field(repr=False)
    owner: bytes = field(repr=False)
    seed: bytes | None = field(default=None, repr=False)
    _derived: dict[tuple[str, str], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)
    _ciphers: dict[str, Cipher] = field(default_factory=dict, init=False, repr=False, compare=False)

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

    @property
    def writes(self) -> bool:
        """Whether the holder can make others accept what it writes; else it only reads."""
        return self.seed is not None

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
        return self._cipher(namespace).seal(plaintext)

    def unseal(self, namespace: str, sealed: bytes) -> bytes:
        """Undo `seal`; raises IntegrityError `unsealable` for a wrong secret, another namespace or altered bytes."""
        return self._cipher(namespace).unseal(sealed)

    def certify(self, writer: bytes) -> bytes:
        """The owner's signature over a writer's public key; raises UsageError in a credential that only reads."""
        if self.seed is None:
            raise UsageError("this credential only reads; writing needs the owner's, or CACHEKIT_IPFS=ro")
        return sign(self.seed, _CERTIFICATE + writer)

    def certified(self, writer: bytes, certificate: bytes) -> bool:
        """Whether the owner of this credential certified the writer with this public key."""
        return verify(self.owner, certificate, _CERTIFICATE + writer)

    def derived(self, purpose: str, namespace: str) -> bytes:
        """A key of 32 bytes for one purpose in one namespace."""
        key = self._derived.get((purpose, namespace))
        if key is None:
            info = f"cachekit 1 {purpose}\0{namespace}".encode()
            key = self._derived[purpose, namespace] = hmac.digest(self.secret, info, "sha256")
        return key

    def _cipher(self, namespace: str) -> Cipher:
        cipher = self._ciphers.get(namespace)
        if cipher is None:
            key, nonce_key, name = (self.derived(purpose, namespace) for purpose in ("seal", "nonce", "namespace"))
            cipher = self._ciphers[namespace] = Cipher(key, nonce_key, name[:16])
        return cipher


def load_credential(text: str | None, file: Path) -> Credential:
    """The credential in `text`; else the one in `file`, which is created, 0600, where it is missing.

    Processes that create it at once agree on one. Raises UsageError for a malformed credential, for a file that others
    can read or that belongs to another user, and where it cannot be created.
    """
    if text:
        return Credential.parse(text)
    line = read_or_create(file, lambda: Credential.create().to_text())
    try:
        return Credential.parse(line)
    except UsageError as error:
        message = f"{file} holds no credential (what CACHEKIT_SECRET would carry); restore it or delete it"
        raise UsageError(message) from error


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


class Cipher:
    """AES-256-GCM under `key` (32 bytes). The nonce is derived from the plaintext, so equal plaintext seals equally.

    `associated` is what a sealed payload is bound to; `nonce_key` keeps a nonce from telling what was sealed.
    """

    def __init__(self, key: bytes, nonce_key: bytes, associated: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._aes = AESGCM(key)
        self._nonce_key = nonce_key
        self._associated = associated

    def seal(self, plaintext: bytes) -> bytes:
        nonce = hmac.digest(self._nonce_key, plaintext, "sha256")[:_NONCE_BYTES]
        return nonce + self._aes.encrypt(nonce, plaintext, self._associated)

    def unseal(self, sealed: bytes) -> bytes:
        """Undo `seal`; raises IntegrityError `unsealable` for another key, another binding or altered bytes."""
        from cryptography.exceptions import InvalidTag

        if len(sealed) < _NONCE_BYTES + _GCM_TAG_BYTES:
            raise IntegrityError("a sealed payload is too short", reason="unsealable")
        try:
            return self._aes.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._associated)
        except InvalidTag as error:
            raise IntegrityError("a sealed payload does not open with this credential", reason="unsealable") from error


def sign(seed: bytes, data: bytes) -> bytes:
    """An Ed25519 signature: 64 bytes."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).sign(data)


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is that key's over `data`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_of(seed: bytes) -> bytes:
    """The public key (32 bytes) that belongs to a seed of `SEED_BYTES`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
