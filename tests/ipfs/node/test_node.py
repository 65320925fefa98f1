"""The private node, with a real Kubo. The release site is a scripted stand-in: the real one cannot be made to lie."""

from __future__ import annotations

import functools
import hashlib
import http.client
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stopping import stop

from cachekit.errors import UsageError
from cachekit.ipfs.kubo.answers import OLDEST, numbers
from cachekit.ipfs.node import daemon, install, process

PROGRAM = f"#!/bin/sh\necho {install.VERSION}\n".encode()


@pytest.fixture(scope="session")
def kubo() -> Path:
    return install.install(install.data_dir()).path


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    daemon.stop(tmp_path, timeout=3)


def bare(tmp_path: Path) -> dict[str, str]:
    """An environment with no program on PATH."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Kubo was installed before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


Publish = Callable[..., str]


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Publish]:
    """A scripted release site: publish(kind of member, its bytes, checksum or None for the true one) -> its URL."""
    root = tmp_path / "site"
    folder = root / "kubo" / f"v{install.VERSION}"
    folder.mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def put(kind: bytes = tarfile.REGTYPE, data: bytes = PROGRAM, checksum: str | None = None) -> str:
        name = f"kubo_v{install.VERSION}_{install._platform()}.tar.gz"
        with tarfile.open(folder / name, "w:gz") as tar:
            member = tarfile.TarInfo("kubo/ipfs")
            member.type, member.linkname = kind, "/bin/true"
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(data))
        true = hashlib.sha512((folder / name).read_bytes()).hexdigest()
        (folder / f"{name}.sha512").write_text(f"{checksum or true}  {name}\n")
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield put
    server.shutdown()
    server.server_close()
    thread.join()


# -- install -----------------------------------------------------------------------------------


def test_installed_kubo_runs(kubo: Path) -> None:
    """What install returns is a Kubo that runs."""
    said = subprocess.run([kubo, "version", "-n"], capture_output=True, text=True, check=True)
    assert numbers(said.stdout) >= OLDEST


@pytest.mark.usefixtures("empty_cache")
def test_recent_ipfs_on_path_is_used(tmp_path: Path) -> None:
    """An `ipfs` on PATH that is recent enough is used as it is."""
    environ = bare(tmp_path)
    program(tmp_path / "bin" / "ipfs", "#!/bin/sh\necho 0.41.2\n")
    assert install.install(tmp_path, environ=environ) == install.Installed(tmp_path / "bin" / "ipfs", "0.41.2", "path")


@pytest.mark.usefixtures("empty_cache")
def test_old_ipfs_on_path_is_passed_over(tmp_path: Path, publish: Publish) -> None:
    """An `ipfs` on PATH that is too old is not used."""
    environ = bare(tmp_path)
    program(tmp_path / "bin" / "ipfs", "#!/bin/sh\necho 0.29.0\n")
    assert install.install(tmp_path, environ=environ, dist=publish()).how == "downloaded"


@pytest.mark.usefixtures("empty_cache")
def test_download_is_installed_once(tmp_path: Path, publish: Publish) -> None:
    """A downloaded release lands in the cache directory with its sha256, and a second install finds it there."""
    first = install.install(tmp_path, environ=bare(tmp_path), dist=publish())
    second = install.install(tmp_path, environ=bare(tmp_path), dist="http://127.0.0.1:9")
    assert first.path == second.path == tmp_path / "cache" / "cachekit" / "kubo" / install.VERSION / "ipfs"
    assert (first.how, second.how) == ("downloaded", "installed")
    assert first.path.with_name("ipfs.sha256").read_text().startswith(hashlib.sha256(PROGRAM).hexdigest())


@pytest.mark.usefixtures("empty_cache")
def test_altered_binary_is_replaced(tmp_path: Path, publish: Publish) -> None:
    """A binary that no longer has its recorded sha256 is not used."""
    site = publish()
    path = install.install(tmp_path, environ=bare(tmp_path), dist=site).path
    path.write_bytes(PROGRAM + b"# altered\n")
    assert install.install(tmp_path, environ=bare(tmp_path), dist=site).how == "downloaded"
    assert path.read_bytes() == PROGRAM


@pytest.mark.usefixtures("empty_cache")
def test_touched_binary_is_hashed_again(tmp_path: Path, publish: Publish) -> None:
    """A binary with other times but the same bytes (a restored CI cache) is still used."""
    path = install.install(tmp_path, environ=bare(tmp_path), dist=publish()).path
    os.utime(path, (1, 1))
    assert install.install(tmp_path, environ=bare(tmp_path), dist="http://127.0.0.1:9").how == "installed"


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"checksum": "0" * 128}, "published sha512"),
        ({"kind": tarfile.SYMTYPE}, "not a plain file"),
        ({"data": b"#!/bin/sh\necho 0.1.0\n"}, "version 0.1.0"),
    ],
)
def test_bad_download_is_refused(tmp_path: Path, publish: Publish, lie: dict[str, object], reason: str) -> None:
    """A wrong checksum, a link in place of the program or another version is refused, and nothing is left behind."""
    with pytest.raises(UsageError, match=reason):
        install.install(tmp_path, environ=bare(tmp_path), dist=publish(**lie))
    assert os.listdir(tmp_path / "cache" / "cachekit" / "kubo" / install.VERSION) == ["lock"]


@pytest.mark.usefixtures("empty_cache")
def test_failure_names_the_remedy(tmp_path: Path) -> None:
    """With no way to get Kubo the error says what to do, and each way's failure was reported."""
    lines: list[str] = []
    with pytest.raises(UsageError, match="or install Go"):
        install.install(tmp_path, report=lines.append, environ=bare(tmp_path), dist="http://127.0.0.1:9")
    assert any(line.startswith("not downloaded") for line in lines)
    assert any(line.startswith("not built: there is no Go") for line in lines)


