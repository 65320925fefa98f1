"""Entries into a CAR file and out of it again: without a daemon, through a real Kubo, and past one that lies."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import cachekit
from cachekit import configure, distributed_cache, export_car, import_car, persist_artifact
from cachekit.cache.default import default
from cachekit.errors import IntegrityError, TierError, UsageError
from cachekit.ipfs.content.car import CarFile, CarWriter
from cachekit.ipfs.content.sealed import packed
from cachekit.ipfs.content.unixfs import directory
from cachekit.ipfs.index.rows import line_of
from cachekit.ipfs.index.segments import encode
from cachekit.ipfs.outbox.bundles import Bundler, Entry, cut
from cachekit.ipfs.sharing import credential_of, writer_of
from cachekit.ipfs.trust.credential import Credential, WriterKey
from cachekit.model import EVERYWHERE, NANOSECONDS, Key, Record

CALLS: list[Any] = []
MIB = 1 << 20


@distributed_cache(tags=["t1"])
def answer(x: int) -> dict[str, int]:
    CALLS.append(x)
    return {"answer": x}


@distributed_cache(tags=["t1", "t2", "t3", "t4"])
def tagged(x: int) -> int:
    return x


@distributed_cache
def large(size: int) -> bytes:
    CALLS.append(size)
    return b"x" * size


@distributed_cache(share=False)
def private(x: int) -> int:
    return x


@persist_artifact(scratch="work")
def tree(size: int, work: Any = None) -> Path:
    CALLS.append("tree")
    made = Path(work) / "made"
    (made / "below").mkdir(parents=True)
    (made / "big.bin").write_bytes(b"b" * size)
    (made / "below" / "empty").touch()
    (made / "run.sh").write_text("hello")
    (made / "run.sh").chmod(0o755)
    return made


@pytest.fixture(autouse=True)
def uncounted() -> Iterator[None]:
    CALLS.clear()
    yield
    CALLS.clear()


@pytest.fixture
def car(tmp_path: Path) -> Path:
    return tmp_path / "x.car"


@pytest.fixture
def move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """To another machine of the team: a directory and a writer key of its own, and the settings given."""

    def moved(name: str, **settings: Any) -> None:
        credential = Path(os.environ["XDG_CONFIG_HOME"]) / "cachekit" / "credential"
        config = tmp_path / f"config-{name}"
        (config / "cachekit").mkdir(parents=True)
        config.chmod(0o700)
        shutil.copy2(credential, config / "cachekit" / "credential")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
        configure(**{"dir": tmp_path / name, "ipfs": "off", **settings})

    return moved


# -- without a daemon ----------------------------------------------------------------------------------------


def test_entries_move_without_being_computed_again(car: Path, move: Callable[..., None]) -> None:
    """Answers, large ones, and artifacts with their files: onto a machine that has no daemon, out of one that has none."""
    for x in range(3):
        answer(x)
    large(3 * MIB)
    built = sorted(path.name for path in tree(2 * MIB + 5).iterdir())
    exported = export_car(car)
    assert (exported["entries"], exported["artifacts"], exported["skipped"]) == (5, 1, {})
    assert exported["bytes"] == car.stat().st_size
    move("other")
    imported = import_car(car)
    assert (imported["entries"], imported["artifacts"], imported["to"]) == (5, 1, "disk")
    CALLS.clear()
    assert [answer(x) for x in range(3)] == [{"answer": x} for x in range(3)]
    assert large(3 * MIB) == b"x" * 3 * MIB
    found = tree(2 * MIB + 5)
    assert sorted(path.name for path in found.iterdir()) == built
    assert (found / "big.bin").read_bytes() == b"b" * (2 * MIB + 5)
    assert os.access(found / "run.sh", os.X_OK)
    assert CALLS == []


def test_a_second_import_finds_everything_known(car: Path, move: Callable[..., None]) -> None:
    """It replaces nothing, and says so."""
    answer(1)
    export_car(car)
    move("other")
    import_car(car)
    again = import_car(car)
    assert (again["entries"], again["skipped"]) == (0, {"known": 1})


def test_what_stays_here_is_not_exported(car: Path) -> None:
    """Neither by `share=False`, nor where no source says what the function is; it is said how many that were."""
    private(1)
    answer(1)
    exported = export_car(car)
    assert (exported["entries"], exported["skipped"]) == (1, {"stays_here": 1})


def test_a_record_of_an_earlier_version_stays_here(car: Path) -> None:
    """It does not say whether it may leave; in doubt it does not."""
    answer(1)
    (key,) = [Key(header.namespace, digest) for digest, header in default().disk.entries()]  # type: ignore[union-attr]
    record = default().disk.get(key)  # type: ignore[union-attr]
    default().disk.put(replace(key, shareable=False), record)  # type: ignore[union-attr, arg-type]
    assert export_car(car)["skipped"] == {"stays_here": 1}


def test_what_is_said_narrows_it_down(car: Path, move: Callable[..., None]) -> None:
    """By tag, function, age and namespace."""
    answer(1)
    large(5)
    with configure(namespace="elsewhere"):
        answer(2)
    assert export_car(car, tag="t1")["entries"] == 2
    assert export_car(car, function=f"{__name__}.large")["entries"] == 1
    assert export_car(car, namespace="elsewhere")["entries"] == 1
    assert export_car(car, since="1h")["entries"] == 3
    assert export_car(car, since=0)["entries"] == 0
    assert export_car(car, tag="t1", namespace="elsewhere")["entries"] == 1
    move("other", namespace="elsewhere")
    assert import_car(car)["entries"] == 1
    CALLS.clear()
    answer(2)
    assert CALLS == []


def test_nothing_to_export_leaves_what_stands_there(car: Path) -> None:
    """No empty file replaces an older one."""
    car.write_text("older")
    exported = export_car(car)
    assert (exported["entries"], exported["root"]) == (0, "")
    assert car.read_text() == "older"
    assert [path.name for path in car.parent.iterdir() if "car" in path.name] == ["x.car"]


def test_what_is_dead_is_not_moved(car: Path, move: Callable[..., None]) -> None:
    """Expired on the way, invalidated where it arrives, or invalidated here."""
    answer(1)
    answer(2)
    export_car(car)
    cachekit.invalidate(key=answer.key_for(1))
    assert export_car(car)["entries"] == 1
    move("other")
    cachekit.invalidate(tag="t1")
    assert import_car(car)["skipped"] == {"invalidated": 1}


def test_an_expired_entry_is_left_out(car: Path, move: Callable[..., None]) -> None:
    """At the time of the import."""
    _made(car, Record("text", b"old", time.time_ns() - 9 * NANOSECONDS, time.time_ns() - NANOSECONDS))
    assert import_car(car)["skipped"] == {"expired": 1}
    _made(car, Record("text", b"new", time.time_ns() + 10**6 * NANOSECONDS))
    assert import_car(car)["skipped"] == {"future": 1}


def test_a_file_that_cannot_be_is_the_callers_to_repair(tmp_path: Path) -> None:
    """No directory is made for it, and none is replaced."""
    answer(1)
    for path in (tmp_path, tmp_path / "no" / "x.car"):
        with pytest.raises(UsageError, match="name a file"):
            export_car(path)
    with pytest.raises(UsageError, match="cannot be read"):
        import_car(tmp_path / "none.car")


def test_tags_still_end_what_was_moved(car: Path, move: Callable[..., None]) -> None:
    """The other machine knows them by their names."""
    answer(1)
    export_car(car)
    move("other")
    import_car(car)
    assert cachekit.invalidate(tag="t1")
    CALLS.clear()
    answer(1)
    assert CALLS == [1]


def test_an_artifact_without_its_files_is_left_out(car: Path) -> None:
    """And said, whether its manifest names them or not."""
    path = tree(MIB + 1) / "big.bin"
    os.chmod(path.parent, 0o755)
    store = default().artifacts
    assert store is not None
    for manifest, _ in list(store.entries()):
        for file in manifest.regular:
            store.blob(file.sha256).unlink()
    answer(1)
    exported = export_car(car)
    assert (exported["entries"], exported["skipped"]) == (1, {"files_missing": 1})


def test_nobody_reads_it_without_the_secret(car: Path) -> None:
    """Neither values nor names stand in the file."""
    with configure(namespace="very-secret-name"):
        answer(1)
        export_car(car)
    data = car.read_bytes()
    assert not [word for word in (b"answer", b't1"', b"very-secret-name", b"test_exporting") if word in data]


# -- like anything from a stranger ---------------------------------------------------------------------------


def _made(
    path: Path, record: Record, *, key: Key | None = None, entry: dict[str, Any] | None = None, **trust: Any
) -> None:
    """A CAR as `export_car` would write it, or as nobody should."""
    credential = trust.get("credential") or credential_of(default().resolved)
    writer = trust.get("writer") or writer_of(credential)
    key = key or Key("default", os.urandom(32), "m.f")
    with path.open("wb") as file:
        car = CarWriter(file)
        bundler = Bundler(car, credential, writer)
        stored = packed(trust.get("sealing") or credential, key.namespace, record.codec, record.payload, encrypt=True)
        link = car.file(cut(stored))
        line = line_of(credential, key, record, link[0], len(stored), encrypt=True)
        bundler.add(key.namespace, replace_entry(Entry(line, key.digest, key.function, record.tags), entry or {}), link)
        bundler.end()


def replace_entry(entry: Entry, changes: dict[str, Any]) -> Entry:
    return entry._replace(**changes)


def _refused(path: Path) -> str:
    with pytest.raises(IntegrityError) as caught:
        import_car(path)
    return caught.value.reason


def _record() -> Record:
    return Record("text", b"value", time.time_ns())


def test_another_credential_is_refused_and_named(car: Path, tmp_path: Path) -> None:
    """Its writer is certified by somebody else."""
    other = Credential.create()
    _made(car, _record(), credential=other, writer=WriterKey.load(tmp_path / "theirs", other))
    with pytest.raises(IntegrityError, match="another credential") as caught:
        import_car(car)
    assert caught.value.reason == "foreign_writer"


def test_a_reader_makes_nobody_believe(car: Path, tmp_path: Path) -> None:
    """Who has the secret and no certificate can name and seal, and still is refused."""
    credential = credential_of(default().resolved)
    stranger = Credential.create()
    forger = WriterKey.load(tmp_path / "theirs", stranger)
    _made(car, _record(), writer=forger)
    assert _refused(car) == "foreign_writer"
    forged = replace(forger, certificate=writer_of(credential).certificate)
    _made(car, _record(), writer=forged)
    assert _refused(car) == "foreign_writer"


def test_names_must_be_those_of_the_lines(car: Path) -> None:
    """A key, a tag or a number of names that no writer signed."""
    for change in ({"digest": os.urandom(32)}, {"digest": b"short"}, {"tags": ("other",)}):
        _made(car, _record(), entry=change)
        assert _refused(car) == "misnamed"


def test_a_segment_of_the_index_is_none_of_a_file(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the other way round: the sequence of those in files counts for nothing in the index."""
    from cachekit.ipfs.outbox import bundles

    with monkeypatch.context() as patched:
        patched.setattr(bundles, "_SEQUENCE", 7)
        _made(car, _record())
    assert _refused(car) == "misnamed"


