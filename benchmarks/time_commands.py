"""A hit of `cachekit run`: processor time of the whole process, beside the barest Python, and the command it stands for."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import Figure, Measure, Scale, beside, directory, ratio, turns

ROOT = Path(__file__).parent.parent
_MAIN = "import sys; from cachekit.cli import main; sys.exit(main())"
"""What an installed `cachekit` does, whatever checkout is measured."""


def _processor(command: Sequence[str], where: Path, environ: Mapping[str, str]) -> float:
    """Milliseconds, of the process and what it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        command, cwd=where, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def hits(scale: Scale) -> Iterator[Figure]:
    """A script with an input and an output: replayed, with the output there and with the output gone."""
    with directory() as place:
        (place / "script.py").write_text("import json, shutil\nshutil.copy('in', 'out')\nprint(json.dumps('done'))\n")
        (place / "in").write_bytes(os.urandom(1000))
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")}
        environ |= {"CACHEKIT_DIR": str(place / "cache"), "CACHEKIT_IPFS": "off", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "script.py"]
        run = [sys.executable, "-c", _MAIN, "run", "--input", "in", "--output", "out", "--", *command]
        for _ in range(3):
            _processor(run, place, environ)

        def restored() -> float:
            (place / "out").unlink()
            return _processor(run, place, environ)

        measures: dict[str, Measure] = {
            "pass": lambda: _processor([sys.executable, "-c", "pass"], place, environ),
            "hit": lambda: _processor(run, place, environ),
            "restored": restored,
            "import": lambda: _processor([sys.executable, "-c", "import cachekit"], place, environ),
            "command": lambda: _processor(command, place, environ),
        }
        taken = turns(measures, scale.imports)
        for name, title, bound in (
            ("hit", "hit of cachekit run / python -c pass", 4.0),
            ("restored", "the same, its output gone / python -c pass", 4.0),
            ("import", "import cachekit / python -c pass", None),
            ("command", "the command itself / python -c pass", None),
        ):
            yield Figure(
                title, ratio(taken, name, "pass"), bound, note=f"{beside(taken, name, 'pass', 'ms')}, processor time"
            )


ALL = (hits,)
