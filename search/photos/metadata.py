"""EXIF -> the fields of PhotoInfo. Pure functions over Pillow's Exif object; no file is opened here.

Cameras, phones and editors write EXIF that is wrong in every way there is; hostile files do it on purpose.
So every field is read behind a guard of its own: a broken tag costs that field and nothing else.

Tags and their meaning: CIPA DC-008-2023 (Exif 3.0), sections 4.6.4 to 4.6.7.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

from PIL import ExifTags, Image

from search.types import PhotoInfo, TakenAtSource

T = TypeVar("T")

FIRST_YEAR = 1826
"""The year of the oldest photograph that survives; an earlier date is a mistake."""

_MAX_TEXT = 200  # characters: no camera's name is longer, but a hostile one may have megabytes
_MAX_OFFSET = timedelta(hours=14)  # from UTC, of any place on Earth
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A date, the fraction of its second, its offset from UTC; the best date first.
_DATES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    (ExifTags.Base.DateTime, ExifTags.Base.SubsecTime, ExifTags.Base.OffsetTime),
)
_IN_FIRST_DIRECTORY = frozenset(
    (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.DateTime, ExifTags.Base.Orientation)
)
_DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T]+(\d{1,2}):(\d{1,2}):(\d{1,2})", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2}):([0-5]\d)", re.ASCII)


def photo_info(
    exif: Image.Exif, *, format: str, size: tuple[int, int], orientation: int, mtime_ns: int
) -> PhotoInfo:
    """Gather what a file says of itself.

    format: Pillow's name of it.   size: width and height in pixels, upright.   orientation: EXIF, 1 to 8.
    mtime_ns: the file's; it gives the date where EXIF has none that can be true.
    """
    taken_at, source = _taken_at(exif, mtime_ns)
    latitude, longitude = _position(exif)
    return PhotoInfo(
        format=format.lower(),
        width=size[0],
        height=size[1],
        orientation=orientation,
        taken_at=taken_at,
        taken_at_source=source,
        camera=_camera(_text(exif, ExifTags.Base.Make), _text(exif, ExifTags.Base.Model)),
        lens=_text(exif, ExifTags.Base.LensModel),
        latitude=latitude,
        longitude=longitude,
    )


def exif_of(image: Image.Image) -> Image.Exif:
    """Return an image's EXIF; an empty one where it has none or none that can be read."""
    exif = _guarded(image.getexif)
    return Image.Exif() if exif is None else exif


def orientation_of(exif: Image.Exif) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) where absent or invalid."""
    return valid_orientation(_value(exif, ExifTags.Base.Orientation))


def valid_orientation(value: object) -> int:
    """Return `value` if it is an EXIF orientation, else 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _guarded(read: Callable[[], T]) -> T | None:
    """Return what `read` returns, or None: a malformed tag makes Pillow's parser raise anything at all."""
    try:
        return read()
    except Exception:
        return None


def _value(exif: Image.Exif, tag: int) -> Any:
    if tag in _IN_FIRST_DIRECTORY:
        return _guarded(lambda: exif.get(tag))
    return _guarded(lambda: exif.get_ifd(ExifTags.IFD.Exif).get(tag))


def _text(exif: Image.Exif, tag: int) -> str | None:
    """Return a tag's printable text, None if there is nothing in it to read ("", "----").

    Control characters go, and with them those that reorder or hide text on a screen.
    """
    value = _value(exif, tag)
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if not isinstance(value, str):
        return None
    shown = "".join(" " if c.isspace() else c for c in value[:_MAX_TEXT] if c.isspace() or _printable(c))
    text = " ".join(shown.split())
    return text if any(c.isalnum() for c in text) else None


def _printable(character: str) -> bool:
    return not unicodedata.category(character).startswith("C")


def _camera(make: str | None, model: str | None) -> str | None:
    """Return "Make Model", the make once: "Canon", "Canon EOS 5D" -> "Canon EOS 5D"."""
    if make is None or model is None:
        return model or make
    make_words = make.casefold().split()
    repeats = model.casefold().startswith(make.casefold()) or model.casefold().split()[0] in make_words
    return model if repeats else f"{make} {model}"


def _taken_at(exif: Image.Exif, mtime_ns: int) -> tuple[datetime | None, TakenAtSource | None]:
    for date, fraction, offset in _DATES:
        taken_at = parse_date(_text(exif, date), fraction=_text(exif, fraction), offset=_text(exif, offset))
        if taken_at is not None:
            return taken_at, TakenAtSource.EXIF
    # A file may carry a time of modification that no calendar has.
    modified = _guarded(lambda: (_EPOCH + timedelta(microseconds=mtime_ns // 1000)).astimezone())
    return modified, TakenAtSource.FILE if modified else None


def parse_date(text: str | None, *, fraction: str | None = None, offset: str | None = None) -> datetime | None:
    """Return the moment that EXIF's tags for date, fraction of a second and offset tell, None if none.

    text: "2024:05:31 18:04:59"; other separators occur and are taken.   fraction: digits, "25" is a quarter.
    offset: "+02:00"; without a valid one the result is naive, wall-clock time.
    """
    match = _DATE.match(text or "")
    if match is None:
        return None
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        moment = datetime(year, month, day, hour, minute, second, tzinfo=_zone(offset))
    except ValueError:
        return None
    if moment.year < FIRST_YEAR:
        return None
    return moment.replace(microsecond=_microseconds(fraction))


def _microseconds(fraction: str | None) -> int:
    digits = (fraction or "").strip()
    return int(digits[:6].ljust(6, "0")) if digits.isascii() and digits.isdecimal() else 0


def _zone(offset: str | None) -> timezone | None:
    match = _OFFSET.fullmatch(offset or "")
    if match is None:
        return None
    east = timedelta(hours=int(match[2]), minutes=int(match[3]))
    if east > _MAX_OFFSET:
        return None
    return timezone(east if match[1] == "+" else -east)


def _position(exif: Image.Exif) -> tuple[float | None, float | None]:
    gps = _guarded(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)) or {}
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", limit=90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", limit=180)
    return latitude, longitude


def _degrees(parts: Any, hemisphere: Any, names: str, *, limit: int) -> float | None:
    """Return decimal degrees from degrees, minutes and seconds, None unless they are a place on Earth.

    hemisphere: one of the two letters of `names`, the second meaning negative. Without it a place has four
    candidates, so it has none.
    """
    letter = _guarded(lambda: hemisphere.strip("\0 ").upper()[:1])
    if not letter or letter not in names:
        return None
    # A rational with denominator zero turns into NaN, which fails the comparison below, or raises.
    numbers = _guarded(lambda: [float(part) for part in parts])
    if not numbers or len(numbers) > 3 or min(numbers) < 0:
        return None
    degrees = math.fsum(number / 60**power for power, number in enumerate(numbers))
    if not degrees <= limit:
        return None
    return -degrees if letter == names[1] else degrees
