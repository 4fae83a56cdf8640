from __future__ import annotations

import pytest


@pytest.fixture
def indexed(run, album):
    assert run("index", album, "--model", "builtin").code == 0
    return run


def test_the_index_is_held_against_exact_search(indexed):
    document = indexed("evaluate", "index", "--count", "5", "--json").json
    assert (document["index"]["kind"], document["index"]["vectors"]) == ("exact", 12)
    whole, photos = (row for row in document["rows"] if row["filter"] == 1)
    assert set(whole) == {"queries", "filter", "count", "recall_at_10", "ms_exact", "ms_index"}
    assert (whole["queries"], photos["queries"]) == ("text", "image")
    assert whole["count"] == photos["count"] == 5
    assert {row["recall_at_10"] for row in document["rows"]} == {1.0}
    assert {row["filter"] for row in document["rows"]} <= {1.0, 0.01, 0.1, 0.5}


def test_texts_may_come_from_a_file(indexed, tmp_path):
    (tmp_path / "texts.txt").write_text("a wall\n\na red car\n", encoding="utf-8")
    outcome = indexed("evaluate", "index", "--queries", tmp_path / "texts.txt", "--count", "3")
    assert outcome.stdout.splitlines()[0].startswith("exact index of 12 vectors, ")
    assert "2 text" in outcome.stdout
    assert "3 image" in outcome.stdout


def test_codes_that_miss_are_told(library, album, make_photo, monkeypatch):
    from search.evaluate.index import evaluate_index
    from search.vectors import mapped
    from search.vectors.coarse import Coarse

    monkeypatch.setattr("search.generations.manifest.LEAST", 20)
    monkeypatch.setattr(Coarse, "depth", lambda *_: 3)  # far too few
    monkeypatch.setattr(mapped, "_SPARE", 0)
    for number in range(12):
        make_photo(album / f"more{number}.png", 100 + number)
    library.index([album])
    library.rebuild(index="pq")
    rows = evaluate_index(library, ["a wall"], queries=4).rows
    assert {row.recall_at_10 for row in rows if row.filter == 1} == {0.3}
