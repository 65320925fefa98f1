"""Bytes stored by hand and sealed: what anybody with the namespace's secret can open, told from what was stored as it is.

    MARK 20 bytes | nonce 12 | sealed plaintext | tag 16

The mark stands before every sealed content, so that ciphertext is never given to a caller as if it were the value.
"""

from __future__ import annotations

from typing import Final

from cachekit.errors import IntegrityError, UsageError
from cachekit.ipfs.trust.credential import Credential

MARK: Final = b"\x00cachekit sealed v1\x00"
_MOST_BYTES: Final = 2**31 - 64
"""What AES-GCM of the cryptography package takes in one piece."""


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
