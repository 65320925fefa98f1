"""What people type: the `cachekit` command."""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status and raises nothing."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["run"]:
        from cachekit.commands.quick import replayed

        try:
            status = replayed(words[1:])
        except KeyboardInterrupt:
            return 130
        if status is not None:
            return status
    from cachekit.cli import parser  # all the rest of the package

    return parser.main(argv)
