"""The private node as a service, with a real Kubo: kept running, ended, restarted, given up, and told of."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from stopping import heed, stop

from cachekit.errors import TierError, UsageError
from cachekit.ipfs.content.cids import binary_cid, raw_cid
from cachekit.ipfs.kubo.transport import KuboTransport
from cachekit.ipfs.node import daemon, install, process, repo
from cachekit.ipfs.node.serve import Keeper, Pace

ROOT = Path(__file__).parents[3]
KEPT, LOOSE = bytes(1 << 19), bytes([1]) * (1 << 20)
QUICK = Pace(look=0.01, first=0.01, longest=0.04, tries=5)
Wanted = Callable[[], bool]


@pytest.fixture(scope="session")
def kubo() -> Path:
    return install.install(install.data_dir()).path


def until(condition: Wanted, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        assert process is None or process.poll() is None, "the service ended"
        time.sleep(0.05)


class Service:
    """`cachekit node serve` in a process of its own, and what its endpoint answers."""

    def __init__(self, home: Path, kubo: Path, *options: str, **environ: str) -> None:
        self.home = home
        (home / "bin").mkdir(exist_ok=True)
        (home / "bin" / "ipfs").unlink(missing_ok=True)
        (home / "bin" / "ipfs").symlink_to(kubo)
        self.data = home / "data" / "cachekit"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CACHEKIT_", "XDG_"))}
        self.environ = {
            **kept, "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "CACHEKIT_DIR": str(home / "cache"),
            "PYTHONPATH": str(ROOT), "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", **environ,
        }  # fmt: skip
        command = [sys.executable, "-m", "cachekit", "node", "serve", "--metrics", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(
            command,
            env=self.environ,
            cwd=home,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed,
        )
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: any("metrics at" in line for line in self.said) or self.process.poll() is not None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)

    def command(self, *words: str) -> str:
        """What another `cachekit` of the same home prints."""
        command = [sys.executable, "-m", "cachekit", *words]
        done = subprocess.run(command, env=self.environ, cwd=self.home, text=True, capture_output=True, timeout=90)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ask(self, path: str) -> tuple[int, str]:
        url = next(line for line in self.said if "metrics at" in line).split()[-1]
        connection = http.client.HTTPConnection(url.split("/")[2], timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    def health(self) -> tuple[int, dict[str, Any]]:
        status, text = self.ask("/healthz")
        return status, json.loads(text)

    def samples(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        return {sample.name: sample.value for family in families for sample in family.samples}

    def well(self) -> bool:
        return self.health()[0] == 200

    def up(self) -> Service:
        until(self.well, self.process)
        return self

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.over()

    def over(self) -> int:
        status = self.process.wait(60)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return status


@pytest.fixture
def serving(tmp_path: Path, kubo: Path) -> Iterator[Callable[..., Service]]:
    """Starts services in one home; each ends with the test."""
    begun: list[Service] = []

    def begin(*options: str, **environ: str) -> Service:
        begun.append(Service(tmp_path, kubo, *options, **environ))
        return begun[-1]

    yield begin
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
            one.over()
    daemon.stop(tmp_path / "data" / "cachekit", timeout=3)


# -- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_runs_until_it_is_told(serving: Callable[..., Service], number: signal.Signals) -> None:
    """The node answers while the service runs; told to end it ends the node, and its status is 0."""
    service = serving().up()
    assert daemon.status(service.data).running and service.samples()["cachekit_node_up"] == 1
    assert service.end(number) == 0
    assert not daemon.status(service.data).running and not process.own_pid(service.data / "node")


def test_a_node_that_ran_before_runs_on(serving: Callable[..., Service], tmp_path: Path, kubo: Path) -> None:
    """A node that somebody else started is watched, and left running."""
    started = daemon.start(tmp_path / "data" / "cachekit", binary=kubo, timeout=60)
    service = serving().up()
    assert any("it ran before" in line for line in service.said)
    assert service.end() == 0
    assert daemon.status(service.data).pid == started.pid


def test_a_killed_node_is_started_again(serving: Callable[..., Service]) -> None:
    """A node that died is back by itself, which is counted and said."""
    service = serving().up()
    before = daemon.status(service.data).pid
    os.kill(before, signal.SIGKILL)
    until(lambda: service.health()[1]["restarts"] == 1 and service.well(), service.process)
    assert daemon.status(service.data).pid != before and service.samples()["cachekit_node_restarts_total"] == 1
    assert any("the node ended; starting it again" in line for line in service.said)
    assert service.end() == 0


def test_a_hung_node_is_not_well(serving: Callable[..., Service]) -> None:
    """Of a node that does not answer /healthz says so with 503, and /metrics still answers."""
    service = serving().up()
    pid = daemon.status(service.data).pid
    stop(pid)
    until(lambda: not service.well(), service.process)
    status, said = service.health()
    assert status == 503 and said["status"] == "unavailable" and "does not answer" in said["reason"]
    assert service.samples()["cachekit_node_up"] == 0
    os.kill(pid, signal.SIGCONT)
    assert service.up().end() == 0


def test_what_cannot_be_begun_ends_at_once(serving: Callable[..., Service], tmp_path: Path) -> None:
    """A data directory in which no node can be is the user's to change: status 2, and one sentence."""
    (tmp_path / "data" / "cachekit").mkdir(parents=True)
    (tmp_path / "data" / "cachekit" / "node").mkdir()
    (tmp_path / "data" / "cachekit" / "node" / "repo").mkdir()
    (tmp_path / "data" / "cachekit" / "node" / "repo" / "config").write_text("no configuration")
    service = serving()
    assert service.over() == 2
    assert "move" in service.said[-1] and not any("Traceback" in line for line in service.said)


