"""What photos say of themselves reaches the catalog again, without encoding, when a sidecar or the reader changes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from search import indexer
from search.types import Filter, Stage

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DC, LR, XMP = (
    f"http://{uri}/" for uri in ("purl.org/dc/elements/1.1", "ns.adobe.com/lightroom/1.0", "ns.adobe.com/xap/1.0")
)


def packet(elements: str = "", *, rating: int | None = None) -> bytes:
    """An XMP packet with further properties as elements."""
    given = "" if rating is None else f'xmp:Rating="{rating}"'
    spaces = f'xmlns:rdf="{RDF}" xmlns:dc="{DC}" xmlns:lr="{LR}" xmlns:xmp="{XMP}"'
    return f"<rdf:RDF {spaces}><rdf:Description {given}>{elements}</rdf:Description></rdf:RDF>".encode()


def listed(name: str, *values: str) -> str:
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:Bag>{items}</rdf:Bag></{name}>"


def photo(path: Path, seed: int, make_photo, *, rating: int | None = None) -> Path:
    """A JPEG with a rating of its own."""
    made = make_photo(path.with_suffix(".png"), seed)
    with Image.open(made) as image:
        image.save(path, "JPEG", **({} if rating is None else {"xmp": packet(rating=rating)}))
    made.unlink()
    return path


def said(library, path: Path) -> tuple[int | None, tuple[str, ...]]:
    info = library.photo(path).info
    return info.rating, info.keywords


def file_of(library) -> bytes:
    return (library.catalog.folder / "catalog.db").read_bytes()


def test_a_sidecar_that_comes_changes_and_goes_is_followed_without_encoding(
    library, tmp_path, make_photo, counting
):
    folder = tmp_path / "album"
    paths = [photo(folder / f"{name}.jpg", seed, make_photo, rating=2) for seed, name in enumerate("abc")]
    library.index([folder])
    assert counting.images == 3
    sidecar = folder / "a.jpg.xmp"
    steps = (
        (packet(listed("dc:subject", "cat"), rating=5), (5, ("cat",))),
        (packet(listed("lr:hierarchicalSubject", "animal|cat"), rating=4), (4, ("animal/cat",))),
        (packet(listed("dc:subject")), (2, ())),
        (b"no XML", (2, ())),
        (None, (2, ())),
    )
    for content, expected in steps:
        if content is None:
            sidecar.unlink()
        else:
            sidecar.write_bytes(content)
        report = library.index([folder])
        assert (report.reread, report.unchanged, report.encoded, report.updated) == (1, 3, 0, 0)
        assert [said(library, path) for path in paths] == [expected, (2, ()), (2, ())]
        before = file_of(library)
        assert library.index([folder]).reread == 0
        assert file_of(library) == before
    assert counting.images == 3


def test_keywords_of_a_sidecar_are_labels_to_search_by(library, tmp_path, make_photo):
    path = photo(tmp_path / "album" / "a.jpg", 1, make_photo)
    path.with_suffix(".xmp").write_bytes(packet(listed("dc:subject", "cat")))
    library.index([path.parent])
    assert library.catalog.select(Filter(labels=("cat",))).tolist() == [1]
    path.with_suffix(".xmp").write_bytes(packet(listed("dc:subject", "dog")))
    library.index([path.parent])
    assert library.photo(path).labels == ("dog",)


def test_a_sidecar_of_many_keywords_arrives_from_the_decoder(library, tmp_path, make_photo):
    path = photo(tmp_path / "album" / "a.jpg", 1, make_photo)
    words = [f"\U0001f408{'ä' * 150}{number}" for number in range(300)]
    path.with_suffix(".xmp").write_bytes(packet(listed("dc:subject", *words)))
    assert library.index([path.parent]).added == 1
    assert set(library.photo(path).info.keywords) < set(words)


def test_a_sidecar_moves_with_its_photo_or_stays_behind(library, tmp_path, make_photo, counting):
    folder = tmp_path / "album"
    a, b = (photo(folder / f"{name}.jpg", seed, make_photo) for seed, name in enumerate("ab"))
    for path in (a, b):
        path.with_name(f"{path.name}.xmp").write_bytes(packet(listed("dc:subject", path.stem)))
    library.index([folder])
    shutil.move(a, folder / "a2.jpg")
    shutil.move(folder / "a.jpg.xmp", folder / "a2.jpg.xmp")
    shutil.copy2(b, folder / "b2.jpg")
    assert library.index([folder]).encoded == 0
    assert said(library, folder / "a2.jpg") == (None, ("a",))
    assert said(library, b) == (None, ("b",))
    assert said(library, folder / "b2.jpg") == (None, ())
    assert counting.images == 2


def forget_the_reader(library) -> None:
    """Let all photos be as an older version left them."""
    library.catalog.close()
    with closing(sqlite3.connect(library.catalog.folder / "catalog.db")) as connection, connection:
        connection.execute("UPDATE photos SET reader = NULL, rating = NULL, camera = 'wrong', crc = NULL")
        connection.execute("DELETE FROM labels")


def test_photos_of_an_older_version_are_read_again_once_and_keep_their_vectors(
    library, tmp_path, make_photo, counting
):
    folder = tmp_path / "album"
    paths = [photo(folder / f"{seed}.jpg", seed, make_photo, rating=seed % 6) for seed in range(8)]
    library.index([folder])
    forget_the_reader(library)
    stages = []
    report = library.index([folder], progress=lambda progress: stages.append((progress.stage, progress.done)))
    assert (report.reread, report.unchanged, report.encoded, report.photos) == (8, 8, 0, 8)
    assert [library.photo(path).info.rating for path in paths] == [seed % 6 for seed in range(8)]
    assert library.photo(paths[0]).info.camera is None
    assert stages[-1] == (Stage.READ, 8)
    assert counting.images == 8
    assert library.check(full=True).ok
    before = file_of(library)
    assert library.index([folder]).reread == 0
    assert file_of(library) == before


def test_another_reader_reads_all_again(library, album, monkeypatch, counting):
    library.index([album])
    monkeypatch.setattr(indexer, "READER", indexer.READER + 1)
    assert library.index([album]).reread == 12
    assert library.index([album]).reread == 0
    assert counting.images == 12


def test_reading_again_can_be_stopped_and_goes_on(library, album, monkeypatch):
    library.index([album])
    forget_the_reader(library)
    monkeypatch.setattr(indexer, "_SCAN_BATCH", 5)
    stop = threading.Event()

    def stop_at_five(progress) -> None:
        if progress.stage == Stage.READ and progress.done:
            stop.set()

    report = library.index([album], stop=stop, progress=stop_at_five)
    assert report.interrupted
    assert report.reread == 5
    assert library.index([album]).reread == 7


@pytest.mark.parametrize("wrong", [b"broken", b""])
def test_what_can_not_be_read_keeps_what_is_known_and_is_not_tried_again(library, tmp_path, make_photo, wrong):
    path = photo(tmp_path / "album" / "a.jpg", 1, make_photo, rating=3)
    library.index([path.parent])
    before = path.stat()
    path.write_bytes(wrong.ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    library.catalog.close()
    with closing(sqlite3.connect(library.catalog.folder / "catalog.db")) as connection, connection:
        connection.execute("UPDATE photos SET reader = NULL, ctime_ns = NULL, crc = NULL")
    report = library.index([path.parent])
    assert (report.reread, report.unchanged, report.skipped) == (0, 1, ())
    assert library.photo(path).info.rating == 3
    before = file_of(library)
    library.index([path.parent])
    assert file_of(library) == before
