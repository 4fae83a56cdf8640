"""F42, F55: what a run is at is written down, and what it died of is told from what was near."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future
from datetime import timedelta

import numpy as np
import pytest

from search import IndexOptions
from search.catalog import jobs
from search.catalog.scan import ScannedFile, Verdict
from search.decoding.pool import Decoders
from search.types import FileStat, JobState, Skip, SkipReason, Stage


class Recorder:
    """The real model, noting the batches it is given."""

    def __init__(self, encoder) -> None:
        self._encoder = encoder
        self.batches: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._encoder, name)

    def encode_images(self, images: np.ndarray):
        self.batches.append(len(images))
        return self._encoder.encode_images(images)


@pytest.fixture
def recorder(library, counting) -> Recorder:
    library.model.loaded = Recorder(counting)
    return library.model.loaded


def die_with(library, album, *names: str, alone: bool = False) -> None:
    """Leave the library as a process does that is killed while it is at work on these files."""
    library.catalog.create()
    with library.catalog.writing() as writer:
        scope = writer.add_source(str(album), is_folder=True)
        writer.begin_job("index")
        stats = [FileStat(str(album / name), 1, 1) for name in names]
        files = [
            ScannedFile(scope.root_id, name.encode(), stat, Verdict.NEW, None)
            for name, stat in zip(names, stats, strict=True)
        ]
        writer.take(files, alone=alone)


def leftovers(library) -> dict[bytes, int]:
    with library.catalog.writing() as writer:
        writer.begin_job("index")
        found = writer.leftovers()
        writer.finish_job(JobState.INTERRUPTED)
    return {place: deaths for (_, place), deaths in found.items()}


def test_a_run_in_good_order_leaves_a_finished_job(library, album):
    assert library.index([album]).added == 12
    job = library.status().job
    assert (job.kind, job.state, job.done, job.total, job.pid) == ("index", "done", 12, 12, os.getpid())
    assert timedelta(0) <= job.heartbeat_at - job.started_at


def test_a_library_without_work_has_no_job(library):
    library.catalog.create()
    assert library.status().job is None


def test_a_job_at_work_is_running_and_counts_its_files(library, album):
    seen = []

    def look(progress) -> None:
        if progress.stage is Stage.ENCODE:
            job = library.catalog.last_job()
            seen.append((job.state, job.done, job.total))

    library.index([album], options=IndexOptions(batch_size=5), progress=look)
    assert seen == [("running", 0, 12), ("running", 5, 12), ("running", 10, 12), ("running", 12, 12)]


def test_a_job_whose_process_is_no_more_is_interrupted(library, album):
    die_with(library, album, "day0/photo00.png")
    assert library.status().job.state is JobState.INTERRUPTED


def test_a_job_that_failed_says_so_and_leaves_nothing_in_flight(library, album):
    def fail(progress) -> None:
        if progress.stage is Stage.ENCODE and progress.done:
            raise ValueError

    with pytest.raises(ValueError):
        library.index([album], options=IndexOptions(batch_size=5), progress=fail)
    assert (library.status().job.state, library.status().job.done) == (JobState.FAILED, 5)
    assert leftovers(library) == {}


def test_only_the_last_hundred_jobs_are_kept(library, album):
    library.catalog.create()
    with library.catalog.writing() as writer:
        for _ in range(105):
            writer.begin_job("index")
            writer.finish_job(JobState.DONE)
        count = writer._connection.exec_driver_sql("SELECT count(*) FROM jobs").scalar()
    assert count == 100


def test_files_of_a_run_that_died_are_tried_last_and_alone(library, album, recorder):
    die_with(library, album, "day0/photo00.png", "day1/photo01.png")
    report = library.index([album])
    assert (report.added, report.skipped) == (12, ())
    assert recorder.batches == [10, 1, 1]
    assert leftovers(library) == {}


def test_a_file_that_ends_the_process_alone_twice_is_left_out_until_it_changes(library, album):
    poison = "day0/photo00.png"
    die_with(library, album, poison, "day1/photo01.png")
    for deaths in (0, 1):
        assert leftovers(library)[poison.encode()] == deaths
        die_with(library, album, poison, alone=True)
    report = library.index([album])
    assert report.added == 11
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(str(album / poison), "quarantined")]
    assert [skip.reason for skip in library.index([album]).skipped] == [SkipReason.QUARANTINED]
    os.utime(album / poison, (1, 1))
    assert library.index([album]).added == 1
    assert library.skipped() == []


def test_kills_by_the_user_lose_no_photo(library, album):
    for _ in range(5):
        die_with(library, album, "day0/photo00.png", "day1/photo01.png")
    assert (library.index([album]).added, library.skipped()) == (12, [])


def test_after_a_start_of_the_machine_nothing_is_suspected(library, album, monkeypatch):
    die_with(library, album, "day0/photo00.png", alone=True)
    monkeypatch.setattr(jobs, "boot_id", lambda: "another")
    assert leftovers(library) == {}


def test_an_inner_root_with_files_of_a_dead_run_can_become_part_of_another(library, album):
    die_with(library, album / "day0", "photo00.png")
    assert library.index([album]).added == 12
    library.remove([album])


@pytest.mark.slow
def test_a_process_that_dies_between_encoding_and_commit_loses_no_file(library, place_of, album, recorder):
    script = (
        "import os, sys\n"
        "from search import failpoints\n"
        "failpoints.arm(lambda name: os._exit(9) if name == 'index.encoded' else None)\n"
        "from search.cli import main\n"
        "main()"
    )
    command = [sys.executable, "-c", script, "--library", place_of, "index", str(album), "--model", "builtin"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "SEARCH_OFFLINE": "1"})
    assert done.returncode == 9, done.stderr
    assert library.status().job.state is JobState.INTERRUPTED
    assert library.index([album]).added == 12
    assert recorder.batches == [1] * 12


@pytest.fixture
def place_of(tmp_path) -> str:
    return str(tmp_path / "library")


# ---- files that change while they are read


def restless(monkeypatch, *, times: int) -> list[str]:
    """Let one file look changed to the decoders that read it first; return the files that are read, as they are."""
    submit, seen = Decoders.submit, []

    def submit_(self, path, preprocessing, **more):
        seen.append(path)
        if path.endswith("photo00.png") and seen.count(path) <= times:
            changed: Future[Skip] = Future()
            changed.set_result(Skip(path, SkipReason.UNSTABLE, "the file changed while it was read"))
            return changed
        return submit(self, path, preprocessing, **more)

    monkeypatch.setattr(Decoders, "submit", submit_)
    return seen


def test_a_file_that_settles_before_the_end_of_the_run_is_indexed(library, album, monkeypatch):
    seen = restless(monkeypatch, times=1)
    report = library.index([album])
    assert (report.added, report.skipped) == (12, ())
    assert seen[-1].endswith("photo00.png")


def test_a_file_that_goes_on_changing_is_skipped_and_tried_again_by_the_next_run(library, album, monkeypatch):
    restless(monkeypatch, times=2)
    report = library.index([album])
    assert report.added == 11
    assert [skip.reason for skip in report.skipped] == [SkipReason.UNSTABLE]
    assert (library.index([album]).added, library.skipped()) == (1, [])
