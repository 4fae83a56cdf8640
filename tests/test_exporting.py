"""Labels into sidecars beside photos, and out again: byte for byte what was there, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from other_software import DARKTABLE, DIGIKAM, STYLES
from PIL import Image
from rights import held_to_permissions

from search import Library, failpoints, files
from search.errors import StorageError, UnknownLabel, UnknownPhoto, UsageError
from search.library.exporting import ExportOptions
from search.photos.packets import strip
from search.photos.xmp import properties
from search.types import LabelledPhoto, LabelScore, RunKind

NAMES = ("a.jpg", "b.jpg", "c.jpg", "pair.dng", "pair.jpg", "twin.jpg", "twin.png", "sub/d.jpg")


@dataclass
class Home:
    """A library of a few photos and what is beside them."""

    library: Library
    album: Path

    def id(self, name: str) -> int:
        return self.library.catalog.ids_at([str(self.album / name)])[0]

    def propose(self, labels: dict[str, list[str]]) -> int:
        """Have a model propose labels, by photo; return the run."""
        photos = [
            LabelledPhoto(name, tuple(LabelScore(label, 0.75, 0.25) for label in found), self.id(name))
            for name, found in labels.items()
        ]
        among = sorted({label for found in labels.values() for label in found})
        with self.library.catalog.writing() as writer, writer.run(RunKind.LABEL, label_set="mine") as run:
            run.propose(photos, among, encoder_id=1)
        return run.id

    def state(self) -> dict[str, tuple[bytes, int, int]]:
        """Every sidecar with what tells that it was not touched."""
        return {
            str(path.relative_to(self.album)): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
            for path in sorted(self.album.rglob("*"))
            if path.suffix.lower() != ".jpg" and path.suffix not in (".png", ".dng") and path.is_file()
        }

    def contents(self) -> dict[str, bytes]:
        return {name: found[0] for name, found in self.state().items()}

    def put(self, name: str, content: bytes | str) -> Path:
        path = self.album / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def make(base: Path, names: Sequence[str], builtin) -> Path:
    """Make a folder with an album, indexed where every test finds it, and a copy of both that stays as it is."""
    album = base / "now" / "album"
    for seed, name in enumerate(names):
        (album / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
        picture = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC)
        picture.save(album / name, "TIFF" if name.endswith("dng") else None)
    with Library.open(base / "now" / "library", model="builtin", offline=True) as library:
        library.model.loaded = builtin
        library.index([album])
        assert library.catalog.count() == len(names), library.skipped()
    shutil.copytree(base / "now", base / "kept")
    return base


@contextmanager
def opened(base: Path) -> Iterator[Home]:
    """Put the copy in place and open it."""
    shutil.rmtree(base / "now")
    shutil.copytree(base / "kept", base / "now")
    with Library.open(base / "now" / "library", model="builtin", offline=True) as library:
        yield Home(library, base / "now" / "album")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, builtin) -> Path:
    return make(tmp_path_factory.mktemp("exporting"), NAMES, builtin)


@pytest.fixture
def home(made: Path) -> Iterator[Home]:
    with opened(made) as found:
        yield found


# One that can't be told from what we made of it alone, since a list takes the place of the attribute.
ATTRIBUTE = DARKTABLE.replace('darktable:xmp_version="5"', 'darktable:xmp_version="5" dc:subject="sun"').replace(
    DARKTABLE[DARKTABLE.index("   <dc:subject>") : DARKTABLE.index("   <lr:hier")], ""
)
LABELS = {"a.jpg": ["animal/cat"], "b.jpg": ["sea", "sky"], "sub/d.jpg": ["animal/dog"]}


def read(content: bytes, name: str = "digiKam:TagsList") -> list[str]:
    """What other software reads."""
    return properties(content.replace(b"search.invalid", b"else.invalid")).get(name, [])


def test_labels_are_written_beside_photos_and_undo_leaves_no_trace(home: Home):
    before = home.put("b.jpg.xmp", DARKTABLE).read_bytes()
    home.propose(LABELS)
    home.library.tags.accept(["sky"], photos=[home.id("b.jpg")])
    photos = {name: (home.album / name).read_bytes() for name in NAMES}
    report = home.library.tags.export()
    assert (report.written, report.unchanged, report.removed, report.skipped) == (3, 0, 0, ())
    found = home.contents()
    assert set(found) == {"a.jpg.xmp", "b.jpg.xmp", "sub/d.jpg.xmp"}
    assert read(found["a.jpg.xmp"]) == ["auto/animal/cat"]
    assert read(found["b.jpg.xmp"])[-2:] == ["sky", "auto/sea"]
    assert strip(found["b.jpg.xmp"]) == before
    assert {name: (home.album / name).read_bytes() for name in NAMES} == photos
    undone = home.library.tags.undo(report.run)
    assert (undone.sidecars, undone.skipped) == (3, ())
    assert home.contents() == {"b.jpg.xmp": before}
    assert len(home.library.tags.of([home.id("b.jpg")])[home.id("b.jpg")]) == 3  # the labels stay


def test_a_second_export_touches_nothing(home: Home):
    home.put("b.jpg.xmp", DIGIKAM)
    home.propose(LABELS)
    home.library.tags.export()
    before = home.state()
    report = home.library.tags.export()
    assert (report.run, report.written, report.unchanged) == (None, 0, 3)
    home.propose(LABELS)  # the same once more, in another run
    assert home.library.tags.export().unchanged == 3
    assert home.state() == before


def test_undoing_a_label_run_takes_it_out_of_sidecars_too(home: Home):
    kept = home.put("b.jpg.xmp", DIGIKAM).read_bytes()
    first = home.propose({"a.jpg": ["cat"], "b.jpg": ["cat"]})
    home.propose({"a.jpg": ["sea"]})
    home.library.tags.export()
    home.library.tags.undo(first)
    assert {name: read(content) for name, content in home.contents().items()} == {
        "a.jpg.xmp": ["auto/sea"],
        "b.jpg.xmp": ["Orte/Föhr", "animal/Cat"],
    }
    assert home.contents()["b.jpg.xmp"] == kept


def test_undoing_an_export_leaves_what_the_one_before_wrote(home: Home):
    home.propose({"a.jpg": ["cat", "sea"]})
    home.library.tags.export()
    once = home.contents()
    home.propose({"a.jpg": ["sky"], "b.jpg": ["sky"]})
    home.library.tags.accept(["cat"], photos=[home.id("a.jpg")])
    second = home.library.tags.export()
    assert read(home.contents()["a.jpg.xmp"]) == ["cat", "auto/sea", "auto/sky"]
    home.library.tags.undo(second.run)
    assert home.contents() == once


def test_undoing_exports_in_any_order_leaves_nothing(home: Home):
    before = home.put("b.jpg.xmp", DARKTABLE).read_bytes()
    home.propose({"a.jpg": ["cat"], "b.jpg": ["cat"]})
    first = home.library.tags.export()
    home.library.tags.accept(["cat"], photos=[home.id("a.jpg"), home.id("b.jpg")])
    second = home.library.tags.export()
    home.library.tags.undo(first.run)
    assert read(home.contents()["a.jpg.xmp"]) == ["cat"]
    home.library.tags.undo(second.run)
    assert home.contents() == {"b.jpg.xmp": before}


def test_rejected_labels_leave_with_the_next_export(home: Home):
    home.propose(LABELS)
    home.library.tags.export()
    home.library.tags.reject(["sea", "animal/cat"], photos=[home.id("a.jpg"), home.id("b.jpg")])
    report = home.library.tags.export()
    assert (report.written, report.removed) == (1, 1)
    assert {name: read(content) for name, content in home.contents().items()} == {
        "b.jpg.xmp": ["auto/sky"],
        "sub/d.jpg.xmp": ["auto/animal/dog"],
    }


def test_what_other_software_changed_since_stays_changed(home: Home):
    path = home.put("b.jpg.xmp", DARKTABLE)
    home.propose(LABELS)
    report = home.library.tags.export()
    rated = path.read_bytes().replace(b'xmp:Rating="3"', b'xmp:Rating="5"')
    path.write_bytes(rated)
    own = home.album / "a.jpg.xmp"
    own.write_bytes(own.read_bytes().replace(b"</rdf:RDF>", b"<rdf:Description rdf:about=''/></rdf:RDF>"))
    home.library.tags.undo(report.run)
    assert path.read_bytes() == DARKTABLE.replace('xmp:Rating="3"', 'xmp:Rating="5"').encode()
    assert b"auto" not in own.read_bytes()
    assert b"<rdf:Description rdf:about=''/>" in own.read_bytes()


def test_an_export_after_others_changed_a_sidecar_starts_from_what_they_left(home: Home):
    path = home.put("b.jpg.xmp", DARKTABLE)
    home.propose(LABELS)
    first = home.library.tags.export()
    rated = path.read_bytes().replace(b'xmp:Rating="3"', b'xmp:Rating="5"')
    path.write_bytes(rated)
    assert home.library.tags.export().unchanged == 3  # all that is wanted is in it
    assert path.read_bytes() == rated
    without = rated.replace(b"     <rdf:li>auto|sea</rdf:li>\n", b"", 1)
    assert without != rated
    path.write_bytes(without)
    assert home.library.tags.export().written == 1
    assert read(path.read_bytes(), "lr:hierarchicalSubject")[-2:] == ["auto|sea", "auto|sky"]
    home.library.tags.undo(first.run)
    assert path.read_bytes() == DARKTABLE.replace('xmp:Rating="3"', 'xmp:Rating="5"').encode()


REWRITTEN = """<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject><rdf:Bag><rdf:li>cat</rdf:li><rdf:li>sun</rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
   <lr:hierarchicalSubject><rdf:Bag><rdf:li>auto|animal|cat</rdf:li></rdf:Bag></lr:hierarchicalSubject>
  </rdf:Description>
  <rdf:Description rdf:about="" xmlns:digiKam="http://www.digikam.org/ns/1.0/">
   <digiKam:TagsList><rdf:Seq/></digiKam:TagsList>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
