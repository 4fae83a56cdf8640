"""The walk: what it yields, in which order, what it leaves out and what it calls unknown."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from rights import held_to_permissions

from search.photos.scan import PHOTO_SUFFIXES, ScanOptions, scan
from search.types import FileStat, PassedOver


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def names(found: Iterator[FileStat], root: Path) -> list[str]:
    return [os.path.relpath(file.path, root) for file in found]


class Errors:
    """Collects what the walk could not examine."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int | None]] = []

    def __call__(self, path: str, error: OSError) -> None:
        self.seen.append((path, error.errno))


def test_photo_files_come_in_order_of_their_names(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a/2.png", "a/1.heic", "c/d/3.tif", "C.gif", "notes.txt", "noext", "jpg")
    assert names(scan(str(tmp_path)), tmp_path) == ["C.gif", "a/1.heic", "a/2.png", "b.jpg", "c/d/3.tif"]


def test_file_is_described_unopened(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    assert list(scan(str(tmp_path))) == [
        FileStat(str(path), 5, 1_700_000_000_123_456_789, path.stat().st_ctime_ns)
    ]


def test_suffixes_are_compared_without_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in PHOTO_SUFFIXES)
    assert len(PHOTO_SUFFIXES) == 36


def test_upper_case_suffix_is_a_photo(tmp_path: Path) -> None:
    put(tmp_path, "A.JPG", "b.HeIc", "c.jpg.part", "d.jpg~")
    assert names(scan(str(tmp_path)), tmp_path) == ["A.JPG", "b.HeIc"]


def test_named_file_is_yielded_whatever_its_suffix(tmp_path: Path) -> None:
    put(tmp_path, ".picture")
    path = str(tmp_path / ".picture")
    found = os.stat(path)
    assert list(scan(path)) == [FileStat(path, 8, found.st_mtime_ns, found.st_ctime_ns)]


def test_hidden_names_are_skipped_unless_asked_for(tmp_path: Path) -> None:
    put(tmp_path, ".hidden.jpg", ".cache/a.jpg", "b.jpg")
    assert names(scan(str(tmp_path)), tmp_path) == ["b.jpg"]
    everything = scan(str(tmp_path), ScanOptions(include_hidden=True))
    assert names(everything, tmp_path) == [".cache/a.jpg", ".hidden.jpg", "b.jpg"]


def test_what_is_left_out_on_purpose_is_counted_by_its_kind(tmp_path: Path) -> None:
    put(
        tmp_path,
        "a.jpg",
        "clip.MP4",
        "old.mov",
        "notes.txt",
        ".hidden/b.jpg",
        "thumbs.db",
        "@eaDir/a.jpg",
        "a.xmp",
    )
    put(tmp_path, "raw/c.jpg", "sub/d.avi")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    (tmp_path / "folder").symlink_to(tmp_path / "sub")
    counted: Counter[PassedOver] = Counter()
    found = scan(str(tmp_path), ScanOptions(exclude=("raw",)), passed_over=counted)
    assert names(found, tmp_path) == ["a.jpg"]
    expected = {PassedOver.VIDEOS: 3, PassedOver.OTHERS: 1, PassedOver.HIDDEN: 1, PassedOver.EXCLUDED: 1}
    assert counted == expected | {PassedOver.LINKS: 2}


def test_junk_is_skipped_even_with_hidden_names(tmp_path: Path) -> None:
    put(tmp_path, "._a.jpg", "@eaDir/a.jpg", ".Trash-1000/a.jpg", ".Trashes/b.jpg", "$RECYCLE.BIN/a.jpg")
    put(tmp_path, "lost+found/a.jpg", "Thumbs.db", ".DS_Store", "__MACOSX/a.jpg", "a.jpg")
    assert names(scan(str(tmp_path), ScanOptions(include_hidden=True)), tmp_path) == ["a.jpg"]


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), ["a/raw/1.jpg", "a/x.jpg", "raw/2.jpg", "x.png"]),
        (("raw",), ["a/x.jpg", "x.png"]),
        (("a/raw",), ["a/x.jpg", "raw/2.jpg", "x.png"]),
        (("a/raw/",), ["a/x.jpg", "raw/2.jpg", "x.png"]),
        (("a/*",), ["raw/2.jpg", "x.png"]),
        (("x.*",), ["a/raw/1.jpg", "raw/2.jpg"]),
        (("*.png", "raw"), ["a/x.jpg"]),
        (("*",), []),
    ],
)
def test_exclude_matches_relative_paths_and_names(
    tmp_path: Path, exclude: tuple[str, ...], left: list[str]
) -> None:
    put(tmp_path, "a/raw/1.jpg", "a/x.jpg", "raw/2.jpg", "x.png")
    assert names(scan(str(tmp_path), ScanOptions(exclude=exclude)), tmp_path) == left


