"""What members say to each other under the team's topic: sealed under the team's secret, so that nobody else can say it.

u8 kind · i64 ns since the epoch · u32 length · JSON · blocks: 36s binary CID, u32 length, bytes, and so on
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from cachekit.errors import UNREADABLE, IntegrityError
from cachekit.ipfs.content.cids import binary_cid, digest_of, text_of
from cachekit.ipfs.trust.ciphers import Cipher
from cachekit.ipfs.trust.credential import Credential
from cachekit.model import EVERYWHERE

Kind = Literal["hello", "heads", "claim", "roster"]
_KINDS: Final[tuple[str, ...]] = get_args(Kind)
_START: Final = struct.Struct(">BqI")
_BLOCK: Final = struct.Struct(">36sI")


class Message(NamedTuple):
    """`at` is the sender's clock (ns); `says` a JSON object; `blocks` are verified, by CID."""

    kind: str
    at: int
    says: dict[str, Any]
    blocks: dict[str, bytes]


def topic_of(credential: Credential) -> str:
    """The team's topic: one for all of its namespaces, so that a machine listens once; says nothing to strangers."""
    return "cachekit/1/" + credential.derived("topic", EVERYWHERE)[:16].hex()


class Envelope:
    """Seals and opens the messages of one team."""

    def __init__(self, credential: Credential) -> None:
        key, nonce_key = (credential.derived(purpose, EVERYWHERE) for purpose in ("message", "message nonce"))
        self._cipher = Cipher(key, nonce_key, b"cachekit 1 message")

    def seal(self, kind: Kind, at: int, says: Mapping[str, Any], blocks: Mapping[str, bytes] = {}) -> bytes:
        """The message as it goes out."""
        head = json.dumps(says, separators=(",", ":")).encode()
        parts = [_START.pack(_KINDS.index(kind), at, len(head)), head]
        for cid, block in blocks.items():
            parts += (_BLOCK.pack(binary_cid(cid), len(block)), block)
        return self._cipher.seal(b"".join(parts))

    def open(self, sealed: bytes) -> Message:
        """Read what came. Raises IntegrityError `foreign_message` where it is not the team's, `bad_message`, `wrong_bytes`."""
        try:
            plain = self._cipher.unseal(sealed)
        except IntegrityError as error:
            raise IntegrityError("a message that no member sealed", reason="foreign_message") from error
        try:
            kind, at, length = _START.unpack_from(plain)
            says = json.loads(plain[_START.size : _START.size + length])
            blocks = dict(_blocks(plain, _START.size + length))
            known = _KINDS[kind]
        except (*UNREADABLE, struct.error, LookupError) as error:
            raise _bad() from error
        if not isinstance(says, dict):
            raise _bad()
        return Message(known, at, says, blocks)


def _blocks(plain: bytes, at: int) -> Any:
    while at < len(plain):
        binary, length = _BLOCK.unpack_from(plain, at)
        at += _BLOCK.size
        cid, block = text_of(binary), plain[at : at + length]
        if len(block) < length:
            raise _bad()
        if hashlib.sha256(block).digest() != digest_of(cid):
            raise IntegrityError("a message carries other bytes than it says", reason="wrong_bytes")
        yield cid, block
        at += length


def _bad() -> IntegrityError:
    return IntegrityError("a message that cannot be read", reason="bad_message")
