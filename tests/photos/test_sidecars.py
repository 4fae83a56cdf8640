"""Which XMP file belongs to which photo, told alike from a folder's names and from one photo's path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from search.photos import sidecars
from search.photos.decode import load, read_info
from search.photos.scan import ScanOptions, scan

CASES = [
    (["a.jpg", "a.jpg.xmp"], {"a.jpg": "a.jpg.xmp"}),
    (["a.jpg", "a.xmp"], {"a.jpg": "a.xmp"}),
    (["a.JPG", "a.XMP"], {"a.JPG": "a.XMP"}),
    (["a.jpg", "a.jpg.xmp", "a.xmp"], {"a.jpg": "a.jpg.xmp"}),
    (["a.jpg", "a.png", "a.xmp"], {}),
    (["a.jpg", "a.png", "a.xmp", "a.png.xmp"], {"a.png": "a.png.xmp"}),
    (["a.jpg", "a.nef", "a.xmp"], {"a.jpg": "a.xmp", "a.nef": "a.xmp"}),
    (["a.nef", "a.dng", "a.xmp"], {}),
    (["a.jpg", "a.nef", "a.nef.xmp", "a.xmp"], {"a.jpg": "a.xmp", "a.nef": "a.nef.xmp"}),
    (["a.jpg", "A.xmp", "b.xmp", "a.mov", "xmp", ".xmp"], {}),
    (["a.b.jpg", "a.xmp", "a.b.xmp"], {"a.b.jpg": "a.b.xmp"}),
]


@pytest.mark.parametrize(("names", "expected"), CASES, ids=[" ".join(names) for names, _ in CASES])
def test_a_sidecar_is_told_by_its_name(tmp_path: Path, names, expected):
    for name in names:
        (tmp_path / name).touch()
    assert sidecars.among(names) == expected
    for name in names:
        found = sidecars.of(str(tmp_path / name))
        if Path(name).suffix.lower() in sidecars.PHOTO_SUFFIXES:
            assert found == (str(tmp_path / expected[name]) if name in expected else None)


def stamp(folder: Path) -> int:
    """The change time that the walk gives the one photo."""
    [file] = scan(str(folder))
    [alone] = scan(file.path)
    assert alone == file
    return file.ctime_ns


def test_a_sidecar_that_comes_changes_or_goes_changes_the_time_of_its_photo(tmp_path: Path, make_photo):
    sidecar = tmp_path / "a.xmp"
    sidecar.touch()
    make_photo(tmp_path / "a.png", 1)  # later than its sidecar
    path = str(tmp_path / "a.png")
    seen = [stamp(tmp_path)]
    assert load(path).stat.ctime_ns == read_info(path)[1].ctime_ns == seen[0]
    os.utime(sidecar, (1, 1))
    seen.append(stamp(tmp_path))
    sidecar.unlink()
    seen.append(stamp(tmp_path))
    assert seen[-1] == (tmp_path / "a.png").stat().st_ctime_ns
    (tmp_path / "a.png.xmp").write_text("x")
    seen.append(stamp(tmp_path))
    assert len(set(seen)) == 4


def test_a_photo_left_out_makes_no_difference_to_whose_a_sidecar_is(tmp_path: Path, make_photo):
    for name in ("a.png", "a.jpg"):
        make_photo(tmp_path / name, 1)
    (tmp_path / "a.xmp").touch()
    [file] = scan(str(tmp_path), ScanOptions(exclude=("*.jpg",)))
    assert file.ctime_ns == (tmp_path / "a.png").stat().st_ctime_ns == load(file.path).stat.ctime_ns


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_what_is_no_file_is_no_sidecar(tmp_path: Path, make_photo, make):
    photo = make_photo(tmp_path / "a.png", 1)
    make(tmp_path / "a.png.xmp")
    assert stamp(tmp_path) == photo.stat().st_ctime_ns
    assert load(str(photo)).info.rating is None


def test_a_sidecar_that_is_too_large_is_not_read(tmp_path: Path):
    (tmp_path / "a.xmp").write_bytes(b" " * (sidecars.MAX_BYTES + 1))
    assert sidecars.read(str(tmp_path / "a.xmp")) == b""
    assert sidecars.read(str(tmp_path / "b.xmp")) == sidecars.read(None) == b""


def test_a_sidecar_that_another_file_has_too_is_no_photos_own(tmp_path):
    for name in ("a.jpg", "a.nef", "a.xmp", "a.jpg.xmp", "b.jpg", "b.XMP"):
        (tmp_path / name).touch()
    assert sidecars.own(str(tmp_path / "a.jpg")) == [str(tmp_path / "a.jpg.xmp")]
    assert sidecars.own(str(tmp_path / "b.jpg")) == [str(tmp_path / "b.XMP")]


def test_a_folder_is_not_listed_for_photos_without_sidecars(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.jpg.xmp").touch()
    monkeypatch.setattr(sidecars.os, "listdir", lambda _: pytest.fail("listed"))
    assert sidecars.own(str(tmp_path / "a.jpg")) == [str(tmp_path / "a.jpg.xmp")]
