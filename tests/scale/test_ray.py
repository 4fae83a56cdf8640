from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import scale_tasks

from search.engines import LocalEngine, RayEngine, RayOptions
from search.errors import SearchError
from search.photos.scan import scan
from search.shards import Failure, Job, encode_all, plan
from search.shards.run import ShardOptions
from search.types import SkipReason

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not find_spec("ray"), reason="Ray is not installed")]

HALF = RayOptions(cpus=(os.cpu_count() or 2) / 2)


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with RayEngine(HALF) as engine:
        yield engine


@pytest.fixture
def job(tmp_path: Path, builtin) -> Job:
    return Job("builtin", builtin.fingerprint, str(tmp_path / "shards"), "as ever", workers=1, offline=True)


def test_a_library_is_indexed_by_workers(engine, album, library, counting, tmp_path):
    (album / "broken.png").write_bytes(b"none")
    before = signal.getsignal(signal.SIGTERM)
    shards = ShardOptions(engine, str(tmp_path / "shards"), size=5)
    report = library.index([album], shards=shards)
    assert (report.added, report.encoded, [Path(skip.path).name for skip in report.skipped]) == (
        *(12, 12),
        ["broken.png"],
    )
    assert counting.images == 0  # none here
    assert library.index([album], shards=shards).unchanged == 12
    assert signal.getsignal(signal.SIGTERM) == before
    assert library.check(full=True).ok


def test_ray_listens_on_loopback_alone(engine, album, job):
    list(engine.run(functools.partial(scale_tasks.failing, of=""), plan(scan(str(album)), job)))
    doors = [
        connection.laddr.ip
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(doors) > 2
    assert set(doors) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_the_file_that_workers_die_of_is_left_out_alone(engine, album, job, tmp_path):
    deaths = tmp_path / "deaths"
    task = functools.partial(scale_tasks.deadly, job=job, poison="photo07.png", deaths=str(deaths))
    receipts = list(encode_all(plan(scan(str(album)), job, size=6), engine, job, task=task))
    assert sum(receipt.rows for receipt in receipts) == 11
    (skip,) = [skip for receipt in receipts for skip in receipt.skipped]
    assert (Path(skip.path).name, skip.reason) == ("photo07.png", SkipReason.QUARANTINED)
    assert sorted(map(int, deaths.read_text().split()), reverse=True)[:4] == [6, 6, 6, 3]
    assert deaths.read_text().split()[-2:] == ["1", "1"]


def test_a_worker_that_lacks_what_it_needs_has_not_died(engine, album, job, monkeypatch):
    here_alone = types.ModuleType("here_alone")
    exec("def task(shard): pass", here_alone.__dict__)
    monkeypatch.setitem(sys.modules, "here_alone", here_alone)
    (outcome,) = engine.run(here_alone.task, plan(scan(str(album)), job), retries=0)
    assert isinstance(outcome, Failure)
    assert not outcome.died
    assert "here_alone" in outcome.reason


def test_a_task_that_never_ends_is_given_up(album, job, engine):
    engine.run(functools.partial(scale_tasks.failing, of=""), [])  # it has begun
    impatient = RayEngine(RayOptions(cpus=HALF.cpus, stall_s=5))
    impatient._ray = engine._started()
    (outcome,) = impatient.run(scale_tasks.slow, plan(scan(str(album)), job), retries=0)
    assert isinstance(outcome, Failure)
    assert outcome.died


def test_what_a_killed_driver_left_is_taken_in_and_the_rest_done_here(
    album, make_photo, library, tmp_path, counting
):
    for number in range(12, 240):
        make_photo(album / f"more{number}.png", number)
    store = tmp_path / "shards"
    command = [sys.executable, "-m", "search", "-L", str(tmp_path / "library"), "index", str(album), "--model"]
    command += ["builtin", "--engine", "ray", "--shards", str(store), "--shard-size", "8"]
    driver = subprocess.Popen(command, env={**os.environ, "SEARCH_OFFLINE": "1"}, start_new_session=True)
    ends = time.monotonic() + 240
    while len(list(store.glob("*/*.parquet"))) < 4 and time.monotonic() < ends and driver.poll() is None:
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert driver.returncode == -signal.SIGKILL
    left = 240 - library.status().photos
    done = library.index([album], shards=ShardOptions(LocalEngine(), str(store), workers=1))
    assert (done.photos, done.added + 240 - left) == (240, 240)
    assert 0 < counting.images <= 240 - 4 * 8
    assert library.check(full=True).ok


def test_resources_that_no_machine_has_are_told_at_once(album, job, engine):
    greedy = RayEngine(RayOptions(gpus=64))
    greedy._ray = engine._started()
    with pytest.raises(SearchError, match="no machine"):
        list(greedy.run(scale_tasks.slow, plan(scan(str(album)), job)))
