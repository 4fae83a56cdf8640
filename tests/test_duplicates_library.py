"""A made set through a real library: what is found of each kind, what is moved, and what a hash costs."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance
from scenes import burst_exif, coded, cropped, scaled, scene, stood

from search import Library
from search.duplicates import DuplicateKind, DuplicateOptions, Levels
from search.errors import LibraryBusy, UsageError
from search.library import setting_aside
from search.library.moves import NAME
from search.photos.likeness import METHOD

EXACT, PICTURE, MOMENT, SIMILAR = DuplicateKind
TURN = Image.Transpose.ROTATE_90
CHANGED = {
    "jpeg40.jpg": lambda image: coded(image, "JPEG", quality=40),
    "half.jpg": lambda image: scaled(image, 0.5),
    "third.webp": lambda image: scaled(image, 0.34),
    "cropped.png": lambda image: cropped(image, 0.06),
    "turned.jpg": lambda image: image.transpose(TURN),
    "mirrored.jpg": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def make_set(folder: Path) -> None:
    """Six scenes, each as it is, copied and changed; two bursts of two; and three scenes alone."""
    folder.mkdir(parents=True)
    for number, (name, change) in enumerate(CHANGED.items()):
        scene(number).save(folder / f"{number}_original.jpg", quality=95)
        shutil.copyfile(folder / f"{number}_original.jpg", folder / f"{number}_zcopy.jpg")
        change(scene(number)).save(folder / f"{number}_{name}")
    for number in (10, 11):
        shots = stood(scene(number), 0), ImageEnhance.Brightness(stood(scene(number), 0.02)).enhance(1.1)
        for second, shot in enumerate(shots):
            shot.save(
                folder / f"{number}_burst{second}.jpg", quality=95, exif=burst_exif(30 * (number - 10) + second)
            )
    for number in (20, 21, 22):
        scene(number).save(folder / f"{number}_alone.jpg", quality=95)


def open_at(folder: Path, builtin) -> Library:
    library = Library.open(folder, model="builtin", offline=True)
    library.model.loaded = builtin
    return library


@pytest.fixture(scope="module")
def made(tmp_path_factory, builtin) -> Path:
    """A folder with the set in `album` and its library in `library`."""
    folder = tmp_path_factory.mktemp("made")
    make_set(folder / "album")
    with open_at(folder / "library", builtin) as library:
        library.index([folder / "album"])
    return folder


@pytest.fixture
def own(made: Path, tmp_path: Path, builtin):
    """A library and an album of one's own, to change."""
    for name in ("album", "library"):
        shutil.copytree(made / name, tmp_path / name)
    with open_at(tmp_path / "library", builtin) as library:
        library.move_root(made / "album", tmp_path / "album", force=True)
        yield library


def names(group) -> set[str]:
    return {Path(photo.path).name for photo in (group.keep, *(other.photo for other in group.others))}


@pytest.fixture(scope="module")
def report(made: Path, builtin):
    with open_at(made / "library", builtin) as library:
        return library.duplicates()


def test_copies_are_exact(report):
    found = [names(group) for group in report.groups if group.kind == EXACT]
    assert found == [{f"{number}_original.jpg", f"{number}_zcopy.jpg"} for number in range(6)]


def test_changed_pictures_are_the_same_picture_and_nothing_else_is(report):
    found = {frozenset(names(group)) for group in report.groups if group.kind == PICTURE}
    wanted = {frozenset((f"{n}_original.jpg", f"{n}_{name}")) for n, name in enumerate(CHANGED)}
    assert found <= wanted and len(found) >= len(wanted) - 1, found ^ wanted


def test_shots_of_a_burst_are_of_one_moment(report):
    found = {frozenset(names(group)) for group in report.groups if group.kind == MOMENT}
    assert found == {frozenset((f"{number}_burst0.jpg", f"{number}_burst1.jpg")) for number in (10, 11)}


def test_scenes_alone_are_no_duplicates(report):
    for group in report.groups:
        assert group.kind == SIMILAR or not any("alone" in name for name in names(group))