"""What other software may make of a sidecar of ours: keywords, one of the user's, nothing that says which is whose."""
LEFT = REWRITTEN.replace("<rdf:li>cat</rdf:li>", "")
LEFT = LEFT[: LEFT.index('\n  <rdf:Description rdf:about="" xmlns:lr')] + LEFT[LEFT.index("\n </rdf:RDF>") :]


@pytest.mark.parametrize("of", ["export", "label"])
def test_what_other_software_wrote_anew_without_saying_what_is_ours_is_taken_out_by_the_journal(home: Home, of):
    label = home.propose(LABELS)
    export = home.library.tags.export().run
    path = home.put("a.jpg.xmp", REWRITTEN)
    report = home.library.tags.undo(export if of == "export" else label)
    assert (report.sidecars, report.skipped) == (3, ())
    assert path.read_text() == LEFT


def test_what_the_user_had_before_stays_whatever_other_software_wrote_anew(home: Home):
    home.put("a.jpg.xmp", REWRITTEN.replace("<rdf:li>auto|animal|cat</rdf:li>", "<rdf:li>cat</rdf:li>"))
    home.propose(LABELS)
    export = home.library.tags.export().run
    path = home.put("a.jpg.xmp", REWRITTEN)
    home.library.tags.undo(export)
    assert read(path.read_bytes(), "dc:subject") == ["cat", "sun"]
    assert "auto" not in path.read_text()


