"""Scans of a commit, kept: the SARIF that CodeQL, or any other tool, makes of it, and how severe what it found is.

from cachekit_adapters import codeql

sarif = codeql.analyze("owner/name", language="python", source=".")     # a read-only Path; the second time at once
codeql.summary(sarif).errors

`cachekit.invalidate(tag="repo:owner/name")` ends all scans of a repository.
"""

from cachekit_adapters.codeql.sarif import Summary, summary
from cachekit_adapters.codeql.scans import analyze, scan

__all__ = ["Summary", "analyze", "scan", "summary"]