def test_each_group_says_why(report):
    half = next(g for g in report.groups if g.kind == PICTURE and "1_half.jpg" in names(g))
    assert Path(half.keep.path).name == "1_original.jpg"
    assert (half.others[0].reason, half.others[0].lost) == ("another size", "160x120 against 320x240")
    assert 0.5 < half.others[0].score <= 1
    turned = next(g for g in report.groups if g.kind == PICTURE and "4_turned.jpg" in names(g))
    assert turned.others[0].reason in ("rotated by 90°", "rotated by 270°")
    burst = next(g for g in report.groups if g.kind == MOMENT)
    assert burst.reason == "Maker Model, within 1 s" and burst.others[0].reason == "1 s apart"


def test_only_wanted_kinds_are_reported_and_each_pair_under_its_strongest(made, builtin):
    with open_at(made / "library", builtin) as library:
        moments = library.duplicates(options=DuplicateOptions((MOMENT,)))
        similar = library.duplicates(options=DuplicateOptions((SIMILAR,), threshold=0.8))
    assert {group.kind for group in moments.groups} == {MOMENT} and len(moments.groups) == 2
    for group in similar.groups:
        assert len({name.split("_")[0] for name in names(group)}) > 1, "a stronger kind holds these"


def test_only_a_folder_is_looked_through(made, tmp_path, builtin):
    with open_at(made / "library", builtin) as library:
        assert library.duplicates(made / "album").photos == 25
        with pytest.raises(UsageError, match="no photo of the library"):
            library.duplicates(tmp_path)


# ---- hashes


def test_an_index_run_leaves_every_photo_its_hash(made, builtin):
    with open_at(made / "library", builtin) as library:
        assert len(library.catalog.pictures(METHOD)) == 25
        assert not len(library.catalog.without_picture(METHOD))


def forget_hashes(library: Library) -> None:
    with library.catalog.writing() as writer:
        writer._connection.exec_driver_sql("DELETE FROM pictures")
        writer._connection.commit()


def test_photos_of_an_older_library_are_hashed_when_duplicates_are_looked_for(own, report):
    before = own.catalog.pictures(METHOD)
    forget_hashes(own)
    assert [group.kind for group in own.duplicates().groups] == [group.kind for group in report.groups]
    assert [picture.id for picture in own.catalog.pictures(METHOD)] == [picture.id for picture in before]


def test_hashing_goes_on_where_it_was_stopped(own):
    forget_hashes(own)
    stop, seen = threading.Event(), []

    def progress(step):
        seen.append(step)
        if len(seen) == 8:
            stop.set()

    assert own.duplicates(progress=progress, stop=stop).interrupted
    assert len(own.catalog.pictures(METHOD)) == 8
    own.duplicates(progress=seen.append)
    assert [step.total for step in seen if step.stage == "hashing"][-1] == 17


def test_without_hashes_and_with_a_busy_library_the_rest_is_found(own, tmp_path):
    forget_hashes(own)
    told: list[str] = []
    own._notify = told.append
    from search.catalog import Catalog

    with Catalog(str(tmp_path / "library")).writing():
        found = own.duplicates()
        with pytest.raises(LibraryBusy):
            own.set_aside(found.groups, tmp_path / "aside")
    assert "25 photos have no hash yet" in told[0]
    assert found.unknown == 19 and {group.kind for group in found.groups} >= {EXACT, MOMENT}


def test_a_photo_that_changed_since_is_not_compared(own, tmp_path):
    scene(50).save(tmp_path / "album" / "1_half.jpg")
    report = own.duplicates()
    assert not any("1_half.jpg" in names(group) for group in report.groups if group.kind == PICTURE)
    assert [Path(skip.path).name for skip in report.skipped] == ["1_half.jpg"]


# ---- moving

SAFE = DuplicateOptions((EXACT, PICTURE))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_duplicates_are_moved_with_their_sidecars_and_the_library_knows(own, tmp_path):
    album, aside = tmp_path / "album", tmp_path / "aside"
    before = files(album)
    (album / "1_half.jpg.xmp").write_text("of the half")
    report = own.duplicates(options=SAFE)
    done = own.set_aside(report.groups, aside)
    after = files(album) | {name: data for name, data in files(aside).items() if name != NAME}
    assert after == before | {"1_half.jpg.xmp": b"of the half"}
    assert (aside / "1_half.jpg").exists() and (aside / "1_half.jpg.xmp").exists() and not done.skipped
    assert own.catalog.count() == 25 - sum(len(group.others) for group in report.groups)
    assert not own.duplicates(options=SAFE).groups