def test_what_is_no_xmp_any_more_is_told_when_labels_are_taken_back(home: Home):
    home.propose(LABELS)
    export = home.library.tags.export().run
    home.put("a.jpg.xmp", "auto|animal|cat")
    report = home.library.tags.undo(export)
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [("a.jpg", "not_xmp")]


def test_our_labels_are_no_keywords_though_other_software_dropped_what_says_so(home: Home, builtin):
    home.library.model.loaded = builtin
    home.propose(LABELS)
    home.library.tags.export()
    home.put("a.jpg.xmp", REWRITTEN)
    home.library.index([home.album])
    id_ = home.id("a.jpg")
    assert [r.label for r in home.library.catalog.labels_of([id_])[id_] if r.source == "file"] == ["sun"]
    home.library.tags.import_(from_keywords=True)
    assert {said.label for said in home.library.catalog.verdicts()} == {"sun"}


def test_a_label_that_the_user_took_out_of_the_root_is_a_keyword(home: Home, builtin):
    home.library.model.loaded = builtin
    home.propose(LABELS)
    home.library.tags.export()
    home.put("a.jpg.xmp", REWRITTEN.replace("auto|animal|cat", "animal|cat"))
    home.library.index([home.album])
    assert home.library.catalog.own_keywords() == {home.id("a.jpg"): ["animal/cat", "sun"]}


