"""What every engine does with shards."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import scale_tasks

from search.engines import LocalEngine, RayEngine, RayOptions
from search.errors import ClusterLost, SearchError, UsageError
from search.photos.scan import scan
from search.shards import Engine, Failure, Job, Shard, encode_all, plan
from search.shards.encoding import encode_shard, read, remaining
from search.shards.store import open_store


@pytest.fixture(scope="module", params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def engine(request) -> Iterator[Engine]:
    if request.param == "local":
        yield LocalEngine()
        return
    if not find_spec("ray"):  # to import it would be to start it unprotected
        pytest.skip("Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        # Workers are given what is left of a busy machine, and a start may take long there.
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_raylet_start_wait_time_s", "120")
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), str(Path(__file__).parents[1])])
        )
        with RayEngine(RayOptions(cpus=(os.cpu_count() or 2) / 2)) as running:
            yield running


@pytest.fixture
def job(tmp_path: Path, builtin) -> Job:
    return Job("builtin", builtin.fingerprint, str(tmp_path / "shards"), "as ever", workers=1, offline=True)


def digest(job: Job) -> str:
    """The SHA-256 of every path and vector that is in the store."""
    store = open_store(job.store, job.fingerprint)
    rows = [
        row for name in store.names() for row in read(store, name, job.fingerprint)[1] if row.vector is not None
    ]
    said = sorted((row.stat.path, row.vector.tobytes()) for row in rows)
    return hashlib.sha256(repr(said).encode()).hexdigest()


def test_shards_come_out_the_same_and_only_missing_ones_are_done_again(engine, album, job, builtin, tmp_path):
    (album / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    here = Job("builtin", builtin.fingerprint, str(tmp_path / "here"), "as ever", workers=1)
    shards = list(plan(scan(str(album)), job, size=2))
    for shard in shards:
        encode_shard(shard, here, encoder=builtin)

    task = functools.partial(encode_shard, job=job)
    receipts = list(encode_all(shards, engine, job, task=task))
    assert sorted(receipt.shard for receipt in receipts) == sorted(shard.name for shard in shards)
    assert [Path(skip.path).name for receipt in receipts for skip in receipt.skipped] == ["broken.jpg"]
    assert digest(job) == digest(here)
    assert remaining(shards, job) == []

    files = sorted(Path(job.store, job.fingerprint).iterdir())
    for file in files[:4]:
        file.unlink()
    again = [receipt.shard for receipt in encode_all(remaining(shards, job), engine, job, task=task)]
    assert sorted(again) == [file.stem for file in files[:4]]
    assert digest(job) == digest(here)


def test_a_shard_that_fails_is_told_and_the_others_are_done(engine, album, job):
    shards = list(plan(scan(str(album)), job, size=4))
    bad = shards[1]
    outcomes = list(engine.run(functools.partial(scale_tasks.failing, of=bad.name), shards, retries=1))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [(one.shard, one.reason, one.died) for one in failures] == [(bad, "OSError: no such disk", False)]
    assert len(outcomes) == len(shards)


def test_shards_are_taken_as_they_are_due(engine, album, job):
    """However many there are, only a few wait to be run."""
    taken = 0

    def counted() -> Iterator[Shard]:
        nonlocal taken
        for shard in plan(scan(str(album)), job, size=1):
            taken += 1
            yield shard

    outcomes = engine.run(functools.partial(scale_tasks.failing, of=""), counted())
    next(outcomes)
    assert 1 <= taken < 12
    assert len(list(outcomes)) == 11


def test_nothing_is_begun_once_it_is_to_stop(engine, album, job):
    stop = threading.Event()
    stop.set()
    task = functools.partial(scale_tasks.failing, of="")
    assert list(engine.run(task, plan(scan(str(album)), job, size=1), stop=stop)) == []


def test_ray_that_others_may_reach_already_is_not_started(album, job, monkeypatch):
    monkeypatch.setattr("search.engines._told", {})
    monkeypatch.setitem(sys.modules, "ray", object())
    with pytest.raises(SearchError, match="imported before"):
        list(RayEngine().run(functools.partial(scale_tasks.failing, of=""), plan(scan(str(album)), job)))


@pytest.mark.parametrize(
    ("options", "machine", "fitting"),
    [
        (RayOptions(), {"CPU": 4.0, "memory": 9e9}, 4),
        (RayOptions(cpus=3), {"CPU": 8.0}, 2),
        (RayOptions(gpus=0.5), {"CPU": 16.0, "GPU": 2.0}, 4),
        (RayOptions(gpus=0.7), {"CPU": 16.0, "GPU": 4.0}, 4),  # what is left of one is no use
        (RayOptions(gpus=1 / 3), {"CPU": 16.0, "GPU": 1.0}, 3),
        (RayOptions(gpus=0.25), {"CPU": 2.0, "GPU": 1.0}, 2),
        (RayOptions(gpus=1), {"CPU": 16.0}, 0),
    ],
)
def test_so_many_shards_as_a_machine_has_room_for(options, machine, fitting):
    assert options.fitting(machine) == fitting


def test_what_can_not_be_meant_is_told_before_ray_starts(job):
    for wrong in ({"gpus": 1.5}, {"cpus": 0}, {"address": "auto"}, {"address": "ray://10.0.0.5:10001"}):
        with pytest.raises(UsageError):
            RayOptions(**wrong)
    with pytest.raises(ClusterLost, match="no Ray cluster answers"):
        RayEngine(RayOptions(address="127.0.0.1:9")).run(scale_tasks.slow, [])
