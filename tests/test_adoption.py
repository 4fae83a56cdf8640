"""Vectors of other software: trusted after a look, taken over with their photos, and nothing twice."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import Library
from search.adoption import AdoptOptions, folders
from search.errors import EncoderMismatch, UntrustedVectors, UsageError
from search.interop.rclip import RclipDatabase
from search.types import Orientation

SCHEMA = """
CREATE TABLE images (id INTEGER PRIMARY KEY, deleted BOOLEAN, filepath TEXT NOT NULL UNIQUE,
  modified_at DATETIME NOT NULL, size INTEGER NOT NULL, vector BLOB NOT NULL, indexing BOOLEAN, hash TEXT);
CREATE TABLE db_version (version INTEGER);
INSERT INTO db_version VALUES (4);
"""
TURN_RIGHT = 6
SEEN: dict[bytes, np.ndarray] = {}


def lay_down(path: Path, seed: int, orientation: int = TURN_RIGHT) -> Path:
    """Write a photo that asks to be turned."""
    path.parent.mkdir(exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).save(path, quality=95, exif=exif)
    return path


def as_rclip_sees(builtin, path: Path):
    """The vector of a photo whose orientation is not applied; of one that was met before it is known."""
    content = path.read_bytes()
    if content not in SEEN:
        with Image.open(path) as image:
            pixels = builtin.preprocessing(image.convert("RGB"))
        SEEN[content] = builtin.encode_images(pixels[None])[0]
    return SEEN[content]


def write_rclip(place: Path, photos, vectors) -> Path:
    with sqlite3.connect(place) as database:
        database.executescript(SCHEMA)
        for path, vector in zip(photos, vectors, strict=True):
            stat = path.stat()
            row = (str(path), stat.st_mtime, stat.st_size, vector.astype("<f4").tobytes())
            database.execute("INSERT INTO images (filepath, modified_at, size, vector) VALUES (?, ?, ?, ?)", row)
    database.close()
    return place


@pytest.fixture
def rclip(tmp_path, album, builtin):
    """rclip's database of the album, and of two photos that it did not turn."""
    for seed in (1, 2):
        lay_down(album / "turned" / f"{seed}.jpg", seed)
    photos = sorted(path for path in album.rglob("*.*") if path.is_file())
    return write_rclip(tmp_path / "db.sqlite3", photos, [as_rclip_sees(builtin, path) for path in photos])


def stored(library: Library) -> dict[str, np.ndarray]:
    """The vectors of a library by the names of photos."""
    encoder = library.catalog.encoder()
    ids, vectors = library.catalog.embeddings(encoder, library.catalog.all_ids().tolist())
    return {
        Path(photo.path).name: vector
        for photo, vector in zip(library.catalog.get(ids.tolist()), vectors, strict=True)
    }


def test_rclips_vectors_are_taken_over_and_what_it_did_not_turn_is_encoded(library, rclip, album, counting):
    before = {path: path.read_bytes() for path in rclip.parent.glob("db.sqlite3*")}
    report = library.adopt(RclipDatabase(rclip))
    assert (report.adopted, report.index.encoded, report.index.added) == (12, 2, 14)
    assert report.not_adopted == {"turned": 2}
    assert report.passport.orientation is Orientation.IGNORED
    assert len(report.passport.spots) == 12 and report.passport.lowest > 0.999
    (kept,) = (rclip.parent / "library" / "passports").glob("*-rclip.json")
    said = json.loads(kept.read_text())
    assert (said["adopted"], said["not_adopted"], said["passport"]["compared"]) == (12, {"turned": 2}, 12)
    assert said["passport"]["fingerprint"] == library.encoder.fingerprint
    with open_fresh(album.parent / "other") as other:
        other.model.loaded = library.model.loaded
        other.index([album])
        expected = stored(other)
    assert (
        min(float(vector @ expected[name]) for name, vector in stored(library).items()) > 0.998
    )  # twice in float16
    assert {path: path.read_bytes() for path in rclip.parent.glob("db.sqlite3*")} == before


def open_fresh(place: Path) -> Library:
    return Library.open(place, model="builtin", offline=True)


