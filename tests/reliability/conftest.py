"""What the torture tests share: a small real model, a nursery, a disk that fails; and where the fault corpus is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.nursery import Nursery

from reliability import disk

if sys.platform == "win32":
    collect_ignore = [f"test_{name}.py" for name in ("company", "failing_disk", "kill", "power", "stateful")]
    # they fork, kill and mount


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a model of the smallest size, for all tests of this folder."""
    from reliability.album import write_model

    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return f"dir:{folder}"


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[disk.FailingDisk | None]:
    with disk.failing_disk(tmp_path_factory.mktemp("failing_disk")) as made:
        yield made


@pytest.fixture(scope="session")
def nursery(
    small_model: str, failing_disk: disk.FailingDisk | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Nursery]:
    """Where the children of all tests of this folder come from; their disk does not fail unless it is told to."""
    environment = failing_disk.environment if failing_disk else {}
    made = Nursery(small_model, tmp_path_factory.mktemp("nursery"), environment)
    yield made
    made.close()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """What a test's random choices come from: its own number, or that of --torture-seed; printed on failure."""
    chosen: int = request.config.getoption("--torture-seed")
    print(f"--torture-seed {chosen}")
    return chosen


@pytest.fixture
def part(request: pytest.FixtureRequest) -> float:
    """Which part of a long run's trials to make, by --torture-part; all unless it says otherwise."""
    chosen: float = request.config.getoption("--torture-part")
    return chosen


@pytest.fixture(scope="session")
def faults() -> Path:
    """The folder that SEARCH_FAULTS names: files that broke image decoders, with FILES.tsv beside them."""
    folder = os.environ.get("SEARCH_FAULTS")
    if not folder:
        pytest.skip("set SEARCH_FAULTS to a folder of damaged and odd image files, with FILES.tsv")
    assert Path(folder, "FILES.tsv").is_file(), f"there is no FILES.tsv in {folder}"
    return Path(folder)
