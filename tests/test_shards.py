"""Bulk encoding in shards, in this process: what a shard says, and how it comes into a library."""

from __future__ import annotations

import functools
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from search import Library
from search.catalog.found import ScannedFile, Verdict
from search.engines import LocalEngine
from search.errors import DamagedShard, EncoderMismatch, SearchError, StorageError
from search.indexer import IndexOptions
from search.photos.scan import scan
from search.shards import Failure, Job, Receipt, Shard, encode_all, plan
from search.shards.encoding import done, encode_shard, quarantine, read, remaining
from search.shards.run import ShardOptions
from search.shards.store import open_store
from search.types import FileStat, Progress, SkipReason, Stage

ONE = IndexOptions(workers=1)


@pytest.fixture
def job(tmp_path: Path, counting) -> Job:
    return Job("builtin", counting.fingerprint, str(tmp_path / "shards"), "as ever", workers=1)


@pytest.fixture
def in_shards(tmp_path: Path) -> ShardOptions:
    return ShardOptions(LocalEngine(), str(tmp_path / "shards"), size=5, workers=1)


def rows_of(job: Job, name: str):
    return read(open_store(job.store, job.fingerprint), name, job.fingerprint)[1]


def vectors_of(library: Library) -> dict[str, bytes]:
    row = library.catalog.encoder()
    ids = library.catalog.all_ids().tolist()
    found, vectors = library.catalog.embeddings(row, ids)
    paths = {photo.id: photo.path for photo in library.catalog.get(ids)}
    return {paths[id_]: vector.tobytes() for id_, vector in zip(found.tolist(), vectors, strict=True)}


# ---- a shard


def test_the_same_files_make_the_same_shards(album, job):
    files = list(scan(str(album)))
    shards = list(plan(files, job, size=5))
    assert [len(shard.files) for shard in shards] == [5, 5, 2]
    assert shards == list(plan(files, job, size=5))
    changed = [files[0]._replace(mtime_ns=1), *files[1:]]
    other = list(plan(changed, job, size=5))
    assert [a.name == b.name for a, b in zip(shards, other, strict=True)] == [False, True, True]
    assert next(plan(files, replace(job, fingerprint="f" * 64))).name != next(plan(files, job)).name


