"""Pins in a real Kubo that has other users: what is theirs is left alone, and what is ours is kept whatever they do."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit.cache.default import default
from cachekit.errors import TierError, TierUnavailable
from cachekit.ipfs.breaker import Deadline
from cachekit.ipfs.content.cids import file_cid
from cachekit.ipfs.index.table import Table
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.outbox.queue import Outbox

LONG = 30.0


@cachekit.distributed_cache(pin=True, ttl=None, version="1")
def pinned_answer(n: int) -> str:
    return f"answer {n} {os.urandom(8).hex()}"


@cachekit.persist_artifact(scratch="work", encrypt=False, version="1")
def built(*texts: str, work: Path | None = None) -> Path:
    assert work is not None
    for number, text in enumerate(texts):
        (work / f"{number}").write_text(text)
    return work


class Daemon:
    """The node as any of its users sees it."""

    def __init__(self, api: str) -> None:
        self.transport = KuboTransport(api)

    def ask(self, call: str, **options: str) -> bytes:
        return self.transport._bytes(call, options, LONG, 1 << 24)

    def add(self, data: bytes, name: str | None) -> str:
        """Somebody else's, who pins what he adds under `name`, "" for none and None for no pin."""
        return self.transport.add_stream([data], size=len(data), pin_name=name, idle=LONG)

    def name(self, cid: str) -> str | None:
        return self.transport.pinned(cid, timeout=LONG)

    def collect(self) -> None:
        self.ask("repo/gc", silent="true")

    def has(self, cid: str) -> bool:
        return self.transport.block_get(cid, timeout=LONG) is not None


@pytest.fixture
def kubo(kubo_api: str) -> Daemon:
    return Daemon(kubo_api)


@pytest.fixture
def on(kubo_api: str, tmp_path: Path) -> Callable[..., Any]:
    """The settings of another cache directory, with the same credential or another."""

    def configured(name: str, **more: Any) -> Any:
        common = {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 5.0, "namespace": tmp_path.name[-20:]}
        return cachekit.configure(dir=tmp_path / name, **{**common, **more})

    configured("one")
    return configured


@pytest.mark.parametrize("name", ["mine", ""])
def test_a_foreign_pin_keeps_its_name_and_is_not_ended(kubo: Daemon, on: Callable[..., Any], name: str) -> None:
    """`store(pin=True)`, `unpin` and `flush` of what its owner pinned: it is his as before, and outlives a collection."""
    data = os.urandom(1000)
    cid = kubo.add(data, name)
    assert cachekit.store(data, pin=True) == cid
    assert kubo.name(cid) == name
    assert cachekit.unpin(cid)
    cachekit.flush(LONG)
    kubo.collect()
    assert kubo.name(cid) == name
    assert cachekit.fetch(cid) == data


def test_a_foreign_direct_pin_is_left_alone(kubo: Daemon, on: Callable[..., Any]) -> None:
    """A recursive pin of ours would replace it, name and all."""
    data = os.urandom(1000)
    cid = kubo.add(data, None)
    kubo.ask("pin/add", arg=cid, recursive="false", name="theirs")
    cachekit.store(data, pin=True)
    cachekit.unpin(cid)
    cachekit.flush(LONG)
    assert kubo.name(cid) == "theirs"


def test_what_answers_pin_is_looked_at_too(kubo: Daemon, on: Callable[..., Any]) -> None:
    """The payload of an entry and the files of an artifact, pinned by somebody else before: named as before, after too."""

    text = os.urandom(1000).hex()
    cid = kubo.add(text.encode(), "theirs")
    built(text)
    cachekit.flush(LONG)
    assert len(cachekit.pins()) == 1
    assert kubo.name(cid) == "theirs"
    assert cachekit.unpin(built.key_for(text))
    cachekit.flush(LONG)
    assert kubo.name(cid) == "theirs"


