"""Artifacts by name: listed, shown, restored on another machine, pinned file by file, dropped, and told while they move."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stopping import heed

import cachekit
from cachekit import CachekitError, Progress, TierError, UsageError, on_progress, persist_artifact, restore
from cachekit.cache.default import default
from cachekit.cache.operations import registry
from cachekit.cli.parser import main
from cachekit.ipfs.breaker import Deadline

ROOT = Path(__file__).parents[2]
BUILT: list[str] = []
TEXTS: list[str] = []


@persist_artifact(scratch="work", version="7")
def build(name: str, *texts: str, work: Path | None = None) -> Path:
    BUILT.append(name)
    assert work is not None
    tree = work / name
    tree.mkdir()
    for number, text in enumerate(texts):
        (tree / f"{number}.bin").write_text(text)
    return tree


@persist_artifact(scratch="work", version="7", pin=False)
def loose(name: str, text: str, work: Path | None = None) -> Path:
    assert work is not None
    (work / name).write_text(text)
    return work / name


@persist_artifact(scratch="work", version="1")
def changing(work: Path | None = None) -> Path:
    assert work is not None
    (work / "changing").write_text(TEXTS[0])
    return work / "changing"


@persist_artifact(scratch="work", version="1")
def converted(source: Path, outtype: str, api_key: str, work: Path | None = None) -> Path:
    assert work is not None
    (work / "converted.bin").write_text(source.name + outtype)
    return work / "converted.bin"


@persist_artifact(scratch="work", version="1", encrypt=False)
def published(word: str, work: Path | None = None) -> Path:
    assert work is not None
    (work / "published.bin").write_text("public")
    return work / "published.bin"


@pytest.fixture
def team(kubo_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """Two machines with one credential on one daemon; the first is configured."""
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    made = Team(kubo_api, tmp_path, monkeypatch, f"n{os.urandom(6).hex()}")
    with made.on("one"):
        yield made


class Team:
    def __init__(self, api: str, home: Path, patch: pytest.MonkeyPatch, namespace: str) -> None:
        self._common = {"ipfs": "rw", "ipfs_api": api, "ipfs_timeout": 5, "namespace": namespace}
        self._home = home
        self._patch = patch

    def on(self, name: str) -> Any:
        """The settings of a machine, until the block ends."""
        self._patch.setenv("XDG_CONFIG_HOME", str(self._home / f"config {name}"))
        return cachekit.configure(dir=self._home / name, **self._common)

    @property
    def pinned(self) -> set[str]:
        """What the daemon itself has pinned."""
        import httpx

        port = str(self._common["ipfs_api"]).rpartition("/")[2]
        answer = httpx.post(f"http://127.0.0.1:{port}/api/v0/pin/ls", params={"type": "recursive"})
        return set(answer.json()["Keys"])


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(list(arguments))
    said = capsys.readouterr()
    return status, said.out, said.err


def cids(name: str) -> list[str]:
    found = registry().find(name)
    assert found is not None
    return [file.cid for file in found.manifest.files]


# -- the registry on one machine --------------------------------------------------------------------------------------


def test_artifacts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """`ls --artifacts` says name, size, files, made, key and whether it is pinned; --json the same as data."""
    build("model-a", "x" * 10, "y")
    loose("notes.txt", "hello")
    (a, b) = sorted(json.loads(run(capsys, "ls", "--artifacts", "--json")[1]), key=lambda one: str(one["name"]))
    assert (a["name"], a["size"], a["files"], a["pinned"], a["kind"]) == ("model-a", 11, 2, True, "tree")
    assert (b["name"], b["size"], b["pinned"], b["kind"]) == ("notes.txt", 5, False, "file")
    assert a["key"] == str(build.key_for("model-a", "x" * 10, "y"))
    assert a["made"].startswith("20")
    text = run(capsys, "ls", "--artifacts")[1]
    assert "model-a" in text
    assert a["key"] in text


@pytest.mark.parametrize("by", ["name", "digest", "key"])
def test_an_artifact_is_shown(capsys: pytest.CaptureFixture[str], by: str) -> None:
    """`show` takes a name, the beginning of a digest or a key, and says files, sizes, and how it was built."""
    build("model-a", "x" * 10)
    found = registry().find("model-a")
    assert found is not None
    text = {"name": "model-a", "digest": found.manifest.digest[:12], "key": str(found.key)}[by]
    status, out, _ = run(capsys, "show", text, "--json")
    shown = json.loads(out)
    assert (status, shown["name"], shown["contents"][0]["path"]) == (0, "model-a", "0.bin")
    assert shown["built"]["function"].endswith("test_registry.build")
    assert shown["built"]["version"] == "7"
    assert shown["built"]["machine"] == os.uname().nodename
    assert "0.bin" in run(capsys, "show", text)[1]


@pytest.mark.parametrize("command", [["show", "nobody"], ["restore", "nobody"], ["warm", "--artifact", "nobody"]])
def test_an_unknown_name_is_one_sentence(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """Exit 1, nothing on standard output, the name in the sentence."""
    status, out, err = run(capsys, *command)
    assert (status, out) == (1, "")
    assert "nobody" in err
    assert err.count("\n") == 1


def test_a_name_of_several_contents_is_refused() -> None:
    """Which one is for the caller to say; the sentence gives their keys."""
    build("model-a", "one")
    build("model-a", "two")
    with pytest.raises(UsageError, match=str(build.key_for("model-a", "one"))):
        restore("model-a")
    assert (restore(build.key_for("model-a", "two")) / "0.bin").read_text() == "two"


def test_the_refusal_of_a_name_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each, with its key and when it was made: what there is to choose by."""
    for text in ("one", "two"):
        build("model-a", text)
    for command in ("show", "restore", "unpin"):
        status, _, err = run(capsys, command, "model-a")
        assert status == 2
        for text in ("one", "two"):
            assert f"  {build.key_for('model-a', text)}  made 20" in err