def test_what_is_left_empty_of_a_sidecar_of_ours_is_taken_out(home: Home):
    home.propose(LABELS)
    export = home.library.tags.export().run
    path = home.album / "a.jpg.xmp"
    edited = (
        path.read_text()
        .replace("<rdf:li>auto/animal/cat</rdf:li>", "", 1)
        .replace("<rdf:li>auto|animal|cat</rdf:li>", "", 1)
    )
    path.write_text(
        edited.replace("</rdf:RDF>", '<rdf:Description rdf:about="" a="1" xmlns:b="b" b:c="1"/></rdf:RDF>')
    )
    home.library.tags.undo(export)
    assert "TagsList" not in path.read_text()
    assert "hierarchicalSubject" not in path.read_text()
    assert 'b:c="1"' in path.read_text()


def test_a_sidecar_that_was_removed_is_not_missed(home: Home):
    home.propose(LABELS)
    report = home.library.tags.export()
    (home.album / "a.jpg.xmp").unlink()
    assert home.library.tags.undo(report.run).skipped == ()
    assert home.contents() == {}


def test_a_sidecar_renamed_with_its_photo_is_found(home: Home, builtin):
    home.library.model.loaded = builtin
    before = home.put("b.jpg.xmp", ATTRIBUTE).read_bytes()
    home.propose(LABELS)
    report = home.library.tags.export()
    for suffix in ("", ".xmp"):
        (home.album / f"b.jpg{suffix}").rename(home.album / f"trip.jpg{suffix}")
    home.library.index([home.album])
    home.library.tags.undo(report.run)
    assert home.contents() == {"trip.jpg.xmp": before}


def test_the_next_index_has_nothing_to_read_again(home: Home, builtin):
    home.library.model.loaded = builtin
    home.put("b.jpg.xmp", DIGIKAM)
    home.put("c.xmp", DARKTABLE)
    home.library.index([home.album])
    home.propose({**LABELS, "c.jpg": ["sky"]})
    report = home.library.tags.export()
    assert report.written == 4
    own = {name: properties(content) for name, content in home.contents().items()}
    assert home.library.index([home.album]).reread == 0
    home.library.tags.undo(report.run)
    assert home.library.index([home.album]).reread == 0
    assert own["a.jpg.xmp"].get("dc:subject") is None


def test_our_labels_do_not_become_the_files_own_keywords(home: Home, builtin):
    home.library.model.loaded = builtin
    home.put("b.jpg.xmp", DARKTABLE)
    home.library.index([home.album])
    photo = home.id("b.jpg")
    own = home.library.catalog.get([photo])[0].info.keywords
    assert "places/Greece/sea" in own
    home.propose(LABELS)
    home.library.tags.export()
    os.utime(home.album / "b.jpg.xmp")  # so that it is read again
    assert home.library.index([home.album]).reread == 1
    assert home.library.catalog.get([photo])[0].info.keywords == own


