"""What is sealed before it leaves the machine: payloads of entries, and bytes stored by hand.

    payload:  length of the codec 1 | codec | payload, sealed as a whole unless it is published
    by hand:  MARK 20 bytes | nonce 12 | sealed plaintext | tag 16

The mark stands before every content sealed by hand, so that ciphertext is never given to a caller as if it were the value.
"""

from __future__ import annotations

from typing import Final

from cachekit.errors import IntegrityError, UsageError
from cachekit.ipfs.trust.credential import Credential

MARK: Final = b"\x00cachekit sealed v1\x00"
_MOST_BYTES: Final = 2**31 - 64
"""What AES-GCM of the cryptography package takes in one piece."""


def packed(credential: Credential, namespace: str, codec: str, payload: bytes, *, encrypt: bool) -> bytes:
    """A payload as it is stored."""
    name = codec.encode("ascii")
    plain = b"".join((bytes([len(name)]), name, payload))
    return credential.seal(namespace, plain) if encrypt else plain


def unpacked(credential: Credential, namespace: str, stored: bytes, *, encrypted: bool) -> tuple[str, bytes]:
    """Codec and payload again; IntegrityError `unsealable` or `malformed`."""
    plain = credential.unseal(namespace, stored) if encrypted else stored
    length = plain[0] if plain else 0
    codec = plain[1 : 1 + length]
    if len(plain) <= length or not codec.isascii():
        raise IntegrityError("a payload without its codec", reason="malformed")
    return codec.decode("ascii"), plain[1 + length :]


def seal(credential: Credential, namespace: str, plain: bytes) -> bytes:
    """Equal bytes seal equally inside a namespace, so that they have one CID. Raises UsageError for 2 GiB and more."""
    if len(plain) > _MOST_BYTES:
        raise UsageError(
            "more than 2 GiB cannot be sealed in one piece: keep it as an artifact, or store it unencrypted"
        )
    return MARK + credential.seal(namespace, plain)


def opened(credential: Credential | None, namespace: str, content: bytes) -> bytes:
    """`content` as it was before it was sealed; what was not sealed as it is.

    Raises IntegrityError `unsealable` for what another secret or namespace sealed, or where there is no credential.
    """
    if not content.startswith(MARK):
        return content
    if credential is None:
        raise IntegrityError("this content is sealed, and IPFS is off: there is no credential", reason="unsealable")
    return credential.unseal(namespace, content[len(MARK) :])
