"""Decoding: right pixels from every kind of file, and one clear verdict on everything else."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pi_heif
import pytest
from PIL import ExifTags, Image, ImageFile

from search.errors import PhotoError
from search.photos import decode
from search.photos.decode import content_hash, load
from search.photos.opening import SUPPORTED_FORMATS, openers
from search.photos.versions import DECODER
from search.types import SkipReason

HEIC = Path(__file__).parent / "turned.heic"
"""`picture(96, 64)` as a phone held upright keeps it: lying, with a turn in the container and the same in its EXIF.

Written by pillow-heif 1.8: nothing that is installed here writes HEIC."""

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
INVERSE = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a camera held so stores an upright picture."""


def picture(width: int = 48, height: int = 32) -> Image.Image:
    """A picture that no turn and no mirror maps to itself, smooth enough for JPEG."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(WHITE, (width // 2, 0, width, height // 4))
    return image


def pixels(path: Path, **options: Any) -> npt.NDArray[np.uint8]:
    return np.asarray(load(str(path), **options).image)


def colour(path: Path) -> tuple[int, ...]:
    """Return the colour of a file's first pixel."""
    return tuple(int(band) for band in pixels(path)[0, 0])


def refusal(path: Path | str, **options: Any) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        load(str(path), **options)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) <= 200
    assert str(path) not in caught.value.message
    return caught.value


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *, depth: int, colours: int, body: bytes, extra: bytes = b"") -> bytes:
    """Return a PNG made by hand. colours: 0 grey, 2 RGB."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


# ---- which way is up


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg", "avif"])
def test_eight_orientations_give_the_same_upright_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    turn = INVERSE[orientation]
    stored = picture() if turn is None else picture().transpose(turn)
    options = {"jpg": {"quality": 95, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 100}}
    path = tmp_path / f"a.{suffix}"
    stored.save(path, exif=exif, **options.get(suffix, {}))
    photo = load(str(path))
    difference = np.abs(np.asarray(photo.image, int) - np.asarray(picture(), int))
    assert difference.mean() <= (0 if suffix in ("png", "tif", "webp") else 3)  # jpg, avif: lossy
    assert (photo.info.width, photo.info.height) == photo.image.size == (48, 32)
    assert photo.info.orientation == orientation


def test_orientation_holds_for_a_draft(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture(1600, 1200).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif)
    photo = load(str(tmp_path / "a.jpg"), min_side=300)
    assert (photo.info.width, photo.info.height) == (1600, 1200)
    assert photo.image.size == (400, 300)
    small = np.asarray(picture(400, 300), int)
    assert np.abs(np.asarray(photo.image, int) - small).mean() < 3  # lossy


def test_junk_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(1, 1, depth=8, colours=2, body=b"\0\xff\0\0", extra=chunk(b"eXIf", b"Lorem ipsum")))
    assert colour(path) == RED
    picture().save(tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    assert load(str(tmp_path / "b.jpg")).info.orientation == 1


def test_heic_is_turned_once() -> None:
    assert pi_heif.open_heif(HEIC).size == (96, 64)  # libheif follows the container: what EXIF says is done
    photo = load(str(HEIC))
    assert (photo.info.format, photo.image.size, photo.info.orientation) == ("heif", (96, 64), 6)
    difference = np.asarray(photo.image, int) - np.asarray(picture(96, 64), int)
    assert np.abs(difference).mean() < 3  # lossy; a picture turned otherwise differs by more than 40


# ---- depth


def ramp() -> npt.NDArray[np.uint16]:
    return np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bit_grey_keeps_its_tones(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ramp()).save(path)
    assert pixels(path).mean() == pytest.approx(127.5, abs=1)  # rounding down
    assert np.array_equal(pixels(path)[..., 0], ramp() >> 8)


def test_16_bit_big_endian_tiff_keeps_its_tones(tmp_path: Path) -> None:
    longs = {256: 256, 257: 4, 273: 110, 278: 4, 279: 2048}  # width, height, offset, rows, bytes
    shorts = {258: 16, 259: 1, 262: 1}  # bits, no compression, black is zero
    entries = [(tag, struct.pack(">HHII", tag, 4, 1, value)) for tag, value in longs.items()]
    entries += [(tag, struct.pack(">HHIHH", tag, 3, 1, value, 0)) for tag, value in shorts.items()]
    directory = struct.pack(">H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + b"\0" * 4
    path = tmp_path / "a.tif"
    path.write_bytes(b"MM\0*\0\0\0\x08" + directory + ramp().astype(">u2").tobytes())
    assert np.array_equal(pixels(path)[..., 0], ramp() >> 8)


def test_16_bit_colour_png_keeps_its_tones(tmp_path: Path) -> None:
    body = b"\0" + struct.pack(">6H", 0xFF80, 0x8000, 0x0040, 0, 0xFFFF, 0)
    (tmp_path / "a.png").write_bytes(png(2, 1, depth=16, colours=2, body=body))
    assert pixels(tmp_path / "a.png").tolist() == [[[255, 128, 0], [0, 255, 0]]]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 100, 255], [0, 100, 255]),
        ([0, 256, 65535], [0, 1, 255]),
        ([-100, 0, 100], [0, 128, 255]),
        ([0, 1_000_000, 2_000_000], [0, 128, 255]),
        ([70000, 70000, 70000], [0, 0, 0]),
    ],
)
def test_integers_are_scaled_by_their_range(tmp_path: Path, values: list[int], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.5, 1], [0, 128, 255]),
        ([0, 100, 255], [0, 100, 255]),
        ([-1, 0, 1], [0, 128, 255]),
        ([0, 500, 1000], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 0]),
        ([-3.4e38, 0, 3.4e38], [0, 128, 255]),
        ([0, 0, 0], [0, 0, 0]),
    ],
)
def test_floats_are_scaled_by_their_range(tmp_path: Path, values: list[float], expected: list[int]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == expected


def test_one_bit_and_grey_become_rgb(tmp_path: Path) -> None:
    Image.new("1", (2, 2), 1).save(tmp_path / "a.png")
    Image.new("L", (2, 2), 77).save(tmp_path / "b.png")
    assert colour(tmp_path / "a.png") == WHITE
    assert colour(tmp_path / "b.png") == (77, 77, 77)


# ---- transparency and palettes


def test_colour_hidden_under_full_transparency_comes_out_white(tmp_path: Path) -> None:
    for suffix in ("png", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        Image.new("RGBA", (4, 4), (*RED, 0)).save(
            path, **({"lossless": True, "exact": True} if suffix == "webp" else {})
        )
        assert colour(path) == WHITE


def test_half_transparent_black_is_grey_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (2, 2), (0, 0, 0, 128)).save(tmp_path / "a.png")
    Image.new("LA", (2, 2), (0, 128)).save(tmp_path / "b.png")
    assert colour(tmp_path / "a.png") == colour(tmp_path / "b.png") == (127, 127, 127)


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_transparent_palette_entry_comes_out_white(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=transparency)
    assert pixels(tmp_path / "a.png").tolist() == [[list(WHITE), list(GREEN)]]


def test_colour_key_of_an_rgb_png_comes_out_white(tmp_path: Path) -> None:
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), GREEN)
    image.save(tmp_path / "a.png", transparency=RED)
    assert pixels(tmp_path / "a.png").tolist() == [[list(WHITE), list(GREEN)]]


def test_first_frame_stands_for_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), value) for value in (RED, GREEN, BLUE)]
    for suffix, options in (("gif", {}), ("png", {}), ("webp", {"lossless": True}), ("tif", {})):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert colour(path) == RED


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(("blank", "shown"), [(0, True), (3, True), (9, True), (10, False), (30, False)])
def test_first_frame_that_shows_something_stands_for_an_animation(
    tmp_path: Path, suffix: str, blank: int, shown: bool
) -> None:
    """Ten frames are looked at; where those are of one colour each, the first stands."""
    frames = [Image.new("RGB", (48, 32), (0, 0, 4 * number)) for number in range(blank)]
    frames += [picture(), Image.new("RGB", (48, 32), GREEN)]
    options = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (len(np.unique(pixels(tmp_path / f"a{suffix}").reshape(-1, 3), axis=0)) > 1) is shown


def test_animation_cut_off_after_a_blank_frame_is_its_first_frame(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8))
    Image.new("RGB", (200, 200), RED).save(tmp_path / "a.gif", save_all=True, append_images=[noise])
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-9000])
    assert set(map(tuple, pixels(tmp_path / "cut.gif").reshape(-1, 3))) == {(255, 0, 0)}


def test_pages_of_other_sizes_do_not_stand_for_a_blank_one(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), RED).save(tmp_path / "a.tif", save_all=True, append_images=[picture()])
    assert pixels(tmp_path / "a.tif").shape == (40, 40, 3)


@pytest.mark.parametrize(
    "appendix", [b"\x00\x00\x00\x18ftypmp42" + bytes(5000), b"\xff\xd8\xff\xe0 another", b"\0" * 99]
)
def test_what_follows_a_still_does_not_matter(tmp_path: Path, appendix: bytes) -> None:
    picture().save(tmp_path / "a.jpg", quality=95)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes() + appendix)
    np.testing.assert_array_equal(pixels(tmp_path / "a.jpg"), pixels(tmp_path / "b.jpg"))


@pytest.mark.parametrize("kind", ["16-bit.png", "16-bit.tif", "unit.tif", "float.tif", "int32.tif", "nan.tif"])
def test_a_ramp_from_black_to_white_is_grey_on_average(tmp_path: Path, kind: str) -> None:
    ramp = np.tile(np.linspace(0, 1, 4096, dtype=np.float32), (8, 1))
    values = {
        "16-bit": (ramp * 65535).astype(np.uint16),
        "unit": ramp,
        "float": ramp * np.float32(65535),
        "int32": (ramp * np.float32(2**31 - 256)).astype(np.int32),
        "nan": np.where(np.arange(4096) % 1000 == 7, np.float32("nan"), ramp),
    }[kind.partition(".")[0]]
    Image.fromarray(values).save(tmp_path / kind)
    assert pixels(tmp_path / kind).mean() == pytest.approx(127, abs=3)


def test_missing_heic_decoder_is_named_and_costs_no_other_format(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100))
    picture().save(tmp_path / "a.png")
    code = (
        "import sys; sys.modules['pi_heif'] = None\n"
        "from search.photos.decode import load; from search.errors import PhotoError\n"
        f"print(load({str(tmp_path / 'a.png')!r}).info.format)\n"
        f"try: load({str(tmp_path / 'a.heic')!r})\n"
        "except PhotoError as error: print(error.reason, error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "png\nunsupported_format HEIC needs the package pi-heif\n"


def test_what_takes_too_much_memory_is_refused_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")

    def greedy(image: Image.Image, **options: int | None) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(decode, "to_rgb", greedy)
    assert refusal(tmp_path / "a.png").reason == SkipReason.MEMORY


def test_mpo_is_a_jpeg_with_more_behind_it(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), RED).save(
        tmp_path / "a.mpo", save_all=True, append_images=[Image.new("RGB", (8, 8), BLUE)]
    )
    photo = load(str(tmp_path / "a.mpo"))
    assert photo.info.format == "mpo"
    assert np.abs(np.asarray(photo.image, int) - RED).max() <= 2  # lossy


# ---- colour spaces and profiles


def icc_profile(red: tuple[float, ...], green: tuple[float, ...], blue: tuple[float, ...]) -> bytes:
    """Return a minimal ICC v2 display profile: three primaries (XYZ under D50), gamma 2.2."""

    def xyz(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    curve = b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(2.2 * 256), 0)
    text = b"test\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * (78 + 3)
    tags = {b"desc": description, b"wtpt": xyz((0.9642, 1, 0.8249)), b"rXYZ": xyz(red), b"gXYZ": xyz(green)}
    tags |= {b"bXYZ": xyz(blue), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = struct.pack(">I4sI", at + len(body), b"none", 0x02400000) + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


SRGB_RED, SRGB_GREEN, SRGB_BLUE = (0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141)
P3_RED, P3_GREEN, P3_BLUE = (0.5151, 0.2412, -0.0011), (0.2920, 0.6922, 0.0419), (0.1571, 0.0666, 0.7841)


def test_profile_with_swapped_primaries_swaps_the_colours(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(
        tmp_path / "a.png", icc_profile=icc_profile(SRGB_GREEN, SRGB_RED, SRGB_BLUE)
    )
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), GREEN)).max() <= 3  # 16-bit primaries


def test_display_p3_is_converted_to_srgb(tmp_path: Path) -> None:
    profile = icc_profile(P3_RED, P3_GREEN, P3_BLUE)
    Image.new("RGB", (4, 4), (200, 100, 100)).save(tmp_path / "a.png", icc_profile=profile)
    # By hand: linear (.586, .128, .128) -> P3 to sRGB matrix (1.2249 -.2247 0; -.0420 1.0419 0; -.0197 -.0786
    # 1.0979) -> (.689, .108, .119) -> sRGB curve.
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), (215, 92, 96))).max() <= 2  # gamma 2.2 is not the curve
    Image.new("RGB", (4, 4), WHITE).save(tmp_path / "b.png", icc_profile=profile)
    assert np.abs(np.subtract(colour(tmp_path / "b.png"), WHITE)).max() <= 1  # rounding of the primaries


@pytest.mark.parametrize("profile", [b"junk", b"\0" * 200, icc_profile(P3_RED, P3_GREEN, P3_BLUE)[:200]])
def test_broken_profile_is_ignored(tmp_path: Path, profile: bytes) -> None:
    Image.new("RGB", (4, 4), (200, 100, 100)).save(tmp_path / "a.png", icc_profile=profile)
    assert colour(tmp_path / "a.png") == (200, 100, 100)


def test_rgb_profile_applies_to_a_grey_picture_and_not_to_cmyk(tmp_path: Path) -> None:
    profile = icc_profile(SRGB_GREEN, SRGB_RED, SRGB_BLUE)
    Image.new("L", (4, 4), 255).save(tmp_path / "a.png", icc_profile=profile)
    assert np.abs(np.subtract(colour(tmp_path / "a.png"), WHITE)).max() <= 3  # rounding of the primaries
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "b.tif", icc_profile=profile)
    assert colour(tmp_path / "b.tif") == RED


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    for options, size in (({}, (64, 64)), ({"min_side": 8}, (8, 8))):
        photo = load(str(tmp_path / "a.jpg"), **options)
        assert np.abs(np.asarray(photo.image, int) - RED).max() <= 3  # lossy
        assert photo.image.size == size


def test_lab_tiff_has_its_colours(tmp_path: Path) -> None:
    Image.new("LAB", (4, 4), (255, 128, 128)).save(tmp_path / "a.tif")
    assert np.abs(np.subtract(colour(tmp_path / "a.tif"), WHITE)).max() <= 3  # 8-bit a*, b*


# ---- formats


@pytest.mark.parametrize(
    ("suffix", "format", "options"),
    [
        ("jp2", "jpeg2000", {}),
        ("avif", "avif", {"quality": 100, "subsampling": "4:4:4"}),
        ("webp", "webp", {"lossless": True}),
        ("ppm", "ppm", {}),
        ("bmp", "bmp", {}),
        ("dib", "dib", {}),
        ("gif", "gif", {}),
        ("tif", "tiff", {"compression": "tiff_lzw"}),
    ],
)
def test_every_format_decodes(tmp_path: Path, suffix: str, format: str, options: dict[str, Any]) -> None:
    path = tmp_path / f"a.{suffix}"
    picture().save(path, **options)
    photo = load(str(path))
    assert photo.info.format == format
    assert np.abs(np.asarray(photo.image, int) - np.asarray(picture(), int)).max() <= 3  # AVIF's rounding
    assert (photo.image.mode, photo.image.info) == ("RGB", {})


def test_every_supported_format_can_be_opened() -> None:
    assert set(SUPPORTED_FORMATS) - set(openers()) == {"MPO"}  # comes through the JPEG opener
    assert "HEIF" in openers()
    assert set(openers()) <= set(Image.OPEN)


def test_decoder_names_its_versions() -> None:
    assert f"pillow {Image.__version__} pi_heif {pi_heif.__version__} rawpy {version('rawpy')}" == DECODER


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(pixels(tmp_path / "a.jpg"), np.asarray(picture()))
    assert load(str(tmp_path / "a.jpg")).info.format == "png"


# ---- drafts


@pytest.mark.parametrize(
    ("min_side", "expected"),
    [
        (100, (150, 100)),
        (101, (300, 200)),
        (200, (300, 200)),
        (201, (600, 400)),
        (500, (1200, 800)),
        (900, (1200, 800)),
    ],
)
def test_a_draft_keeps_both_sides_at_the_minimum(tmp_path: Path, min_side: int, expected: tuple[int, int]) -> None:
    picture(1200, 800).save(tmp_path / "a.jpg")
    photo = load(str(tmp_path / "a.jpg"), min_side=min_side)
    assert (photo.info.width, photo.info.height) == (1200, 800)
    assert photo.image.size == expected


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "gif", "avif", "bmp"])
def test_other_formats_are_scaled_by_a_whole_number_after_decoding(tmp_path: Path, suffix: str) -> None:
    picture(1200, 801).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    whole, small = load(str(tmp_path / f"a.{suffix}")), load(str(tmp_path / f"a.{suffix}"), min_side=250)
    assert (small.info, small.content_hash) == (whole.info, whole.content_hash)
    assert small.image.size == (400, 267)
    assert np.array_equal(np.asarray(small.image), np.asarray(whole.image.reduce(3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_frame_says_where_a_scaled_picture_lies(tmp_path: Path, orientation: int) -> None:
    """A picture white but for its last column and row, which scaling lets reach beyond the picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.new("L", (401, 203), 255)
    image.paste(0, (400, 0, 401, 203))
    image.paste(0, (0, 202, 401, 203))
    image.save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo = load(str(tmp_path / "a.jpg"), min_side=100)
    left, top, right, bottom = photo.frame
    long, short = sorted((right - left, bottom - top), reverse=True)
    assert (long, short) == (200.5, 101.5)
    dark = np.asarray(photo.image)[:, :, 0] < 128
    edges = {"left": dark[:, 0].all(), "top": dark[0].all(), "right": dark[:, -1].all(), "bottom": dark[-1].all()}
    beyond = {
        "left": left == 0.5,
        "top": top == 0.5,
        "right": right == photo.image.width - 0.5,
        "bottom": bottom == photo.image.height - 0.5,
    }
    assert edges == beyond


