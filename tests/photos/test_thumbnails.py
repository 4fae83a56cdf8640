"""Thumbnails: size, uprightness, and nothing but pixels in them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import ExifTags, Image

from search.errors import PhotoError
from search.photos.thumbnails import thumbnail
from search.types import SkipReason


def test_thumbnail_fits_the_square_and_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = Image.new("RGB", (800, 600), "blue")
    picture.paste("red", (0, 0, 400, 600))  # the left half; a turn to the right brings it to the top
    picture.save(tmp_path / "a.jpg", exif=exif)
    small = Image.open(io.BytesIO(thumbnail(str(tmp_path / "a.jpg"))))
    assert (small.format, small.mode, small.size) == ("JPEG", "RGB", (192, 256))
    red, _, blue = small.getpixel((96, 40))
    assert red > 240
    assert blue < 15
    assert small.getpixel((96, 216))[2] > 240


def test_thumbnail_carries_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "SECRET"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    picture = Image.new("RGB", (300, 300), "green")
    picture.save(tmp_path / "a.jpg", exif=exif, comment="SECRET", xmp=b"SECRET", icc_profile=b"SECRET", dpi=(7, 7))
    data = thumbnail(str(tmp_path / "a.jpg"), size_px=64)
    assert b"SECRET" not in data
    small = Image.open(io.BytesIO(data))
    assert small.size == (64, 64)
    assert len(small.getexif()) == 0
    assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


@pytest.mark.parametrize(("size", "expected"), [((40, 30), (40, 30)), ((2000, 1), (256, 1)), ((1, 1), (1, 1))])
def test_small_and_narrow_photos_keep_what_they_have(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    Image.new("L", size, 128).save(tmp_path / "a.png")
    assert Image.open(io.BytesIO(thumbnail(str(tmp_path / "a.png")))).size == expected


def test_photo_that_can_not_be_read_has_no_thumbnail(tmp_path: Path) -> None:
    with pytest.raises(PhotoError) as caught:
        thumbnail(str(tmp_path / "none.jpg"))
    assert caught.value.reason == SkipReason.UNREADABLE