def test_unpin_takes_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it names one artifact of this machine; a name of none is said to be none."""
    build("model-a", "one")
    build("model-b", "two")
    assert cachekit.unpin("model-a")
    assert {one.manifest.name: one.pinned for one in registry().all()} == {"model-a": False, "model-b": True}
    assert run(capsys, "unpin", "model-b")[0] == 0
    assert not any(one.pinned for one in registry().all())
    status, _, err = run(capsys, "unpin", "model-c")
    assert status == 2
    assert "no artifact of this machine is called 'model-c'" in err


def test_one_name_of_two_calls_is_not_unpinned_for_one_of_them() -> None:
    """The same content for two keys is one artifact to restore, and two to unpin."""
    build("model-a", "same")
    assert build.put(restore("model-a"), "model-a", "other")
    with pytest.raises(UsageError, match="fits 2 artifacts"):
        cachekit.unpin("model-a")
    assert all(one.pinned for one in registry().all())


@pytest.mark.parametrize("command", [("restore", ""), ("warm", "--artifact", ""), ("show", ""), ("unpin", "")])
def test_no_name_is_no_artifact(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The empty text is refused, however few artifacts there are; in the SDK too."""
    build("model-a", "one")
    status, out, err = run(capsys, *command)
    assert (status, out) == (2, "")
    assert err.startswith("cachekit: ")
    with pytest.raises(UsageError):
        restore("")


@pytest.mark.parametrize("command", [("restore", "nowhere"), ("flush",), ("pins",), ("sync",)])
def test_a_daemon_that_is_down_is_named(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was asked and the remedy, on standard error, with exit status 1."""
    monkeypatch.setenv("CACHEKIT_SECRET_FILE", str(tmp_path / "credential"))
    with socket.socket() as taken:  # bound and not listening: nobody answers there, and nobody else gets it
        taken.bind(("127.0.0.1", 0))
        api = f"/ip4/127.0.0.1/tcp/{taken.getsockname()[1]}"
        with cachekit.configure(ipfs="rw", ipfs_api=api):
            build("model-down", "x")
            status, _, err = run(capsys, *command)
    assert status == 1
    assert api in err
    assert "`cachekit doctor`" in err
    assert "`cachekit node start`" in err


def test_restore_destroys_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the directory that somebody works in, nor a directory where a file is to be."""
    build("model-a", "one"), loose("model-x", "x")
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk" / "precious").touch()
    monkeypatch.chdir(tmp_path / "desk")
    for output in ("", ".", tmp_path):
        with pytest.raises(UsageError, match="working directory"):
            restore("model-a", output)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="model-x"):
        restore("model-x", "desk")
    assert (tmp_path / "desk" / "precious").exists()


