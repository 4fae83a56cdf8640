"""Others are at work at the same time: a second indexer, readers, and whoever takes the folder away."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
from reliability.nursery import Outcome

from reliability import album
from search.library import Library
from search.query import Kind, Query, Term

LONG = pytest.mark.slow
SHORT_S, LONG_S = 3, 60


@pytest.mark.parametrize("starts", [1, pytest.param(60, marks=LONG)])
def test_of_two_indexers_one_writes_and_the_other_says_who(nursery, small_model, tmp_path, starts):
    busy = 0
    for start in range(starts):
        folder = tmp_path / f"start{start}"
        library, photos = folder / "library", folder / "photos"
        album.make(photos, range(120))
        words = [
            "--library",
            library,
            "index",
            photos,
            "--batch-size",
            "4",
            "--workers",
            "1",
            "--model",
            small_model,
        ]
        arguments = [str(word) for word in words]
        outputs = [folder / "first.txt", folder / "second.txt"]
        commands = [{"arguments": arguments, "output": str(output)} for output in outputs]
        done = nursery.run("together", commands=commands)
        assert not done.all("failed")
        assert set(done.result) <= {0, 75}
        assert 0 in done.result
        for code, output in zip(done.result, outputs, strict=True):
            busy += code == 75
            assert code == 0 or "is being written to by process" in output.read_text()
        assert done.encoded == len(done.acknowledged) == 120
        seen = nursery.run("look", library=str(library)).result
        assert not album.holds(seen, album.contents(photos))
    print(f"\n{starts} starts of two: {busy} were told that the library is busy")
    assert busy


@pytest.mark.parametrize("seconds", [SHORT_S, pytest.param(LONG_S, marks=LONG)])
def test_a_reader_is_neither_wrong_nor_kept_waiting_while_photos_come_in(nursery, small_model, tmp_path, seconds):
    """It sees photos come and none go; how long its slowest answer took is printed."""
    photos, library = tmp_path / "photos", str(tmp_path / "library")
    where = {"library": library, "sources": [str(photos)], "operation": "index"}
    album.make(photos, range(10))
    assert nursery.run("change", **where).code == 0
    album.make(photos, range(10, 2000 if seconds > SHORT_S else 600))
    outcomes: list[Outcome] = []
    nursery.start("change", batch_size=4, **where)
    writer = threading.Thread(target=lambda: outcomes.append(nursery.finish()))
    writer.start()
    counts, waits = [], []
    with Library.open(library, offline=True) as reader:
        while writer.is_alive() or not counts:
            started = time.perf_counter()
            answer = reader.answer(Query((Term(Kind.PHOTO, "1"),)), 3, examples=True)
            waits.append(time.perf_counter() - started)
            assert answer.hits[0].photo.id == 1
            counts.append(answer.candidates)
        writer.join()
        counts.append(reader.answer(Query((Term(Kind.PHOTO, "1"),)), 3, examples=True).candidates)
    assert outcomes[0].result["skipped"] == []
    assert counts == sorted(counts)
    assert counts[-1] == len(album.contents(photos))
    waits.sort()
    print(
        f"\n{len(waits)} answers in {outcomes[0].seconds:.1f} s beside the writer: "
        f"median {waits[len(waits) // 2]:.4f} s, 99 % {waits[int(len(waits) * 0.99)]:.4f} s, "
        f"slowest {waits[-1]:.4f} s; {len(set(counts))} states seen"
    )
    assert len(set(counts)) > 2


@pytest.mark.parametrize("rounds", [2, pytest.param(10, marks=LONG)])
def test_a_folder_that_is_empty_for_a_while_loses_nothing(nursery, tmp_path, rounds):
    photos, away, library = tmp_path / "photos", tmp_path / "away", str(tmp_path / "library")
    where = {"library": library, "sources": [str(photos)], "operation": "index"}
    album.make(photos, range(60))
    whole = album.contents(photos)
    assert nursery.run("change", **where).code == 0
    for _ in range(rounds):
        photos.rename(away)
        photos.mkdir()
        gone = nursery.run("change", **where).result
        photos.rmdir()
        assert (gone["gone"], gone["offline"], gone["photos"]) == (0, 60, 60)
        assert not album.holds(nursery.run("look", library=library).result, whole)
        missing = nursery.run("change", **where).result
        assert (missing["gone"], missing["photos"]) == (0, 60)
        away.rename(photos)
        back = nursery.run("change", **where).result
        assert (back["encoded"], back["photos"]) == (0, 60)
    assert not album.holds(nursery.run("look", library=library).result, whole)


@LONG
@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0, reason="mounting is for root on Linux"
)
def test_a_folder_whose_file_system_is_unmounted_for_a_while_loses_nothing(nursery, tmp_path):
    photos, library = tmp_path / "photos", str(tmp_path / "library")
    album.make(photos, range(200))
    assert nursery.run("change", library=library, sources=[str(photos)], operation="index").code == 0
    done = nursery.run("away_and_back", library=library, folder=str(photos), rounds=10)
    if done.code and "Operation not permitted" in str(done.all("failed")):
        pytest.skip("mounting is not permitted here")
    reports = done.result["reports"]
    assert [(r["gone"], r["photos"], r["encoded"]) for r in reports] == [(0, 200, 0)] * 20
    assert [r["offline"] for r in reports] == [200, 0] * 10
    assert not album.holds(nursery.run("look", library=library).result, album.contents(photos))
