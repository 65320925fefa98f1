"""What `make demo` runs: one real function, answered by each place in turn.

`embed` runs a real model over the Python language reference. Every row of the table is a call of that function, the
last ones in processes that never loaded the model. Nothing outside a temporary directory is touched, except that Kubo
is installed where `cachekit node install` puts it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.client
import json
import os
import pydoc_data.topics
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import embeddings
import numpy as np

from cachekit import CachekitError, distributed_cache, flush, stats
from cachekit.cache.default import default
from cachekit.ipfs.node import daemon, install
from cachekit.ipfs.node.process import rpc
from cachekit.ipfs.node.team import NodeTeam, write_team

QUESTION = "How do I leave a loop early?"
TEAM = NodeTeam.found("/ip4/127.0.0.1/tcp/0", (), "demo")
PROMPT = "In one sentence: what is a content-addressed cache good for?"


@distributed_cache(ttl="1h")
def embed(texts: list[str], *, model: str = embeddings.MODEL) -> embeddings.Array:
    """The expensive function: seconds of computing."""
    return embeddings.load(model).encode(texts)


@distributed_cache(ttl="1h")
def complete(prompt: str, *, vendor: str, model: str) -> dict[str, Any]:
    """A paid call. The vendor's key is read from the environment in `ask`, so it is in no argument and no cache key."""
    return VENDORS[vendor].ask(prompt, model)


# -- the rows ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One call as its process saw it: `tier` answered within `seconds`, `digest` is of the value's bytes."""

    tier: str
    seconds: float
    digest: str
    note: str


def measured(function: Any, call: Callable[[], Any]) -> tuple[Row, Any]:
    before = stats(function).as_dict()["hits"]
    start = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - start
    after = stats(function).as_dict()["hits"]
    tier = next((name for name in after if after[name] > before.get(name, 0)), "origin")
    return Row(tier, seconds, digest(value), ""), value


def digest(value: Any) -> str:
    if isinstance(value, np.ndarray):
        raw = f"{value.dtype} {value.shape} ".encode() + value.tobytes()
    else:
        raw = json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(raw).hexdigest()


def chapters() -> list[str]:
    """The openings of the language reference's chapters, as this Python carries them."""
    topics = pydoc_data.topics.topics
    return [f"{name}: {' '.join(text.split())[:200]}" for name, text in sorted(topics.items())]


def child(job: str, calls: int) -> dict[str, Any]:
    """Make `calls` calls in this process and wait for what is to be shared."""
    if job == "listen":
        default()
        print("listening", flush=True)
        time.sleep(600)
    if "DEMO_WITHOUT_MODEL" in os.environ:
        sys.modules[embeddings.PACKAGES[embeddings.MODEL]] = None  # type: ignore[assignment]  # as Python itself says it
    rows = [*(embedded(calls) if job == "embed" else completed(job, calls))]
    try:
        flush(timeout=60)
    except CachekitError as error:
        return {"rows": rows, "flush": str(error)}
    return {"rows": rows, "flush": ""}


def embedded(calls: int) -> Iterator[dict[str, Any]]:
    texts = chapters()
    for _ in range(calls):
        row, vectors = measured(embed, lambda: embed([*texts, QUESTION]))
        nearest = texts[int(np.argmax(vectors[:-1] @ vectors[-1]))]
        yield {**vars(row), "note": nearest.partition(":")[0]}


def completed(vendor: str, calls: int) -> Iterator[dict[str, Any]]:
    for _ in range(calls):
        row, answer = measured(complete, lambda: complete(PROMPT, vendor=vendor, model=VENDORS[vendor].model))
        yield {**vars(row), "note": VENDORS[vendor].text(answer)}


