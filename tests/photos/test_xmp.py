"""XMP, IPTC and keywords -> PhotoInfo, through real files of every format; and what hostile packets cost."""

from __future__ import annotations

import io
import struct
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from PIL import ExifTags, Image

from search.photos.decode import load, read_info
from search.photos.keywords import levels, union
from search.photos.sidecars import MAX_BYTES
from search.photos.xmp import properties
from search.types import PhotoInfo, TakenAtSource

NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "exifEX": "http://cipa.jp/exif/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "MicrosoftPhoto": "http://ns.microsoft.com/photo/1.0/",
}


def packet(elements: str = "", **attributes: str) -> bytes:
    """An XMP packet; attributes by names such as xmp_Rating, further properties as elements."""
    spaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    given = " ".join(f'{name.replace("_", ":")}="{value}"' for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description {spaces} {given}>'
        f'{elements}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def listed(name: str, *values: str, container: str = "Bag") -> str:
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:{container}>{items}</rdf:{container}></{name}>"


def iptc(*records: tuple[int, bytes], utf8: bool = False) -> bytes:
    """IPTC records of the second dataset, as a JPEG carries them."""
    data = datasets(*([(1, 90, b"\x1b%G")] if utf8 else []), *((2, *record) for record in records))
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data + b"\0" * (len(data) % 2)
    return segment(0xED, b"Photoshop 3.0\0" + block)


def datasets(*records: tuple[int, int, bytes]) -> bytes:
    return b"".join(struct.pack(">BBBH", 0x1C, *place, len(value)) + value for *place, value in records)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def jpeg(*segments: bytes, exif: Image.Exif | None = None, xmp: bytes | None = None) -> bytes:
    """A JPEG with further segments right behind its first marker."""
    file = io.BytesIO()
    more: dict[str, Any] = {} if exif is None else {"exif": exif}
    more |= {"xmp": xmp} if xmp else {}
    Image.new("RGB", (8, 6)).save(file, "JPEG", **more)
    data = file.getvalue()
    return data[:2] + b"".join(segments) + data[2:]


@pytest.fixture
def info_of(tmp_path: Path):
    """What is told of a JPEG of these bytes, whole and looked into alike."""

    def read(data: bytes, name: str = "photo.jpg") -> PhotoInfo:
        path = tmp_path / name
        path.write_bytes(data)
        info = load(str(path)).info
        assert read_info(str(path))[0] == info
        return info

    return read


EVERYTHING = packet(
    listed("dc:subject", "cat", "Müller &amp; Söhne") + listed("lr:hierarchicalSubject", "animal|cat"),
    xmp_Rating="4",
    exif_DateTimeOriginal="2024-05-31T12:00:00.25+02:00",
    exif_GPSLatitude="48,8.25N",
    exif_GPSLongitude="11,30,36W",
    tiff_Make="NIKON CORPORATION",
    tiff_Model="NIKON D90",
    aux_Lens="18-105mm f/3.5-5.6",
)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_xmp_is_read_from_every_format(info_of, format_):
    file = io.BytesIO()
    if format_ == "PNG":
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", EVERYTHING.decode())
        Image.new("RGB", (8, 6)).save(file, format_, pnginfo=chunks)
    elif format_ == "TIFF":
        Image.new("RGB", (8, 6)).save(file, format_, tiffinfo={700: EVERYTHING})
    else:
        Image.new("RGB", (8, 6)).save(file, format_, xmp=EVERYTHING)
    info = info_of(file.getvalue(), f"photo.{format_.lower()}")
    assert info.rating == 4
    assert info.keywords == ("Müller & Söhne", "animal/cat")
    assert info.taken_at == datetime(2024, 5, 31, 12, 0, 0, 250_000, tzinfo=timezone(timedelta(hours=2)))
    assert info.taken_at_source is TakenAtSource.EXIF
    assert (info.latitude, info.longitude) == (48.1375, -11.51)
    assert info.camera == "NIKON D90"
    assert info.lens == "18-105mm f/3.5-5.6"


def test_xmp_behind_the_pixels_of_a_png_is_read(info_of):
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    data = file.getvalue()
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + packet(xmp_Rating="2")
    chunk = struct.pack(">I", len(text)) + b"iTXt" + text + struct.pack(">I", zlib.crc32(b"iTXt" + text))
    assert info_of(data[:-12] + chunk + data[-12:], "photo.png").rating == 2


def test_what_the_camera_wrote_comes_before_what_programs_added(info_of):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS 5D"
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {ExifTags.Base.DateTimeOriginal: "2024:05:31 12:00:00", ExifTags.Base.LensModel: "EF50mm f/1.4 USM"}
    )
    info = info_of(jpeg(exif=exif, xmp=EVERYTHING))
    assert info.camera == "Canon EOS 5D"
    assert info.lens == "EF50mm f/1.4 USM"
    assert info.taken_at == datetime(
        2024, 5, 31, 12, tzinfo=timezone(timedelta(hours=2))
    )  # of the same time in XMP
    assert (info.latitude, info.longitude) == (48.1375, -11.51)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-31T12:30:15", datetime(2024, 5, 31, 12, 30, 15)),  # noqa: DTZ001, wall-clock time
        ("2024-05-31T12:30Z", datetime(2024, 5, 31, 12, 30, tzinfo=timezone(timedelta()))),
        (
            "2024-05-31T12:30:15.5GMT-03:30",
            datetime(2024, 5, 31, 12, 30, 15, 500_000, tzinfo=timezone(timedelta(hours=-3.5))),
        ),
        ("2024-05-31", datetime(2024, 5, 31)),  # noqa: DTZ001
    ],
)
def test_dates_of_xmp_in_all_their_lengths(info_of, text, expected):
    taken_at = info_of(jpeg(xmp=packet(photoshop_DateCreated=text))).taken_at
    assert taken_at == expected
    assert taken_at.utcoffset() == expected.utcoffset()


