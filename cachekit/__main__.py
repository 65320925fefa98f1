"""`python -m cachekit` is the command line."""

from __future__ import annotations

import sys

from cachekit.cli import main

if __name__ == "__main__":
    sys.exit(main())
