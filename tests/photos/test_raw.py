"""RAW files: DNGs of a few pixels, written here, with a preview and without one."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.errors import PhotoError
from search.photos.decode import load, read_info
from search.photos.raw import RAW_SUFFIXES
from search.photos.scan import PHOTO_SUFFIXES
from search.types import SkipReason

BYTE, TEXT, SHORT, LONG = 1, 2, 3, 4
_CODES = {BYTE: "B", SHORT: "H", LONG: "I"}
SIZE = (64, 48)  # of the sensor


def directory(entries: list[tuple[int, int, bytes | tuple[int, ...]]], at: int) -> bytes:
    """A TIFF directory that will stand at this offset."""
    head, tail, end = struct.pack("<H", len(entries)), b"", at + 2 + 12 * len(entries) + 4
    for tag, kind, values in sorted(entries):
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{_CODES[kind]}", *values)
        field = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack("<I", end + len(tail))
        tail += data.ljust(len(data) + len(data) % 2, b"\0") if len(data) > 4 else b""
        head += struct.pack("<HHI", tag, kind, len(values)) + field
    return head + struct.pack("<I", 0) + tail


def dng(preview: Image.Image | None, *, orientation: int = 1, xmp: bytes = b"") -> bytes:
    """A grey sensor's reading, and a JPEG before it if given."""
    buffer = io.BytesIO()
    if preview:
        preview.save(buffer, "JPEG", quality=95)
    jpeg, sensor = buffer.getvalue(), np.full(SIZE[::-1], 2000, "<u2").tobytes()

    def directories(second: int, jpeg_at: int, sensor_at: int) -> tuple[bytes, bytes]:
        first = [
            (254, LONG, (1,)),
            (271, TEXT, b"Acme\0"),
            (272, TEXT, b"Acme One\0"),
            (274, SHORT, (orientation,)),
            (306, TEXT, b"2021:05:06 07:08:09\0"),
            (330, LONG, (second,)),
            (50706, BYTE, (1, 4, 0, 0)),
            (50708, TEXT, b"Acme One\0"),
        ]
        if xmp:
            first += [(700, BYTE, xmp)]
        if preview:
            first += [(256, LONG, (preview.width,)), (257, LONG, (preview.height,)), (258, SHORT, (8, 8, 8))]
            first += [(259, SHORT, (7,)), (262, SHORT, (6,)), (273, LONG, (jpeg_at,)), (277, SHORT, (3,))]
            first += [(278, LONG, (preview.height,)), (279, LONG, (len(jpeg),))]
        grey = [(254, LONG, (0,)), (256, LONG, (SIZE[0],)), (257, LONG, (SIZE[1],)), (258, SHORT, (16,))]
        grey += [(259, SHORT, (1,)), (262, SHORT, (32803,)), (273, LONG, (sensor_at,)), (277, SHORT, (1,))]
        grey += [(278, LONG, (SIZE[1],)), (279, LONG, (len(sensor),)), (33421, SHORT, (2, 2))]
        grey += [(33422, BYTE, (0, 1, 1, 2)), (50717, LONG, (4095,))]
        return directory(first, 8), directory(grey, second)

    first, grey = directories(0, 0, 0)
    second = 8 + len(first)
    jpeg_at = second + len(grey)
    first, grey = directories(second, jpeg_at, jpeg_at + len(jpeg))
    return b"II*\0" + struct.pack("<I", 8) + first + grey + jpeg + sensor


def halves() -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (32, 24), "blue")
    image.paste("red", (0, 0, 16, 24))
    return image


def test_raw_files_are_listed() -> None:
    assert RAW_SUFFIXES < PHOTO_SUFFIXES


