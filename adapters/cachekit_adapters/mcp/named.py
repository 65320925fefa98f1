"""By what answers are kept apart."""

from __future__ import annotations

import hashlib

from cachekit import UsageError


def named(**given: str) -> None:
    """Raises UsageError for what is no text, or empty."""
    for name, value in given.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f"{name}={value!r}: say it as a text that is not empty; answers are kept apart by it")


def digest(text: str) -> str:
    """SHA-256 in hex: a principal may be a credential, and no key text shall have it."""
    return hashlib.sha256(text.encode()).hexdigest()
