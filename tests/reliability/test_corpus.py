"""Every file gets one verdict: files made here in the ordinary suite, thousands of real ones where SEARCH_FAULTS says.

The corpus is laid out anew for the run, all its files linked into one folder under names that the walk takes: content
decides what a file is, so a name changes no verdict.
"""

from __future__ import annotations

import csv
import functools
import io
import os
import re
import resource
import shutil
import struct
import sys
import zlib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search import IndexOptions, Library
from search.photos.scan import PHOTO_SUFFIXES

PHOTO = "photo"
GIF_FRAME = b",\0\0\0\0\xff\xff\xff\xff\x00\x08\x01\x00\x00;"
MEMORY_KB = 1_500_000_000 // 1024


def tell(*lines: object) -> None:
    """Show figures to who runs this with -s."""
    sys.stdout.write("\n".join(map(str, lines)) + "\n")


def verdicts(report, folder: Path) -> dict[str, str]:
    """What became of each file below a folder, by its path there; fails if it became two things."""
    skipped = {os.path.relpath(skip.path, folder): str(skip.reason) for skip in report.skipped}
    assert len(skipped) == len(report.skipped)
    every = {os.path.relpath(path, folder) for path in folder.rglob("*") if path.is_file()}
    assert skipped.keys() <= every
    assert report.added == len(every) - len(skipped)
    return dict.fromkeys(every, PHOTO) | skipped


# ---- files made on the spot