def test_a_keyword_the_photo_has_itself_is_in_its_new_sidecar_and_no_tag(home: Home):
    home.propose({"a.jpg": ["cat", "Sun"]})
    with home.library.catalog.writing() as writer:
        for label in ("holiday/beach", "sun"):
            found = LabelledPhoto("a.jpg", (LabelScore(label, 1, 1),), home.id("a.jpg"))
            writer.put_labels([found], [label], source="file", encoder_id=None)
    home.library.tags.export()
    assert read(home.contents()["a.jpg.xmp"]) == ["holiday/beach", "sun", "auto/cat"]


# ---- which and where


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ExportOptions(), ["auto/sea", "sky"]),
        (ExportOptions(accepted=True), ["sky"]),
        (ExportOptions(root=""), ["sea", "sky"]),
        (ExportOptions(root="by/machine"), ["by/machine/sea", "sky"]),
        (ExportOptions(labels=("sea",)), ["auto/sea"]),
    ],
)
def test_options_choose_what_is_written(home: Home, options: ExportOptions, expected):
    home.propose({"b.jpg": ["sea", "sky"]})
    home.library.tags.accept(["sky"], photos=[home.id("b.jpg")])
    home.library.tags.export(options=options)
    assert sorted(read(home.contents()["b.jpg.xmp"])) == expected


def test_an_export_of_one_label_leaves_the_others_written_before(home: Home):
    home.propose({"b.jpg": ["sea", "sky"]})
    home.library.tags.export(options=ExportOptions(labels=("sea",)))
    home.library.tags.export(options=ExportOptions(labels=("sky",)))
    assert read(home.contents()["b.jpg.xmp"]) == ["auto/sea", "auto/sky"]


def test_only_the_places_asked_for_are_written(home: Home):
    home.propose(LABELS)
    home.library.tags.export([home.album / "sub", home.album / "a.jpg"])
    assert set(home.contents()) == {"a.jpg.xmp", "sub/d.jpg.xmp"}
    with pytest.raises(UnknownPhoto):
        home.library.tags.export([home.album / "nothing.jpg"])
    with pytest.raises(UnknownLabel):
        home.library.tags.export(options=ExportOptions(labels=("nowhere",)))
    with pytest.raises(UsageError, match="style"):
        ExportOptions(style="own")


def test_a_sidecar_that_is_there_is_used_whatever_its_name(home: Home):
    home.put("a.xmp", DIGIKAM)
    home.put("twin.xmp", DIGIKAM)  # of either twin: nobody's
    home.propose({"a.jpg": ["sea"], "twin.jpg": ["sea"]})
    home.library.tags.export()
    found = home.contents()
    assert set(found) == {"a.xmp", "twin.xmp", "twin.jpg.xmp"}
    assert "auto/sea" in read(found["a.xmp"])
    assert found["twin.xmp"] == DIGIKAM.encode()


def test_adobes_names_are_given_where_they_are_one_photos_alone(home: Home):
    home.propose({key: ["sea"] for key in NAMES})
    report = home.library.tags.export(options=ExportOptions(style="adobe"))
    assert set(home.contents()) == {"a.xmp", "b.xmp", "c.xmp", "sub/d.xmp"}
    assert {(Path(skip.path).name, skip.reason) for skip in report.skipped} == {
        (name, "ambiguous_name") for name in ("pair.dng", "pair.jpg", "twin.jpg", "twin.png")
    }