@pytest.mark.usefixtures("empty_cache")
@pytest.mark.build
@pytest.mark.timeout(1800)
def test_built_with_go(tmp_path: Path) -> None:
    """Where the release site is out of reach, Kubo is built with Go."""
    assert install.install(tmp_path, dist="http://127.0.0.1:9").how == "built"


# -- start, status, stop -----------------------------------------------------------------------


def ask(api: str, call: str) -> object:
    _, _, host, _, port = api.split("/")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("POST", f"/api/v0/{call}")
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_never_started(home: Path) -> None:
    """The status of a node that was never started says so and creates nothing."""
    now = daemon.status(home)
    assert (now.running, now.pid, now.api) == (False, 0, "")
    assert "never started" in now.reason
    assert not list(home.iterdir())


def test_start_status_stop(home: Path, kubo: Path) -> None:
    """A started node answers on loopback; status agrees; after stop its process is gone."""
    started = daemon.start(home, binary=kubo)
    assert started.running and started.api.startswith("/ip4/127.0.0.1/tcp/")
    assert daemon.status(home) == started
    assert not daemon.stop(home).running
    assert process.command_line(started.pid).strip() == ""


def test_start_of_a_running_node(home: Path, kubo: Path) -> None:
    """Starting a running node returns the status of that node."""
    assert daemon.start(home, binary=kubo) == daemon.start(home, binary=kubo)


def test_stop_of_a_stopped_node(home: Path, kubo: Path) -> None:
    """Stopping twice is stopping once."""
    daemon.start(home, binary=kubo)
    assert daemon.stop(home) == daemon.stop(home)


def test_identity_outlives_a_restart(home: Path, kubo: Path) -> None:
    """A restarted node uses the repository it had."""
    identities = []
    for _ in range(2):
        answer = ask(daemon.start(home, binary=kubo).api, "id")
        assert isinstance(answer, dict)
        identities.append(answer["ID"])
        daemon.stop(home)
    assert identities[0] == identities[1]


def test_talks_to_nobody(home: Path, kubo: Path) -> None:
    """The running node has no peers, no routing, no gateway and listens on loopback only."""
    started = daemon.start(home, binary=kubo)
    config = json.loads((started.repo / "config").read_text())
    assert config["Bootstrap"] == [] and config["Routing"]["Type"] == "none"
    assert ask(started.api, "swarm/peers") in ({"Peers": None}, {"Peers": []}, {})
    listening = ask(started.api, "swarm/addrs/listen")
    assert isinstance(listening, dict)
    assert all(address.startswith("/ip4/127.0.0.1/") for address in listening["Strings"])
    assert not (started.repo / "gateway").exists()