@pytest.mark.parametrize("text", ["2024", "2024-05", "2024-13-01", "1825-01-01", "yesterday", "2024-05-31T25:00"])
def test_a_date_of_xmp_that_can_not_be_meant_is_none(info_of, text):
    assert info_of(jpeg(xmp=packet(photoshop_DateCreated=text))).taken_at_source is TakenAtSource.FILE


def gps(day: str, time: tuple[float, float, float], wall_clock: str | None) -> Image.Exif:
    exif = Image.Exif()
    if wall_clock:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = wall_clock
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({ExifTags.GPS.GPSDateStamp: day, ExifTags.GPS.GPSTimeStamp: time})
    return exif


@pytest.mark.parametrize(
    ("wall_clock", "hours"),
    [
        ("2024:05:31 12:00:20", 2),
        ("2024:05:31 15:44:31", 5.75),  # Nepal, 29 seconds off
        ("2024:05:31 00:00:00", -10),
        ("2024:05:31 12:07:00", None),  # no zone is 2:07 from UTC
        ("2024:06:01 02:00:00", None),  # nor 16 hours
    ],
)
def test_the_time_of_gps_gives_the_offset_where_it_can_be_one(info_of, wall_clock, hours):
    taken_at = info_of(jpeg(exif=gps("2024:05:31", (10, 0, 0), wall_clock))).taken_at
    assert taken_at.strftime("%Y:%m:%d %H:%M:%S") == wall_clock
    assert taken_at.utcoffset() == (None if hours is None else timedelta(hours=hours))


def test_the_time_of_gps_is_the_date_where_there_is_no_other(info_of):
    info = info_of(jpeg(exif=gps("2024:05:31", (10, 20, 30.5), None)))
    assert info.taken_at == datetime(2024, 5, 31, 10, 20, 30, 500_000, tzinfo=timezone(timedelta()))
    assert info.taken_at_source is TakenAtSource.EXIF


@pytest.mark.parametrize(("day", "time"), [("1980:01:06", (0, 0, 0)), ("2024:05:31", (24, 0, 0)), ("", (1, 2, 3))])
def test_a_receiver_without_satellites_tells_no_date(info_of, day, time):
    assert info_of(jpeg(exif=gps(day, time, None))).taken_at_source is TakenAtSource.FILE


def test_lens_is_its_make_and_model_once(info_of):
    exif = Image.Exif()
    more = exif.get_ifd(ExifTags.IFD.Exif)
    more.update({ExifTags.Base.LensMake: "SIGMA", ExifTags.Base.LensModel: "85mm F1.4"})
    assert info_of(jpeg(exif=exif)).lens == "SIGMA 85mm F1.4"
    more[ExifTags.Base.LensModel] = "SIGMA 85mm F1.4"
    assert info_of(jpeg(exif=exif)).lens == "SIGMA 85mm F1.4"
    del more[ExifTags.Base.LensModel]
    assert info_of(jpeg(exif=exif)).lens is None


@pytest.mark.parametrize(
    ("text", "stars"),
    [
        ("5", 5),
        ("3.0", 3),
        ("0", 0),
        ("-1", -1),
        ("6", None),
        ("-2", None),
        ("nan", None),
        ("five", None),
        ("", None),
    ],
)
def test_a_rating_is_minus_one_to_five(info_of, text, stars):
    assert info_of(jpeg(xmp=packet(xmp_Rating=text))).rating == stars


def test_ratings_of_windows_are_stars_or_percent(info_of):
    exif = Image.Exif()
    exif[0x4749] = 50
    assert info_of(jpeg(exif=exif)).rating == 3
    exif[0x4746] = 4
    assert info_of(jpeg(exif=exif)).rating == 4
    for percent, stars in (("0", 0), ("1", 1), ("25", 2), ("75", 4), ("99", 5), ("101", None)):
        assert info_of(jpeg(xmp=packet(MicrosoftPhoto_Rating=percent))).rating == stars