def test_a_sidecar_of_raw_and_jpeg_together_belongs_to_the_raw_file(home: Home):
    home.put("pair.xmp", DIGIKAM)
    home.propose({"pair.dng": ["sea"], "pair.jpg": ["sky"]})
    report = home.library.tags.export()
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [("pair.jpg", "shared_sidecar")]
    assert read(home.contents()["pair.xmp"])[-1] == "auto/sea"
    home.library.tags.undo(report.run)
    assert home.contents() == {"pair.xmp": DIGIKAM.encode()}


def test_a_dry_run_tells_all_and_does_nothing(home: Home):
    home.put("b.jpg.xmp", DIGIKAM)
    home.propose(LABELS)
    before, runs = home.state(), home.library.tags.runs()
    report = home.library.tags.export(dry_run=True)
    assert (report.run, report.written) == (None, 3)
    assert [(Path(one.path).name, one.action) for one in report.changes] == [
        ("a.jpg.xmp", "create"),
        ("b.jpg.xmp", "change"),
        ("d.jpg.xmp", "create"),
    ]
    assert (home.state(), home.library.tags.runs()) == (before, runs)
    assert home.library.catalog.sidecars() == []


# ---- what must not be harmed


def test_what_can_not_be_written_safely_is_skipped_and_stays(home: Home):
    outside = home.put("elsewhere.txt", DIGIKAM)
    home.put("a.jpg.xmp", "this is no XMP")
    (home.album / "b.jpg.xmp").symlink_to(outside)
    os.link(outside, home.album / "c.jpg.xmp")
    (home.album / "twin.jpg.xmp").mkdir()
    (home.album / "twin.png").unlink()
    before = home.contents()
    home.propose({key: ["sea"] for key in ("a.jpg", "b.jpg", "c.jpg", "twin.jpg", "twin.png")})
    report = home.library.tags.export()
    assert {(Path(skip.path).name, skip.reason) for skip in report.skipped} == {
        ("a.jpg", "not_xmp"),
        ("b.jpg", "linked"),
        ("c.jpg", "linked"),
        ("twin.jpg", "not_xmp"),
        ("twin.png", "missing"),
    }
    assert (report.run, report.written, home.contents()) == (None, 0, before)
    assert (home.album / "b.jpg.xmp").is_symlink()


def test_photos_of_a_drive_that_is_away_are_skipped(home: Home):
    home.propose(LABELS)
    home.album.rename(home.album.with_name("away"))
    report = home.library.tags.export()
    assert {skip.reason for skip in report.skipped} == {"offline"}
    assert len(report.skipped) == 3


def test_an_undo_waits_for_a_folder_that_is_away_and_not_for_one_that_is_gone(home: Home, builtin):
    home.library.model.loaded = builtin
    home.propose(LABELS)
    run = home.library.tags.export().run
    (home.album / "sub").rename(home.album.parent / "away")
    undone = home.library.tags.undo(run)
    assert [(Path(skip.path).name, skip.reason) for skip in undone.skipped] == [("d.jpg", "missing")]
    assert home.library.index([home.album]).gone == 1
    assert home.library.tags.undo(run).skipped == ()
    assert home.library.catalog.sidecars() == []


def test_a_folder_that_can_not_be_written_to_is_told(home: Home):
    home.propose(LABELS)
    (home.album / "sub").chmod(0o500)
    try:
        with held_to_permissions():
            report = home.library.tags.export()
    finally:
        (home.album / "sub").chmod(0o700)
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [("d.jpg", "not_writable")]


@pytest.mark.parametrize("number", [13, 30])
def test_a_sidecar_that_can_not_be_written_is_forgotten_again(home: Home, monkeypatch, number):
    """No permission, a read-only drive."""
    home.put("b.jpg.xmp", DIGIKAM)
    home.propose({"a.jpg": ["sea"]})
    home.library.tags.export()
    known = home.library.catalog.sidecars()
    home.propose(LABELS)
    before = home.state()
    monkeypatch.setattr(files.Path, "replace", _raising(OSError(number, os.strerror(number))))
    report = home.library.tags.export()
    assert {skip.reason for skip in report.skipped} == {"not_writable"}
    assert (report.written, home.state(), home.library.catalog.sidecars()) == (0, before, known)


