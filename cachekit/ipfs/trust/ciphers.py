"""What is computed with keys: seals and signatures. The one home of cryptography, which is imported on first use.

A cache that shares nothing never pays for it.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final

from cachekit.errors import IntegrityError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

SEED_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_GCM_TAG_BYTES: Final = 16
_PUBLIC_BYTES: Final = 32


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


def sealing_public(seed: bytes) -> bytes:
    """The X25519 public key (32 bytes) to which is sealed what only the holder of a seed may read."""
    return _sealing_key(seed).public_key().public_bytes_raw()


def seal_to(public: bytes, plaintext: bytes) -> bytes:
    """`plaintext`, for the holder of the seed that `public` belongs to."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    once = X25519PrivateKey.generate()
    shared = once.exchange(X25519PublicKey.from_public_bytes(public))
    sender = once.public_key().public_bytes_raw()
    return sender + _between(shared, sender, public).seal(plaintext)


def open_sealed(seed: bytes, sealed: bytes) -> bytes:
    """Undo `seal_to`; raises IntegrityError `unsealable` for another's, or altered bytes."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    sender, key = sealed[:_PUBLIC_BYTES], _sealing_key(seed)
    try:
        shared = key.exchange(X25519PublicKey.from_public_bytes(sender))
    except ValueError as error:
        raise IntegrityError("this was not sealed to anybody", reason="unsealable") from error
    return _between(shared, sender, key.public_key().public_bytes_raw()).unseal(sealed[_PUBLIC_BYTES:])


def _sealing_key(seed: bytes) -> X25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(hmac.digest(seed, b"cachekit 1 sealing", "sha256"))


def _between(shared: bytes, sender: bytes, receiver: bytes) -> Cipher:
    key = hmac.digest(shared, b"cachekit 1 sealed\0" + sender + receiver, "sha256")
    return Cipher(key, hashlib.sha256(key).digest(), b"cachekit 1 sealed")
