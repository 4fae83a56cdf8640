"""These tests start clusters and servers, on loopback alone: `make test-scale` gives them a network of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import switch_loopback_on

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True, scope="session")
def loopback() -> None:
    switch_loopback_on()


@pytest.fixture(autouse=True, scope="session")
def patient_ray() -> Iterator[None]:
    """Workers are given what is left of a busy machine, and their start may take long there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
        yield
