from __future__ import annotations

import shutil
from collections import namedtuple

import pytest


@pytest.fixture
def indexed(run, album):
    assert run("index", album, "--model", "builtin").code == 0
    return run


def test_status_knows_the_generation(indexed):
    status = indexed("status", "--json").json["index"]
    assert (status["generation"], status["delta"]) == (1, 0)
    assert "1, 0 photos changed since" in indexed("status").stdout


def test_rebuild_writes_the_index_anew(indexed):
    report = indexed("rebuild", "--json").json
    assert set(report) == {"photos", "generation", "recovered", "backup", "seconds"}
    assert (report["photos"], report["generation"], report["recovered"], report["backup"]) == (12, 2, None, None)
    assert "12 photos written anew" in indexed("rebuild").stdout


def test_a_damaged_catalog_answers_with_a_notice_until_rebuild_mends_it(indexed, place, album):
    before = indexed("find", "a wall", "--min-relevance", "0", "--json").json["hits"]
    (place / "catalog.db").write_bytes(b"not a database" * 5000)
    found = indexed("find", "a wall", "--min-relevance", "0", "--json")
    assert (found.code, found.json["hits"]) == (0, before)
    assert "the catalog is damaged; answering from generation 1 of" in found.stderr
    assert "run 'search rebuild'" in found.stderr
    refused = indexed("index", album)
    assert refused.code == 1
    assert "run 'search rebuild'" in refused.stderr
    mended = indexed("rebuild", "--json").json
    assert (mended["recovered"], mended["backup"].endswith(".damaged")) == (12, True)
    after = indexed("find", "a wall", "--min-relevance", "0", "--json")
    assert (after.json["hits"], after.stderr) == (before, "")
    assert indexed("index", album, "--json").json["encoded"] == 0


def test_rebuild_of_nothing_is_one_message(run):
    done = run("rebuild")
    assert done.code == 1
    assert "there is no library" in done.stderr


def test_a_disk_too_full_for_the_index_is_told_after_the_report(indexed, album, make_photo, monkeypatch):
    usage = namedtuple("usage", "total used free")(10, 9, 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    make_photo(album / "late.png", 900)
    done = indexed("index", album, "--json")
    assert (done.code, done.json["photos"], done.json["added"]) == (4, 13, 1)
    assert "needs 2 MB free" in done.json["not_published"]
    assert "needs 2 MB free" in done.stderr
    assert len(indexed("find", "a wall", "--min-relevance", "0", "-k", "50", "--json").json["hits"]) == 13
    assert indexed("rebuild").code == 4