def test_transparency_and_profiles_outlive_scaling(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (400, 400), (10, 200, 30, 0))
    rgba.save(tmp_path / "a.png")
    assert np.asarray(load(str(tmp_path / "a.png"), min_side=100).image).min() == 255
    one = Image.new("1", (400, 400), 1)
    one.save(tmp_path / "b.png")
    assert load(str(tmp_path / "b.png"), min_side=100).image.getextrema() == ((255, 255),) * 3


# ---- what can't be used


SAVERS: dict[str, dict[str, Any]] = {
    "jpg": {},
    "png": {},
    "gif": {},
    "webp": {},
    "bmp": {},
    "tif": {},
    "jp2": {},
    "avif": {},
}


@pytest.mark.parametrize("suffix", SAVERS)
def test_truncated_file_is_a_decode_error(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(1)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(
        buffer, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix)
    )
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    assert refusal(path).reason == SkipReason.DECODE_ERROR


def test_truncated_heic_is_a_decode_error(tmp_path: Path) -> None:
    data = HEIC.read_bytes()
    for share in (0.5, 0.9, 0.99):
        (tmp_path / "a.heic").write_bytes(data[: int(len(data) * share)])
        assert refusal(tmp_path / "a.heic").reason == SkipReason.DECODE_ERROR
    (tmp_path / "a.heic").write_bytes(data + b"a phone's own appendix")
    assert load(str(tmp_path / "a.heic")).info.format == "heif"


