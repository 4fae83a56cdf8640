"""EXIF, XMP, IPTC and a sidecar -> the fields of PhotoInfo. No file is opened here.

Cameras, phones and editors write metadata that is wrong in every way there is; hostile files do it on purpose.
So every field is read behind a guard of its own: a broken tag costs that field and nothing else.

Tags and their meaning: CIPA DC-008-2023 (Exif 3.0), sections 4.6.4 to 4.6.7; XMP specification part 2; IPTC-IIM 4.2.
Which of several counts: what the camera wrote comes before what programs added, and for rating and keywords, which
people give, the sidecar before the photo.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from itertools import chain
from typing import Any, TypeVar

from PIL import ExifTags, Image, IptcImagePlugin

from search.photos import keywords
from search.photos.xmp import Properties, properties
from search.types import PhotoInfo, TakenAtSource

T = TypeVar("T")

FIRST_YEAR = 1826
"""The year of the oldest photograph that survives; an earlier date is a mistake."""

_MAX_TEXT = 200  # characters: no camera's name is longer, but a hostile one may have megabytes
_MAX_OFFSET = timedelta(hours=14)  # from UTC, of any place on Earth
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_QUARTER_S = 900  # every time zone is a number of quarters of an hour away from UTC
_GPS_LAG_S = 60  # a camera's clock and the satellites' may be that far apart

# A date, the fraction of its second, its offset from UTC; the best date first, that of the file's last change apart.
_DATES = (
    (ExifTags.Base.DateTimeOriginal, ExifTags.Base.SubsecTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
    (ExifTags.Base.DateTimeDigitized, ExifTags.Base.SubsecTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
)
_CHANGED = (ExifTags.Base.DateTime, ExifTags.Base.SubsecTime, ExifTags.Base.OffsetTime)
_XMP_DATES = ("exif:DateTimeOriginal", "photoshop:DateCreated", "exif:DateTimeDigitized", "xmp:CreateDate")
_RATING, _RATING_PERCENT, _XMP_TAG, _XP_KEYWORDS = 0x4746, 0x4749, 0x02BC, 0x9C9E
_IN_FIRST_DIRECTORY = frozenset(
    (
        *(ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.DateTime, ExifTags.Base.Orientation),
        *(_RATING, _RATING_PERCENT, _XMP_TAG, _XP_KEYWORDS),
    )
)
# The properties that hold keywords, and what separates the levels of one; None: it has just one.
_KEYWORDS = (
    ("digiKam:TagsList", "/"),
    ("MicrosoftPhoto:LastKeywordXMP", "/"),
    ("lr:hierarchicalSubject", "|"),
    ("lr:HierarchicalSubject", "|"),
    ("dc:subject", None),
)
_IPTC_KEYWORDS, _IPTC_DATE, _IPTC_TIME, _IPTC_CHARACTERS = (2, 25), (2, 55), (2, 60), (1, 90)
_UTF8 = b"\x1b%G"
_END_OF_LABEL, _LONGEST_LABEL = b"ns.adobe.com/xap/1.0/\0", 64
_MAX_KEYWORDS = 1000  # that are looked at, of one kind

_DATE = re.compile(r"(\d{4})[:/.-](\d{1,2})[:/.-](\d{1,2})[ T]+(\d{1,2}):(\d{1,2}):(\d{1,2})", re.ASCII)
_ISO_DATE = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:[.,](\d+))?(?:GMT|UTC)?\s?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_IPTC_MOMENT = re.compile(r"(\d{4})(\d\d)(\d\d)(?: (\d\d)(\d\d)(\d\d)(?:([+-]\d\d)(\d\d))?)?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d{2}):?([0-5]\d)", re.ASCII)
_XMP_PLACE = re.compile(r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?([NSEW])", re.ASCII)

Iptc = Mapping[tuple[int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Said:
    """All that a photo says of itself, in itself and beside it, each in its own terms; what is missing is empty."""

    exif: Image.Exif
    xmp: Properties = field(default_factory=dict)
    iptc: Iptc = field(default_factory=dict)
    sidecar: Properties = field(default_factory=dict)


def said_by(image: Image.Image, *, sidecar: bytes = b"") -> Said:
    """Gather what an image says; of a PNG that may need its pixels to be read first.   sidecar: an XMP packet."""
    packet = image.info.get("xmp") or _mislabelled(image)
    return Said(exif_of(image), _packet(packet), _iptc(image), _packet(sidecar))


def said_by_raw(exif: Image.Exif, preview: Image.Image, *, sidecar: bytes = b"") -> Said:
    """Gather what a RAW file says; its packet is in its own first directory, or in its preview."""
    return Said(exif, _packet(_value(exif, _XMP_TAG) or preview.info.get("xmp")), {}, _packet(sidecar))


def photo_info(said: Said, *, format: str, size: tuple[int, int], orientation: int, mtime_ns: int) -> PhotoInfo:
    """Tell a photo's fields from what it says of itself.

    format: Pillow's name of it.   size: width and height in pixels, upright.   orientation: EXIF, 1 to 8.
    mtime_ns: the file's; it gives the date where there is no other that can be true.
    """
    exif, packets = said.exif, (said.xmp, said.sidecar)
    taken_at, source = _taken_at(said, mtime_ns)
    latitude, longitude = _position(exif, packets)
    lens = _lens(_text(exif, ExifTags.Base.LensMake), _text(exif, ExifTags.Base.LensModel))
    return PhotoInfo(
        format=format.lower(),
        width=size[0],
        height=size[1],
        orientation=orientation,
        taken_at=taken_at,
        taken_at_source=source,
        camera=_camera(_text(exif, ExifTags.Base.Make), _text(exif, ExifTags.Base.Model))
        or _first(_camera(_shown(one, "tiff:Make"), _shown(one, "tiff:Model")) for one in packets),
        lens=lens or _first(_xmp_lens(one) for one in packets),
        latitude=latitude,
        longitude=longitude,
        rating=_guarded(lambda: _rating(said)),
        keywords=_guarded(lambda: _keywords(said)) or (),
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


def _first(values: Iterator[T | None]) -> T | None:
    return next((value for value in values if value is not None), None)


# ---- what each says


def _packet(packet: Any) -> Properties:
    data = packet.encode() if isinstance(packet, str) else packet
    return (_guarded(lambda: properties(bytes(data))) if data else None) or {}


def _mislabelled(image: Image.Image) -> bytes | None:
    """Return a JPEG's packet where only the end of its label is right, as Flickr writes it."""
    for name, segment in getattr(image, "applist", ()):
        at = segment.find(_END_OF_LABEL, 0, _LONGEST_LABEL)
        if name == "APP1" and at >= 0:
            return bytes(segment[at + len(_END_OF_LABEL) :])
    return None