@pytest.mark.parametrize("theirs", [{}, {"secret_file": "another"}])
def test_directories_on_one_daemon_count_together(
    kubo: Daemon, on: Callable[..., Any], tmp_path: Path, theirs: dict[str, Any]
) -> None:
    """The same bytes, stored by two, with one credential or two: the pin ends when both have let go."""
    theirs = {name: tmp_path / file for name, file in theirs.items()}
    data = os.urandom(1000)
    cid = cachekit.store(data, pin=True)
    with on("two", **theirs):
        assert cachekit.store(data, pin=True) == cid
        assert cachekit.unpin(cid)
        cachekit.flush(LONG)
    kubo.collect()
    assert kubo.name(cid) == "cachekit/store"
    assert cachekit.fetch(cid) == data
    assert cachekit.unpin(cid)
    cachekit.flush(LONG)
    assert kubo.name(cid) is None
    kubo.collect()
    assert not kubo.has(cid)


@pytest.mark.parametrize("size", [1000, (3 << 20) + 5])
def test_a_pin_of_ours_that_lost_its_name_keeps_what_it_kept(kubo: Daemon, on: Callable[..., Any], size: int) -> None:
    """Somebody pins the same without a name, which takes ours, and unpins it: our bytes outlive a collection."""
    data = os.urandom(size)
    cid = cachekit.store(data, pin=True)
    kubo.ask("pin/add", arg=cid)
    assert kubo.name(cid) == ""
    kubo.ask("pin/rm", arg=cid)
    kubo.collect()
    assert cachekit.fetch(cid) == data
    assert cachekit.unpin(cid)
    cachekit.flush(LONG)
    kubo.collect()
    assert not kubo.has(cid)


def test_who_took_our_pins_name_has_the_pin(kubo: Daemon, on: Callable[..., Any]) -> None:
    """It may be all that he relies on: `unpin` leaves it."""
    cid = cachekit.store(os.urandom(100), pin=True)
    kubo.ask("pin/add", arg=cid)
    cachekit.unpin(cid)
    cachekit.flush(LONG)
    assert kubo.name(cid) == ""


def test_who_may_only_read_unpins_his_own(kubo: Daemon, on: Callable[..., Any]) -> None:
    """Nothing is published for bytes that were stored by hand."""
    with on("reader", ipfs="ro"):
        cid = cachekit.store(os.urandom(100), pin=True)
        assert cachekit.unpin(cid)
        cachekit.flush(LONG)
        assert kubo.name(cid) is None


