"""What people type: the `cachekit` command."""

from cachekit.cli.parser import main as main