def test_the_service_manager_is_told(serving: Callable[..., Service], tmp_path: Path) -> None:
    """systemd hears READY=1 once the node answers, and STOPPING=1 when it is to end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        service = serving(NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(99) == b"READY=1"
        assert daemon.status(service.data).running
        assert service.end() == 0
        assert manager.recv(99) == b"STOPPING=1"


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="there is no /proc")
def test_the_node_inherits_no_secret(serving: Callable[..., Service]) -> None:
    """Kubo's process, which others of the user may look into, has no credential in its environment."""
    service = serving(CACHEKIT_SECRET="ck1.none").up()
    environ = Path(f"/proc/{daemon.status(service.data).pid}/environ").read_bytes()
    assert b"CACHEKIT_" not in environ and b"IPFS_PATH" in environ
    assert service.end() == 0


def test_options_reach_the_node(serving: Callable[..., Service], tmp_path: Path) -> None:
    """The socket stands where it was asked for, and the quota is the node's."""
    service = serving("--socket", str(tmp_path / "api.sock"), "--storage-max", "3GB").up()
    assert daemon.status(service.data).api == f"/unix{tmp_path}/api.sock"
    assert stat.S_IMODE((tmp_path / "api.sock").stat().st_mode) == 0o660
    assert service.samples()["cachekit_node_storage_max_bytes"] == 3_000_000_000
    assert "--enable-gc" in process.command_line(daemon.status(service.data).pid)
    assert service.end() == 0


@pytest.mark.parametrize("option", [("--metrics", "nowhere"), ("--storage-max", "much"), ("--storage-max", "0")])
def test_options_that_are_none(serving: Callable[..., Service], option: tuple[str, str]) -> None:
    """A place or a size that cannot be read is said before anything is started."""
    service = serving(*option)
    assert service.over() == 2 and not (service.data / "node").exists()


def test_a_machine_that_joins_a_team_is_served_so(serving: Callable[..., Service], tmp_path: Path, kubo: Path) -> None:
    """After `node join` the service, started again, has a node of the team at its own socket."""
    (tmp_path / "founder").mkdir()
    founder = Service(tmp_path / "founder", kubo).up()
    try:
        token = founder.command("node", "invite", "--address", "127.0.0.1")
        socket_of = ("--socket", str(tmp_path / "api.sock"))
        first = serving(*socket_of).up()
        first.command("node", "join", token)
        assert first.end() == 0 and not daemon.status(first.data).running
        service = serving(*socket_of).up()
        assert daemon.status(service.data).api == f"/unix{tmp_path}/api.sock"
        until(lambda: service.samples()["cachekit_node_peers"] == 1, service.process)
        assert service.end() == 0
    finally:
        assert founder.end() == 0


# -- restarting ----------------------------------------------------------------------------------


def failing(reasons: Iterator[str]) -> Callable[[], daemon.NodeStatus]:
    def launch() -> daemon.NodeStatus:
        raise UsageError(next(reasons))

    return launch