def test_a_shard_says_of_each_file_what_was_seen_or_why_not(album, job, counting):
    (album / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    files = tuple(scan(str(album)))
    shard = Shard.of(files, job)
    receipt = encode_shard(shard, job, encoder=counting)
    assert (receipt.rows, [Path(skip.path).name for skip in receipt.skipped]) == (12, ["broken.png"])
    assert counting.images == 12
    rows = rows_of(job, shard.name)
    assert [row.stat for row in rows] == list(files)
    assert [row.skip is None for row in rows] == [not file.path.endswith("broken.png") for file in files]
    seen = next(row for row in rows if row.skip is None)
    assert (seen.info.width, seen.info.height, len(seen.content_hash)) == (64, 48, 32)
    assert np.linalg.norm(seen.vector.astype(np.float32)) == pytest.approx(1, abs=1e-3)  # float16


def test_names_that_are_no_text_survive(tmp_path, job, counting, make_photo):
    photo = make_photo(tmp_path / "a.png", 1)
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    photo.rename(odd)
    shard = Shard.of(list(scan(str(odd))), job)
    encode_shard(shard, job, encoder=counting)
    assert [row.stat.path for row in rows_of(job, shard.name)] == [str(odd)]


def test_no_changed_bit_goes_unnoticed(tmp_path, job, counting, make_photo):
    make_photo(tmp_path / "a" / "one.png", 1)
    (tmp_path / "a" / "two.png").write_bytes(b"none")
    shard = Shard.of(list(scan(str(tmp_path / "a"))), job)
    encode_shard(shard, job, encoder=counting)
    file = Path(job.store, job.fingerprint, f"{shard.name}.parquet")
    whole = file.read_bytes()
    first = repr(rows_of(job, shard.name))
    told = 0
    for place in range(0, len(whole), 61):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert repr(rows_of(job, shard.name)) == first  # a bit that says nothing
        except DamagedShard:
            told += 1
    assert told > 20
    file.write_bytes(whole[:-9])
    with pytest.raises(DamagedShard, match="damaged"):
        rows_of(job, shard.name)
    other = file.with_name("other.parquet")
    other.write_bytes(whole)
    with pytest.raises(DamagedShard, match="another one"):
        rows_of(job, "other")


def test_a_shard_is_not_encoded_by_other_weights(album, job, counting):
    shard = Shard.of(list(scan(str(album))), job)
    with pytest.raises(EncoderMismatch):
        encode_shard(shard, replace(job, fingerprint="0" * 64), encoder=counting)
    assert done(job) == set()


def test_a_store_that_can_not_be_written_is_told(album, job, counting, tmp_path):
    (tmp_path / "shards").write_bytes(b"a file")
    with pytest.raises(StorageError, match="shards"):
        encode_shard(Shard.of(list(scan(str(album))), job), job, encoder=counting)


# ---- failures


class Deadly:
    """Runs shards here, but dies of one file; counts how often."""

    in_process = False

    def __init__(self, poison: str) -> None:
        self.poison, self.deaths = poison, 0

    def run(self, task, shards, *, retries=2, stop=None):
        for shard in shards:
            if any(file.path.endswith(self.poison) for file in shard.files):
                self.deaths += retries + 1
                yield Failure(shard, "the worker died", died=True)
            else:
                yield task(shard)


def test_a_shard_that_workers_die_of_is_split_down_to_the_file(album, job, counting):
    engine = Deadly("photo07.png")
    shards = list(plan(scan(str(album)), job, size=8))
    task = functools.partial(encode_shard, job=job, encoder=counting)
    receipts = list(encode_all(shards, engine, job, task=task))
    assert sum(receipt.rows for receipt in receipts) == 11
    (skip,) = [skip for receipt in receipts for skip in receipt.skipped]
    assert (Path(skip.path).name, skip.reason) == ("photo07.png", SkipReason.QUARANTINED)
    assert "the worker died" in skip.detail
    assert engine.deaths == 3 + 1 + 1 + 2  # a shard of eight, its halves, the file alone
    stored = [row for name in done(job) for row in rows_of(job, name)]
    assert sorted(row.stat.path for row in stored) == sorted(file.path for file in scan(str(album)))


def test_shards_that_fail_by_themselves_end_the_run(album, job):
    def fail(shard: Shard) -> Receipt:
        tried.append(shard.name)
        raise OSError("no model here")

    tried: list[str] = []
    with pytest.raises(SearchError, match="3 photos could not be encoded: OSError: no model here"):
        list(encode_all(plan(scan(str(album)), job, size=1), LocalEngine(), job, task=fail))
    assert len(tried) == 9  # three shards, three times each: so would the others


@pytest.mark.parametrize(("in_process", "tried"), [(True, 2 + 3), (False, 2 + 64)])
def test_what_fails_from_some_point_on_ends_the_run_there(in_process, tried, job):
    class Engine:
        def run(self, task, shards, *, retries, stop=None):
            for number, shard in enumerate(shards, start=1):
                taken.append(shard)
                yield Receipt(shard.name, 1) if number < 3 else Failure(shard, "the store is away", died=False)

    taken: list[Shard] = []
    engine = Engine()
    engine.in_process = in_process
    shards = plan((FileStat(f"/{number}.png", 1, 1) for number in range(100)), job, size=1)
    with pytest.raises(SearchError, match=f"{tried - 2} photos could not be encoded: the store is away"):
        list(encode_all(shards, engine, job, task=lambda shard: None))
    assert len(taken) == tried


def test_one_death_alone_is_not_enough(album, job, counting):
    """A shard of three comes to one file and two: the file has company in its pass, and is tried twice more."""
    engine = Deadly("photo00.png")
    files = list(scan(str(album)))[:3]
    task = functools.partial(encode_shard, job=job, encoder=counting)
    receipts = list(encode_all([Shard.of(files, job)], engine, job, task=task))
    assert [Path(skip.path).name for receipt in receipts for skip in receipt.skipped] == ["photo00.png"]
    assert engine.deaths == 3 + 1 + 2


def test_workers_that_die_of_everything_put_no_blame_on_photos(album, job):
    engine = Deadly(".png")
    with pytest.raises(SearchError, match="the worker died"):
        list(encode_all(plan(scan(str(album)), job, size=1), engine, job, task=lambda shard: None))
    assert done(job) == set()


# ---- into a library


def test_vectors_are_those_of_an_index_run(album, library, in_shards, tmp_path):
    (album / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    seen: list[Progress] = []
    report = library.index([album], options=ONE, shards=in_shards, progress=seen.append)
    assert (report.photos, report.added, report.encoded, len(report.skipped)) == (12, 12, 12, 1)
    assert [skip.path for skip in library.skipped()] == [str(album / "broken.png")]
    assert [p.done for p in seen if p.stage is Stage.ENCODE] == [0, 5, 10, 13]
    with Library.open(tmp_path / "plain", model="builtin", offline=True) as plain:
        plain.model.loaded = library.model.loaded
        plain.index([album], options=ONE)
        assert vectors_of(library) == vectors_of(plain)
        ids = library.catalog.all_ids().tolist()
        assert [(p.info, p.content_hash) for p in library.catalog.get(ids)] == [
            (p.info, p.content_hash) for p in plain.catalog.get(ids)
        ]


def test_only_what_is_new_is_encoded(album, library, in_shards, make_photo, counting):
    library.index([album], options=ONE, shards=in_shards)
    again = library.index([album], options=ONE, shards=in_shards)
    assert (again.encoded, again.unchanged, counting.images) == (0, 12, 12)
    make_photo(album / "day0" / "new.png", 99)
    assert library.index([album], options=ONE, shards=in_shards).added == 1
    assert counting.images == 13


def test_a_run_that_was_stopped_goes_on_from_its_shards(album, library, open_library, in_shards, counting):
    stop = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.stage is Stage.ENCODE and progress.done:
            stop.set()

    report = library.index([album], options=ONE, shards=in_shards, progress=watch, stop=stop)
    assert (report.interrupted, report.added, counting.images) == (True, 5, 5)
    rest = library.index([album], options=ONE, shards=in_shards)
    assert (rest.added, rest.photos, counting.images) == (7, 12, 12)


def test_shards_that_are_there_are_taken_in_and_not_encoded(album, library, in_shards, job, counting):
    """As a driver leaves them that was killed before it could take them in."""
    shards = list(plan(scan(str(album)), job, size=5))
    for shard in shards[:2]:
        encode_shard(shard, job, encoder=counting)
    assert remaining(shards, job) == shards[2:]
    file = Path(job.store, job.fingerprint, f"{shards[1].name}.parquet")
    file.write_bytes(file.read_bytes()[:1000])
    report = library.index([album], options=ONE, shards=in_shards)
    assert (report.added, report.encoded, counting.images) == (12, 7, 17)
    assert [(skip.path, skip.reason) for skip in report.skipped] == [(shards[1].name, "damaged")]


def test_merging_brings_each_photo_in_once(album, library, job, counting, make_photo):
    quarantine(Shard.of(list(scan(str(make_photo(album / "deadly.png", 50)))), job), job, "the worker died")
    for shard in plan((file for file in scan(str(album)) if "deadly" not in file.path), job, size=5):
        encode_shard(shard, job, encoder=counting)
    make_photo(album / "day0" / "photo00.png", 77, size=(40, 40))  # changed since
    report = library.merge(job.store)
    assert (report.added, report.photos, report.encoded, counting.images) == (11, 11, 0, 12)
    assert sorted((Path(skip.path).name, skip.reason) for skip in report.skipped) == [
        ("deadly.png", SkipReason.QUARANTINED),
        ("photo00.png", SkipReason.UNSTABLE),
    ]
    before = vectors_of(library)
    assert library.merge(job.store).added == 0
    assert vectors_of(library) == before
    assert library.index([album], options=ONE).added == 2  # other rules for skipping: it is tried again
    assert counting.images == 14
    assert library.check(full=True).ok


def test_merging_reads_each_shard_once_whole(album, library, job, counting, monkeypatch):
    whole: list[str] = []

    def noted(store, name: str, fingerprint: str):
        whole.append(name)
        return read(store, name, fingerprint)

    monkeypatch.setattr("search.shards.run.read", noted)
    for shard in plan(scan(str(album)), job, size=5):
        encode_shard(shard, job, encoder=counting)
    assert library.merge(job.store).added == 12
    assert sorted(whole) == sorted(done(job))


def test_a_merge_that_is_cut_short_goes_on(album, library, job, counting):
    for shard in plan(scan(str(album)), job, size=5):
        encode_shard(shard, job, encoder=counting)
    stop = threading.Event()
    first = library.merge(job.store, progress=lambda progress: stop.set() if progress.done else None, stop=stop)
    assert first.interrupted
    assert first.photos in (2, 5)  # one shard, the first by its name
    second = library.merge(job.store)
    assert (second.added, second.photos, counting.images) == (12 - first.photos, 12, 12)


def die_with(library: Library, album: Path, place: str, *, alone: bool) -> None:
    """Leave behind what a process does that dies over a file."""
    library.catalog.create()
    with library.catalog.writing() as writer:
        scope = writer.add_source(str(album), is_folder=True)
        writer.begin_job("index")
        file = next(scan(str(album / place)))
        writer.take([ScannedFile(scope.root_id, place.encode(), file, Verdict.NEW, None)], alone=alone)


def test_where_shards_run_here_a_file_that_ends_the_process_is_left_out(album, library, in_shards):
    for alone in (False, True, True):
        die_with(library, album, "day1/photo01.png", alone=alone)
    report = library.index([album], options=ONE, shards=in_shards)
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [("photo01.png", "quarantined")]
    assert report.added == 11
    die_with(library, album, "day1/photo04.png", alone=False)
    assert library.index([album], options=ONE, shards=in_shards).unchanged == 11