def _iptc(image: Image.Image) -> Iptc:
    """Return an image's IPTC records; each may have been written several times."""
    found = _guarded(lambda: IptcImagePlugin.getiptcinfo(image)) or {}  # type: ignore[arg-type]
    return {key: value if isinstance(value, list) else [value] for key, value in found.items()}


def _iptc_texts(iptc: Iptc, key: tuple[int, int]) -> list[str]:
    """Return a record's texts: UTF-8 where that is declared or fits, else as Western Europe wrote it."""
    texts = []
    for value in [value for value in iptc.get(key, ()) if isinstance(value, bytes)][:_MAX_KEYWORDS]:
        try:
            texts.append(value.decode())
        except UnicodeDecodeError:
            declared = _UTF8 in iptc.get(_IPTC_CHARACTERS, ())
            texts.append(value.decode("utf-8" if declared else "cp1252", "replace"))
    return texts


def _value(exif: Image.Exif, tag: int) -> Any:
    if tag in _IN_FIRST_DIRECTORY:
        return _guarded(lambda: exif.get(tag))
    return _guarded(lambda: exif.get_ifd(ExifTags.IFD.Exif).get(tag))


def _text(exif: Image.Exif, tag: int) -> str | None:
    """Return a tag's printable text, None if there is nothing in it to read ("", "----")."""
    value = _value(exif, tag)
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    return _readable(text.partition("\0")[0]) if isinstance(text, str) else None


def _shown(packet: Properties, name: str) -> str | None:
    """Return an XMP property's printable text, None if there is nothing in it to read."""
    return next((_readable(value) for value in packet.get(name, ())), None)