def test_exclude_does_not_see_the_folders_above_the_root(tmp_path: Path) -> None:
    put(tmp_path / "raw", "1.jpg")
    found = scan(str(tmp_path / "raw"), ScanOptions(exclude=("raw",)))
    assert names(found, tmp_path) == ["raw/1.jpg"]


def test_links_are_followed_only_when_asked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "a.jpg")
    put(tmp_path / "elsewhere", "b.jpg")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "file.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    assert names(scan(str(root)), root) == ["a.jpg"]
    followed = scan(str(root), ScanOptions(follow_symlinks=True))
    assert names(followed, root) == ["a.jpg", "file.jpg", "folder/b.jpg"]


def test_root_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert names(scan(str(tmp_path / "link")), tmp_path) == ["link/a.jpg"]


def test_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    put(tmp_path, "a/b/1.jpg")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "b")
    found = names(scan(str(tmp_path), ScanOptions(follow_symlinks=True)), tmp_path)
    assert found == ["a/again/1.jpg"]


def test_link_that_leads_nowhere_is_unknown(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "missing")
    (tmp_path / "round.jpg").symlink_to(tmp_path / "round.jpg")
    errors, counted = Errors(), Counter[PassedOver]()
    found = scan(str(tmp_path), ScanOptions(follow_symlinks=True), on_error=errors, passed_over=counted)
    assert names(found, tmp_path) == ["a.jpg"]
    assert sorted(errors.seen) == [
        (str(tmp_path / "gone.jpg"), errno.ENOENT),
        (str(tmp_path / "round.jpg"), errno.ELOOP),
    ]
    assert not counted  # it is told as unknown, not as left out on purpose


def test_pipes_and_sockets_are_no_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path has to be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert names(scan(str(tmp_path)), tmp_path) == ["a.jpg"]
        assert list(scan(str(tmp_path / "pipe.jpg"))) == []


def test_folder_that_vanishes_is_reported_and_the_walk_goes_on(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg")
    errors = Errors()
    walk = scan(str(tmp_path), on_error=errors)
    first = next(walk)
    shutil.rmtree(tmp_path / "b")
    assert names(iter([first, *walk]), tmp_path) == ["a/1.jpg", "c/3.jpg"]
    assert errors.seen == [(str(tmp_path / "b"), errno.ENOENT)]


def test_unreadable_folder_is_reported_and_the_walk_goes_on(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "b/2.jpg")
    (tmp_path / "a").chmod(0)
    errors = Errors()
    try:
        with held_to_permissions():
            assert names(scan(str(tmp_path), on_error=errors), tmp_path) == ["b/2.jpg"]
    finally:
        (tmp_path / "a").chmod(0o700)
    assert errors.seen == [(str(tmp_path / "a"), errno.EACCES)]


def test_missing_root_is_reported(tmp_path: Path) -> None:
    errors = Errors()
    assert list(scan(str(tmp_path / "none"), on_error=errors)) == []
    assert errors.seen == [(str(tmp_path / "none"), errno.ENOENT)]
    assert list(scan(str(tmp_path / "none"))) == []


def test_names_that_are_no_text_survive(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\n.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    assert [os.fsencode(file.path) for file in scan(str(tmp_path))] == [raw]


def test_files_come_in_the_order_of_their_paths_bytes(tmp_path: Path) -> None:
    put(tmp_path, "a/1.jpg", "a.jpg", "a-b/1.jpg", "a0.jpg", "é/1.jpg", "é.jpg", "z.jpg", "Z.jpg")
    found = [os.fsencode(os.path.relpath(file.path, tmp_path)) for file in scan(str(tmp_path))]
    assert found == sorted(found)
    assert len(found) == 8


def test_deep_tree_is_walked_to_its_end(tmp_path: Path) -> None:
    deep = Path(*["d"] * 100)
    put(tmp_path / deep, "1.jpg")
    assert names(scan(str(tmp_path)), tmp_path) == [str(deep / "1.jpg")]


def test_walk_needs_no_image_library() -> None:
    code = "import sys, search.photos.scan; print(sorted({'PIL', 'numpy', 'pi_heif'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
