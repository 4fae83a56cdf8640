"""Indexes on servers against one oracle: the same operations on each, filters told to the server, libraries on them."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from vector_stores import Kept, Pushed, embedded, moment

from search.conditions import (
    And,
    Called,
    Has,
    InBox,
    InFolder,
    IsFormat,
    Measured,
    Named,
    Near,
    Not,
    Or,
    Taken,
    condition_of,
)
from search.errors import IndexMismatch, IndexUnavailable, UsageError
from search.types import Filter, Photo, PhotoInfo, ProblemKind, TakenAtSource
from search.vectors import best, cosines, normalize, stored
from search.vectors.stored import StoredIndex
from search.vectors.stores import Stamp, check_url, milvus, open_store, pgvector
from search.vectors.stores.declared import COLUMNS, pushed, row_of

DIM = 24
CAMERAS = [
    *("Canon EOS 5D", 'a "b"', "it's", "back\\slash", "☃ 日本 😀", "x' OR 1=1 --", '" or id >= 0 or camera == "'),
    *("100%", "under_score", "{0}", "$1 :name %s", "tab\there", "line\nfeed", "", "k" * 1500, "K" * 1500, None),
]
WHERES = [
    *(Called("camera", name, whole=True) for name in CAMERAS if name is not None),
    Called("camera", "a"),
    Called("camera", "none such"),
    Not(Called("camera", "it's", whole=True)),
    Not(Called("camera", "k" * 1500, whole=True)),
    Taken(">=", moment(14)),
    Taken("<", moment(3)),
    Taken(">=", moment(14).replace(tzinfo=UTC)),
    Not(Taken("<", moment(14).replace(tzinfo=timezone(timedelta(hours=9))))),
    Measured("rating", ">=", 4),
    Measured("rating", "<", 2.5),
    Not(Measured("rating", "=", -1)),
    Near(48.2, 16.3, 300),
    Near(89.9, 0, 500),
    InBox(-10, 170, 10, -170),
    Not(InBox(40, 0, 60, 30)),
    IsFormat("jpg"),
    Not(IsFormat("png")),
    *(Has(thing) for thing in ("date", "camera", "gps", "rating", "lens", "label")),
    Not(Has("camera")),
    Not(Has("gps")),
    And((Measured("rating", ">=", 3), Or((IsFormat("png"), Called("camera", "canon"))))),
    Or((InFolder("/photos/7"), IsFormat("png"))),
    And((InFolder("/photos/7"), Not(Named("name", "*3*")), Has("rating"))),
]
HERE = ["milvus-lite", "pgvector", pytest.param("milvus", marks=pytest.mark.milvus)]


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    with embedded(tmp_path_factory.mktemp("milvus")) as store:
        yield store


@pytest.fixture(params=HERE, scope="module")
def store(request):
    if request.param == "milvus-lite":
        yield request.getfixturevalue("lite")
        return
    if request.param == "pgvector":
        postgres = request.getfixturevalue("postgres")
        store = open_store(postgres.uri(postgres.database()))
    else:
        store = open_store(f"{request.getfixturevalue('milvus_server').url}/congruence")
    yield store
    store.close()


def info(number: int) -> PhotoInfo:
    """What a photo says of itself: everything there is, in all combinations."""
    chance = random.Random(number)
    taken = chance.choice([None, moment(number), moment(number).replace(tzinfo=timezone(timedelta(hours=-7)))])
    places = [(None, None), (48.1, 16.2), (0.0, 179.5), (-5.0, -180.0), (89.95, 120.0), (52.0, 13.0)]
    latitude, longitude = chance.choice(places)
    return PhotoInfo(
        chance.choice(["jpeg", "mpo", "png", "heif"]),
        640,
        480,
        taken_at=taken,
        taken_at_source=chance.choice(list(TakenAtSource)) if taken else None,
        camera=chance.choice(CAMERAS),
        latitude=latitude,
        longitude=longitude,
        rating=chance.choice([None, -1, 0, 1, 3, 4, 5]),
    )


def photo(id_: int, known: PhotoInfo) -> Photo:
    return Photo(id_, "/photos", f"/photos/{id_ % 10}/{id_}.jpg", 1, 1, "", known)


def unit(count: int, seed: int) -> np.ndarray:
    return normalize(np.random.default_rng(seed).standard_normal((count, DIM)))


def passing(kept: Kept, wanted: Filter) -> np.ndarray:
    node = condition_of(wanted)
    return np.array([id_ for id_, one in sorted(kept.infos.items()) if node.holds(photo(id_, one))], np.int64)


def expected(kept: Kept, vector: np.ndarray, k: int, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known, rows = kept.vectors(ids)
    return best(known, cosines(rows, vector), k)


def test_what_a_server_can_tell_of_a_filter_is_what_passes_or_more(store):
    index = Pushed(store, DIM)
    ids = np.arange(1, 401)
    index.add(ids, unit(400, 1), [info(id_) for id_ in ids.tolist()])
    told = 0
    for node in WHERES:
        wanted = Filter(where=node)
        test = pushed(wanted, index.kept.cameras())
        right = passing(index.kept, wanted)
        if test is None:
            continue
        told += 1
        (found,) = store.search(unit(1, 2), 400, test=test)
        assert set(right.tolist()) <= set(found.tolist()), node
        inexact = (Taken, Near, Has) if not isinstance(node, Not) else ()
        if not isinstance(node, (*inexact, And, Or)) and "k" * 9 not in str(node).lower():
            assert sorted(found.tolist()) == right.tolist(), node
    assert told == len(WHERES) - 6  # folders, names, lenses, labels; the opposite of what is only narrowed down


def test_the_same_operations_give_the_same_answers_as_scoring_every_photo(store, monkeypatch):
    """Some changes are pushed, some lie on top; a search is unfiltered, within ids, or by a filter."""
    monkeypatch.setattr(stored, "_FEW", 0)  # the server is asked however few photos pass
    chance = random.Random(7)
    index = Pushed(store, DIM)
    kept = index.kept
    ids = np.arange(1, 301)
    index.add(ids, unit(300, 3), [info(id_) for id_ in ids.tolist()])
    for step in range(24):
        some = np.array(sorted(chance.sample(range(1, 360), chance.randint(1, 25))), np.int64)
        on_top = step % 2 == 1
        if chance.random() < 0.6:
            vectors, infos = unit(len(some), 100 + step), [info(id_ * step) for id_ in some.tolist()]
            if on_top:
                kept.put(some.tolist(), vectors, infos)
                StoredIndex.add(index, some, vectors)
            else:
                index.add(some, vectors, infos)
                StoredIndex.add(index, some, vectors)  # what was on top before must not come back
        elif on_top:
            kept.forget(some.tolist())
            StoredIndex.remove(index, some)
        else:
            index.remove(some)
            StoredIndex.remove(index, some)
        index._count = None
        assert len(index) == len(kept.known)
        assert sorted(index.ids.tolist()) == sorted(kept.known)
        queries, k = unit(2, 500 + step), chance.choice([1, 10, 60])
        wanted = Filter(where=chance.choice(WHERES))
        narrow = np.array(chance.sample(range(1, 360), 40), np.int64)
        right = passing(kept, wanted)
        cases = [(kept.ids(), {}), (narrow, {"within": narrow}), (right, {"within": right, "where": wanted})]
        for among, given in cases:
            found, scores = index.search(queries, k, **given)
            for query, vector in enumerate(queries):
                best_ids, best_scores = expected(kept, vector, k, among)
                assert found[query].tolist() == best_ids.tolist(), (step, given)
                assert scores[query].tolist() == best_scores.tolist()


def test_few_of_many_that_pass_are_all_found_and_most_of_the_nearest(store, monkeypatch):
    monkeypatch.setattr(stored, "_FEW", 0)
    monkeypatch.setattr(pgvector, "_EXACT", 0)  # by the graph
    index = Pushed(store, DIM)
    ids, count = np.arange(2500), 2500
    infos = [PhotoInfo("jpeg", 1, 1, rating=int(id_ % 100 == 0) + int(id_ % 10 == 0)) for id_ in ids.tolist()]
    centres = np.random.default_rng(5).standard_normal((40, DIM))  # photos lie in clusters, texts far off them
    vectors = normalize(centres[ids % 40] + 0.4 * np.random.default_rng(6).standard_normal((count, DIM)))
    index.add(ids, vectors, infos)
    queries = normalize(0.5 * vectors[::250] + unit(10, 9))
    for least in (0, 1, 2):
        wanted = Filter(where=Measured("rating", ">=", least))
        right = passing(index.kept, wanted)
        found, _ = index.search(queries, 10, within=right, where=wanted)
        assert (found >= 0).all()
        assert np.isin(found, right).all()
        hits = [
            np.isin(some, expected(index.kept, query, 10, right)[0]).sum()
            for some, query in zip(found, queries, strict=True)
        ]
        assert np.mean(hits) >= 9.5


def test_more_ids_than_can_be_sent_are_refused_where_the_server_can_not_tell_them(lite, monkeypatch):
    monkeypatch.setattr(stored, "_FEW", 0)
    monkeypatch.setattr(stored, "MOST_LISTED", 50)
    monkeypatch.setattr(milvus.MilvusStore, "deepest", 60)
    index = Pushed(lite, DIM)
    vectors = normalize(np.linspace(unit(1, 1)[0], unit(1, 2)[0], 300))
    index.add(np.arange(300), vectors)
    assert index.search(vectors[299:], 5, within=np.arange(280))[0][0].tolist() == [279, 278, 277, 276, 275]
    with pytest.raises(IndexUnavailable, match="finds too few of the 100 photos"):
        index.search(vectors[299:], 5, within=np.arange(100))
    assert index.search(vectors[299:], 5, within=np.arange(50))[0][0].tolist() == [49, 48, 47, 46, 45]


def test_as_many_of_a_large_library_are_named_as_a_server_names_at_a_time(lite, monkeypatch):
    monkeypatch.setattr(stored, "MOST_LISTED", 50)
    monkeypatch.setattr(milvus.MilvusStore, "deepest", 60)
    index = Pushed(lite, DIM)
    vectors = normalize(np.linspace(unit(1, 1)[0], unit(1, 2)[0], 300))
    index.add(np.arange(300), vectors)
    StoredIndex.remove(index, np.arange(290, 295))  # of the nearest
    index.kept.forget(range(290, 295))
    index._count = None
    found = index.search(vectors[299:], 60)[0][0]
    assert found.tolist() == [*range(299, 294, -1), *range(289, 239, -1), *[-1] * 5]
    with pytest.raises(IndexUnavailable, match="names no more than the 60 nearest"):
        index.search(vectors[299:], 61)


# ---- servers


def test_a_graph_may_take_longer_than_any_question(index_url, monkeypatch):
    store = open_store(index_url)
    stamp = Stamp("library", "model", DIM, "fill", "mark")
    store.begin(stamp)
    store.put(np.arange(2000), unit(2000, 1), [row_of(PhotoInfo("jpeg", 1, 1))] * 2000)
    monkeypatch.setattr(pgvector, "_WRITE_MS", 20)
    assert store.finish(stamp, changed=2000).rows == 2000
    store.close()


def test_no_plan_for_any_filter_is_kept(index_url):
    store = open_store(index_url)
    index = Pushed(store, DIM)
    index.add(np.arange(20), unit(20, 1))
    test = pushed(Filter(camera="none"), ["none"])
    for _ in range(8):
        store.search(unit(1, 2), 5, test=test)
    assert store._connection().execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    store.close()


def test_a_pgvector_that_is_too_old_is_told_as_such(index_url, monkeypatch):
    monkeypatch.setattr(pgvector, "_OLDEST", (99, 0))
    store = open_store(index_url)
    with pytest.raises(IndexUnavailable, match=r"0\.8 or later is needed"):
        Pushed(store, DIM)
    store.close()


def test_a_milvus_that_is_not_there_is_told_without_a_long_wait(monkeypatch):
    monkeypatch.setattr(milvus, "_CONNECT_S", 0.2)
    waits: list[float] = []
    monkeypatch.setattr(milvus, "sleep", waits.append)
    for enough, times in ((60, 2), (-1, 0)):
        waits.clear()
        monkeypatch.setattr(milvus, "_ENOUGH_S", enough)
        with pytest.raises(IndexUnavailable, match=r"index milvus://127\.0\.0\.1:1/photos does not answer"):
            open_store("milvus://127.0.0.1:1/photos").stamp()
        assert len(waits) == times


def test_a_row_has_a_value_for_every_column():
    assert len(row_of(PhotoInfo("jpeg", 1, 1))) == len(row_of(info(5))) == len(COLUMNS)
    late = PhotoInfo("jpeg", 1, 1, taken_at=datetime.max)  # noqa: DTZ901 (a wall clock's)
    assert row_of(late)[0] < 2**62


# ---- URLs


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://host/x", "no index of the kind http://"),
        ("milvus://me:secret@host/photos", "can't have a password in it"),
        ("postgresql://host/x?password=secret", "can't have a password in it"),
        ("milvus://key@host/photos", "can't have a password in it"),
        ("milvus://host/photos?token=secret", "can't have a password in it"),
        ("milvus://HOST:PORT/photos", "has no port where one should be"),
        ("postgresql://me:sec/ret@host/x", "has no port where one should be"),
        ("milvus://host/a-b", "called 'a-b'"),
        ("postgresql://host/x?table=a;drop", "called 'a;drop'"),
    ],
)
def test_a_url_that_can_not_be_meant_is_refused(url, message):
    with pytest.raises(UsageError, match=message) as refused:
        open_store(url)
    assert "sec" not in str(refused.value)


def test_urls_that_are_meant_are_taken_as_they_are():
    for url in ("milvus://host:19530/photos", "milvus+https://host/photos", "postgresql://me@host/db?table=near"):
        assert check_url(url) == url


# ---- libraries


@pytest.fixture(scope="module")
def other(postgres):
    """A store to look into, and its URL."""
    store = open_store(postgres.uri(postgres.database()))
    yield store
    store.close()


@pytest.fixture
def index_url(other):
    other.drop()
    return other.place


def found(library, k: int = 50, **given) -> list[tuple[int, float]]:
    return [(hit.photo.id, hit.score) for hit in library.search("a wall", k, **given)]


def test_a_library_answers_the_same_with_its_index_on_a_server(library, album, other, index_url, make_photo):
    library.index([album])
    before = found(library)
    library.rebuild(index=index_url)
    assert found(library) == before
    assert library.vector_index().kind == "pgvector"
    status = library.status().index
    assert (status["kind"], status["url"], status["vectors"], status["behind"]) == ("pgvector", index_url, 12, 0)
    make_photo(album / "late.png", 900)
    assert library.index([album]).index_behind == ""
    assert (len(found(library)), library.status().index["behind"]) == (13, 0)
    assert library.remove([album / "day1"]) == 4
    assert len(found(library)) == 9
    assert other.ids().tolist() == library.catalog.all_ids().tolist()
    assert library.check(full=True).ok
    library.rebuild(index="exact")
    assert (library.vector_index().kind, len(found(library))) == ("exact", 9)


def test_a_reader_sees_what_was_committed_and_not_pushed(
    library, album, other, index_url, make_photo, monkeypatch
):
    library.index([album])
    library.rebuild(index=index_url)
    with monkeypatch.context() as patch:
        patch.setattr("search.library.mirroring.Mirroring.bring", lambda *_: "")
        make_photo(album / "late.png", 900)
        library.index([album])
        library.remove([album / "day2"])
    with library:
        pass  # as another process would find it
    assert (len(found(library)), library.status().index["behind"]) == (9, 1)
    assert library.vector_index().kind == "pgvector"
    assert len(other.ids()) == 12
    library.index([album])
    assert other.ids().tolist() == library.catalog.all_ids().tolist()


@pytest.mark.parametrize("moment", ["before", "after", "twice after"])
def test_a_reader_beside_a_writer_that_brings_changes_is_not_led_astray(
    library, open_library, album, index_url, make_photo, monkeypatch, moment
):
    library.index([album])
    library.rebuild(index=index_url)
    ask, pushes = pgvector.PgvectorStore.stamp, iter(range(2 if moment == "twice after" else 1))

    def push() -> None:
        for number in pushes:
            make_photo(album / f"late{number}.png", 900 + number)
            library.index([album])

    def asked(store):
        if store is reader._index.mirroring.mirror(index_url).store and moment == "before":
            push()
        found = ask(store)
        if store is reader._index.mirroring.mirror(index_url).store:
            push()
        return found

    with open_library() as reader:
        monkeypatch.setattr(pgvector.PgvectorStore, "stamp", asked)
        assert len(found(reader)) == (14 if moment == "twice after" else 13)
        assert reader.vector_index().kind == "pgvector"


def test_a_move_to_a_server_that_fails_leaves_the_index_there_is(library, album, other, index_url, monkeypatch):
    library.index([album])
    library.rebuild(index=index_url)
    before = library.catalog.publication()
    with monkeypatch.context() as patch:
        patch.setattr(pgvector.PgvectorStore, "_extend", gone)
        with pytest.raises(IndexUnavailable):
            library.rebuild(index=f"{index_url}&table=elsewhere")
    library.close()
    after = library.catalog.publication()
    assert (after.index_url, after.index_mark, after.index_seq) == (
        before.index_url,
        before.index_mark,
        before.index_seq,
    )
    assert (len(found(library)), library.vector_index().kind) == (12, "pgvector")


def test_every_query_under_way_when_the_server_goes_is_answered_from_the_folder(library, album, index_url):
    library.index([album])
    assert not library._index.live.degrade()
    library.rebuild(index=index_url)
    assert library._index.live.degrade() and library._index.live.degrade()
    assert (len(found(library)), library.vector_index().kind) == (12, "exact")


def test_without_its_server_a_folder_answers_writes_and_catches_up(
    library, album, index_url, make_photo, monkeypatch
):
    told: list[str] = []
    library._notify = told.append
    library.index([album])
    library.rebuild(index=index_url)
    before = found(library)
    monkeypatch.setattr(pgvector, "_PAUSE_S", 0)
    with monkeypatch.context() as patch:
        patch.setattr(pgvector.PgvectorStore, "_connection", gone)
        assert found(library) == before
        assert len(told) == 1 and "does not answer" in told[0]
        make_photo(album / "late.png", 900)
        report = library.index([album])
        assert (report.added, report.not_published) == (1, "")
        assert "the next run goes on from there" in report.index_behind
        assert len(found(library)) == 13
        assert [problem.kind for problem in library.check(full=True).problems] == [ProblemKind.INDEX_DAMAGED]
    library.close()
    assert library.index([album]).index_behind == ""
    assert (library.vector_index().kind, len(found(library))) == ("pgvector", 13)
    assert library.check(full=True).ok


def gone(*_):
    import psycopg

    raise psycopg.OperationalError("connection refused")


def test_check_finds_what_a_server_lost_and_repair_fills_it_anew(library, album, other, index_url):
    library.index([album])
    library.rebuild(index=index_url)
    other.delete(np.array([2, 5]))
    (problem,) = library.check(full=True).problems
    assert "lacks 2 photos: 2, 5" in problem.detail
    assert library.check(full=True, repair=True).ok
    assert len(other.ids()) == 12


def test_the_collection_of_another_library_is_never_written_to(library, album, other, index_url):
    foreign = Pushed(other, 8)
    foreign.add(np.arange(3), normalize(np.eye(3, 8)))
    library.index([album])
    with pytest.raises(IndexMismatch, match="vectors of another library"):
        library.rebuild(index=index_url)
    assert (foreign.store.ids().tolist(), library.vector_index().kind) == ([0, 1, 2], "exact")


def test_a_catalog_made_anew_from_an_older_copy_does_not_trust_its_index(library, album, index_url, make_photo):
    library.index([album])
    library.rebuild(index=index_url)
    (library.catalog.folder / "catalog.db").unlink()
    library.rebuild()  # fills it, too
    assert library.catalog.publication().index_seq > 0
    assert (len(found(library)), library.vector_index().kind) == (12, "pgvector")
    with library.catalog.writing() as writer:
        writer.note_index(mark=None, seq=None)
    library.close()
    assert library.vector_index().kind == "exact"  # the folder's
    assert library.index([album]).index_behind == ""
    library.close()
    assert library.vector_index().kind == "pgvector"


def test_metadata_read_anew_reaches_the_server(library, album, other, index_url):
    library.index([album])
    library.rebuild(index=index_url)
    with library.catalog.writing() as writer:
        writer.put_info([(3, PhotoInfo("png", 64, 48, camera="Nikon"))], reader=1)
    assert library.status().index["behind"] == 1
    library.index([album])
    test = pushed(Filter(camera="nikon"), library.catalog.cameras())
    assert other.search(np.zeros((1, 256), np.float32), 5, test=test)[0].tolist() in ([3], [])
    assert found(library, filter=Filter(camera="nikon"))[0][0] == 3


# ---- stores by themselves


@pytest.fixture
def bare(store):
    """A store with nothing in it but the columns it was begun with."""
    stamp = Stamp("library", "model", DIM, "0" * 32, "0")
    store.begin(stamp)
    store.begin(stamp)  # what was there is dropped
    return store


def rows_for(ids) -> list[tuple]:
    return [row_of(PhotoInfo("jpeg", 640, 480)) for _ in ids]


def test_ids_far_apart_are_all_listed_in_order(bare, monkeypatch):
    monkeypatch.setattr(milvus, "_LISTED", 4)
    monkeypatch.setattr(milvus, "_SEALED", 3)
    monkeypatch.setattr(pgvector, "_PUT", 3)
    ids = np.array([1, 2, 3, 4, 5, 9, 77, 10**6, 2**40])
    bare.put(ids, unit(len(ids), 1), rows_for(ids))
    stamp = bare.finish(Stamp("library", "model", DIM, "0" * 32, "0"), changed=len(ids))
    assert (stamp.rows, bare.stamp()) == (9, stamp)
    assert bare.ids().tolist() == ids.tolist()
    bare.delete(ids[:6])
    assert bare.ids().tolist() == [77, 10**6, 2**40]
    assert [len(some) for some in bare.search(unit(2, 1), 2, within=np.empty(0, np.int64))] == [0, 0]
    assert [some.tolist() for some in bare.search(unit(1, 2), 5, within=np.array([77, 78]))] == [[77]]
    assert [len(some) for some in bare.search(unit(2, 1), 0)] == [0, 0]
    with pytest.raises(ValueError, match="zip"):  # a fault of ours is not told as the server's
        bare.put(ids[:2], unit(2, 1), [])


def test_what_was_made_by_something_else_is_left_alone(postgres, tmp_path):
    import psycopg

    uri = postgres.uri(postgres.database())
    with psycopg.connect(uri) as connection:
        connection.execute("CREATE TABLE others (id int)")
    store = open_store(f"{uri}{'&' if '?' in uri else '?'}table=others")
    with pytest.raises(IndexMismatch, match="left alone"):
        store.stamp()
    with pytest.raises(IndexMismatch, match="left alone"):
        store.begin(Stamp("library", "model", DIM, "0" * 32, "0"))
    store.close()


def test_a_collection_that_was_made_by_something_else_is_left_alone(tmp_path):
    with embedded(tmp_path) as store:
        assert store.stamp() is None
        store._client.create_collection("photos", dimension=4)
        with pytest.raises(IndexMismatch, match="left alone"):
            store.stamp()


def test_a_condition_that_hundreds_of_cameras_fulfil_is_not_told_to_a_server():
    cameras = [f"Camera {number}" for number in range(201)]
    assert pushed(Filter(where=Called("camera", "camera")), cameras[:200]) is not None
    assert pushed(Filter(where=Called("camera", "camera")), cameras) is None
    assert pushed(Filter(where=Called("camera", "Camera 7", whole=True)), cameras) is not None