def test_unix_socket(home: Path, kubo: Path) -> None:
    """With `socket` the RPC answers on a socket in the node's own directory."""
    started = daemon.start(home, binary=kubo, socket=True)
    assert started.running and started.api == f"/unix{home}/node/api.sock"


def test_too_long_socket_path(home: Path, kubo: Path) -> None:
    """A socket path the system cannot hold is refused before anything is started."""
    with pytest.raises(UsageError, match="too long"):
        daemon.start(home / ("d" * 120), binary=kubo, socket=True)


def test_relative_data_directory(home: Path, kubo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative data directory means the same node as its absolute path."""
    monkeypatch.chdir(home.parent)
    assert daemon.start(Path(home.name), binary=kubo) == daemon.status(home)


def test_concurrent_starts(home: Path, kubo: Path) -> None:
    """Several processes that start the node at once get one daemon."""
    code = (
        "import sys; from pathlib import Path; from cachekit.ipfs.node import daemon;"
        "print(daemon.start(Path(sys.argv[1]), binary=Path(sys.argv[2]), timeout=60).pid)"
    )
    command = [sys.executable, "-c", code, str(home), str(kubo)]
    environ = {**os.environ, "PYTHONPATH": str(Path(daemon.__file__).parents[3])}
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) for _ in range(4)]
    pids = {racer.communicate()[0].strip() for racer in racers}
    assert pids == {str(daemon.status(home).pid)}


def test_restart_after_a_kill(home: Path, kubo: Path) -> None:
    """A killed daemon, whose `api`, pid and lock files stay behind, is not running and can be started again."""
    first = daemon.start(home, binary=kubo)
    os.kill(first.pid, signal.SIGKILL)
    while process.own_pid(home / "node"):
        pass
    assert (first.repo / "api").exists() and not daemon.status(home).running
    assert daemon.start(home, binary=kubo).pid != first.pid


def test_foreign_pid_is_left_alone(home: Path, kubo: Path) -> None:
    """A stale pid file that names somebody else's process does not get that process killed."""
    daemon.start(home, binary=kubo)
    daemon.stop(home)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        (home / "node" / "pid").write_text(str(bystander.pid))
        daemon.stop(home)
        assert bystander.poll() is None
        bystander.kill()


def test_another_node_at_the_old_port(home: Path, kubo: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A leftover `api` file whose port another node has now does not pass for ours, nor does stop reach that node."""
    other = tmp_path_factory.mktemp("other")
    theirs = daemon.start(other, binary=kubo)
    try:
        daemon.start(home, binary=kubo)
        daemon.stop(home)
        (home / "node" / "repo" / "api").write_text(theirs.api)
        assert not daemon.status(home).running
        daemon.stop(home)
        assert daemon.status(other).running
    finally:
        daemon.stop(other)


def test_hung_daemon_is_stopped(home: Path, kubo: Path) -> None:
    """A daemon that no longer reacts is not running, and stop ends it all the same."""
    started = daemon.start(home, binary=kubo)
    stop(started.pid)
    now = daemon.status(home)
    assert not now.running and now.pid == started.pid and "does not answer" in now.reason
    daemon.stop(home, timeout=0.5)
    assert process.own_pid(home / "node") == 0


def test_lost_pid_file(home: Path, kubo: Path) -> None:
    """A running node whose pid file was lost is still seen, and stopped through its RPC."""
    daemon.start(home, binary=kubo)
    (home / "node" / "pid").unlink()
    assert daemon.status(home).running
    assert not daemon.stop(home).running


def test_program_that_is_no_kubo(home: Path) -> None:
    """A binary that cannot do what Kubo does is refused with its words, and leaves no half repository."""
    program(home / "no", "#!/bin/sh\necho not me >&2\nexit 1\n")
    with pytest.raises(UsageError, match="not me"):
        daemon.start(home, binary=home / "no")
    assert os.listdir(home / "node") == ["lock"]


def test_daemon_that_dies_while_starting(home: Path, kubo: Path) -> None:
    """A daemon that ends while starting is reported with its last words, and no pid stays recorded."""
    daemon.start(home, binary=kubo)
    daemon.stop(home)
    (home / "node" / "repo" / "datastore_spec").write_text("{}")
    with pytest.raises(UsageError, match="ended while starting"):
        daemon.start(home, binary=kubo)
    assert not (home / "node" / "pid").exists()