def test_running_again_or_indexing_the_folder_encodes_nothing(library, rclip, album, counting):
    library.adopt(RclipDatabase(rclip))
    before = counting.images
    again = library.adopt(RclipDatabase(rclip))
    assert (again.adopted, again.index.encoded, again.index.unchanged) == (0, 0, 14)
    assert (again.passport, counting.images) == (None, before)  # nothing is even compared
    report = library.index([album])
    assert (report.unchanged, report.encoded) == (14, 0)


def test_running_again_tells_what_was_skipped_and_takes_what_is_new(library, rclip, album, counting):
    spoiled = album / "day1" / "photo01.png"
    spoiled.write_bytes(spoiled.read_bytes()[:60])
    first = library.adopt(RclipDatabase(rclip))
    before = counting.images
    again = library.adopt(RclipDatabase(rclip))
    assert (
        [skip.path for skip in again.index.skipped]
        == [skip.path for skip in first.index.skipped]
        == [str(spoiled)]
    )
    assert (again.index.unchanged, again.passport, counting.images) == (13, None, before)
    (album / "day1" / "photo04.png").unlink()
    lay_down(album / "day0" / "photo00.png", 5)
    third = library.adopt(RclipDatabase(rclip))
    assert (third.index.updated, third.index.unchanged, third.passport is None) == (1, 11, False)


def test_strange_vectors_are_refused_with_the_numbers_and_nothing_is_written(library, rclip, tmp_path):
    with sqlite3.connect(rclip) as database:
        vector = np.zeros(library.encoder.dim, "<f4")
        vector[0] = 1
        database.execute("UPDATE images SET vector = ? WHERE id = 1", [vector.tobytes()])
    database.close()
    with pytest.raises(UntrustedVectors, match="1 of 12 vectors") as caught:
        library.adopt(RclipDatabase(rclip))
    assert caught.value.passport.lowest < 0.9 < caught.value.passport.median
    assert "--tolerate 1" in caught.value.hint
    assert not (tmp_path / "library").exists()


def test_a_tolerated_deviation_is_told_and_encoded_as_is_what_is_no_vector(library, rclip):
    strange = np.random.default_rng(0).normal(size=library.encoder.dim)
    with sqlite3.connect(rclip) as database:
        for id_, vector in ((1, strange), (4, np.full(library.encoder.dim, np.nan))):
            database.execute("UPDATE images SET vector = ? WHERE id = ?", [vector.astype("<f4").tobytes(), id_])
    database.close()
    report = library.adopt(RclipDatabase(rclip), options=AdoptOptions(tolerate=2))
    assert (report.passport.agreeing, report.not_adopted) == (10, {"turned": 2, "deviating": 2})
    assert (report.adopted, report.index.encoded) == (10, 4)


def test_one_in_sixteen_may_deviate_a_little_and_is_encoded(tmp_path, library, make_photo, builtin):
    photos = [make_photo(tmp_path / "many" / f"{number:02}.png", number) for number in range(16)]
    vectors = [as_rclip_sees(builtin, path) for path in photos]
    vectors[3] = mixed(vectors[3], vectors[4], 0.95)
    report = library.adopt(RclipDatabase(write_rclip(tmp_path / "db.sqlite3", photos, vectors)))
    assert (report.adopted, report.index.encoded, report.not_adopted) == (15, 1, {"deviating": 1})
    assert 0.94 < report.passport.lowest < 0.96
    assert float(stored(library)["03.png"] @ as_rclip_sees(builtin, photos[3])) > 0.999


@pytest.mark.parametrize("far", [{3: 0.89}, {3: 0.95, 4: 0.95}])
def test_more_or_farther_deviations_are_refused(tmp_path, library, make_photo, builtin, far):
    photos = [make_photo(tmp_path / "many" / f"{number:02}.png", number) for number in range(16)]
    vectors = [as_rclip_sees(builtin, path) for path in photos]
    for number, cosine in far.items():
        vectors[number] = mixed(vectors[number], vectors[number - 1], cosine)
    with pytest.raises(UntrustedVectors, match=f"{len(far)} of 16"):
        library.adopt(RclipDatabase(write_rclip(tmp_path / "db.sqlite3", photos, vectors)))


