"""Looking around: photos by time, what there is to filter by, photos that show the same."""

from __future__ import annotations

import itertools
import shutil

import pytest
from PIL import Image
from scenes import burst_exif, scene

from search.library.browsing import Browsing
from search.types import Filter


@pytest.fixture
def looked(library, tmp_path):
    """A library of photos of several days and cameras."""
    folder = tmp_path / "album"
    for place, second, camera in (("a/one", 1, "M"), ("a/two", 30, "M"), ("b/three", 59, "N")):
        path = folder / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        scene(second).save(path, exif=burst_exif(second, camera))
    scene(99).save(folder / "b" / "four.png")
    library.index([folder])
    return library


def names(photos) -> list[str]:
    return [photo.path.rpartition("/")[2] for photo in photos]


def test_photos_come_by_time_the_latest_first(looked):
    assert names(looked.browse().photos) == ["four.png", "three.jpg", "two.jpg", "one.jpg"]
    page = looked.browse(2, offset=1)
    assert (names(page.photos), page.total) == (["three.jpg", "two.jpg"], 4)


def test_a_filter_holds_for_photos_and_for_counts(looked, tmp_path):
    only = Filter(camera="maker m")
    assert names(looked.browse(filter=only).photos) == ["two.jpg", "one.jpg"]
    found = looked.facets(only)
    assert (found.photos, [(one.name, one.photos) for one in found.cameras]) == (2, [("Maker M", 2)])
    assert (
        looked.browse(filter=Filter(camera="nobody")).total == looked.facets(Filter(camera="nobody")).photos == 0
    )


def test_counts_are_told_by_name(looked, tmp_path):
    found = looked.facets()
    assert {one.name: one.photos for one in found.cameras} == {"Maker M": 2, "Maker N": 1}
    assert {one.name: one.photos for one in found.folders} == {f"{tmp_path}/album/{name}": 2 for name in "ab"}
    assert {one.name: one.photos for one in found.times}["2020"] == 3
    assert [one.name for one in looked.facets(Filter(camera="Maker")).times] == ["2020-05"]
    assert found.placed == 0


def test_counts_follow_labels_and_photos(looked, tmp_path):
    assert looked.facets().labels == ()
    run = looked.tags.accept(["red"], photos=[str(tmp_path / "album" / "a")]).run
    assert [(one.name, one.photos) for one in looked.facets().labels] == [("red", 2)]
    looked.tags.undo(run)
    assert looked.facets().labels == ()
    looked.tags.accept(["blue"], photos=[str(tmp_path / "album" / "b")])
    (tmp_path / "album" / "b" / "four.png").unlink()
    looked.index([tmp_path / "album"])
    found = looked.facets()
    assert (found.photos, [(one.name, one.photos) for one in found.labels]) == (3, [("blue", 1)])


def test_photos_that_show_the_same_are_one_group(library, tmp_path):
    folder = tmp_path / "album"
    folder.mkdir()
    scene(1).save(folder / "a.png")
    shutil.copy(folder / "a.png", folder / "b.png")
    scene(1).resize((200, 150), Image.Resampling.LANCZOS).save(folder / "c.jpg")
    for second in (0, 5, 40):
        scene(2).save(folder / f"shot{second}.jpg", exif=burst_exif(second), quality=90 - second // 5)
    scene(3).save(folder / "other.png")
    library.index([folder])
    photos = sorted(library.browse().photos, key=lambda photo: photo.path)
    known = {photo.id: photo.path.rpartition("/")[2] for photo in photos}
    groups = [[known[id_] for id_ in group] for group in library.folded(photos)]
    assert groups == [["a.png", "b.png", "c.jpg"], ["other.png"], ["shot0.jpg", "shot40.jpg", "shot5.jpg"]]
    assert library.folded([]) == []


def test_what_takes_long_to_read_is_read_a_tenth_of_the_time(looked, tmp_path):
    def photos(browsing: Browsing) -> int:
        return len(browsing.overview(looked.catalog).ids)

    slow, quick = Browsing(clock=itertools.count().__next__), Browsing(clock=itertools.count(step=0.01).__next__)
    assert (photos(slow), photos(quick)) == (4, 4)
    (tmp_path / "album" / "b" / "four.png").unlink()
    looked.index([tmp_path / "album"])
    assert photos(quick) == 3
    assert [photos(slow) for _ in range(10)] == [4] * 8 + [
        3
    ] * 2  # read from 0 to 1, asked at 2, 3, ..., read at 10
