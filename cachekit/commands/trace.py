"""What a command read that nobody declared, as far as the system tells: `strace`, where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cachekit.commands.command import Command
from cachekit.commands.program import Program

_OPENED: Final = re.compile(r"open(?:at|at2)?\b.*= \d+<(/[^>]*)>")
_WRITES: Final = re.compile(r"O_WRONLY|O_CREAT|O_PATH")
_LIBRARY: Final = re.compile(r"\.so(\.[0-9]+)*$")
_SYSTEM: Final = ("/proc/", "/sys/", "/dev/", "/usr/", "/lib", "/bin/", "/sbin/", "/etc/", "/opt/")
_BOUND: Final = 10.0


@dataclass(frozen=True, slots=True)
class Trace:
    """A traced run: its command, and where the trace is written."""

    command: Command
    file: Path

    def read(self, program: Program) -> Iterator[str]:
        """Files and directories that were read, but for the program's own, the system's, and what is declared."""
        known = {os.path.realpath(path) for path in (*self.command.inputs, *self.command.outputs)}
        known |= {os.path.realpath(path) for path in program.watched}
        known |= {*program.searched, str(self.file), os.getcwd()}
        declared = tuple(os.path.join(os.path.realpath(path), "") for path in self.command.inputs)
        here = os.path.join(os.getcwd(), "")
        for path in dict.fromkeys(_opened(self.file)):
            ours = (
                path in known
                or "__pycache__" in path
                or _LIBRARY.search(path)
                or path.startswith((*declared, *_SYSTEM, *program.outside))
            )
            if not ours and os.path.exists(path):
                yield path.removeprefix(here)


def trace_of(command: Command) -> Trace | None:
    """How to run it traced; None where that cannot be done here. Who asked removes `file`."""
    strace = shutil.which("strace")
    if strace is None or not _works(strace):
        return None
    descriptor, name = tempfile.mkstemp(prefix="cachekit-trace-")
    os.close(descriptor)
    words = (strace, "-f", "-qq", "-y", "-e", "trace=open,openat,openat2", "-o", name, "--", *command.argv)
    return Trace(replace(command, argv=words), Path(name))


def _works(strace: str) -> bool:
    # Inside a container it may be there, and not be allowed to look.
    try:
        command = [strace, "-o", os.devnull, "--", "true"]
        return not subprocess.run(command, capture_output=True, timeout=_BOUND, check=False).returncode
    except (OSError, subprocess.SubprocessError):
        return False


def _opened(file: Path) -> Iterable[str]:
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        found = _OPENED.search(line)
        if found and not _WRITES.search(line):
            yield found.group(1)