@pytest.mark.parametrize(
    ("elements", "keywords"),
    [
        (listed("dc:subject", "cat", "dog"), ("cat", "dog")),
        (listed("lr:hierarchicalSubject", "animal|cat", "animal"), ("animal/cat",)),
        (listed("digiKam:TagsList", "animal/cat", container="Seq"), ("animal/cat",)),
        (listed("MicrosoftPhoto:LastKeywordXMP", "animal/cat"), ("animal/cat",)),
        ("<dc:subject>cat</dc:subject>", ("cat",)),
        (listed("dc:subject", " ", "\u202e cat \u202c") + listed("dc:title", "no"), ("cat",)),
        (listed("dc:subject", "x" * 201), ()),
    ],
)
def test_keywords_of_every_property_are_united(info_of, elements, keywords):
    assert info_of(jpeg(xmp=packet(elements))).keywords == keywords


def test_keywords_of_iptc_and_windows_join_those_of_xmp(info_of):
    exif = Image.Exif()
    exif[0x9C9E] = "tree;Cat\0".encode("utf-16-le")
    data = jpeg(
        iptc((25, "Bär".encode()), (25, b"cat"), utf8=True),
        exif=exif,
        xmp=packet(listed("lr:hierarchicalSubject", "animal|cat")),
    )
    assert info_of(data).keywords == ("Bär", "animal/cat", "tree")


def test_iptc_without_a_declared_encoding_is_utf8_if_it_can_be_and_else_western(info_of):
    assert info_of(jpeg(iptc((25, "Bär".encode())))).keywords == ("Bär",)
    assert info_of(jpeg(iptc((25, "Bär".encode("cp1252"))))).keywords == ("Bär",)


def test_iptc_of_a_tiff_is_read(info_of):
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "TIFF", tiffinfo={33723: datasets((2, 25, b"cat"), (2, 25, b"tree"))})
    assert info_of(file.getvalue(), "photo.tif").keywords == ("cat", "tree")


def test_iptc_tells_the_date(info_of):
    taken_at = info_of(jpeg(iptc((55, b"20091103"), (60, b"045548-0800")))).taken_at
    assert taken_at == datetime(2009, 11, 3, 4, 55, 48, tzinfo=timezone(-timedelta(hours=8)))


@pytest.mark.parametrize("data", [b"\x1c\x02\x19\x00\x03cat\x1d\x02", b"\x1c\x02\x19\xff\xffcat", b"\x1c"])
def test_iptc_that_is_cut_off_costs_only_itself(info_of, data):
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data
    info = info_of(jpeg(segment(0xED, b"Photoshop 3.0\0" + block), xmp=packet(xmp_Rating="3")))
    assert info.rating == 3


def test_a_packet_whose_label_lost_its_beginning_is_read(info_of):
    label = b"XMP\0://ns.adobe.com/xap/1.0/\0"
    assert info_of(jpeg(segment(0xE1, label + packet(xmp_Rating="3")))).rating == 3


def test_text_behind_the_end_of_a_tag_is_not_read(info_of):
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "ION230\0F"
    assert info_of(jpeg(exif=exif)).camera == "ION230"


# ---- keywords


def test_what_a_longer_keyword_says_is_not_said_again():
    every = [("cat",), ("animal", "Cat"), ("animal",), ("animal", "cat", "Tom"), ("dog",), ("cat", "Tom")]
    assert union(every) == ("animal/cat/Tom", "dog")


def test_names_that_merely_begin_alike_stay():
    assert union([("cat",), ("catfish",), ("animal", "catfish")]) == ("animal/catfish", "cat")


def test_levels_are_parted_and_cleaned():
    assert levels(" animal | | big\u200b  cat ", "|") == ("animal", "big cat")
    assert levels("AC/DC", None) == ("AC/DC",)


def test_keywords_are_bounded_in_number_and_length():
    found = union([(f"{'x' * 100} {number}",) for number in range(500)])
    assert 100 < len(found) <= 200
    assert sum(map(len, found)) <= 16_000


def test_levels_are_bounded():
    assert levels("a/" * 1000, "/") == ("a",) * 16


# ---- hostile packets

LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
HOSTILE = {
    "billion laughs": f"{LAUGHS}]><x>&j;</x>".encode(),
    "external entity": b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "too large": packet("<dc:title>" + "x" * MAX_BYTES + "</dc:title>", xmp_Rating="3"),
    "cut off": packet(xmp_Rating="3")[:-60],
    "no XML": b"\xff\xd8\xff" * 1000,
    "deep": b"<a>" * 100_000 + b"</a>" * 100_000,
    "of another encoding": packet(xmp_Rating="3").decode().encode("utf-16")[1:],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_packet_says_nothing(name):
    assert properties(HOSTILE[name]) == {}


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - {"too large", "deep"}))
def test_a_hostile_packet_costs_only_itself(info_of, name):
    info = info_of(jpeg(iptc((25, b"cat")), xmp=HOSTILE[name][:60_000]))
    assert (info.width, info.keywords, info.rating) == (8, ("cat",), None)


def test_a_broken_character_costs_only_itself():
    broken = packet(listed("dc:subject", "B?r"), xmp_Rating="3").replace(b"B?r", b"B\xe4r")
    assert properties(broken)["xmp:Rating"] == ["3"]


def test_a_property_of_very_many_values_is_cut():
    assert len(properties(packet(listed("dc:subject", *map(str, range(5000)))))["dc:subject"]) == 1000