def test_a_payload_that_does_not_open_is_left_out(car: Path) -> None:
    """Sealed under another secret, although the line is signed."""
    _made(car, _record(), sealing=Credential.create())
    assert import_car(car)["skipped"] == {"unsealable": 1}


def test_a_payload_that_is_missing_is_left_out(car: Path) -> None:
    """A CAR without one of its blocks is whole; the entry is not."""
    _made(car, _record())
    with car.open("rb") as file, CarFile(file) as found:
        keep = [_block_at(found, path) for path in ("", "00000000", "00000000/segment", "00000000/names")]
        root = found.root
    with car.open("wb") as file:
        writer = CarWriter(file)
        for cid, block in keep:
            writer.put(cid, block)
        writer.end(root)
    assert import_car(car)["skipped"] == {"incomplete": 1}


def _block_at(car: CarFile, path: str) -> tuple[bytes, bytes]:
    from cachekit.ipfs.content.cids import binary_cid

    cid = _cid_at(car, path)
    return binary_cid(cid), car.block(cid) or b""


def _cid_at(car: CarFile, path: str) -> str:
    cid = car.root
    for name in filter(None, path.split("/")):
        cid = dict(directory(cid, car.block) or ())[name]
    return cid


def test_no_altered_byte_becomes_a_value(car: Path, move: Callable[..., None], tmp_path: Path) -> None:
    """Wherever it is: the file is refused as a whole, before anything is stored."""
    answer(1)
    export_car(car)
    whole = car.read_bytes()
    move("other")
    for at in range(0, len(whole), 7):
        altered = bytearray(whole)
        altered[at] ^= 0x10
        (tmp_path / "y.car").write_bytes(altered)
        with pytest.raises(IntegrityError):
            import_car(tmp_path / "y.car")
    assert not list(default().disk.entries())  # type: ignore[union-attr]


