"""A library moved from one database to another: all of it, or nothing."""

from __future__ import annotations

import gc
import shutil
import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import delete, select, update

from search import Library, failpoints
from search.catalog.schema import embeddings, metadata, photos, state
from search.catalog.transaction import commit
from search.errors import (
    DamagedLibrary,
    IndexUnavailable,
    LibraryBusy,
    LibraryError,
    LibraryNotFound,
    LibraryUnreachable,
    NewerLibrary,
    UsageError,
)
from search.types import Filter, Stage

TIMELESS = {"alembic_version"}


@pytest.fixture(scope="module")
def made(tmp_path_factory, builtin, make_photo):
    """A library with something in every table that people fill, to be copied."""
    place, album = tmp_path_factory.mktemp("made") / "library", tmp_path_factory.mktemp("album")
    for number in range(12):
        make_photo(album / f"day{number % 3}" / f"photo{number:02}.png", number)
    make_photo(album / "zzz.png", 77)
    (album / "broken.jpg").write_bytes(b"no picture")
    with opened(str(place)) as library:
        library.model.loaded = builtin
        library.index([album])
        library.remove([album / "zzz.png"])  # its id must not be given to another
        (album / "zzz.png").unlink()
        (album / "day1" / "photo01.png").unlink()
        library.index([album])
        library.label(["cat", "wall", 'say "ö\'; --"'], apply=True)
        first, second = library.catalog.all_ids()[:2].tolist()
        library.tags.accept(["my own"], photos=[first])
        library.tags.reject(["wall"], photos=[second])
    return place


@pytest.fixture
def lived_in(made, location, open_library):
    shutil.copytree(made, location)
    with open_library() as library:
        yield library


@pytest.fixture(params=["folder", "server"])
def elsewhere(request, tmp_path):
    """Where it is moved to."""
    return request.getfixturevalue("database_url") if request.param == "server" else str(tmp_path / "other")


def opened(place: str) -> Library:
    return Library.open(place, model="builtin", offline=True)


def content(library: Library) -> dict[str, list]:
    """Every row of a catalog but what belongs to one catalog alone, as Python has it."""
    with library.catalog._storage.examining() as connection:
        rows = {}
        for table in metadata.sorted_tables:
            if table is state:
                continue
            columns = [column for column in table.columns if column.name != "crc"]
            rows[table.name] = sorted(map(repr, (tuple(row) for row in connection.execute(select(*columns)))))
    return rows


def test_everything_is_there_and_is_found(lived_in, elsewhere, builtin):
    told = []
    with opened(elsewhere) as target:
        target.model.loaded = builtin
        report = lived_in.migrate(target, progress=told.append)
        assert (report.photos, report.vectors, report.compared, report.agreement) == (11, 12, 11, 1.0)
        moved = content(target)
        assert moved == content(lived_in)
        assert all(moved[name] for name in ("photos", "embeddings", "labels", "verdicts", "runs", "skips", "jobs"))
        assert {name: len(rows) for name, rows in moved.items()} == report.rows
        asked = {"k": 20, "min_relevance": None}
        ours, theirs = (library.search("a wall", **asked) for library in (lived_in, target))
        assert [(hit.photo, hit.score) for hit in ours] == [(hit.photo, hit.score) for hit in theirs]
        assert [hit.photo.id for hit in target.search("a", filter=Filter(labels=("my own",)), **asked)] == [1]
        assert target.check(full=True).ok
        assert target.catalog.publication().index_url == (None if target.catalog.folder else "pgvector")
    assert told[-1].done == told[-1].total


def test_both_go_on_as_libraries_of_their_own(lived_in, elsewhere, tmp_path, builtin, make_photo):
    with opened(elsewhere) as target:
        target.model.loaded = builtin
        lived_in.migrate(target)
        make_photo(tmp_path / "more" / "new.png", 99)
        target.index([tmp_path / "more"])
        assert target.catalog.count() == 12
        assert max(target.catalog.all_ids().tolist()) > 13  # 13 was removed
        assert lived_in.catalog.count() == 11
        run = target.tags.accept(["seen"], photos=target.catalog.all_ids()[:1].tolist()).run
        assert run == max(run.id for run in lived_in.tags.runs()) + 1


def test_it_comes_back_from_a_server(lived_in, database_url, tmp_path):
    with opened(database_url) as server, opened(str(tmp_path / "back")) as back:
        lived_in.migrate(server)
        server.migrate(back)
        assert content(back) == content(lived_in)
        assert back.check(full=True).ok


def test_what_holds_something_is_left_alone(lived_in, elsewhere):
    with opened(elsewhere) as target:
        lived_in.migrate(target)
        before = content(target)
        with pytest.raises(UsageError, match="holds a library already"):
            lived_in.migrate(target)
        with pytest.raises(UsageError, match="to where it is"):
            target.migrate(target)
        assert content(target) == before


def test_a_move_that_is_cut_short_leaves_nothing_and_can_be_made_again(lived_in, elsewhere):
    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == "transfer.compared":
            raise Killed

    with opened(elsewhere) as target:
        failpoints.arm(die)
        try:
            with pytest.raises(Killed):
                lived_in.migrate(target)
        finally:
            failpoints.arm(None)
        assert not any(content(target).values())
        assert lived_in.migrate(target).photos == 11