def test_a_full_disk_ends_the_export_and_keeps_what_is_written(home: Home, monkeypatch):
    home.propose(LABELS)
    replace, calls = files.Path.replace, []

    def fails_once_in_a_while(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, os.strerror(28))
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", fails_once_in_a_while)
    with pytest.raises(StorageError, match=r"b\.jpg\.xmp"):
        home.library.tags.export()
    assert set(home.contents()) == {"a.jpg.xmp"}
    assert len(home.library.catalog.sidecars()) == 1
    assert home.library.tags.export().written == 2


def _raising(error: OSError) -> Callable[..., None]:
    def raises(*_: object) -> None:
        raise error

    return raises


def test_a_file_changed_while_it_is_written_is_left_to_the_next_run(home: Home):
    path = home.put("a.jpg.xmp", DIGIKAM)
    home.propose(LABELS)
    failpoints.arm(lambda name: path.write_text(DARKTABLE) if name == "sidecars.remembered" else None)
    try:
        report = home.library.tags.export()
    finally:
        failpoints.arm(None)
    assert [(Path(skip.path).name, skip.reason) for skip in report.skipped] == [("a.jpg", "changed")]
    assert path.read_text() == DARKTABLE
    assert home.library.tags.export().written == 1


def test_permissions_stay(home: Home):
    path = home.put("a.jpg.xmp", DIGIKAM)
    path.chmod(0o640)
    home.propose(LABELS)
    home.library.tags.export()
    assert path.stat().st_mode & 0o777 == 0o640
    new = (home.album / "b.jpg.xmp").stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    assert new == 0o666 & ~mask


def test_a_run_that_is_stopped_keeps_what_it_did(home: Home):
    home.propose(LABELS)
    stop = threading.Event()
    stop.set()
    report = home.library.tags.export(stop=stop)
    assert (report.interrupted, report.written, home.contents()) == (True, 0, {})


class Died(BaseException):
    """The process is gone: nothing after this point happened."""


@pytest.mark.parametrize("point", ["sidecars.remembered", "sidecars.replaced", "commit.sealed"])
@pytest.mark.parametrize("work", ["first export", "second export", "undo"])
def test_a_run_that_dies_at_any_point_can_be_taken_back(home: Home, monkeypatch, point, work):
    """What follows a death is done by hand here: no `finally` of the dead run may tell the catalog anything."""
    befores = {
        name: home.put(name, content).read_bytes()
        for name, content in (("a.jpg.xmp", DARKTABLE), ("b.xmp", DIGIKAM), ("c.jpg.xmp", ATTRIBUTE))
    }
    labels = {**LABELS, "c.jpg": ["sea"]}
    home.propose(labels)
    if work != "first export":
        home.library.tags.export()
        home.propose({name: [*found, "new"] for name, found in labels.items()})
    reached: list[str] = []
    nth = {"sidecars.remembered": 1, "sidecars.replaced": 2, "commit.sealed": 2}[point]
    child = os.fork()
    if child == 0:
        signal.alarm(60)

        def die(name: str) -> None:
            reached.append(name)
            if reached.count(point) == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        failpoints.arm(die)
        try:
            with Library.open(home.library.catalog.location, model="builtin", offline=True) as library:
                if work == "undo":
                    library.tags.undo(library.tags.runs()[1].id)
                else:
                    library.tags.export()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    for run in home.library.tags.runs():
        if run.kind == "export" and run.undone_at is None:
            home.library.tags.undo(run.id)
    if not [run for run in home.library.tags.runs() if run.kind == "export"]:
        assert (work, point) == ("first export", "commit.sealed")
    assert home.contents() == befores
    assert home.library.catalog.sidecars() == []


