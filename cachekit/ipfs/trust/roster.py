"""The roster: what the owner says of the team, in one signed document of which the highest number counts.

Who was invited and who is revoked, whose entries are distrusted, and the later generations of the secret, each sealed to
every member that is not revoked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cachekit.errors import UNREADABLE, IntegrityError, UsageError
from cachekit.ipfs.trust.certificates import Certificate
from cachekit.ipfs.trust.ciphers import open_sealed, seal_to, sealing_public, sign, verify
from cachekit.ipfs.trust.credential import SIGNATURE_BYTES, Credential

MAGIC: Final = b"ckro"
MOST_BYTES: Final = 1 << 20
_SIGNED: Final = b"cachekit 2 roster\0"
_OWNER: Final = "owner"


@dataclass(frozen=True)
class Distrust:
    """What a writer, or the machines of an invitation, stored in this time (ns) counts no more."""

    who: str
    since: int
    until: int


@dataclass(frozen=True)
class Roster:
    """`invited`: id → name, sealing key and whether it writes. `revoked`: id → "namespace id/writer" → highest sequence
    that still counts. `generations`: for each later secret, id → the secret, sealed. `text` is what was signed.
    """

    number: int = 0
    invited: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    revoked: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    distrusted: tuple[Distrust, ...] = ()
    generations: tuple[Mapping[str, str], ...] = ()
    text: bytes = b""

    @classmethod
    def read(cls, text: bytes, owner: bytes) -> Roster:
        """Read what the owner with this public key signed. IntegrityError `bad_roster` for anything else."""
        body, signature = text[len(MAGIC) : -SIGNATURE_BYTES], text[-SIGNATURE_BYTES:]
        if not text.startswith(MAGIC) or len(text) > MOST_BYTES or not verify(owner, signature, _SIGNED + body):
            raise _bad()
        try:
            said = json.loads(body)
            distrusted = tuple(Distrust(str(who), int(since), int(until)) for who, since, until in said["distrusted"])
            number = int(said["number"])
            return cls(number, said["invited"], said["revoked"], distrusted, tuple(said["generations"]), text)
        except UNREADABLE:
            raise _bad() from None

    def signed(self, credential: Credential) -> Roster:
        """The next one, as it stands here; UsageError in a credential that is not the owner's."""
        if credential.seed is None:
            raise UsageError("only the owner's machine can do this: the one whose credential began the team")
        number = self.number + 1
        distrusted = [(one.who, one.since, one.until) for one in self.distrusted]
        said = {"number": number, "invited": self.invited, "revoked": self.revoked, "distrusted": distrusted}
        body = json.dumps({**said, "generations": self.generations}, sort_keys=True, separators=(",", ":")).encode()
        text = MAGIC + body + sign(credential.seed, _SIGNED + body)
        if len(text) > MOST_BYTES:
            raise UsageError("the team has more members than a roster holds; revoke those that are gone")
        return replace(self, number=number, text=text)

    # -- what the owner changes ---------------------------------------------------------------------

    def inviting(self, certificate: Certificate, secrets: list[bytes]) -> Roster:
        """With one member more, who gets the later secrets too."""
        member = {"name": certificate.name, "sealing": certificate.sealing.hex(), "writes": certificate.writes}
        sealed = [seal_to(certificate.sealing, secret).hex() for secret in secrets]
        generations = tuple({**one, certificate.id: text} for one, text in zip(self.generations, sealed, strict=True))
        return replace(self, invited={**self.invited, certificate.id: member}, generations=generations)

    def revoking(self, who: str, seen: Mapping[str, int]) -> Roster:
        """Without a member, or a writer: of its segments only those count that were `seen`."""
        return replace(self, revoked={**self.revoked, who: dict(seen)})

    def rotating(self, credential: Credential, secret: bytes) -> Roster:
        """With a new secret for all who are not revoked."""
        assert credential.seed is not None
        keys = {who: bytes.fromhex(one["sealing"]) for who, one in self.invited.items() if who not in self.revoked}
        keys[_OWNER] = sealing_public(credential.seed)
        sealed = {who: seal_to(key, secret).hex() for who, key in keys.items()}
        return replace(self, generations=(*self.generations, sealed))

    def distrusting(self, who: str, since: int) -> Roster:
        """Without what `who` stored from then (ns) until now."""
        return replace(self, distrusted=(*self.distrusted, Distrust(who, since, time.time_ns())))

    # -- what a member asks -------------------------------------------------------------------------

    def secrets(self, credential: Credential) -> list[bytes]:
        """The later secrets that are sealed to the holder of `credential`, oldest first."""
        own = credential.invitation
        who, seed = (_OWNER, credential.seed) if own is None else (own.certificate.id, own.seed)
        if seed is None:
            return []
        found = []
        for one in self.generations:
            try:
                found.append(open_sealed(seed, bytes.fromhex(one[who])))
            except (*UNREADABLE, IntegrityError):
                continue
        return found

    def allows(self, who: tuple[str, ...], place: str, sequence: int) -> bool:
        """Whether a segment counts that one of `who` (a writer, its invitation) wrote at "namespace id/writer"."""
        return all(sequence <= self.revoked[one].get(place, 0) for one in who if one in self.revoked)

    def named(self, name: str) -> list[str]:
        """The ids of all who were invited under a name."""
        return [who for who, one in self.invited.items() if one.get("name") == name]


def _bad() -> IntegrityError:
    return IntegrityError("a roster that the owner did not sign", reason="bad_roster")