# -- the demonstration ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """The temporary directory, where Kubo answers ("" where there is none), and which daemons that one knows.

    `has_model` is False for a machine on which it is not installed.
    """

    directory: Path
    api: str
    peers: str = ""
    name: str = "cache"
    has_model: bool = True

    @property
    def cache(self) -> Path:
        return self.directory / self.name

    def environment(self) -> dict[str, str]:
        # What the user has configured for their own cache must not decide what the demo shows.
        foreign = ("CACHEKIT_", "IPFS_KIT_DISABLE", "STORAGE_FORCE_LOCAL")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        ours = {"CACHEKIT_DIR": str(self.cache), "CACHEKIT_SECRET_FILE": str(self.directory / "credential")}
        ipfs = {"CACHEKIT_IPFS": "rw", "CACHEKIT_IPFS_API": self.api} if self.api else {"CACHEKIT_IPFS": "off"}
        if self.peers:
            ipfs |= {"CACHEKIT_PEERS": self.peers, "CACHEKIT_IPFS_TIMEOUT": "5"}
        if not self.has_model:
            ours["DEMO_WITHOUT_MODEL"] = "1"
        # OpenBLAS's threads spin for each other: on a busy machine two take six times as long as one.
        return {**kept, **ours, **ipfs, "OPENBLAS_NUM_THREADS": "1"}

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(), cwd=self.directory, stdout=subprocess.PIPE, text=True, check=True, timeout=600,
        )  # fmt: skip
        return done.stdout

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """While a process of this machine uses the cache, and so hears the others."""
        command = [sys.executable, __file__, "--child", "listen", "0"]
        with subprocess.Popen(command, env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                yield
            finally:
                child.terminate()

    def rows(self, job: str, calls: int = 1) -> list[Row]:
        """Make the calls in a new process. Raises Unavailable with what it said when the network failed."""
        answer = json.loads(self.run(__file__, "--child", job, str(calls)).splitlines()[-1])
        if "failed" in answer:
            raise Unavailable(answer["failed"])
        if answer["flush"]:
            print(f"  Not everything reached IPFS: {answer['flush']}")
        return [Row(**row) for row in answer["rows"]]


class Unavailable(Exception):
    """Something outside this machine did not answer."""


def demonstrate(stage: Stage) -> bool:
    """Print the tables; return whether every value equalled the first."""
    print(f"\n{len(chapters()) + 1} real texts, embedded by {embeddings.MODEL} (numpy, one thread):\n")
    table = Table()
    first, second = stage.rows("embed", 2)
    table.show("first call: the model computes", "origin", first)
    table.show("same process, second call", "memory", second)
    table.show("new process", "disk", *stage.rows("embed"))
    equal = table.equal & vendors(stage)
    print_stats(stage)
    if stage.api:
        shutil.rmtree(stage.cache)
        print(f"\n{stage.cache} and its counts are deleted; what is left is what the IPFS node holds (encrypted):\n")
        table.show("new process, empty cache directory", "ipfs", *stage.rows("embed"))
        print_stats(stage)
        second_node(stage, table)
    print(f"\n  “{QUESTION}” is closest to the chapter “{table.last.note}”: no row after the first ran the model.")
    print("  A new process pays for opening the cache as well; loading the model is part of no row but the first.")
    return equal & table.equal


def second_node(stage: Stage, table: Table) -> None:
    """Another machine of the team: a node and a cache directory of its own, and no model."""
    home = stage.directory / "second"
    try:
        api = start_node(home, quietly=True)
        first, second = (rpc(each, "id")["Addresses"][0] for each in (stage.api, api))
        other = Stage(stage.directory, api, first, "second-cache", has_model=False)
        with dataclasses.replace(stage, peers=second).listening():
            table.show("second node, model not installed", "ipfs", *other.rows("embed"))
    finally:
        daemon.stop(home)


def vendors(stage: Stage) -> bool:
    """The same with a paid completion, for every vendor whose key is set."""
    equal = True
    for name, vendor in VENDORS.items():
        if os.environ.get(vendor.key, "").strip():
            print(f"\nA completion by {name} ({vendor.model}):\n")
            equal &= completion(stage, name)
    return equal


def completion(stage: Stage, vendor: str) -> bool:
    table = Table()
    try:
        first, second = stage.rows(vendor, 2)
        table.show("first call: the vendor answers", "origin", first)
        table.show("same process, second call", "memory", second)
        table.show("new process", "disk", *stage.rows(vendor))
        print(f"\n  {first.note}")
    except Unavailable as error:
        print(f"  No completion: {vendor} did not answer as it should ({error}); check the key and the network.")
    return table.equal


class Table:
    """Rows as they happen, each compared with the first."""

    def __init__(self) -> None:
        self.equal = True
        self._rows: list[Row] = []

    @property
    def last(self) -> Row:
        return self._rows[-1]

    def show(self, what: str, expected: str, row: Row) -> None:
        if not self._rows:
            print(f"  {'':36}{'tier':8}{'latency':>12}{'faster':>12}  value")
        self._rows.append(row)
        same = row.digest == self._rows[0].digest
        self.equal &= same
        print(self._line(what, row, same))
        if row.tier != expected:
            print(f"  ({expected} was expected to answer; `cachekit doctor` says what keeps it from that.)")

    def _line(self, what: str, row: Row, same: bool) -> str:
        first = self._rows[0]
        faster = "" if row is first else f"{first.seconds / row.seconds:,.0f} x"
        value = "computed" if row is first else "identical" if same else "DIFFERENT"
        return f"  {what:36}{row.tier:8}{milliseconds(row.seconds):>12}{faster:>12}  {value}"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1000:.2f} ms"


def print_stats(stage: Stage) -> None:
    print("\n$ cachekit stats\n")
    try:
        print(stage.run("-m", "cachekit", "stats").rstrip())
    except subprocess.CalledProcessError as error:
        print(f"  `cachekit stats` ended with status {error.returncode}; what it said stands above.")


# -- the vendors ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vendor:
    """How one vendor is asked over plain HTTP. The variables `key`, `base` and `choice` hold its key, URL and model."""

    key: str
    base: str
    choice: str
    url: str
    path: str
    default: str
    headers: tuple[tuple[str, str], ...]
    found: Callable[[Any], Iterable[str]]

    @property
    def model(self) -> str:
        return os.environ.get(self.choice) or self.default

    def ask(self, prompt: str, model: str) -> dict[str, Any]:
        body = {"model": model, "max_tokens": 300, "messages": [{"role": "user", "content": prompt}]}
        url = (os.environ.get(self.base) or self.url).rstrip("/") + self.path
        headers = {"User-Agent": "cachekit-demo", "Content-Type": "application/json", **dict(self.headers)}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        # Unredirected: the key is never sent on to where a redirect points.
        request.add_unredirected_header("Authorization", f"Bearer {os.environ[self.key].strip()}")
        with urllib.request.urlopen(request, timeout=30) as response:
            answer: dict[str, Any] = json.load(response)
        # An answer without text is an error, and errors are not stored.
        self.text(answer)
        return answer

    def text(self, answer: dict[str, Any]) -> str:
        return " ".join(" ".join(self.found(answer)).split())


VENDORS = {
    "Groq": Vendor(
        "GROQ_API_KEY", "GROQ_BASE_URL", "GROQ_MODEL",
        "https://api.groq.com", "/openai/v1/chat/completions", "llama-3.1-8b-instant", (),
        lambda answer: [choice["message"]["content"] for choice in answer["choices"]],
    ),
    "Anthropic": Vendor(
        "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL",
        "https://api.anthropic.com", "/v1/messages", "claude-haiku-5-5", (("anthropic-version", "2026-10-21"),),
        lambda answer: [block["text"] for block in answer["content"] if block["type"] == "text"],
    ),
}  # fmt: skip


# -- the processes -------------------------------------------------------------------------------


def start_node(directory: Path, *, quietly: bool = False) -> str:
    """Start a node of the demo's team under `directory` and return its RPC address, "" where Kubo cannot be had."""
    if not quietly:
        print("Getting Kubo, the IPFS daemon (installed once; the first time it may take minutes) …", flush=True)
    try:
        write_team(directory, TEAM)
        kubo = install.install(install.data_dir(), report=lambda line: print(f"  {line}", flush=True))
        running = daemon.start(directory, binary=kubo.path)
    except CachekitError as error:
        print(f"  No IPFS in this demonstration, the local tiers alone: {error}")
        return ""
    if not quietly:
        print(f"  Kubo {running.version} runs as a private node: loopback only, own repository, a team of its own.")
    return running.api


def parent() -> int:
    # So that `finally` stops the node when make or a CI job is terminated.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="cachekit-demo-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        try:
            equal = demonstrate(Stage(directory, start_node(directory)))
        except subprocess.SubprocessError as error:
            print(f"\nThe demonstration ended early: {error} What its process said stands above.")
            return 1
        finally:
            daemon.stop(directory)
    if not equal:
        print("\nA served value DIFFERED from the computed one: please report this as a bug of cachekit.")
    return 0 if equal else 1


def main() -> int:
    if sys.argv[1:2] != ["--child"]:
        return parent()
    try:
        print(json.dumps(child(sys.argv[2], int(sys.argv[3]))))
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        if sys.argv[2] == "embed":
            raise
        # Only an OSError's text is shown: http.client quotes a malformed header, the key in it.
        said = f": {error}" if isinstance(error, OSError) else ""
        print(json.dumps({"failed": type(error).__name__ + said}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