def test_other_blocks_order_is_the_same_file(car: Path, move: Callable[..., None]) -> None:
    """The format promises none."""
    answer(1)
    answer(2)
    export_car(car)
    pairs = []
    with car.open("rb") as file, CarFile(file) as found:
        root = found.root
        for binary, at, size in found._places.execute("SELECT cid, at, size FROM places"):
            file.seek(at)
            pairs.append((binary, file.read(size)))
    buffer = io.BytesIO()
    writer = CarWriter(buffer)
    for binary, block in reversed(pairs):
        writer.put(binary, block)
    writer.end(root)
    car.write_bytes(buffer.getvalue())
    move("other")
    assert import_car(car)["entries"] == 2


def test_a_car_of_something_else_is_refused(car: Path) -> None:
    """A file, or a directory of others."""
    for make in (lambda w: w.file([b"hello"]), lambda w: w.directory([("a", w.file([b"hello"]))])):
        with car.open("wb") as file:
            writer = CarWriter(file)
            writer.end(make(writer)[0])
        assert _refused(car) == "not_an_export"


def test_a_bundle_that_is_named_often_is_read_once(car: Path) -> None:
    """Under other directories, too: who has no key must not multiply what somebody signed."""
    _made(car, _record())
    with car.open("rb") as file, CarFile(file) as found:
        paths = [
            "",
            "00000000",
            "00000000/segment",
            "00000000/names",
            "00000000/payloads",
            "00000000/payloads/00000000",
        ]
        pairs = dict(_block_at(found, path) for path in paths)
        parts = [(name, (cid, 0)) for name, cid in directory(_cid_at(found, "00000000"), found.block) or ()]
    with car.open("wb") as file:
        writer = CarWriter(file)
        for cid, block in pairs.items():
            writer.put(cid, block)
        again = [writer.directory([*parts, (f"junk{number}", parts[0][1])]) for number in range(5)]
        writer.end(writer.directory((f"{number:08d}", link) for number, link in enumerate(again))[0])
    imported = import_car(car)
    assert (imported["entries"], imported["skipped"]) == (1, {})


