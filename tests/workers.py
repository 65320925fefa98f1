"""A script whose decorated functions are called by the workers of a real pool, and what it saw of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent

SCRIPT = """
import contextlib, dataclasses, enum, json, os, sys
from cachekit import distributed_cache

HOW, LOG = sys.argv[1], sys.argv[2]
P = {"system": "Summarise"}

class Kind(enum.Enum):
    A = ("a", 1)

@dataclasses.dataclass
class Answer:
    n: "int"
    words: "list[str]"

class Base:
    FACTOR = 3
    def by(self):
        return self.FACTOR

class Model(Base):
    def run(self, x):
        return self.by() * x

def noted(text):
    with open(LOG, "a") as log:
        log.write(text + "\\n")

def helper(x):
    return x + len(P["system"]) + Kind.A.value[1]

@distributed_cache(ttl="7d", ignore="unused")
def paid(x, unused=0) -> "Answer":
    noted(f"paid{x}")
    return Answer(helper(x) + Model().run(x), ["a"])

@distributed_cache
def countdown(n):
    noted(f"down{n}")
    return n and countdown(n - 1)

@dataclasses.dataclass(frozen=True)
class Scale:
    by: int
    @distributed_cache
    def method(self, x):
        noted(f"method{x}")
        return self.by * x
    @distributed_cache
    @classmethod
    def of_class(cls, x):
        noted(f"class{x}")
        return cls.__name__ + str(x)

def seen(x):
    return [os.getpid() != int(os.environ["PARENT"]), str(paid.key_for(x)), paid.peek(x) is not None and paid.peek(x).n]

def ask(call, x):
    return call(x)

POOLS = {}

def pool(function):
    POOLS[function.__name__] = contextlib.contextmanager(function)
    return function

@pool
def loky():
    from joblib import Parallel, delayed
    yield lambda function, values: Parallel(n_jobs=2)(delayed(function)(x) for x in values)

@pool
def dask():
    from dask.distributed import Client
    with Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as client:
        yield lambda function, values: client.gather([client.submit(function, x, pure=False) for x in values])

@pool
def ray():
    import ray
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    remote = ray.remote(ask)
    yield lambda function, values: ray.get([remote.remote(function, x) for x in values])
    ray.shutdown()

@pool
def executor():
    import concurrent.futures, multiprocessing
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(sys.argv[3])) as made:
        yield lambda function, values: list(made.map(function, values))

def main():
    os.environ["PARENT"] = str(os.getpid())
    key, jobs = str(paid.key_for(1)), [1, 2] * 3
    with POOLS[HOW]() as run:
        answers = [a.n for a in run(paid, jobs)]
        there, = run(seen, [1])
        others = [run(f, jobs) for f in (countdown, Scale(3).method, Scale.of_class)]
    calls = sorted(open(LOG).read().split())
    print(json.dumps({"answers": answers, "others": others, "calls": calls, "elsewhere": there[0],
                      "same_key": there[1] == key, "there": there[2], "here": paid.peek(2).n}))

if __name__ == "__main__":
    main()
"""


class Seen(NamedTuple):
    """The script's report, and what was written to stderr."""

    report: dict[str, Any]
    errors: str


def run(how: str, place: Path, *arguments: str, script: str = SCRIPT, python: str = sys.executable) -> Seen:
    """Runs the script in `place`, with a cache of its own, by the pool `how`."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "script.py").write_text(script, encoding="utf-8")
    environ = {
        **os.environ,
        "CACHEKIT_DIR": str(place / "cache"),
        "CACHEKIT_IPFS": "off",
        "XDG_CONFIG_HOME": str(place / "config"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [python, str(place / "script.py"), how, str(place / "log"), *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100, cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    return Seen(json.loads(done.stdout.splitlines()[-1]), done.stderr)


def check(seen: Seen) -> None:
    """Each call was paid for once on this machine, and every process has the same key for it."""
    report = seen.report
    assert report["answers"] == [14, 18] * 3
    assert report["others"] == [[0, 0] * 3, [3, 6] * 3, ["Scale1", "Scale2"] * 3]
    assert report["calls"] == sorted(
        [*("paid1", "paid2"), *("down0", "down1", "down2"), *("method1", "method2"), *("class1", "class2")]
    )
    assert report["elsewhere"]
    assert report["same_key"]
    assert (report["there"], report["here"]) == (14, 18)
    assert "Warning" not in seen.errors, seen.errors
