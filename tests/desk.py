"""A working directory with a cache of its own, and `cachekit run` in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Desk:
    """A working directory with a cache of its own, and `cachekit run` in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CACHEKIT_")},
            **{"CACHEKIT_DIR": str(place.parent / f"{place.name}-cache"), "CACHEKIT_IPFS": "off"},
            **{"XDG_CONFIG_HOME": str(place / "config"), "PYTHONPATH": str(ROOT)},
            **{"PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        }

    def write(self, name: str, text: str, mode: int = 0o644) -> Path:
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def run(
        self, *words: str, stdin: object = subprocess.DEVNULL, where: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cachekit", "run", *words],
            cwd=self.place / where, env={**self.environ, **environ}, capture_output=True, text=True, check=False, stdin=stdin,
        )  # fmt: skip

    def says(self, *words: str, where: str = "", **environ: str) -> tuple[str, bool]:
        """What the command printed, and whether it was a hit."""
        done = self.run(*words, where=where, **environ)
        assert done.returncode == 0, done.stderr
        hit = json.loads(self.run("--json", *words, where=where, **environ).stdout)["hit"]
        assert hit, "the next one is a hit"
        return done.stdout, hit

    def quick(self) -> int:
        """How many hits were had by a note, since somebody counted them last."""
        hits = Path(self.environ["CACHEKIT_DIR"]) / "hits"
        return len(hits.read_text().splitlines()) if hits.exists() else 0