def _readable(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    text = keywords.printable(value[:_MAX_TEXT])
    return text if any(c.isalnum() for c in text) else None


# ---- camera and lens


def _camera(make: str | None, model: str | None) -> str | None:
    """Return "Make Model", the make once: "Canon", "Canon EOS 5D" -> "Canon EOS 5D"."""
    if make is None or model is None:
        return model or make
    make_words = make.casefold().split()
    repeats = model.casefold().startswith(make.casefold()) or model.casefold().split()[0] in make_words
    return model if repeats else f"{make} {model}"


def _lens(make: str | None, model: str | None) -> str | None:
    """Return a lens's name as a camera's; a make alone names none."""
    return _camera(make, model) if model else None


def _xmp_lens(packet: Properties) -> str | None:
    lens = _lens(_shown(packet, "exifEX:LensMake"), _shown(packet, "exifEX:LensModel"))
    return lens or _shown(packet, "aux:Lens")


# ---- date


def _taken_at(said: Said, mtime_ns: int) -> tuple[datetime | None, TakenAtSource | None]:
    gps = _guarded(lambda: _gps_time(said.exif))
    dates = list(_dates(said))
    if dates:
        return _placed(dates[0], dates[1:], gps), TakenAtSource.EXIF
    if gps is not None:
        return gps, TakenAtSource.EXIF
    # A file may carry a time of modification that no calendar has.
    modified = _guarded(lambda: (_EPOCH + timedelta(microseconds=mtime_ns // 1000)).astimezone())
    return modified, TakenAtSource.FILE if modified else None


def _dates(said: Said) -> Iterator[datetime]:
    """Yield the dates that a photo says it was taken at, the best first."""
    written = chain(
        (_exif_date(said.exif, *tags) for tags in _DATES),
        _xmp_dates(said.xmp),
        (_iptc_date(said.iptc),),
        _xmp_dates(said.sidecar),
        (_exif_date(said.exif, *_CHANGED),),
    )
    yield from (date for date in written if date is not None)


def _exif_date(exif: Image.Exif, date: int, fraction: int, offset: int) -> datetime | None:
    return parse_date(_text(exif, date), fraction=_text(exif, fraction), offset=_text(exif, offset))


def _xmp_dates(packet: Properties) -> Iterator[datetime | None]:
    return (parse_iso_date(_shown(packet, name)) for name in _XMP_DATES)


def _placed(taken_at: datetime, others: list[datetime], gps: datetime | None) -> datetime:
    """Return a date with its offset from UTC where another date of the same wall-clock time says it, or GPS does.

    "Z" in another date does not count: it is written by programs that know of no offset.
    """
    if taken_at.tzinfo is not None:
        return taken_at
    second = taken_at.replace(microsecond=0)
    for other in others:
        if other.replace(microsecond=0, tzinfo=None) == second and other.utcoffset():
            return taken_at.replace(tzinfo=other.tzinfo)
    if gps is None:
        return taken_at
    ahead_s = (taken_at - gps.replace(tzinfo=None)).total_seconds()
    offset = timedelta(seconds=_QUARTER_S * round(ahead_s / _QUARTER_S))
    if abs(ahead_s - offset.total_seconds()) > _GPS_LAG_S or abs(offset) > _MAX_OFFSET:
        return taken_at
    return taken_at.replace(tzinfo=timezone(offset))


def _gps_time(exif: Image.Exif) -> datetime | None:
    """Return the moment that the satellites told, in UTC."""
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    day = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)", str(gps.get(ExifTags.GPS.GPSDateStamp)), re.ASCII)
    hours, minutes, seconds = (float(part) for part in gps[ExifTags.GPS.GPSTimeStamp])
    if day is None or not (0 <= hours < 24 and 0 <= minutes < 60 and 0 <= seconds < 61):
        return None
    midnight = datetime(int(day[1]), int(day[2]), int(day[3]), tzinfo=UTC)
    moment = midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return moment if moment.year > 1980 else None  # from when satellites count: a receiver without them says so


def parse_date(text: str | None, *, fraction: str | None = None, offset: str | None = None) -> datetime | None:
    """Return the moment that EXIF's tags for date, fraction of a second and offset tell, None if none.

    text: "2024:05:31 18:04:59"; other separators occur and are taken.   fraction: digits, "25" is a quarter.
    offset: "+02:00"; without a valid one the result is naive, wall-clock time.
    """
    match = _DATE.match(text or "")
    return _moment(match.groups(), fraction, offset) if match else None


def parse_iso_date(text: str | None) -> datetime | None:
    """Return the moment that a date of XMP tells, None if none; midnight where it is a day alone."""
    match = _ISO_DATE.fullmatch(text or "")
    if match is None:
        return None
    day, minute, second, fraction, offset = match.groups()
    time = f"{minute or '00:00'}{second or ':00'}"
    return _moment((*day.split("-"), *time.split(":")), fraction, "+00:00" if offset == "Z" else offset)


def _iptc_date(iptc: Iptc) -> datetime | None:
    days, times = (_iptc_texts(iptc, key) for key in (_IPTC_DATE, _IPTC_TIME))
    match = _IPTC_MOMENT.fullmatch(" ".join([*days[:1], *times[:1]]))
    if match is None:
        return None
    *parts, hours, minutes = match.groups()
    return _moment([part or "0" for part in parts], None, f"{hours}:{minutes}" if hours else None)


def _moment(parts: Sequence[str], fraction: str | None, offset: str | None) -> datetime | None:
    try:
        year, month, day, hour, minute, second = map(int, parts)
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


# ---- place


def _position(exif: Image.Exif, packets: Sequence[Properties]) -> tuple[float | None, float | None]:
    gps = _guarded(lambda: exif.get_ifd(ExifTags.IFD.GPSInfo)) or {}
    tags = ExifTags.GPS
    latitude = _degrees(gps.get(tags.GPSLatitude), gps.get(tags.GPSLatitudeRef), "NS", limit=90)
    longitude = _degrees(gps.get(tags.GPSLongitude), gps.get(tags.GPSLongitudeRef), "EW", limit=180)
    if latitude is not None and longitude is not None:
        return latitude, longitude
    for packet in packets:
        north, east = _shown(packet, "exif:GPSLatitude"), _shown(packet, "exif:GPSLongitude")
        place = _xmp_degrees(north, "NS", limit=90), _xmp_degrees(east, "EW", limit=180)
        if None not in place:
            return place
    return latitude, longitude


def _xmp_degrees(text: str | None, names: str, *, limit: int) -> float | None:
    """Return decimal degrees from "48,8.25N" or "48,8,15N"."""
    match = _XMP_PLACE.fullmatch((text or "").replace(" ", "").upper())
    return _degrees([part or 0 for part in match.groups()[:3]], match[4], names, limit=limit) if match else None


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


# ---- what people say of it


def _rating(said: Said) -> int | None:
    packets = (said.sidecar, said.xmp)
    return _first(
        chain(
            (_stars(_shown(packet, "xmp:Rating")) for packet in packets),
            (_stars(_value(said.exif, _RATING)),),
            (_stars_of_percent(_shown(packet, "MicrosoftPhoto:Rating")) for packet in packets),
            (_stars_of_percent(_value(said.exif, _RATING_PERCENT)),),
        )
    )


def _stars(value: Any) -> int | None:
    number = _guarded(lambda: float(value))
    return round(number) if number is not None and -1 <= number <= 5 else None


def _stars_of_percent(value: Any) -> int | None:
    """Return the stars that Windows writes as 1, 25, 50, 75 and 99 percent."""
    number = _guarded(lambda: float(value))
    if number is None or not 0 <= number <= 100:
        return None
    return min(5, 1 + round(number / 25)) if number else 0


def _keywords(said: Said) -> tuple[str, ...]:
    """Return all keywords of a photo; those of a sidecar that has any property for them replace the photo's own."""
    if any(name in said.sidecar for name, _ in _KEYWORDS):
        return keywords.union(_of_packet(said.sidecar))
    xp = _value(said.exif, _XP_KEYWORDS)
    windows = bytes(xp).decode("utf-16-le", "ignore").split(";")[:_MAX_KEYWORDS] if xp else []
    flat = [*_iptc_texts(said.iptc, _IPTC_KEYWORDS), *windows]
    return keywords.union(chain(_of_packet(said.xmp), (keywords.levels(text, None) for text in flat)))


def _of_packet(packet: Properties) -> Iterator[keywords.Levels]:
    for name, separator in _KEYWORDS:
        for text in packet.get(name, ()):
            yield keywords.levels(text, separator)