def noise(width: int = 64, height: int = 48, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(7).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def png(width: int, height: int, data: bytes, *, colour: int = 0) -> bytes:
    """A PNG of any claimed size.   colour: its type, 0 for grey, 2 for RGB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data, 1))
        + chunk(b"IEND", b"")
    )


@functools.cache
def hungry() -> bytes:
    """A picture of 81 megapixels in colour, 243 MB."""
    return png(9_000, 9_000, bytes(27_001 * 9_000), colour=2)


def made() -> dict[str, tuple[bytes, str]]:
    """File name → content and the verdict it must get."""
    jpeg, lossless, webp = saved(noise(), "JPEG"), saved(noise(), "PNG"), saved(noise(), "WEBP")
    transparent = noise(mode="RGBA")
    transparent.putalpha(0)
    palette = noise(mode="P")
    turned = Image.Exif()
    turned[0x0112] = 65535
    return {
        "plain.jpg": (jpeg, PHOTO),
        "wrong-extension.png": (jpeg, PHOTO),
        "double.jpg.png": (lossless, PHOTO),
        "cmyk.jpg": (saved(noise(mode="CMYK"), "JPEG"), PHOTO),
        "grey.jpg": (saved(noise(mode="L"), "JPEG"), PHOTO),
        "grey-alpha.png": (saved(noise(mode="LA"), "PNG"), PHOTO),
        "lab.tif": (saved(noise(mode="LAB"), "TIFF"), PHOTO),
        "all-clear.png": (saved(transparent, "PNG"), PHOTO),
        "palette.png": (saved(palette, "PNG", transparency=3), PHOTO),
        "progressive.jpg": (saved(noise(), "JPEG", progressive=True), PHOTO),
        "int32.tif": (saved(Image.fromarray(np.arange(4096, dtype=np.int32).reshape(64, 64)), "TIFF"), PHOTO),
        "animated.gif": (saved(noise(), "GIF", save_all=True, append_images=[noise(64, 48, "L")] * 3), PHOTO),
        "one-pixel.png": (saved(noise(8, 8).crop((0, 0, 1, 1)), "PNG"), PHOTO),
        "strip.png": (saved(noise(8, 8).resize((9000, 1)), "PNG"), PHOTO),
        "no-such-turn.jpg": (saved(noise(), "JPEG", exif=turned), PHOTO),
        "motion.jpg": (jpeg + b"\x00\x00\x00\x18ftypmp42" + bytes(9000), PHOTO),
        "two.jpg": (jpeg + jpeg, PHOTO),
        "empty.jpg": (b"", "empty"),
        "one-byte.jpg": (b"\xff", "empty"),
        "zeros.jpg": (bytes(4096), "empty"),
        "html.jpg": (b"<!DOCTYPE html><title>404</title>", "unsupported_format"),
        "pdf.jpg": (b"%PDF-1.7\n%\xe2\xe3", "unsupported_format"),
        "vector.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
        "video.jpg": (b"\x00\x00\x00\x18ftypmp42" + bytes(500), "unsupported_format"),
        "script.tif": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "decode_error"),
        "cut.png": (lossless[: len(lossless) // 2], "decode_error"),
        "cut.webp": (webp[: len(webp) // 2], "decode_error"),
        "cut-header.png": (lossless[:20], "decode_error"),
        "liar.png": (png(3000, 3000, b"\0" * 100), "decode_error"),
        "bomb.png": (png(60_000, 60_000, b"\0" * 1000), "too_large"),
        "bomb.gif": (b"GIF89a\xff\xff\xff\xff\x80\x00\x00" + bytes(6) + GIF_FRAME, "too_large"),
        "hungry.png": (hungry(), "memory"),
    }


@pytest.mark.slow
def test_every_kind_of_file_gets_its_verdict_once(library, counting, tmp_path):
    """With so little memory that a picture of 81 megapixels is too much for it."""
    folder = tmp_path / "files"
    folder.mkdir()
    table = made()
    for name, (content, _) in table.items():
        (folder / name).write_bytes(content)
    options = IndexOptions(decoder_gigabytes=0.25)
    report = library.index([folder], options=options)
    assert verdicts(report, folder) == {name: verdict for name, (_, verdict) in table.items()}
    images = counting.images
    again = library.index([folder], options=options)
    assert (again.unchanged, again.encoded, counting.images) == (report.added, 0, images)
    assert {skip.path: skip.reason for skip in again.skipped} == {s.path: s.reason for s in report.skipped}


def test_a_limit_on_memory_that_was_raised_lets_a_file_be_tried_again(library, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "hungry.png").write_bytes(hungry())
    assert library.index([tmp_path / "photos"], options=IndexOptions(decoder_gigabytes=0.25)).skipped
    assert library.index([tmp_path / "photos"]).added == 1


# ---- the corpus

# By name under synthetic/; the first pattern that fits. "either" may be a photo or damaged: one bit of it is wrong.
REFUSED = ("decode_error", "unsupported_format")
SYNTHETIC = (
    ("trunc-99.png", (PHOTO,)),  # only the end mark is missing
    ("trunc-*", REFUSED),
    ("flip-*", (PHOTO, *REFUSED)),
    ("bomb-iccp.png", (PHOTO, "decode_error", "too_large")),
    ("bomb*", ("too_large", "decode_error")),
    ("legit-16383x10000.webp", (PHOTO, "memory", "decode_error")),  # libwebp does not say that memory ran out
    ("hole.jpg", REFUSED),
    ("zero.jpg", ("empty",)),
    ("one-byte.jpg", ("empty",)),
    *((name, ("unsupported_format",)) for name in ("html.*", "pdf.*", "svg*", "mp4.*", "eps.*")),
    ("*", (PHOTO,)),
)


def lay_out(faults: Path, folder: Path) -> dict[str, str]:
    """Link or copy the corpus's files into a folder, named so that the walk takes them; return where each came from."""
    origin = {}
    with (faults / "FILES.tsv").open(encoding="utf-8", newline="") as table:
        paths = [row["path"] for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for number, path in enumerate(paths):
        name = re.sub(r"[^\w.-]", "_", Path(path).name)[-80:].lstrip(".")
        suffix = "" if Path(name).suffix.lower() in PHOTO_SUFFIXES else ".jpg"
        target = folder / f"{number // 200:02}" / f"{number:04}-{name}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(faults / path, target)
        except OSError:
            shutil.copyfile(faults / path, target)
        origin[str(target.relative_to(folder))] = path
    return origin


@pytest.fixture(scope="module")
def corpus(faults, tmp_path_factory):
    """Index the corpus twice; return Pillow's own verdicts, ours, and the two reports."""
    place = tmp_path_factory.mktemp("corpus")
    (place / "files").mkdir()
    origin = lay_out(faults, place / "files")
    with Library.open(place / "library", model="builtin", offline=True) as library:
        first = library.index([place / "files"])
        peak_kb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        second = library.index([place / "files"])
    ours = {origin[name]: verdict for name, verdict in verdicts(first, place / "files").items()}
    with (faults / "FILES.tsv").open(encoding="utf-8", newline="") as table:
        pillows = {
            row["path"]: row["pillow13_allowlist"]
            for row in csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    details = {origin[os.path.relpath(skip.path, place / "files")]: skip.detail for skip in first.skipped}
    tell(f"\n{len(ours)} files in {first.seconds:.1f} s, {second.seconds:.1f} s again; peak {peak_kb // 1024} MB")
    tell(Counter(ours.values()).most_common())
    return pillows, ours, details, first, second, peak_kb


@pytest.mark.slow
def test_every_file_of_the_corpus_gets_one_verdict(corpus):
    pillows, ours, *_ = corpus
    assert ours.keys() == pillows.keys()
    assert not [path for path, verdict in ours.items() if verdict in ("unreadable", "unstable", "bad_vector")]


@pytest.mark.slow
def test_what_pillow_decodes_is_decoded(corpus):
    pillows, ours, details, *_ = corpus
    expected = {path for path, verdict in pillows.items() if verdict == "ok"}
    lost = {path: (ours[path], details[path]) for path in expected if ours[path] != PHOTO}
    tell(f"Pillow decodes these {len(lost)} and we do not:", *sorted(lost.items()))
    assert not lost
    assert len(expected) > 1000


@pytest.mark.slow
def test_heic_is_decoded(corpus):
    _, ours, details, *_ = corpus
    heic = {path: verdict for path, verdict in ours.items() if path.lower().endswith((".heic", ".heif"))}
    tell(f"\nHEIC: {Counter(heic.values())}", *((p, v, details[p]) for p, v in heic.items() if v != PHOTO))
    assert sum(verdict == PHOTO for verdict in heic.values()) >= len(heic) // 2


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "expected"), SYNTHETIC[:-1], ids=[pattern for pattern, _ in SYNTHETIC[:-1]])
def test_what_was_made_to_be_refused_is(corpus, pattern, expected):
    found = synthetic(corpus[1], pattern)
    assert {name: verdict for name, verdict in found.items() if verdict not in expected} == {}


@pytest.mark.slow
def test_what_was_made_to_be_decoded_is(corpus):
    found = synthetic(corpus[1], "*")
    assert len(found) > 20
    assert {name: verdict for name, verdict in found.items() if verdict != PHOTO} == {}


def synthetic(ours: dict[str, str], pattern: str) -> dict[str, str]:
    """Verdicts of the synthetic files for which this pattern is the first that fits."""
    names = {Path(path).name: verdict for path, verdict in ours.items() if path.startswith("synthetic/")}
    first = {name: next(p for p, _ in SYNTHETIC if fnmatch(name, p)) for name in names}
    return {name: verdict for name, verdict in names.items() if first[name] == pattern}


@pytest.mark.slow
def test_a_second_run_decodes_nothing(corpus):
    *_, first, second, _ = corpus
    assert (second.encoded, second.added, second.updated) == (0, 0, 0)
    assert second.unchanged == first.added
    assert {skip.path: skip.reason for skip in second.skipped} == {
        skip.path: skip.reason for skip in first.skipped
    }


@pytest.mark.slow
def test_no_child_takes_more_memory_than_it_may(corpus):
    assert corpus[-1] <= MEMORY_KB