@pytest.mark.parametrize("content", [b"", b"\xff", b"\0", b"\0" * 5000])
def test_nothing_in_a_file_is_empty(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg").reason == SkipReason.EMPTY


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><title>404</title>",
        b"%PDF-1.4\n",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"hello there",
    ],
)
def test_what_is_no_supported_picture_is_unsupported(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert refusal(tmp_path / "a.jpg").reason == SkipReason.UNSUPPORTED_FORMAT


def test_picture_cut_off_in_its_header_is_damaged_not_unsupported(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:10])
    error = refusal(tmp_path / "a.png")
    assert (error.reason, error.message) == (SkipReason.DECODE_ERROR, "damaged or unusual PNG header")


def test_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(60_000, 60_000, depth=1, colours=0, body=b""))
    frame = b"\x21\xf9\x04\x08\0\0\0\0" + b"," + struct.pack("<4HB", 0, 0, 65535, 65535, 0) + b"\x08\0;"
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + struct.pack("<2H3B", 1, 1, 0, 0, 0) + frame)
    (tmp_path / "a.bmp").write_bytes(
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 40_000, 40_000, 1, 24, 0, 0, 0, 0, 0, 0)
    )
    start = time.process_time()
    assert {refusal(tmp_path / f"a.{suffix}").reason for suffix in ("png", "gif", "bmp")} == {SkipReason.TOO_LARGE}
    assert time.process_time() - start < 1