def test_what_was_moved_is_written_down_and_moved_back_has_its_vectors(own, tmp_path):
    own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    for line in (tmp_path / "aside" / NAME).read_text().splitlines():
        moved = json.loads(line)
        if not moved.get("done"):
            os.rename(moved["to"], moved["from"])
    report = own.index([tmp_path / "album"])
    assert (report.photos, report.encoded) == (25, 0)


def test_nothing_is_overwritten_and_a_taken_name_is_numbered(own, tmp_path):
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "1_half.jpg").write_bytes(b"mine")
    (tmp_path / "album" / "1_half.jpg.xmp").write_text("of the half")
    done = own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert not done.skipped
    assert (tmp_path / "aside" / "1_half.jpg").read_bytes() == b"mine"
    assert (tmp_path / "aside" / "1_half (2).jpg").exists()
    assert (tmp_path / "aside" / "1_half (2).jpg.xmp").read_text() == "of the half"


def copies_in_roots(tmp_path: Path, builtin, *, count: int = 3) -> Library:
    """A library of as many folders, each with one file that is the same in all, its time too."""
    scene(1).save(tmp_path / "img.jpg")
    for name in "abc"[:count]:
        (tmp_path / name).mkdir()
        shutil.copy2(tmp_path / "img.jpg", tmp_path / name / "img.jpg")
    library = open_at(tmp_path / "lib", builtin)
    library.index([tmp_path / name for name in "abc"[:count]])
    return library


