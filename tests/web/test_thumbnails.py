"""Small pictures: what they show, where they are kept, how many, and what is shown where there can be none."""

from __future__ import annotations

import io
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scenes import scene

from search.web.thumbnails import SIZES, Thumbnails, _read, address, box


def picture(answer) -> Image.Image:
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/webp"
    return Image.open(io.BytesIO(answer.content))


@pytest.fixture
def kept(gallery) -> Path:
    """Where the gallery keeps its pictures; empty now."""
    folder = gallery.catalog.folder / "cache" / "thumbnails"
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def test_a_picture_stands_upright_in_the_size_that_was_told(pages, shown):
    photo = shown["turned.jpg"]  # 400 x 200, to be turned by a quarter to the right
    small = picture(pages.get(address(photo, 320)))
    assert small.size == box(photo.info, 320) == (160, 320)
    upright = scene(1, (400, 200)).transpose(Image.Transpose.ROTATE_270).resize((160, 320))
    assert np.abs(np.asarray(small.convert("RGB"), float) - np.asarray(upright, float)).mean() < 12  # WebP's loss
    assert not small.getexif()


def test_a_small_photo_keeps_its_size(pages, shown):
    photo = next(photo for name, photo in shown.items() if name.startswith("a"))
    assert {picture(pages.get(address(photo, size))).size for size in SIZES} == {(160, 120)}


def test_a_picture_is_kept_on_the_disk_and_by_the_browser(pages, shown, kept):
    photo = shown["cat.jpg"]
    first = pages.get(address(photo, 320))
    assert "immutable" in first.headers["cache-control"]
    [file] = kept.glob("??/*.webp")
    assert file.name == f"{photo.content_hash}-320.webp"
    assert file.read_bytes() == first.content
    assert pages.get(address(photo, 320)).content == first.content
    assert not list(kept.glob("??/.*"))


def test_copies_share_one_picture(pages, shown, kept):
    for name in ("rocket.jpg", "rocket again.jpg"):
        pages.get(address(shown[name], 320))
    assert len(list(kept.glob("??/*.webp"))) == 1


def test_a_picture_under_an_old_address_is_not_kept_for_good(pages, shown):
    answer = pages.get(f"/thumbnails/{shown['cat.jpg'].id}/320?v=0000000000000000")
    assert answer.status_code == 200
    assert "immutable" not in answer.headers["cache-control"]


@pytest.mark.parametrize("path", ["99999/320", "1/321", "1/x", "x/320", f"{'9' * 5000}/320", "-1/320", "1/0320"])
def test_where_there_is_none_a_quiet_sign_is_shown(pages, path):
    answer = pages.get(f"/thumbnails/{path}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["cache-control"] == "no-store"


def test_a_file_that_changed_or_is_gone_is_not_shown(pages, shown, photo_folder, kept):
    photo = shown["temple.jpg"]
    file = Path(photo.path)
    before, stat = file.read_bytes(), file.stat()
    try:
        for content in (b"no picture", (photo_folder / "home" / "cat.jpg").read_bytes(), None):
            file.unlink()
            if content is not None:
                file.write_bytes(content)
            assert pages.get(address(photo, 640)).status_code == 404
        assert not list(kept.glob("??/*"))
    finally:
        file.write_bytes(before)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert pages.get(address(photo, 640)).status_code == 200


def test_pictures_asked_for_least_lately_go_above_the_limit(gallery, shown, kept):
    made = Thumbnails(gallery, most_bytes=1000)
    photos = [replace(shown["cat.jpg"], content_hash=f"{number:064x}") for number in range(5)]
    for age, photo in enumerate(photos[:4]):
        path = made._place(photo, 320)
        made._keep(path, b"x" * 240)
        os.utime(path, (10**9 - age * 10**6,) * 2)
    assert _read(made._place(photos[3], 320))  # the oldest; asked for, it is the latest
    made._keep(made._place(photos[4], 320), b"x" * 240)
    left = {photo.content_hash for photo in photos if made._place(photo, 320).exists()}
    assert left == {photos[number].content_hash for number in (0, 3, 4)}


def test_pictures_are_shown_where_they_can_not_be_kept(gallery, pages, shown, kept):
    kept.parent.mkdir(exist_ok=True)
    kept.write_bytes(b"in the way")
    try:
        assert pages.get(address(shown["cat.jpg"], 320)).status_code == 200
    finally:
        kept.unlink()