def mixed(vector, other, cosine: float):
    """A unit vector of a given cosine with another, in the direction of a third."""
    aside = other - (other @ vector) * vector
    return cosine * vector + (1 - cosine**2) ** 0.5 * aside / np.linalg.norm(aside)


def test_vectors_of_another_width_are_refused(library, album, tmp_path):
    photo = next(album.rglob("*.png"))
    place = write_rclip(tmp_path / "db.sqlite3", [photo], [np.ones(3)])
    with pytest.raises(UntrustedVectors, match="have 3 numbers"):
        library.adopt(RclipDatabase(place))


def test_photos_alone_are_taken_where_vectors_can_not_be(library, album, tmp_path, counting):
    photos = sorted(album.rglob("*.png"))[:5]
    place = write_rclip(tmp_path / "db.sqlite3", photos, [np.ones(3)] * 5)
    report = library.adopt(RclipDatabase(place), options=AdoptOptions(reencode=True))
    assert (report.passport, report.adopted, report.index.encoded, library.catalog.count()) == (None, 0, 5, 5)
    assert counting.images == 5


def test_what_changed_since_is_encoded_and_what_is_gone_is_told(library, rclip, album, make_photo, builtin):
    make_photo(album / "day0" / "photo00.png", 99)
    (album / "day1" / "photo01.png").unlink()
    report = library.adopt(RclipDatabase(rclip))
    assert (report.adopted, report.index.encoded) == (10, 3)
    assert report.not_adopted == {"turned": 2, "changed": 1}
    assert [(Path(skip.path).name, skip.reason) for skip in report.index.skipped] == [("photo01.png", "missing")]
    new = as_rclip_sees(builtin, album / "day0" / "photo00.png")
    assert float(stored(library)["photo00.png"] @ new) > 0.999


def test_what_is_not_taken_over_can_wait(library, rclip, album):
    report = library.adopt(RclipDatabase(rclip), options=AdoptOptions(encode=False))
    assert (report.adopted, report.not_encoded, library.catalog.count()) == (12, 2, 12)
    assert library.index([album]).encoded == 2


def test_applied_orientation_is_seen_and_trusted(library, album, tmp_path, builtin, counting):
    photos = [lay_down(album / "turned" / f"{turn}.jpg", turn, turn) for turn in range(2, 9)]
    library.index([album])
    vectors = stored(library)
    place = write_rclip(tmp_path / "db.sqlite3", photos, [vectors[path.name] for path in photos])
    with open_fresh(tmp_path / "other") as other:
        other.model.loaded = counting
        report = other.adopt(RclipDatabase(place))
    assert (report.passport.orientation, report.adopted, report.index.encoded) == (Orientation.APPLIED, 7, 0)


def test_every_way_a_photo_lies_is_recognised(library, album, tmp_path, builtin):
    photos = [lay_down(album / "turned" / f"{turn}.jpg", turn, turn) for turn in range(2, 9)]
    photos += sorted(album.rglob("*.png"))
    place = write_rclip(tmp_path / "db.sqlite3", photos, [as_rclip_sees(builtin, path) for path in photos])
    report = library.adopt(RclipDatabase(place))
    assert len(report.passport.turned) == 7
    assert min(spot.as_stored for spot in report.passport.turned) > 0.99
    assert report.passport.orientation is Orientation.IGNORED
    assert report.adopted == 12


def test_a_stopped_run_keeps_its_batches_and_the_next_goes_on(library, rclip):
    stop = threading.Event()

    def progress(told):
        if told.stage == "encoding" and told.done == 0:
            stop.set()

    first = library.adopt(RclipDatabase(rclip), progress=progress, stop=stop)
    assert first.index.interrupted and first.adopted == 12
    second = library.adopt(RclipDatabase(rclip))
    assert second.adopted + second.index.unchanged >= 12
    assert library.catalog.count() == 14