def test_copies_of_several_roots_are_all_there_after_a_move(tmp_path, builtin):
    with copies_in_roots(tmp_path, builtin) as library:
        done = library.set_aside(library.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert (len(done.moved), done.skipped) == (2, ())
    assert {path.name for path in (tmp_path / "aside").glob("*.jpg")} == {"img.jpg", "img (2).jpg"}


def test_a_copy_in_a_place_that_was_moved_from_before_is_no_leftover(tmp_path, builtin):
    with copies_in_roots(tmp_path, builtin, count=2) as library:
        library.set_aside(library.duplicates(options=SAFE).groups, tmp_path / "aside")
        gone = next(tmp_path / name for name in "ab" if not (tmp_path / name / "img.jpg").exists())
        shutil.copy2(tmp_path / "img.jpg", gone / "img.jpg")
        library.index([gone])
        library.set_aside(library.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert {path.name for path in (tmp_path / "aside").glob("*.jpg")} == {"img.jpg", "img (2).jpg"}


@pytest.mark.parametrize("code", ["EROFS", "EACCES"])
def test_a_photo_that_cannot_leave_stays_whole_with_its_sidecar_and_the_others_go(
    own, tmp_path, monkeypatch, code
):
    import errno

    album, before = tmp_path / "album", files(tmp_path / "album")
    (album / "1_half.jpg.xmp").write_text("of the half")
    unlink = Path.unlink

    def stuck(path, **options):
        if path == album / "1_half.jpg":
            raise OSError(getattr(errno, code), "not here", str(path))
        unlink(path, **options)

    monkeypatch.setattr(Path, "unlink", stuck)
    done = own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert [(skip.path, skip.reason) for skip in done.skipped] == [(str(album / "1_half.jpg"), "not_removable")]
    assert (album / "1_half.jpg").read_bytes() == before["1_half.jpg"]
    assert (album / "1_half.jpg.xmp").read_text() == "of the half"
    assert not any("1_half" in name for name in files(tmp_path / "aside")) and len(done.moved) > 5


def test_a_sidecar_that_cannot_be_put_back_is_said_to_be_elsewhere(own, tmp_path, monkeypatch):
    album, move = tmp_path / "album", setting_aside.move_file
    (album / "1_half.jpg.xmp").write_text("of the half")

    def stuck(source, target, **options):
        if source.name == "1_half.jpg" or source == tmp_path / "aside" / "1_half.jpg.xmp":
            raise setting_aside.SourceStays(13, "Permission denied", str(source))
        move(source, target, **options)

    monkeypatch.setattr(setting_aside, "move_file", stuck)
    done = own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert {(Path(skip.path).name, skip.reason) for skip in done.skipped} == {
        ("1_half.jpg", "not_removable"),
        ("1_half.jpg.xmp", "parted"),
    }
    assert str(tmp_path / "aside" / "1_half.jpg.xmp") in {one.to for one in done.moved}


def test_what_was_moved_is_put_back_and_found_as_before(own, tmp_path):
    album, aside = tmp_path / "album", tmp_path / "aside"
    (album / "1_half.jpg.xmp").write_text("of the half")
    before, known = files(album), own.catalog.all_ids().tolist()
    own.set_aside(own.duplicates(options=SAFE).groups, aside)
    (album / "2_zcopy.jpg").write_bytes(b"of the user's")
    done = own.put_back(aside)
    assert [(Path(skip.path).name, skip.reason) for skip in done.skipped] == [("2_zcopy.jpg", "exists")]
    assert files(album) == before | {"2_zcopy.jpg": b"of the user's"}
    assert len(own.catalog.all_ids()) == len(known) - 1
    os.unlink(album / "2_zcopy.jpg")
    assert len(own.put_back(aside / NAME).moved) == 1 and files(album) == before
    assert own.catalog.all_ids().tolist() == known
    assert own.put_back(aside).moved == () and set(files(aside)) == {NAME}
    assert own.index([album]).encoded == 0


def test_putting_back_is_cut_short_and_goes_on(own, tmp_path, monkeypatch):
    before = files(tmp_path / "album")
    own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda path, **_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            own.put_back(tmp_path / "aside")
    assert not own.put_back(tmp_path / "aside").skipped
    assert files(tmp_path / "album") == before and set(files(tmp_path / "aside")) == {NAME}


def test_nothing_is_put_back_onto_a_drive_that_is_away(own, tmp_path):
    own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    os.rename(tmp_path / "album", tmp_path / "away")
    assert {skip.reason for skip in own.put_back(tmp_path / "aside").skipped} == {"offline"}
    assert not (tmp_path / "album").exists()
    with pytest.raises(UsageError, match="no list of moved files"):
        own.put_back(tmp_path / "away")


def test_a_move_killed_halfway_is_finished_by_the_next_run(own, tmp_path, monkeypatch):
    """Killed while the file is in both places; the next run takes it from the first."""
    (tmp_path / "album" / "0_zcopy.jpg.xmp").write_text("of the copy")
    report = own.duplicates(options=DuplicateOptions((EXACT,)))
    with monkeypatch.context() as patch:
        unlink = Path.unlink

        def die(path, **options):
            if path.name == "0_zcopy.jpg":
                raise KeyboardInterrupt
            unlink(path, **options)

        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            own.set_aside(report.groups, tmp_path / "aside")
    assert (tmp_path / "album" / "0_zcopy.jpg").exists() and (tmp_path / "aside" / "0_zcopy.jpg").exists()
    again = own.duplicates(options=DuplicateOptions((EXACT,)))
    assert len(own.set_aside(again.groups, tmp_path / "aside").moved) == 6
    assert not (tmp_path / "album" / "0_zcopy.jpg").exists()
    assert (tmp_path / "aside" / "0_zcopy.jpg.xmp").read_text() == "of the copy"


def test_a_file_stays_if_the_kept_one_is_no_longer_what_it_was(own, tmp_path):
    report = own.duplicates(options=SAFE)
    os.unlink(tmp_path / "album" / "1_original.jpg")
    (tmp_path / "album" / "2_original.jpg").write_bytes(b"something else")
    done = own.set_aside(report.groups, tmp_path / "aside")
    stayed = {Path(skip.path).name for skip in done.skipped}
    assert stayed == {"1_zcopy.jpg", "1_half.jpg", "2_zcopy.jpg", "2_third.webp"}
    assert all((tmp_path / "album" / name).exists() for name in stayed)


def test_a_file_reached_by_two_names_is_not_moved(own, tmp_path):
    report = own.duplicates(options=DuplicateOptions((EXACT,)))
    os.unlink(tmp_path / "album" / "0_zcopy.jpg")
    (tmp_path / "album" / "0_zcopy.jpg").symlink_to(tmp_path / "album" / "0_original.jpg")
    done = own.set_aside(report.groups, tmp_path / "aside")
    assert [skip.reason for skip in done.skipped] == ["one_file"]


def test_a_move_that_is_stopped_goes_on_where_it_was(own, tmp_path):
    report = own.duplicates(options=DuplicateOptions((EXACT,)))
    stop = threading.Event()
    first = own.set_aside(report.groups, tmp_path / "aside", stop=stop, progress=lambda _: stop.set())
    assert first.interrupted and len(first.moved) == 1
    rest = own.duplicates(options=DuplicateOptions((EXACT,)))
    assert len(own.set_aside(rest.groups, tmp_path / "aside").moved) == 5


def test_a_full_disk_ends_it_and_what_was_moved_is_known(own, tmp_path, monkeypatch):
    import errno

    from search.errors import StorageError

    moved, move = [], setting_aside.move_file

    def full(source, target, **options):
        if len(moved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        moved.append(source)
        move(source, target, **options)

    monkeypatch.setattr(setting_aside, "move_file", full)
    with pytest.raises(StorageError, match="No space"):
        own.set_aside(own.duplicates(options=SAFE).groups, tmp_path / "aside")
    assert own.catalog.count() == 23


def test_a_folder_inside_an_indexed_one_is_refused(own, tmp_path):
    with pytest.raises(UsageError, match="in the indexed folder"):
        own.set_aside([], tmp_path / "album" / "aside")


def test_a_photo_with_labels_that_the_kept_one_lacks_stays_unless_it_is_asked_for(own, tmp_path):
    found = own.duplicates(options=SAFE)
    other = next(g for g in found.groups if "1_half.jpg" in names(g)).others[0]
    group = next(g for g in found.groups if "1_half.jpg" in names(g))
    rated = replace(group, others=(replace(other, photo=replace(other.photo, labels=("mine",))),))
    done = own.set_aside([rated], tmp_path / "aside")
    assert [(skip.reason, Path(skip.path).name) for skip in done.skipped] == [("has_more", "1_half.jpg")]
    assert len(own.set_aside([rated], tmp_path / "aside", spare=False).moved) == 1


def test_a_threshold_says_nothing_of_one_moment(made, builtin, monkeypatch):
    monkeypatch.setattr("search.duplicates.levels", lambda *_: Levels(1.01, 0.95))
    with open_at(made / "library", builtin) as library:
        options = DuplicateOptions((MOMENT,), threshold=0.1)
        assert library.duplicates(options=options).groups == ()


def test_many_copies_of_a_photo_hide_no_neighbour_of_it(tmp_path, builtin, monkeypatch):
    monkeypatch.setattr("search.duplicates.NEAREST", 1)
    (tmp_path / "album").mkdir()
    for quality in (30, 60, 95):
        scene(1).save(tmp_path / "album" / f"1_{quality}.jpg", quality=quality)
    coded(scene(1), "JPEG", quality=30).convert("L").save(tmp_path / "album" / "2.jpg", quality=95)
    with open_at(tmp_path / "library", builtin) as library:
        library.index([tmp_path / "album"])
        groups = library.duplicates(options=DuplicateOptions(threshold=0.1)).groups
    assert [group.kind for group in groups] == [PICTURE, SIMILAR]
    assert names(groups[1]) == {Path(groups[0].keep.path).name, "2.jpg"}


def test_a_copy_sharpened_and_coded_hard_is_not_kept(tmp_path, builtin):
    from PIL import ImageFilter

    (tmp_path / "album").mkdir()
    scene(1).save(tmp_path / "album" / "b.jpg", quality=92)
    scene(1).filter(ImageFilter.UnsharpMask(1, 60)).save(tmp_path / "album" / "a.jpg", quality=40)
    with open_at(tmp_path / "library", builtin) as library:
        library.index([tmp_path / "album"])
        groups = library.duplicates(options=SAFE).groups
    assert [Path(group.keep.path).name for group in groups] == ["b.jpg"]