def test_pixel_limit_is_the_callers(tmp_path: Path) -> None:
    Image.new("L", (1000, 1001)).save(tmp_path / "a.png")
    error = refusal(tmp_path / "a.png", max_megapixels=1)
    assert (error.reason, error.message) == (SkipReason.TOO_LARGE, "1000 x 1001 pixels; the limit is 1 megapixels")
    assert load(str(tmp_path / "a.png"), max_megapixels=1.001).image.size == (1000, 1001)


@pytest.mark.parametrize("act", [load, content_hash])
def test_what_is_no_regular_file_is_unreadable_at_once(tmp_path: Path, act: Callable[[str], object]) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for path in (
        tmp_path / "pipe.jpg",
        tmp_path / "folder.jpg",
        tmp_path / "none.jpg",
        Path("/dev/null"),
        "a\0.jpg",
    ):
        with pytest.raises(PhotoError) as caught:
            act(str(path))
        assert caught.value.reason == SkipReason.UNREADABLE
        assert str(tmp_path) not in caught.value.message


def test_file_that_changes_meanwhile_is_unstable(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(2000, 2000).save(path)
    started, done = threading.Event(), threading.Event()

    def touch() -> None:
        moment = 0
        while not done.is_set():
            os.utime(path, ns=(moment, moment))
            moment += 1_000_000
            started.set()

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        started.wait()
        assert refusal(path).reason == SkipReason.UNSTABLE
    finally:
        done.set()
        thread.join()


def test_library_settings_never_let_truncated_files_pass() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# ---- the rest of the promise


def test_hash_and_stat_are_of_the_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    picture().save(path)
    path.write_bytes(path.read_bytes() + b"a film behind the still" * 1000)
    os.utime(path, ns=(1, 1_700_000_000_000_000_001))
    photo = load(str(path))
    expected = hashlib.sha256(path.read_bytes())
    assert photo.content_hash.hex() == content_hash(str(path)).hex() == expected.hexdigest()
    assert (photo.stat.path, photo.stat.size_bytes) == (str(path), path.stat().st_size)
    assert photo.stat.mtime_ns == 1_700_000_000_000_000_001


def test_name_that_is_no_text_is_loaded(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")
    picture().save(path, "PNG")
    assert load(path).stat.path == path


def test_what_pillow_forgives_does_not_warn(tmp_path: Path) -> None:
    entry = struct.pack(">HHII", ExifTags.Base.Model, 2, 1000, 5000)  # a text that lies beyond the end
    picture().save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01" + entry + b"\0" * 4)
    with pytest.warns(UserWarning, match="Skipping tag"), Image.open(tmp_path / "a.jpg") as image:
        image.getexif()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert load(str(tmp_path / "a.jpg")).info.camera is None
        warnings.warn("others may still warn", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["others may still warn"]


def tiff(*tags: tuple[int, int, int, int], body: bytes, samples: int = 1) -> bytes:
    """Return an 8 x 8 grey deflated TIFF made by hand. tags: further (tag, type, count, value), ascending."""
    shape = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1)]
    strip = [(273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, 8), (279, 4, 1, len(body))]
    entries = [struct.pack("<HHII", *entry) for entry in (*shape, *strip, *tags)]
    body += b"\0" * (len(body) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
    return struct.pack("<2sHI", b"II", 42, 8 + len(body)) + body + directory


LOUD_TIFFS = {
    "libtiff forgives": (tiff((65000, 99, 1, 7), body=zlib.compress(bytes(64))), "loaded"),
    "libtiff fails": (tiff(body=b"\xff" * 20), "decode_error: OSError: decoder error -2"),
    "Pillow logs": (tiff(body=b"", samples=255), "decode_error: damaged or unusual TIFF header"),
}
"""Files that make the decoders write to stderr, and what becomes of them here."""


@pytest.mark.parametrize("case", LOUD_TIFFS)
def test_decoders_leave_stderr_alone(tmp_path: Path, case: str) -> None:
    content, outcome = LOUD_TIFFS[case]
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    pillow = """
with contextlib.suppress(Exception):
    Image.open(path).load()"""
    ours = """
try:
    decode.load(path)
    print("loaded")
except PhotoError as error:
    print(f"{error.reason}: {error}")"""
    assert run(pillow, path).stderr  # else this shows nothing
    result = run(ours, path)
    assert (result.stdout.strip(), result.stderr) == (outcome, "")


def run(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run a script on a file in a process of its own: what C code prints is out of a test's reach."""
    imports = """
import contextlib
from PIL import Image
from search.errors import PhotoError
from search.photos import decode
"""
    command = [sys.executable, "-c", f"{imports}path = {str(path)!r}{script}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_threads_get_the_same_as_one(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.jpg", "b.png", "c.webp", "d.tif", "e.avif", "f.jpg")]
    for path in paths[:-1]:
        picture(300, 200).save(path)
    paths[-1].write_bytes(paths[0].read_bytes()[:500])

    def verdict(path: Path) -> str:
        try:
            return hashlib.sha256(load(str(path)).image.tobytes()).hexdigest()
        except PhotoError as error:
            return str(error.reason)

    alone = [verdict(path) for path in paths]
    assert alone[-1] == "decode_error"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(verdict, paths * 8)) == alone * 8


def test_no_file_stays_open(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    load(str(tmp_path / "a.png"))
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    kept = [load(str(tmp_path / "a.png")) for _ in range(5)]
    for _ in range(5):
        refusal(tmp_path / "b.png")
    assert len(kept) == 5
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before


def test_a_tga_is_known_by_its_name_alone(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (200, 30, 60)).save(tmp_path / "scan.TGA", format="TGA")
    loaded = load(str(tmp_path / "scan.TGA"))
    assert (loaded.info.format.lower(), loaded.image.getpixel((5, 5))) == ("tga", (200, 30, 60))
    (tmp_path / "scan.TGA").rename(tmp_path / "scan.jpg")
    with pytest.raises(PhotoError) as caught:
        load(str(tmp_path / "scan.jpg"))
    assert caught.value.reason == "unsupported_format"


def test_an_icon_gives_its_largest_picture(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (10, 120, 240)).save(tmp_path / "icon.ico", sizes=[(16, 16), (64, 64)])
    loaded = load(str(tmp_path / "icon.ico"))
    assert (loaded.image.size, loaded.image.getpixel((30, 30))) == ((64, 64), (10, 120, 240))
