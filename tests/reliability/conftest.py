"""What the torture tests share: a small real model, a nursery, and albums of tiny pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.nursery import Nursery

if sys.platform == "win32":
    collect_ignore_glob = ["test_*.py"]  # fork, SIGKILL, mounts


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model of the smallest size, for all tests of this folder."""
    from reliability.album import write_model

    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return f"dir:{folder}"


@pytest.fixture(scope="session")
def nursery(small_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(small_model, tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What a test's random choices come from: its own number, or that of --torture-seed; printed on failure."""
    chosen: int = request.config.getoption("--torture-seed")
    print(f"--torture-seed {chosen}")
    return chosen


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path