def test_hostile_names_are_refused(car: Path) -> None:
    """Who has the secret can write any JSON there: deep, of other kinds, too few."""
    credential = credential_of(default().resolved)
    key = Key("default", os.urandom(32))
    for text in (b"[" * 10000, b"{}", b'{"namespace": 1, "names": []}', b'{"namespace": "default", "names": [1]}',
                 b'{"namespace": "default", "names": []}', b'{"namespace": "default", "names": [["", "", [[]]]]}'):  # fmt: skip
        with car.open("wb") as file:
            writer = CarWriter(file)
            line = line_of(credential, key, _record(), writer.file([b"x"])[0], 1, encrypt=True)
            segment = encode(
                [line], credential=credential, namespace="default", writer=writer_of(credential), sequence=0
            )
            names = credential.seal(EVERYWHERE, text)
            bundle = writer.directory([("segment", writer.file([segment])), ("names", writer.file([names]))])
            writer.end(writer.directory([("00000000", bundle)])[0])
        assert _refused(car) == "misnamed"


# -- through a real Kubo -------------------------------------------------------------------------------------


@pytest.fixture
def shared(kubo_api: str) -> dict[str, Any]:
    """Settings of a machine at the daemon, in a namespace of this test."""
    return {"ipfs": "rw", "ipfs_api": kubo_api, "ipfs_timeout": 10, "namespace": f"n{os.urandom(6).hex()}"}


def test_out_of_kubo_into_a_file_and_back(
    car: Path, move: Callable[..., None], shared: dict[str, Any], run_ipfs: Callable[..., str]
) -> None:
    """By a machine that computed none of it, into the daemon again after that lost it all, for a third machine."""
    configure(**shared)
    answer(1)
    large(2 * MIB)
    tree(MIB + 1)
    cachekit.flush(30)
    move("exporter", **shared)
    exported = export_car(car)
    assert (exported["entries"], exported["artifacts"]) == (3, 1)
    for path in run_ipfs("pin", "ls", "--type=recursive", "-q").split():
        run_ipfs("pin", "rm", path)
    run_ipfs("files", "rm", "-r", "/cachekit")
    run_ipfs("repo", "gc")
    move("importer", **shared)
    imported = import_car(car)
    assert (imported["entries"], imported["artifacts"], imported["to"]) == (3, 1, "ipfs")
    run_ipfs("repo", "gc")
    move("third", **shared)
    CALLS.clear()
    assert tree(MIB + 1).is_dir()
    assert CALLS == []