def test_show_tells_from_what_it_was_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments by name, a Path with its name and what counts of it; a secret stays one, in the store too."""
    source = tmp_path / "checkpoint"
    source.mkdir()
    (source / "weights").write_text("w")
    path = converted(source, "q8_0", api_key="sk-123456")
    status, out, _ = run(capsys, "show", path.name)
    assert status == 0
    assert "from source    checkpoint: Path(sha256 " in out
    assert "from outtype   'q8_0'" in out
    assert "from api_key   <secret>" in out
    assert not [
        file for file in default().settings.dir.rglob("*") if file.is_file() and b"sk-123456" in file.read_bytes()
    ]


def test_what_anybody_can_read_says_nothing_of_the_arguments(tmp_path: Path) -> None:
    """The manifest of `encrypt=False` has the function, and no argument."""
    published("a private word")
    found = registry().find("published.bin")
    assert found is not None
    assert found.manifest.about["function"].endswith("published")
    assert b"private" not in found.manifest.encode()


def test_restore_gives_the_path_or_places_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without `output` the path in the store; with it a copy of the caller's own, replacing what stood there."""
    path = build("model-a", "one")
    assert restore("model-a") == path
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").touch()
    assert restore("model-a", output) == output
    assert [(one.name, one.read_text()) for one in output.iterdir()] == [("0.bin", "one")]
    status, out, _ = run(capsys, "restore", "model-a", "--output", str(tmp_path / "again"), "--json")
    assert (status, json.loads(out)) == (0, {"path": str(tmp_path / "again")})


# -- the team -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["name", "key", "cid"])
def test_another_machine_restores_it(team: Team, by: str) -> None:
    """By name, key or the manifest's CID, without the function; calls hit it afterwards."""
    name = f"model-{by}"
    first = build(name, "weights", by)
    cachekit.flush(60)
    found = registry().find(name)
    assert found is not None
    text = {"name": name, "key": str(found.key), "cid": found.cid}[by]
    with team.on("two"):
        assert registry().all() == []
        second = restore(text)
        assert second != first
        assert (second / "0.bin").read_text() == "weights"
        assert build(name, "weights", by) == second
        (here,) = registry().all()
        assert (here.key, here.pinned, here.cid) == (found.key, True, found.cid)
    assert BUILT.count(name) == 1


def test_a_manifest_cannot_lie_about_its_key(team: Team) -> None:
    """What was restored by CID answers no call unless the team's index says so: its key is only what it claims."""
    key = build.key_for("liar", "a")
    forged = registry()
    path = build("liar", "b")
    found = forged.find("liar")
    assert found is not None
    cachekit.flush(60)
    claimed = found._replace(key=key, entry=False)
    assert forged.path(claimed, remember=True) == path
    assert default().disk is not None
    assert default().disk.get(key) is None  # type: ignore[union-attr]
    assert team.pinned


def test_files_are_pinned_until_their_last_artifact_is_unpinned(team: Team) -> None:
    """Files are pinned with the artifact; `unpin` of its key ends that at the next flush, but not for shared files."""
    build("model-a", "shared weights", "only a")
    build("model-b", "shared weights", "only b")
    cachekit.flush(60)
    shared, only_a = cids("model-a")
    only_b = cids("model-b")[1]
    assert {shared, only_a, only_b} <= team.pinned
    assert {pin["cid"] for pin in cachekit.pins()} >= {one.cid for one in registry().all()}
    assert cachekit.unpin(str(build.key_for("model-a", "shared weights", "only a")))
    cachekit.flush(60)
    assert {shared, only_a, only_b} & team.pinned == {shared, only_b}
    assert cachekit.unpin(build.key_for("model-b", "shared weights", "only b"))
    cachekit.flush(60)
    assert {shared, only_a, only_b} & team.pinned == set()
    assert [one.pinned for one in registry().all()] == [False, False]


