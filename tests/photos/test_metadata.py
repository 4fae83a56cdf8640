"""EXIF -> PhotoInfo: what is taken, what is refused, and that one broken tag costs one field."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from search.photos.metadata import Said, exif_of, orientation_of, parse_date, photo_info, said_by
from search.types import PhotoInfo, TakenAtSource

NOON = datetime(2024, 5, 31, 12, 0, 0)  # noqa: DTZ001 - EXIF without an offset is wall-clock time
MTIME = datetime(2020, 2, 2, 2, 2, 2, 123456, tzinfo=UTC)
MTIME_NS = 1_580_608_922_123_456_789

Tags = dict[int, Any]


def info_of(first: Tags, *, exif: Tags | None = None, gps: Tags | None = None) -> PhotoInfo:
    """Return the PhotoInfo of tags that went through a real file."""
    tags = Image.Exif()
    for tag, value in first.items():
        tags[tag] = value
    tags.get_ifd(ExifTags.IFD.Exif).update(exif or {})
    tags.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    file = io.BytesIO()
    Image.new("L", (2, 2)).save(file, "JPEG", exif=tags)
    with Image.open(file) as image:
        return photo_info(said_by(image), format="JPEG", size=(2, 2), orientation=1, mtime_ns=MTIME_NS)


def test_file_without_exif_has_its_own_date_and_nothing_else() -> None:
    info = info_of({})
    assert info.taken_at == MTIME
    assert info.taken_at is not None
    assert info.taken_at.tzinfo is not None
    assert info == PhotoInfo("jpeg", 2, 2, taken_at=info.taken_at, taken_at_source=TakenAtSource.FILE)


def test_date_of_the_shot_comes_before_later_dates() -> None:
    base = ExifTags.Base
    later = {base.DateTime: "2025:01:01 00:00:00"}
    digitized = {base.DateTimeDigitized: "2024:12:24 20:00:00"}
    original = {base.DateTimeOriginal: "2024:05:31 12:00:00"}
    assert info_of(later, exif={**digitized, **original}).taken_at == NOON
    assert info_of(later, exif=digitized).taken_at == datetime(2024, 12, 24, 20)  # noqa: DTZ001
    assert info_of(later).taken_at == datetime(2025, 1, 1)  # noqa: DTZ001
    assert info_of(later).taken_at_source is TakenAtSource.EXIF


def test_invalid_date_gives_way_to_the_next() -> None:
    base = ExifTags.Base
    info = info_of({base.DateTime: "2024:05:31 12:00:00"}, exif={base.DateTimeOriginal: "0000:00:00 00:00:00"})
    assert info.taken_at == NOON


def test_fraction_and_offset_of_the_same_tag_are_used() -> None:
    base = ExifTags.Base
    exif = {
        base.DateTimeOriginal: "2024:05:31 12:00:00",
        base.SubsecTimeOriginal: "25",
        base.OffsetTimeOriginal: "-03:30",
        base.OffsetTime: "+09:00",
    }
    taken_at = info_of({}, exif=exif).taken_at
    zone = timezone(-timedelta(hours=3, minutes=30))
    assert taken_at == datetime(2024, 5, 31, 12, 0, 0, 250_000, tzinfo=zone)
    assert taken_at.utcoffset() == -timedelta(hours=3, minutes=30)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "    :  :     :  :  ",
        "0000:00:00 00:00:00",
        "2024:13:01 00:00:00",
        "2024:02:30 00:00:00",
        "2024:05:31 25:00:00",
        "1825:12:31 23:59:59",
        "yesterday",
        "2024:05:31",
        "٢٠٢٤:05:31 12:00:00",
    ],
)
def test_date_that_can_not_be_meant_is_none(text: str | None) -> None:
    assert parse_date(text) is None


@pytest.mark.parametrize(
    "text", ["2024:05:31 12:00:00", "2024-05-31T12:00:00", "2024/5/31 12:0:0", "2024:05:31 12:00:00Z"]
)
def test_usual_spellings_of_a_date_are_understood(text: str) -> None:
    assert parse_date(text) == NOON


@pytest.mark.parametrize("offset", [None, "", "Z", "+2", "+25:00", "+02:75", "   :  "])
def test_date_without_valid_offset_is_wall_clock_time(offset: str | None) -> None:
    moment = parse_date("2024:05:31 12:00:00", offset=offset)
    assert moment == NOON
    assert moment is not None
    assert moment.tzinfo is None


@pytest.mark.parametrize(
    ("fraction", "microsecond"),
    [("5", 500_000), ("007", 7_000), ("1234567", 123_456), ("x", 0), ("", 0), ("²", 0)],
)
def test_fraction_is_read_as_decimal_places(fraction: str, microsecond: int) -> None:
    moment = parse_date("2024:05:31 12:00:00", fraction=fraction)
    assert moment == NOON.replace(microsecond=microsecond)


@pytest.mark.parametrize(
    ("make", "model", "camera"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("Apple", "iPhone 15", "Apple iPhone 15"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("SONY\0\0", " DSC-D700 ", "SONY DSC-D700"),
        ("Canon", None, "Canon"),
        (None, "EOS", "EOS"),
        ("  ", "\0", None),
        ("----", None, None),
        ("A\x1b[2JB", "C\u202eD\nE", "A[2JB C?D E"),  # Pillow writes what latin-1 lacks as "?"
    ],
)
def test_camera_is_make_and_model_once(make: str | None, model: str | None, camera: str | None) -> None:
    tags = {ExifTags.Base.Make: make, ExifTags.Base.Model: model}
    assert info_of({tag: text for tag, text in tags.items() if text is not None}).camera == camera


def test_text_is_cut_to_a_sensible_length() -> None:
    assert info_of({ExifTags.Base.Model: "x" * 5_000}).camera == "x" * 200


def test_lens_is_its_model() -> None:
    assert info_of({}, exif={ExifTags.Base.LensModel: "50mm  f/1.8\0"}).lens == "50mm f/1.8"


def gps(latitude: Any, ref: Any, longitude: Any = (0, 0, 0), longitude_ref: Any = "E") -> Tags:
    tags = ExifTags.GPS
    return {
        tags.GPSLatitude: latitude,
        tags.GPSLatitudeRef: ref,
        tags.GPSLongitude: longitude,
        tags.GPSLongitudeRef: longitude_ref,
    }


def test_place_is_in_decimal_degrees() -> None:
    info = info_of({}, gps=gps((33, 51, 24.84), "S", (151, 12, 54), "E"))
    assert info.latitude == pytest.approx(-33.8569, abs=1e-6)  # rationals are written with limited precision
    assert info.longitude == pytest.approx(151.215, abs=1e-6)
    assert info_of({}, gps=gps((0, 0, 0), "N", (74, 0, 21.6), "W")).longitude == pytest.approx(-74.006, abs=1e-6)


@pytest.mark.parametrize(
    ("latitude", "ref"),
    [
        ((91, 0, 0), "N"),
        ((90, 0, 1), "N"),
        ((IFDRational(1, 0), 0, 0), "N"),
        ((10, IFDRational(0, 0), 0), "N"),
        ((10, 0, 0), "X"),
        ((10, 0, 0), ""),
    ],
)
def test_place_that_is_not_on_earth_is_none_and_costs_only_itself(latitude: Any, ref: str) -> None:
    info = info_of({ExifTags.Base.Model: "M"}, gps=gps(latitude, ref, (10, 30, 0), "W"))
    assert info.latitude is None
    assert info.longitude == -10.5
    assert info.camera == "M"


def test_place_without_hemisphere_is_none() -> None:
    assert info_of({}, gps={ExifTags.GPS.GPSLatitude: (10, 0, 0)}).latitude is None


@pytest.mark.parametrize(("stored", "orientation"), [(1, 1), (6, 6), (8, 8), (0, 1), (9, 1), (65535, 1)])
def test_orientation_is_1_to_8_or_upright(stored: int, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = stored
    assert orientation_of(exif) == orientation


def test_exif_of_wrong_types_costs_only_itself() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = 7
    exif[ExifTags.Base.Model] = b"EOS\0"
    exif[ExifTags.Base.Orientation] = "up"
    exif[ExifTags.Base.DateTime] = (1, 2)
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps("here", 5, None, None))
    info = photo_info(Said(exif), format="PNG", size=(3, 4), orientation=orientation_of(exif), mtime_ns=MTIME_NS)
    assert info == PhotoInfo("png", 3, 4, taken_at=info.taken_at, taken_at_source=TakenAtSource.FILE, camera="EOS")


def test_time_beyond_the_calendar_is_none() -> None:
    info = photo_info(Said(Image.Exif()), format="PNG", size=(1, 1), orientation=1, mtime_ns=10**21)
    assert (info.taken_at, info.taken_at_source) == (None, None)


def test_exif_that_can_not_be_parsed_is_empty() -> None:
    image = Image.new("L", (1, 1))
    image.info["exif"] = b"Exif\0\0Lorem ipsum dolor sit amet"
    assert len(exif_of(image)) == 0
