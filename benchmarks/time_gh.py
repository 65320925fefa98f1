"""What `github.gh([...])` takes for a kept answer, beside the real `gh` that asks a stand-in for GitHub on loopback."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter_ns
from typing import Any

sys.path[:0] = [str(Path(__file__).parent.parent / "adapters"), str(Path(__file__).parent.parent / "tests")]

from harness import Figure, Scale, cache, middle, ratio, turns
from peers.github import gh_program, github_service

from cachekit_adapters import github


@contextlib.contextmanager
def _environment(**said: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(said)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _timed(call: Any) -> float:
    begin = perf_counter_ns()
    done = call()
    taken = (perf_counter_ns() - begin) / 1e3
    assert done.returncode == 0, done.stderr
    return taken


def time_gh(scale: Scale) -> list[Figure]:
    """`gh api` of a repository by name, and of the directory's own, for which git is asked each time."""
    program = gh_program()
    if program is None:
        print("  gh is not installed and left out")
        return []
    with tempfile.TemporaryDirectory() as directory, github_service(Path(directory)) as service:
        service.documents = {"/repos/octo/hello": {"id": 7}}
        said = {"GH_HOST": "git.example", "GH_ENTERPRISE_TOKEN": "alice-1", "GH_CONFIG_DIR": directory}
        subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
        remote = ["git", "remote", "add", "origin", "https://git.example/octo/hello"]
        subprocess.run(remote, cwd=directory, check=True)
        with _environment(SSL_CERT_FILE=str(service.certificate), **said), cache():
            return [*_beside(scale, program, service, directory)]


def _beside(scale: Scale, program: str, service: Any, directory: str) -> Iterator[Figure]:
    from peers.github import proxy_to

    with proxy_to(service) as proxy, _environment(HTTPS_PROXY=proxy):
        for label, path, bound in (
            ("named", "repos/octo/hello", 0.1),
            ("of the directory", "repos/{owner}/{repo}", None),
        ):
            arguments = ["api", path]

            def bare(arguments: list[str] = arguments) -> float:
                return _timed(
                    lambda: subprocess.run([program, *arguments], cwd=directory, capture_output=True, check=False)
                )

            def kept(arguments: list[str] = arguments) -> float:
                return _timed(lambda: github.gh(arguments, cwd=directory, gh=program))

            taken = turns({"kept": kept, "gh": bare}, max(2, scale.rounds))
            note = f"{middle(taken, 'kept') / 1e3:.2f} ms beside {middle(taken, 'gh') / 1e3:.1f}"
            yield Figure(
                f"github.gh: hit, a repository {label} / gh", ratio(taken, "kept", "gh"), bound, note=note, digits=3
            )


ALL = (time_gh,)