def test_a_node_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    """After so many failures in a row it is over, with the last reason; the pauses grow up to a bound."""
    said: list[str] = []
    keeper = Keeper(tmp_path, failing(f"reason {n}" for n in itertools.count(1)), said.append, QUICK)
    with pytest.raises(TierError, match="reason 5; given up after 5 times"):
        keeper.keep(threading.Event())
    assert [line.split(" in ")[-1] for line in said] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s", "0.04 s"]


def test_a_node_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    """Coming up is not enough: a node that ends each time it was started is given up too."""
    dead = daemon.NodeStatus(True, "", "0.43.0", 0, tmp_path, "answers")
    keeper = Keeper(tmp_path, lambda: dead, lambda _line: None, QUICK)
    with pytest.raises(TierError, match="the node ended; given up"):
        keeper.keep(threading.Event())
    assert keeper.restarts == QUICK.tries


def test_a_node_that_ran_long_enough_begins_a_new_row(tmp_path: Path) -> None:
    """Ends that lie far apart are not counted together."""
    ended = threading.Event()
    starts = iter(range(2 * QUICK.tries))

    def launch() -> daemon.NodeStatus:
        if next(starts, None) is None:
            ended.set()
        return daemon.NodeStatus(True, "", "0.43.0", 0, tmp_path, "answers")

    Keeper(tmp_path, launch, lambda _line: None, Pace(0.01, 0.01, 0.01, QUICK.tries, settled=0.0)).keep(ended)


def test_a_pause_ends_when_it_is_told(tmp_path: Path) -> None:
    """Nobody waits for a pause to pass: told to end, the service ends."""
    ended = threading.Event()
    keeper = Keeper(tmp_path, failing(itertools.repeat("no")), lambda _line: ended.set(), Pace(0.01, first=3600.0))
    keeper.keep(ended)
    assert keeper.health()[1] == "the node ended"


# -- upgrades, sockets and quotas --------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    daemon.stop(tmp_path / "home", timeout=3)


def test_a_repository_of_an_earlier_kubo(home: Path, kubo: Path) -> None:
    """What an earlier Kubo laid out is migrated at the start; nobody has to say yes."""
    identity = process.rpc(daemon.start(home, binary=kubo, timeout=60).api, "id")["ID"]
    daemon.stop(home)
    version = home / "node" / "repo" / "version"
    today = version.read_text()
    version.write_text(f"{int(today) - 1}\n")
    assert process.rpc(daemon.start(home, binary=kubo, timeout=60).api, "id")["ID"] == identity
    assert version.read_text().strip() == today.strip()


def test_a_socket_that_was_left_behind(home: Path, tmp_path: Path, kubo: Path) -> None:
    """What a killed daemon left at the path is taken away for the next one."""
    path = tmp_path / "left.sock"
    os.kill(daemon.start(home, binary=kubo, socket=path, timeout=60).pid, signal.SIGKILL)
    until(lambda: not process.own_pid(home / "node"))
    assert path.is_socket()
    assert daemon.start(home, binary=kubo, socket=path, timeout=60).running


def test_a_socket_of_somebody_else(home: Path, tmp_path: Path, kubo: Path) -> None:
    """Where another program listens, and where a file stands, nothing is taken away."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "theirs.sock"))
        other.listen()
        with pytest.raises(UsageError, match="somebody else's"):
            daemon.start(home, binary=kubo, socket=tmp_path / "theirs.sock")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="somebody else's"):
        daemon.start(home, binary=kubo, socket=tmp_path / "file")
    assert (tmp_path / "theirs.sock").is_socket() and (tmp_path / "file").read_text() == "mine"


def test_a_quota_collects_what_is_not_pinned(home: Path, kubo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over its quota the node lets go of blocks by itself, and never of pinned ones."""
    monkeypatch.setattr(repo, "GC_PERIOD", "1s")
    started = daemon.start(home, binary=kubo, storage_max=1 << 20, timeout=60)
    transport = KuboTransport(started.api)
    kept, loose = raw_cid(KEPT), raw_cid(LOOSE)
    transport.import_blocks([(binary_cid(kept), KEPT)], timeout=30)
    transport.pin(kept, "cachekit/test", timeout=30)
    transport.import_blocks([(binary_cid(loose), LOOSE)], timeout=30)
    until(lambda: transport.block_get(loose, timeout=10) is None)
    assert transport.block_get(kept, timeout=10) == KEPT
    transport.close()
