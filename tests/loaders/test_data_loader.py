"""torch's DataLoader: its forked and spawned workers call a decorated function of a program that has the cache open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loaders.conftest import ROOT, library

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300)]

SCRIPT = """
import sys, threading
from torch.utils.data import DataLoader, Dataset
import cachekit

@cachekit.distributed_cache
def feature(x):
    with open("log", "a") as log:
        log.write(f"{x}\\n")
    return x * x

class Squares(Dataset):
    def __len__(self):
        return 32
    def __getitem__(self, x):
        return feature(x % 8)

def read(how):
    loader = DataLoader(Squares(), batch_size=4, num_workers=2, multiprocessing_context=how)
    return [int(value) for batch in loader for value in batch]

if __name__ == "__main__":
    feature(0)
    over = threading.Event()
    def busy():
        while not over.wait(0.001):
            feature(1)
    thread = threading.Thread(target=busy)
    thread.start()
    values = [read(sys.argv[1]) for _ in range(2)]
    over.set()
    thread.join()
    assert values == [[(x % 8) ** 2 for x in range(32)]] * 2, values
    print(cachekit.stats().as_dict()["errors"])
"""


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_of_a_data_loader_share_the_cache(how: str, tmp_path: Path) -> None:
    """Right values twice over, each input paid for once on this machine, beside a thread that calls all the while."""
    library("torch")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "CACHEKIT_DIR": str(tmp_path / "cache"),
        "CACHEKIT_IPFS": "off",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "adapters")]),
    }
    done = subprocess.run(
        [sys.executable, "script.py", how], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"
    assert sorted((tmp_path / "log").read_text().split()) == [str(x) for x in range(8)]
