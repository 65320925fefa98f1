"""The packages that a plain install of cachekit brings: how large each is, and which other one asks for it.

`python benchmarks/dependencies.py` prints the table of docs/dependencies.md, of the environment that it runs in.
"""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "cachekit-ipfs"


def brought() -> dict[str, set[str]]:
    """{package: who requires it}, all the way down and without extras, for this Python and this platform."""
    askers: dict[str, set[str]] = {}
    waiting = [OURS]
    while waiting:
        asker = waiting.pop()
        for requirement in map(Requirement, metadata.requires(asker) or ()):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            name = canonicalize_name(requirement.name)
            if name not in askers:
                waiting.append(name)
            askers.setdefault(name, set()).add(asker)
    return askers


def size(package: str) -> int:
    """Bytes of its files, without the bytecode that an installer may make of them."""
    files = metadata.files(package) or ()
    return sum(path.locate().stat().st_size for path in files if path.suffix != ".pyc" and path.locate().is_file())


def table() -> str:
    """In markdown, the largest package first; sizes in MB of a million bytes."""
    askers = brought()
    sizes = {name: size(name) / 1e6 for name in askers}
    rows = [
        f"| `{name}` | {metadata.version(name)} | {sizes[name]:.1f} | {', '.join(sorted(askers[name]))} |"
        for name in sorted(askers, key=lambda name: (-sizes[name], name))
    ]
    head = ["| package | version | MB | who needs it |", "|---|---|---|---|"]
    return "\n".join([*head, *rows, f"| {len(rows)} packages | | {sum(sizes.values()):.1f} | |"])


if __name__ == "__main__":
    print(table())