def test_what_could_not_be_pinned_is_not_counted(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`store` that raises leaves no reference, and no link."""
    data = os.urandom(100)

    def cut(*_args: Any, **_options: Any) -> None:
        raise TierUnavailable("cut")

    team = default().ready().team
    assert team is not None
    with monkeypatch.context() as patched:
        patched.setattr(KuboTransport, "add_stream", cut)
        with pytest.raises(TierUnavailable):
            cachekit.store(data, pin=True)
    assert cachekit.pins() == []
    team.breaker.succeeded()
    cachekit.flush(LONG)
    kubo.collect()
    assert not kubo.has(file_cid(data))


def test_files_of_an_entry_that_was_never_published_are_released(kubo: Daemon, on: Callable[..., Any]) -> None:
    """The first file of an artifact is pinned, the second is gone: neither stays."""

    team = default().ready().team
    assert team is not None
    with team.outbox.exclusive(Deadline(LONG)):
        built("a" * 1000, "b" * 1000)
        assert team.outbox.pending() == 1
        team.files.store.blob(hashlib.sha256(b"b" * 1000).hexdigest()).unlink()
    cachekit.flush(LONG)
    assert "artifact_gone" in cachekit.stats().as_dict()["errors"]["ipfs"]
    assert kubo.name(file_cid(b"a" * 1000)) is None
    assert team.table.needless() == []


def test_unpinned_is_unpinned_whatever_died_on_the_way(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the sender of the `unpin` dying at its n-th call, for every n, the next flush ends the pin."""
    for death in _deaths(monkeypatch):
        pinned_answer(death.number)
        cachekit.flush(LONG)
        (pin,) = cachekit.pins()
        with death.awaited():
            assert cachekit.unpin(pinned_answer.key_for(death.number))
        cachekit.flush(LONG)
        assert kubo.name(pin["cid"]) is None
        assert cachekit.pins() == []


def test_what_was_sent_by_halves_is_unpinned(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact whose sender died at its n-th call, for every n, and that is unpinned then, leaves nothing pinned."""
    for death in _deaths(monkeypatch):
        text = f"{os.urandom(8).hex()} {death.number}"
        with death.awaited():
            built(text)
        assert cachekit.unpin(built.key_for(text))
        cachekit.flush(LONG)
        assert kubo.name(file_cid(text.encode())) is None
        assert cachekit.pins() == []


def test_what_a_new_answer_replaced_is_unpinned(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever died while the new one was sent: the next flush ends the pin of the old."""
    for death in _deaths(monkeypatch):
        pinned_answer(death.number)
        cachekit.flush(LONG)
        (old,) = cachekit.pins()
        with death.awaited():
            pinned_answer.refresh(death.number)
        cachekit.flush(LONG)
        (new,) = cachekit.pins()
        assert new["cid"] != old["cid"]
        assert (kubo.name(old["cid"]), bool(kubo.name(new["cid"]))) == (None, True)
        cachekit.unpin(pinned_answer.key_for(death.number))
        cachekit.flush(LONG)


def test_unpin_that_dies_has_unpinned_or_not(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never is a reference gone that the daemon still keeps, and nobody would ever ask it to end."""
    pinned_answer(1)
    cachekit.flush(LONG)
    (pin,) = cachekit.pins()
    key = pinned_answer.key_for(1)
    for where, name in ((Outbox, "add_unpin"), (Table, "dereference")):
        with monkeypatch.context() as patched:
            patched.setattr(where, name, _died)
            with pytest.raises(TierError):
                cachekit.unpin(key)
        assert len(cachekit.pins()) == 1
    cachekit.flush(LONG)
    assert kubo.name(pin["cid"]) is None


def _died(*_args: Any) -> None:
    raise TierError("the process died", reason="died")


@pytest.mark.parametrize("size", [1000, (1 << 20) + 1])
def test_a_collection_between_storing_and_pinning_is_made_up_for(
    kubo: Daemon, on: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Kubo collects just before each of the links: what was stored is pinned already, and stays."""
    link, left = KuboTransport.link, [3]

    def collected(self: KuboTransport, cid: str, path: str, *, timeout: float) -> None:
        if left[0]:
            left[0] -= 1
            kubo.collect()
        link(self, cid, path, timeout=timeout)

    monkeypatch.setattr(KuboTransport, "link", collected)
    data = os.urandom(size)
    assert cachekit.fetch(cachekit.store(data, pin=True)) == data
    left[:] = [3]
    pinned_answer(size)
    cachekit.flush(LONG)
    assert left != [3]
    assert kubo.name(cachekit.pins()[0]["cid"])


class Death:
    """The sender's, at its call `number`."""

    def __init__(self, number: int, patch: pytest.MonkeyPatch) -> None:
        self.number, self.happened, self._left, self._patch = number, False, number, patch

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """What is queued inside is sent, and dies, at the end."""
        team = default().ready().team
        assert team is not None
        with team.outbox.exclusive(Deadline(LONG)):
            yield
        with self._patch.context() as patched:
            for call in ("import_blocks", "add_stream", "link", "pinned", "pin", "write", "names", "remove", "unpin"):
                patched.setattr(KuboTransport, call, self._counted(getattr(KuboTransport, call)))
            with contextlib.suppress(TierError):
                team.tier.flush(LONG)

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self._left -= 1
            if self._left <= 0:
                self.happened = True
                raise TierError("the process died", reason="died")
            return call(*args, **options)

        return counted


def _deaths(patch: pytest.MonkeyPatch) -> Iterator[Death]:
    number, death = 1, Death(1, patch)
    while True:
        yield death
        if not death.happened:
            break
        number += 1
        death = Death(number, patch)
    assert number > 3