def test_a_row_that_does_not_arrive_as_it_was_undoes_the_move(lived_in, tmp_path):
    with opened(str(tmp_path / "other")) as target:
        target.catalog.create()
        with closing(sqlite3.connect(tmp_path / "other" / "catalog.db")) as spoiler:
            spoiler.execute(
                "CREATE TRIGGER lose AFTER INSERT ON labels BEGIN UPDATE labels SET label = 'dog' "
                "WHERE label = 'my own'; END"
            )
            spoiler.commit()
        with pytest.raises(LibraryError, match="rows of labels arrived, or not all as they were"):
            lived_in.migrate(target)
        assert not any(content(target).values())


def test_a_damaged_library_and_one_that_is_written_to_are_not_moved(lived_in, tmp_path):
    with opened(str(tmp_path / "other")) as target:
        with Library.open(lived_in.catalog.location).catalog.writing(), pytest.raises(LibraryBusy):
            lived_in.migrate(target)
        lived_in.close()
        with closing(sqlite3.connect(tmp_path / "library" / "catalog.db")) as spoiler:
            spoiler.execute("UPDATE photos SET camera = 'flipped' WHERE id = 1")
            spoiler.commit()
        with pytest.raises(DamagedLibrary, match="row 1 of photos"):
            lived_in.migrate(target)
        assert not target.catalog.is_begun() or not any(content(target).values())


def test_nobody_writes_to_the_source_until_both_were_compared(lived_in, tmp_path):
    met = []

    def intrude(step) -> None:
        if step.stage is Stage.COMPARE:
            with pytest.raises(LibraryBusy), opened(lived_in.catalog.location) as other:
                other.catalog.writing().__enter__()
            met.append(step)

    with opened(str(tmp_path / "other")) as target:
        lived_in.migrate(target, progress=intrude)
    assert met


def test_a_zero_in_a_text_is_no_reason_not_to_arrive(lived_in, database_url):
    with lived_in.catalog._storage.writing() as connection, commit(connection):
        connection.execute(update(photos).where(photos.c.id == 1).values(camera="Cam\0era"))
    with opened(database_url) as target:
        lived_in.migrate(target)
        assert target.catalog.get([1])[0].info.camera == "Cam\u2400era"


def test_photos_without_a_vector_are_moved_as_they_are(lived_in, tmp_path):
    with lived_in.catalog._storage.writing() as connection, commit(connection) as seq:  # as a repair does
        connection.execute(delete(embeddings).where(embeddings.c.photo_id == 1))
        connection.execute(update(photos).where(photos.c.id == 1).values(seq=seq))
    with opened(str(tmp_path / "other")) as target:
        report = lived_in.migrate(target)
        assert (report.photos, report.vectors, target.catalog.count()) == (11, 11, 11)


def test_ids_that_a_server_gave_to_nobody_are_no_damage_in_a_folder(library, album, postgres, database, tmp_path):
    library.index([album])
    with opened(postgres.url(database)) as server, opened(str(tmp_path / "back")) as back:
        library.migrate(server)
        postgres.run("SELECT nextval('photos_id_seq')", database=database)  # as where a batch was rolled back
        server.migrate(back)
        assert back.check(full=True).problems == ()


def test_what_a_newer_version_wrote_is_not_moved_in_part(lived_in, tmp_path):
    with lived_in.catalog._storage.writing() as connection, commit(connection):
        connection.execute(update(state).values(format=99))
    with opened(str(tmp_path / "other")) as target:
        with opened(lived_in.catalog.location) as newer, pytest.raises(NewerLibrary):
            newer.migrate(target)
        assert not target.catalog.is_begun()


def test_a_place_where_only_the_catalog_is_lost_is_not_begun_anew(lived_in, tmp_path):
    lost = tmp_path / "lost"
    with opened(str(lost)) as target:
        lived_in.migrate(target)
    for file in lost.glob("catalog.db*"):
        file.unlink()
    with opened(str(lost)) as target:
        with pytest.raises(LibraryNotFound, match="run 'search rebuild'"):
            lived_in.migrate(target)
        assert not target.catalog.is_begun()
        assert target.rebuild().recovered == 11


def test_an_index_that_can_not_be_made_is_told_before_or_with_what_to_do(lived_in, tmp_path, monkeypatch):
    with opened(str(tmp_path / "other")) as target:
        with pytest.raises(UsageError, match="is no database"):
            lived_in.migrate(target, index="pgvector")
        assert not target.catalog.is_begun()
        away = f"postgresql://nobody@/db?host={tmp_path}"
        with pytest.raises(IndexUnavailable, match=r"all rows arrived: run 'search rebuild' there"):
            lived_in.migrate(target, index=away)
        assert target.catalog.count() == 11


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # psycopg's, of a cursor that can't be closed any more
def test_a_source_that_goes_away_is_the_one_that_is_named(lived_in, postgres, database, tmp_path):
    def hang_up(step) -> None:
        if step.stage is Stage.COPY:
            postgres.hang_up(database)

    with opened(postgres.url(database)) as server, opened(str(tmp_path / "back")) as back:
        lived_in.migrate(server)
        with pytest.raises(LibraryUnreachable, match="database server of postgresql"):
            server.migrate(back, progress=hang_up)
        gc.collect()
        assert not any(content(back).values())
        assert server.migrate(back).photos == 11