def test_unpinned_before_it_was_sent(team: Team) -> None:
    """Nothing is pinned that nobody wants pinned any more, and who gets it from the team does not pin it either."""
    build("model-early", "text")
    key = build.key_for("model-early", "text")
    assert cachekit.unpin(key)
    cachekit.flush(60)
    (cid,) = cids("model-early")
    assert cid not in team.pinned
    build("model-late", "more text")
    cachekit.flush(60)
    assert cachekit.unpin(build.key_for("model-late", "more text"))
    cachekit.flush(60)
    with team.on("two"):
        cachekit.sync()
        build("model-early", "text"), build("model-late", "more text")
        assert [one.pinned for one in registry().all()] == [False, False]
    assert BUILT.count("model-early") == BUILT.count("model-late") == 1


def test_another_machine_unpins(team: Team) -> None:
    """The files go with the last reference, whichever machine took it off."""
    build("model-far", "far away")
    cachekit.flush(60)
    (cid,) = cids("model-far")
    assert cid in team.pinned
    with team.on("two"):
        cachekit.sync()
        assert cachekit.unpin(build.key_for("model-far", "far away"))
        cachekit.flush(60)
    assert cid not in team.pinned


def test_restore_fetches_no_more_than_it_may(team: Team) -> None:
    """An artifact over the limit is refused before a file is fetched; what is here is given whatever its size."""
    build("model-large", "far" * 1000)
    assert restore("model-large", limit=1).is_dir()
    cachekit.flush(60)
    with team.on("two"):
        with pytest.raises(TierError, match="CACHEKIT_SIZE_LIMIT") as raised:
            restore("model-large", limit=2999)
        assert raised.value.reason == "oversized"
        assert restore("model-large", limit=3000).is_dir()
        with pytest.raises(UsageError, match="limit"):
            restore("model-large", limit=-1)


def test_a_replaced_artifact_gives_up_its_files(team: Team) -> None:
    """Another result for the same key unpins the files that nothing has any more."""
    TEXTS[:] = ["first"]
    changing()
    cachekit.flush(60)
    (first,) = cids("changing")
    TEXTS[:] = ["second"]
    with cachekit.mode("refresh"):
        changing()
    cachekit.flush(60)
    key = str(changing.key_for())
    (second,) = (
        file.cid for one in registry().all() if str(one.key) == key and one.entry for file in one.manifest.files
    )
    assert second != first
    assert {first, second} & team.pinned == {second}


def test_a_flush_ends_in_time(team: Team) -> None:
    """An upload stops when its time is over, in the middle of a file; the artifact stays queued and is sent later."""
    ours = default().team
    assert ours is not None
    with ours.outbox.exclusive(Deadline(60)):  # nobody sends it behind our back
        build("model-late", "late" * 1_000_000)
        (item,) = ours.outbox.batch()
        with pytest.raises(TierError) as raised:
            ours.files.send(item, Deadline(0.0))
        assert raised.value.reason == "unfinished"
        assert ours.tier.pending() == 1
    cachekit.flush(60)
    assert ours.tier.pending() == 0
    assert set(cids("model-late")) <= team.pinned


# -- what goes when room is short ----------------------------------------------------------------------------------


def used(path: Path, hours: int) -> None:
    """As if the artifact was last used `hours` ago."""
    (note,) = [one for one in (path.parents[3] / "notes").glob("??/*.seen") if one.name.startswith(path.parent.name)]
    then = time.time() - 3600 * hours
    os.utime(note, (then, then))