def test_others_see_what_was_imported(car: Path, move: Callable[..., None], shared: dict[str, Any]) -> None:
    """Lines are published by whoever imports, payloads stand in the daemon: a third machine hits, and tags end it."""
    answer(1)
    large(2 * MIB)
    with configure(namespace=shared["namespace"]):
        answer(1)
        large(2 * MIB)
        export_car(car, namespace=shared["namespace"])
    move("importer", **shared)
    assert import_car(car)["to"] == "ipfs"
    assert import_car(car)["skipped"] == {"known": 2}
    move("third", **shared)
    CALLS.clear()
    assert (answer(1), len(large(2 * MIB))) == ({"answer": 1}, 2 * MIB)
    assert CALLS == []
    cachekit.invalidate(tag="t1")
    answer(1)
    assert CALLS == [1]


def test_a_tag_ends_what_came_from_others(car: Path, move: Callable[..., None], shared: dict[str, Any]) -> None:
    """What was filled from the team names its four tags twice, and is exported; they end it on the other side, too."""
    configure(**shared)
    tagged(1)
    cachekit.flush(30)
    move("filled", **shared)
    assert tagged.peek(1) == 1
    configure(ipfs="off")
    assert export_car(car, tag="t4")["entries"] == 1
    move("importer", namespace=shared["namespace"])
    assert import_car(car)["entries"] == 1
    assert tagged.peek(1) == 1
    for name in ("importer", "filled"):
        configure(dir=car.parent / name)
        assert cachekit.invalidate(tag="t4")
        assert tagged.peek(1) is cachekit.MISS


def test_a_credential_that_only_reads_exports_nothing(car: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would believe it; it says what is missing, and leaves no file."""
    answer(1)
    reader = credential_of(default().resolved).reader().to_text()
    monkeypatch.setenv("CACHEKIT_SECRET", reader)
    configure(ttl="1h")
    with pytest.raises(UsageError, match="only reads"):
        export_car(car)
    assert not car.exists()


def test_kubo_takes_the_file_and_keeps_all_of_it(car: Path, run_ipfs: Callable[..., str]) -> None:
    """`ipfs dag import` pins the root, and with it every payload."""
    answer(1)
    large(2 * MIB)
    tree(MIB + 1)
    root = export_car(car)["root"]
    assert f"Pinned root\t{root}\tsuccess" in run_ipfs("dag", "import", car)
    run_ipfs("repo", "gc")
    listed = run_ipfs("refs", "-r", "--offline", root).split()
    with car.open("rb") as file, CarFile(file) as found:
        assert all(run_ipfs("block", "get", "--offline", cid, binary=True) == found.block(cid) for cid in set(listed))
        assert len({root, *listed}) == len(list(found._places.execute("SELECT 1 FROM places")))


def test_without_its_daemon_an_import_is_queued(car: Path, move: Callable[..., None]) -> None:
    """It fills the disk meanwhile, and others get it when the daemon is back."""
    answer(1)
    export_car(car)
    move("other", ipfs="rw", ipfs_api="/ip4/127.0.0.1/tcp/9", ipfs_timeout=0.2)
    assert import_car(car)["to"] == "disk"
    assert default().team.tier.pending() == 1  # type: ignore[union-attr]
    CALLS.clear()
    answer(1)
    assert CALLS == []


def test_a_daemon_that_fails_is_no_entrys_fault(
    car: Path, move: Callable[..., None], shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import ends with its error; nothing is counted as left out, and nothing is published."""
    with configure(namespace=shared["namespace"]):
        answer(1)
        export_car(car)
    move("importer", **shared)
    team = default().team
    assert team is not None

    def fail(*_args: object, **_options: object) -> None:
        raise TierError("no", reason="http_500")

    monkeypatch.setattr(team.transport, "import_blocks", fail)
    with pytest.raises(TierError, match="no"):
        import_car(car)
    assert not list(team.table.lines(shared["namespace"]))


# -- what people type ----------------------------------------------------------------------------------------


def test_the_commands_say_what_was_moved(
    car: Path, move: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """As text and as JSON; exit status 1 where there is nothing, and where another credential wrote it."""
    from cachekit.cli import main

    assert main(["export", str(car), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["entries"] == 0
    answer(1)
    private(1)
    assert main(["export", str(car), "--tag", "t1"]) == 0
    assert "1 entries, 0 of them artifacts" in capsys.readouterr().out
    move("other")
    assert main(["import", str(car), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 1
    (Path(os.environ["XDG_CONFIG_HOME"]) / "cachekit" / "credential").unlink()
    configure(dir=car.parent / "stranger")
    assert main(["import", str(car)]) == 1
    assert "another credential" in capsys.readouterr().err