def test_photos_that_moved_are_found_where_they_are(library, rclip, album):
    new = album.rename(album.parent / "elsewhere")
    with pytest.raises(UsageError, match=r"none of the 14 photos") as caught:
        library.adopt(RclipDatabase(rclip))
    assert "--moved" in caught.value.hint
    report = library.adopt(RclipDatabase(rclip), options=AdoptOptions(moved=((str(album), str(new)),)))
    assert report.adopted == 12
    assert [root.path for root in library.catalog.root_status()] == [str(new)]


def test_folders_may_be_said_from_where_one_is(library, rclip, album, monkeypatch):
    new = album.rename(album.parent / "elsewhere")
    monkeypatch.chdir(album.parent)
    assert library.adopt(RclipDatabase(rclip), options=AdoptOptions(moved=(("album", "elsewhere"),))).adopted == 12
    assert [root.path for root in library.catalog.root_status()] == [str(new)]


def test_a_library_of_another_model_is_left_alone(library, rclip, album, tmp_path, tiny_model):
    library.index([album / "day0"])
    with (
        Library.open(tmp_path / "library", model=tiny_model, offline=True) as other,
        pytest.raises(EncoderMismatch),
    ):
        other.adopt(RclipDatabase(rclip))
    assert library.catalog.count() == 4


def test_rows_that_rclip_deleted_or_spoiled_are_counted(library, rclip):
    with sqlite3.connect(rclip) as database:
        database.execute("UPDATE images SET deleted = 1 WHERE id = 2")
        database.execute(
            "UPDATE images SET vector = x'0000803f' WHERE id = 1"
        )  # the others are not too long for it
    database.close()
    source = RclipDatabase(rclip)
    assert source.left == {"deleted": 1, "malformed": 1}
    assert library.adopt(source).adopted == 10


def test_a_source_without_photos_is_told(library, rclip):
    with sqlite3.connect(rclip) as database:
        database.execute("UPDATE images SET deleted = 1")
    database.close()
    with pytest.raises(UsageError, match="names no photo that has a vector; of no use: 14 deleted"):
        library.adopt(RclipDatabase(rclip))


def test_a_source_whose_photos_all_changed_is_refused_for_that(library, rclip, album, tmp_path):
    for path in album.rglob("*.*"):
        os.utime(path, (1, 1))
    with pytest.raises(UntrustedVectors, match=r"none of the 14 photos .* as it was") as caught:
        library.adopt(RclipDatabase(rclip))
    assert "--reencode" in caught.value.hint
    assert not (tmp_path / "library").exists()


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\0"])
def test_a_file_that_is_no_database_of_rclips_is_refused(tmp_path, content):
    (tmp_path / "db.sqlite3").write_bytes(content)
    with pytest.raises(UsageError, match="no database of rclip"):
        RclipDatabase(tmp_path)


def test_a_database_that_is_being_written_to_is_refused(rclip):
    Path(f"{rclip}-journal").write_bytes(b"x")
    with pytest.raises(UsageError, match="in use"):
        RclipDatabase(rclip)


def test_folders_are_those_that_photos_share_but_no_whole_disk():
    assert folders(["/home/ann/a", "/home/ann/a/b", "/mnt/nas"]) == ["/home/ann/a", "/mnt/nas"]
    assert folders(["/srv/photos/a", "/srv/photos/b"]) == ["/srv/photos"]


def test_folders_of_a_home_and_drives_do_not_become_one():
    apart = ["/home/ann/Downloads", "/home/ann/Pictures/x", "/media/ann/disk1/a", "/media/ann/disk2"]
    assert folders(apart) == apart


def test_folders_that_are_indexed_stay_as_they_are(library, rclip, album):
    library.index([album / "day0"])
    library.index([album / "day1"])
    (album / "day2").rename(album.parent / "day2")
    report = library.adopt(RclipDatabase(rclip), options=AdoptOptions(moved=((f"{album}/day2", f"{album}2/x"),)))
    assert report.index.unchanged == 8
    roots = {root.path for root in library.catalog.root_status()}
    assert roots == {f"{album}/day0", f"{album}/day1", f"{album}/turned"}