def test_gc_drops_what_was_not_used_for_longest(own_cache: Path) -> None:
    """Over the limit: first what has no entry any more, then the longest unused; never what is pinned."""
    pinned = build("pinned", "p" * 100_000)
    old, young, orphan = (loose(name, name[0] * 100_000) for name in ("old", "young", "zeta"))
    default().drop(loose.key_for("zeta", "z" * 100_000))
    for path, hours in ((pinned, 9), (old, 5), (young, 3), (orphan, 1)):
        used(path, hours)
    assert default().artifacts is not None
    volume = default().artifacts.volume()  # type: ignore[union-attr]
    assert registry().trim(volume - 1) == 1
    assert [one.exists() for one in (pinned, old, young)] == [True, True, True]
    assert registry().find("zeta") is None
    assert registry().trim(volume - 150_000) == 1
    assert [one.exists() for one in (pinned, old, young)] == [True, False, True]
    with cachekit.configure(size_limit=1):
        assert cachekit.gc()["artifacts"] == 1
        assert pinned.exists()
        assert [one.manifest.name for one in registry().all()] == ["pinned"]
        assert cachekit.unpin(build.key_for("pinned", "p" * 100_000))
        assert cachekit.gc()["artifacts"] == 1
    assert own_cache.exists()


def test_gc_removes_what_a_dead_process_left(own_cache: Path) -> None:
    """A day after its owner died, a temporary is a leftover."""
    build("model-a", "x")
    left = own_cache / "artifacts" / "partial" / ("0" * 64)
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    os.utime(left, (1, 1))
    assert cachekit.gc()["leftovers"] >= 1
    assert not left.exists()


# -- interrupted -----------------------------------------------------------------------------------------------------


INTERRUPTED = """
import sys
from pathlib import Path
import cachekit
from cachekit import on_progress, persist_artifact

@persist_artifact(version="1")
def taken(path: Path) -> Path:
    return path

def told(progress):
    if progress.what in ("storing", "hashing") and progress.done > progress.total // 2:
        print("half", flush=True)
        sys.stdin.readline()

if "interrupt" in sys.argv:
    on_progress(told)
cachekit.configure(dir=sys.argv[1], ipfs="off")
big = Path(sys.argv[2])

print(taken(big).read_bytes() == big.read_bytes())
"""


def test_ctrl_c_leaves_nothing_broken(tmp_path: Path) -> None:
    """Interrupted while it is stored: no half artifact is a hit, the input is untouched, and the next run stores it."""
    big, cache = tmp_path / "big.bin", tmp_path / "cache of its own"
    big.write_bytes(os.urandom(1 << 20) * 8)
    program = tmp_path / "program.py"
    program.write_text(INTERRUPTED)
    command = [sys.executable, str(program), str(cache), str(big)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*command, "interrupt"], env=environ, stdin=pipe, stdout=pipe, stderr=pipe, preexec_fn=heed
    ) as child:
        assert child.stdout is not None
        while b"half" not in (line := child.stdout.readline()):
            assert line, "it ended before it was interrupted"
        child.send_signal(signal.SIGINT)
        error = child.communicate(timeout=60)[1]
    assert b"KeyboardInterrupt" in error
    with cachekit.configure(dir=cache):
        assert registry().all() == []
        assert [one for one in (cache / "artifacts").rglob("*") if one.is_file()] == []
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_an_interrupted_fetch_goes_on_where_it_stopped(team: Team) -> None:
    """Ctrl-C in the middle of a file (raised where it would be): nothing is visible, and no chunk is fetched again."""
    build("model-cut", "cut." * (2 << 20))
    cachekit.flush(60)
    begun: list[int] = []

    def interrupt(told: Progress) -> None:
        if told.what == "fetching" and told.done >= told.total // 2:
            raise KeyboardInterrupt

    with team.on("two"):
        remove = on_progress(interrupt)
        with pytest.raises(KeyboardInterrupt):
            restore("model-cut")
        remove()
        assert registry().all() == []
        remove = on_progress(lambda told: begun.append(told.done) if told.what == "fetching" else None)
        path = restore("model-cut")
        remove()
        assert (path / "0.bin").read_text() == "cut." * (2 << 20)
        assert begun[0] >= 3 << 20


def test_what_is_nowhere_is_said() -> None:
    """`restore` of what nobody has raises an error of ours that names it."""
    with pytest.raises(CachekitError, match="nowhere"):
        restore("nowhere")
