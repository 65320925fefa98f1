"""Decorated functions in Ray's workers. Here, because Ray is too heavy for the environment of the other tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import workers

from loaders.conftest import library

pytestmark = [pytest.mark.loaders, pytest.mark.timeout(300)]


def test_a_scripts_functions_hit_in_the_workers_of_ray(tmp_path: Path) -> None:
    """What Ray's own copy of cloudpickle sends is decorated there too, and has the same key as here."""
    library("ray")
    workers.check(workers.run("ray", tmp_path))
