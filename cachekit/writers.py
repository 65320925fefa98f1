"""A writer is a machine: its own key, which the owner of a credential certified. It signs what the machine publishes."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cachekit.credentials import Credential
from cachekit.errors import UsageError
from cachekit.files.secret_files import read_or_create
from cachekit.sealing import SEED_BYTES, public_of, sign


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