def test_the_preview_stands_for_a_raw_file(tmp_path: Path) -> None:
    (tmp_path / "a.DNG").write_bytes(dng(halves()))
    photo = load(str(tmp_path / "a.DNG"))
    assert photo.image.size == (32, 24)
    assert photo.whole == (24, 32)
    pixels = np.asarray(photo.image, int)
    assert np.abs(pixels[12, 4] - (255, 0, 0)).max() < 20
    assert np.abs(pixels[12, 28] - (0, 0, 255)).max() < 20
    info = photo.info
    assert (info.format, info.width, info.height, info.orientation) == ("dng", 64, 48, 1)
    assert info.camera == "Acme One"
    assert info.taken_at is not None
    assert info.taken_at.isoformat() == "2021-05-06T07:08:09"


def rated(stars: int) -> bytes:
    spaces = 'xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://ns.adobe.com/xap/1.0/"'
    return f'<r:RDF {spaces}><r:Description x:Rating="{stars}"/></r:RDF>'.encode()


def test_the_packet_of_a_raw_file_is_read_and_its_sidecar_comes_first(tmp_path: Path) -> None:
    path = str(tmp_path / "a.dng")
    (tmp_path / "a.dng").write_bytes(dng(halves(), xmp=rated(3)))
    assert load(path).info.rating == read_info(path)[0].rating == 3
    (tmp_path / "a.xmp").write_bytes(rated(5))
    assert load(path).info.rating == read_info(path)[0].rating == 5
    assert load(path).stat == read_info(path)[1]


def test_a_raw_file_is_turned_upright(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(halves(), orientation=6))
    photo = load(str(tmp_path / "a.dng"))
    assert photo.image.size == (24, 32)
    assert photo.whole == (32, 24)
    assert (photo.info.width, photo.info.height, photo.info.orientation) == (48, 64, 6)
    pixels = np.asarray(photo.image, int)
    assert np.abs(pixels[4, 12] - (255, 0, 0)).max() < 20  # the left comes to the top
    assert np.abs(pixels[28, 12] - (0, 0, 255)).max() < 20


@pytest.mark.parametrize(("orientation", "size"), [(1, (32, 24)), (8, (24, 32))])
def test_without_a_preview_the_sensor_is_read_at_half_size(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    (tmp_path / "a.nef").write_bytes(dng(None, orientation=orientation))
    photo = load(str(tmp_path / "a.nef"))
    assert photo.image.size == size
    assert photo.info.orientation == orientation
    assert photo.info.width * photo.info.height == 64 * 48


def test_a_large_preview_is_scaled_while_it_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(halves().resize((640, 480)), orientation=3))
    photo = load(str(tmp_path / "a.dng"), min_side=100)
    assert photo.image.size == (160, 120)
    assert photo.whole == (480, 640)


def test_what_is_no_raw_file_is_decoded_as_what_it_is(tmp_path: Path) -> None:
    halves().save(tmp_path / "a.dng", "PNG")
    assert load(str(tmp_path / "a.dng")).info.format == "png"


@pytest.mark.parametrize(("content", "reason"), [(b"", "empty"), (b"no picture " * 99, "unsupported_format")])
def test_what_is_no_picture_at_all_has_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.cr3").write_bytes(content)
    with pytest.raises(PhotoError) as caught:
        load(str(tmp_path / "a.cr3"))
    assert caught.value.reason == reason


def test_a_raw_file_above_the_limit_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(halves()))
    with pytest.raises(PhotoError) as caught:
        load(str(tmp_path / "a.dng"), max_megapixels=0.003)
    assert caught.value.reason == SkipReason.TOO_LARGE


def test_without_rawpy_the_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.dng").write_bytes(dng(halves()))
    code = (
        "import sys; sys.modules['rawpy'] = None\n"
        "from search.errors import PhotoError; from search.photos.decode import load, read_info\n"
        f"try: load({str(tmp_path / 'a.dng')!r})\n"
        "except PhotoError as error: print(error.reason, error.message)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("unsupported_format RAW needs the package rawpy: ")
    assert done.stdout.endswith("pip install 'search[raw]'\n")