def test_what_a_killed_run_had_begun_to_write_is_removed(home: Home):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    begun = files.temporary_name(home.album / "a.jpg.xmp")
    begun = begun.with_name(begun.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    begun.write_bytes(b"<x")
    alive = home.put(files.temporary_name(home.album / "b.jpg.xmp").name, b"<x")
    home.propose(LABELS)
    home.library.tags.export()
    assert (begun.exists(), alive.exists()) == (False, True)


def test_exporting_again_after_a_death_finishes_the_work(home: Home):
    home.put("b.jpg.xmp", DIGIKAM)
    home.propose(LABELS)
    home.library.tags.export()
    whole = home.contents()
    row = home.library.catalog.sidecars([home.id("b.jpg")])[0]
    home.put("b.jpg.xmp", DIGIKAM)  # remembered, but not written
    (home.album / "a.jpg.xmp").unlink()
    report = home.library.tags.export()
    assert (report.written, home.contents()) == (2, whole)
    assert home.library.catalog.sidecars([home.id("b.jpg")])[0].before == row.before == DIGIKAM.encode()


def test_nothing_of_ours_is_needed_but_the_file_to_take_ours_out(home: Home):
    """A library that was made anew does not know what it wrote before; the file says so itself."""
    path = home.put("a.jpg.xmp", DARKTABLE)
    home.propose(LABELS)
    home.library.tags.export()
    whole = home.contents()
    with sqlite3.connect(Path(home.library.catalog.location) / "catalog.db") as connection:
        connection.execute("DELETE FROM sidecars")
    connection.close()
    assert home.library.tags.export().run is None
    assert home.contents() == whole
    home.library.tags.reject(["animal/cat", "sea", "sky", "animal/dog"], photos=[home.album])
    home.library.tags.export()
    assert home.contents() == {"a.jpg.xmp": DARKTABLE.encode()}
    assert path.read_bytes() == DARKTABLE.encode()


CROWD = [f"{number // 50}/{number:03}.jpg" for number in range(300)]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, builtin) -> Path:
    return make(tmp_path_factory.mktemp("crowded"), CROWD, builtin)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(40))
def test_a_killed_export_or_undo_can_be_taken_back(crowded: Path, trial):
    """SIGKILL in the midst of the command itself, by the number of files that it has written until then."""
    rng = np.random.default_rng(trial)
    forms = [*STYLES.values(), ATTRIBUTE.encode()]
    with opened(crowded) as home:
        befores = {
            f"{name}.xmp": home.put(f"{name}.xmp", forms[number % len(forms)]).read_bytes()
            for number, name in enumerate(CROWD[::3])
        }
        home.propose({name: ["sea", "animal/cat"] for name in CROWD})
        if trial % 2:
            run = home.library.tags.export().run
            _killed(home, rng, "tags", "undo", str(run))
        else:
            _killed(home, rng, "tags", "export")
        for run in [run.id for run in home.library.tags.runs() if run.kind == "export" and not run.undone_at]:
            home.library.tags.undo(run)
        assert home.contents() == befores
        assert home.library.catalog.sidecars() == []


def _killed(home: Home, rng: np.random.Generator, *command: str) -> None:
    """Run a command until it has replaced some sidecars, then kill it."""
    start, wanted = _stamps(home), int(rng.integers(1, len(CROWD)))
    process = subprocess.Popen(
        [sys.executable, "-m", "search", "--library", home.library.catalog.location, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None:
        time.sleep(0.002)
        if len(start.items() ^ _stamps(home).items()) >= wanted:
            process.kill()
    assert process.wait() in (0, -signal.SIGKILL)


def _stamps(home: Home) -> dict[str, int]:
    """What tells which sidecars there are, while somebody writes them."""
    found = {}
    for folder in home.album.iterdir():
        for entry in os.scandir(folder):
            if entry.name.endswith(".xmp"):
                with suppress(FileNotFoundError):
                    found[entry.path] = os.stat(entry.path).st_ino
    return found
