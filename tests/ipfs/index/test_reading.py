"""What another machine invalidates ends the hits that already stand here: two homes, one credential, one real Kubo."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import cachekit
from cachekit.cache.default import default
from cachekit.ipfs.trust.credential import Credential

ROOT = Path(__file__).parents[2]
MODULE = """
import cachekit

asked = []


@cachekit.distributed_cache(version="1", ttl=None, tags=("all", "user:{who}"))
def ask(who):
    asked.append(who)
    meanwhile()
    return [who, len(asked)]


def meanwhile():
    pass
"""
CHILD = """
import sys

import cachekit
from {module} import ask

cachekit.configure(dir=sys.argv[1], ipfs="rw", ipfs_api=sys.argv[2], secret=sys.argv[3], ipfs_timeout=5.0)
exec(sys.argv[4])
cachekit.flush(60)
"""
Elsewhere = Callable[[str], None]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kubo_api: str
) -> Iterator[tuple[ModuleType, Elsewhere]]:
    """This machine's module with `ask`, and what does something on the other machine and flushes."""
    name, secret = f"asked_{abs(hash(request.node.name))}", Credential.create().to_text()
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    def elsewhere(code: str) -> None:
        environ = {k: v for k, v in os.environ.items() if k != "CI"}
        environ |= {"XDG_CONFIG_HOME": str(tmp_path / "far-config"), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
        arguments = [str(tmp_path / "far"), kubo_api, secret, code]
        subprocess.run([sys.executable, "-c", CHILD.format(module=name), *arguments], env=environ, check=True)

    module = importlib.import_module(name)
    settings = {"ipfs": "rw", "ipfs_api": kubo_api, "secret": secret, "ipfs_timeout": 5.0}
    with cachekit.configure(dir=tmp_path / "near", **settings):
        yield module, elsewhere
    del sys.modules[name]


def _both(module: ModuleType) -> list[object]:
    return [module.ask("ann"), module.ask("bob")]


def _filled(module: ModuleType, elsewhere: Elsewhere) -> None:
    """The other machine stores two answers; here they are hits, from disk and from memory."""
    elsewhere("ask('ann'), ask('bob')")
    for _ in range(3):
        assert _both(module) == [["ann", 1], ["bob", 2]]
    assert module.asked == []


@pytest.mark.parametrize(
    ("code", "ended"),
    [
        ("ask.invalidate('ann')", ["ann"]),
        ("cachekit.invalidate(tag='user:ann')", ["ann"]),
        ("cachekit.invalidate(tag='user:bob', namespace='default')", ["bob"]),
        ("cachekit.invalidate(tag='all')", ["ann", "bob"]),
        ("cachekit.clear()", ["ann", "bob"]),
    ],
)
def test_an_invalidation_elsewhere_ends_hits_here(
    here: tuple[ModuleType, Elsewhere], code: str, ended: list[str]
) -> None:
    """After `sync` the origin is called once for each, and what it gives is a hit again; nothing else is asked for."""
    module, elsewhere = here
    _filled(module, elsewhere)
    elsewhere(code.replace("'default'", repr(default().settings.namespace)))
    cachekit.sync()
    for _ in range(3):
        _both(module)
    assert module.asked == ended
    cachekit.sync()
    _both(module)
    assert module.asked == ended


def test_what_was_computed_here_ends_too(here: tuple[ModuleType, Elsewhere]) -> None:
    """Whoever wrote it: an entry of this machine is known to the other one, and ended by its tag."""
    module, elsewhere = here
    module.ask("ann")
    cachekit.flush(60)
    elsewhere("cachekit.invalidate(tag='user:ann')")
    module.ask("ann")
    cachekit.sync()
    module.ask("ann")
    assert module.asked == ["ann", "ann"]


def test_what_was_being_computed_stays_invalid(
    here: tuple[ModuleType, Elsewhere], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark that arrives while the origin runs covers what the origin then gives, in memory too."""
    module, elsewhere = here

    def invalidated() -> None:
        monkeypatch.setattr(module, "meanwhile", lambda: None)
        elsewhere("cachekit.invalidate(tag='user:ann')")
        cachekit.sync()

    monkeypatch.setattr(module, "meanwhile", invalidated)
    for _ in range(4):
        module.ask("ann")
    assert module.asked == ["ann", "ann"]


def test_an_invalidation_here_ends_what_came_from_elsewhere(here: tuple[ModuleType, Elsewhere]) -> None:
    """By tag, although the tags of others are known only by their codes; neither tier answers after it."""
    module, elsewhere = here
    _filled(module, elsewhere)
    assert cachekit.invalidate(tag="user:ann")
    _both(module)
    assert module.asked == ["ann"]


@pytest.mark.parametrize("here_too", [False, True])
def test_invalidations_hold_where_ipfs_is_off(
    here: tuple[ModuleType, Elsewhere], tmp_path: Path, here_too: bool
) -> None:
    """Those that came in before from elsewhere, and those made here of what came from elsewhere."""
    module, elsewhere = here
    _filled(module, elsewhere)
    secret = default().settings.secret
    if not here_too:
        elsewhere("ask.invalidate('ann')")
        cachekit.sync()
    with cachekit.configure(dir=tmp_path / "near", ipfs="off", secret=secret):
        if here_too:
            assert cachekit.invalidate(tag="user:ann")
        _both(module)
    assert module.asked == ["ann"]


def test_a_machine_with_local_hits_only_listens(here: tuple[ModuleType, Elsewhere]) -> None:
    """Without `sync` and without a miss, the background sees it."""
    module, elsewhere = here
    _filled(module, elsewhere)
    elsewhere("ask.invalidate('ann')")
    end = time.monotonic() + 30
    while not module.asked and time.monotonic() < end:
        module.ask("ann")
        time.sleep(0.01)
    assert module.asked == ["ann"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_listens_for_itself(here: tuple[ModuleType, Elsewhere], tmp_path: Path) -> None:
    """It has the parent's hits, and sees their end without a miss of its own."""
    module, elsewhere = here
    _filled(module, elsewhere)
    team: Any = default().team
    child = os.fork()
    if child == 0:
        code = 1
        try:
            end = time.monotonic() + 60
            (tmp_path / "forked").touch()
            while not module.asked and time.monotonic() < end:
                module.ask("ann")
                time.sleep(0.01)
            code = 0 if module.asked else 2
        finally:
            os._exit(code)
    team.tier._puller.worker.end()
    team.tier._puller.worker.join(10.0)
    elsewhere("ask.invalidate('ann')")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
