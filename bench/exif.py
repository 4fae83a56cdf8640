"""What is read of photos' metadata, held against exiftool, field by field.

    python bench/exif.py FOLDER... [--differences 20]

Looks at every file under the folders that exiftool takes for an image and that can be decoded here. Prints, per field,
in how many files both say the same, of those in which either says anything, and lists the differences. The values of
exiftool are taken from the tags that the fields are defined by, with the same order of preference; a make that a model
repeats counts once, and so does a keyword that another one contains.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

from search.errors import PhotoError
from search.photos import keywords
from search.photos.decode import load
from search.photos.metadata import _camera
from search.types import PhotoInfo, TakenAtSource

FIELDS = (
    *("date", "offset", "sub-seconds", "latitude", "longitude", "camera", "lens", "rating", "keywords"),
    *("orientation", "width and height"),
)
EXIFTOOL = ("exiftool", "-json", "-G1", "-n", "-struct", "-a", "-r", "-api", "largefilesupport=1")
DATES = (
    ("ExifIFD:DateTimeOriginal", "ExifIFD:SubSecTimeOriginal", "ExifIFD:OffsetTimeOriginal"),
    ("ExifIFD:CreateDate", "ExifIFD:SubSecTimeDigitized", "ExifIFD:OffsetTimeDigitized"),
    ("XMP-exif:DateTimeOriginal", None, None),
    ("XMP-photoshop:DateCreated", None, None),
    ("XMP-exif:DateTimeDigitized", None, None),
    ("XMP-xmp:CreateDate", None, None),
    ("IPTC:DateTimeCreated", None, None),
    ("IFD0:ModifyDate", "ExifIFD:SubSecTime", "ExifIFD:OffsetTime"),
)
TREES = (
    ("XMP-digiKam:TagsList", "/"),
    ("XMP-microsoft:LastKeywordXMP", "/"),
    ("XMP-lr:HierarchicalSubject", "|"),
    ("XMP-dc:Subject", None),
    ("IPTC:Keywords", None),
)
DATE = re.compile(
    r"(\d{4})[:/.-](\d\d?)[:/.-](\d\d?)[ T]+(\d\d?):(\d\d?)(?::(\d\d?))?(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="FOLDER")
    parser.add_argument("--differences", type=int, default=20, help="listed per field")
    arguments = parser.parse_args()
    agreed, told = Counter[str](), Counter[str]()
    differences: dict[str, list[str]] = defaultdict(list)
    compared = 0
    for folder in arguments.folders:
        for path, tags in sorted(exiftool(folder).items()):
            ours = read(path)
            if ours is None:
                continue
            compared += 1
            theirs = fields_of(tags)
            for field in FIELDS:
                if ours[field] is None and theirs[field] is None:
                    continue
                told[field] += 1
                if alike(ours[field], theirs[field]):
                    agreed[field] += 1
                else:
                    name = os.path.relpath(path, os.path.dirname(folder))
                    differences[field].append(f"{name}: {ours[field]!r}, exiftool {theirs[field]!r}")
    report(compared, agreed, told, differences, arguments.differences)


def report(
    compared: int, agreed: Counter[str], told: Counter[str], differences: dict[str, list[str]], most: int
) -> None:
    print(f"{compared} files")
    print("| field | agree | of |\n|---|---|---|")
    for field in FIELDS:
        print(f"| {field} | {agreed[field]} | {told[field]} |")
    for field in FIELDS:
        for line in differences[field][:most]:
            print(f"{field}: {line}")
        if len(differences[field]) > most:
            print(f"{field}: and {len(differences[field]) - most} more")


def exiftool(folder: str) -> dict[str, dict[str, Any]]:
    """Return exiftool's tags of every image under a folder, by path."""
    run = subprocess.run([*EXIFTOOL, folder], capture_output=True, check=False)  # it fails where one file does
    every = json.loads(run.stdout or b"[]")
    return {tags["SourceFile"]: tags for tags in every if str(tags.get("File:MIMEType", "")).startswith("image/")}


def read(path: str) -> dict[str, Any] | None:
    """Return our fields of a file; None where it can't be decoded."""
    try:
        info = load(path, max_megapixels=1000, min_side=64).info
    except PhotoError:
        return None
    taken = info.taken_at if info.taken_at_source is TakenAtSource.EXIF else None
    return {
        "date": taken and taken.replace(tzinfo=None, microsecond=0),
        "offset": taken and taken.tzinfo and taken.utcoffset(),
        "sub-seconds": (taken and taken.microsecond) or None,
        "latitude": info.latitude,
        "longitude": info.longitude,
        "camera": info.camera,
        "lens": info.lens,
        "rating": info.rating,
        "keywords": list(info.keywords) or None,
        "orientation": info.orientation,
        "width and height": stored(info),
    }


def stored(info: PhotoInfo) -> tuple[int, int]:
    """Return width and height as they lie in the file, which is what exiftool tells."""
    return (info.height, info.width) if info.orientation >= 5 else (info.width, info.height)


def fields_of(tags: dict[str, Any]) -> dict[str, Any]:
    taken, zone, fraction = date_of(tags)
    latitude, longitude = (tags.get(f"Composite:GPS{name}") for name in ("Latitude", "Longitude"))
    return {
        "date": taken,
        "offset": zone,
        "sub-seconds": fraction,
        "latitude": latitude if isinstance(latitude, int | float) else None,
        "longitude": longitude if isinstance(longitude, int | float) else None,
        "camera": _camera(text(tags, "IFD0:Make", "XMP-tiff:Make"), text(tags, "IFD0:Model", "XMP-tiff:Model")),
        "lens": lens_of(tags),
        "rating": rating_of(tags),
        "keywords": keywords_of(tags),
        "orientation": number(tags, "IFD0:Orientation") or 1,
        "width and height": (tags.get("File:ImageWidth"), tags.get("File:ImageHeight"))
        if "File:ImageWidth" in tags
        else size_of(tags),
    }


def size_of(tags: dict[str, Any]) -> tuple[int, int] | None:
    size = re.fullmatch(r"(\d+) (\d+)", str(tags.get("Composite:ImageSize", "")).replace("x", " "))
    return (int(size[1]), int(size[2])) if size else None


def rating_of(tags: dict[str, Any]) -> int | None:
    """Return the stars, those that Windows writes as 1, 25, 50, 75 and 99 percent included."""
    stars = number(tags, "XMP-xmp:Rating", "IFD0:Rating")
    percent = number(tags, "XMP-microsoft:RatingPercent", "IFD0:RatingPercent")
    if stars is None and percent is not None:
        return {0: 0, 1: 1, 25: 2, 50: 3, 75: 4, 99: 5}.get(percent)
    return stars


def date_of(tags: dict[str, Any]) -> tuple[datetime | None, Any, int | None]:
    for name, fraction_name, offset_name in DATES:
        written = tags.get(name, "")
        if name == "IPTC:DateTimeCreated":
            written = f"{tags.get('IPTC:DateCreated', '')} {tags.get('IPTC:TimeCreated', '')}"
        match = DATE.match(str(written))
        if match is None:
            continue
        try:
            taken = datetime(*(int(part or 0) for part in match.groups()[:6]))  # noqa: DTZ001, wall-clock time
        except ValueError:
            continue
        fraction = match[7] or str(tags.get(fraction_name, "")).strip()
        digits = fraction[:6].ljust(6, "0") if fraction.isdecimal() else "0"
        return taken, zone_of(match[8] or str(tags.get(offset_name, ""))), int(digits) or None
    return None, None, None


def zone_of(text_: str) -> Any:
    match = re.fullmatch(r"([+-]\d\d):(\d\d)", "+00:00" if text_ == "Z" else text_)
    return match and datetime.strptime(f"{match[1]}{match[2]}", "%z").utcoffset()


def lens_of(tags: dict[str, Any]) -> str | None:
    model = text(tags, "ExifIFD:LensModel", "XMP-exifEX:LensModel", "XMP-aux:Lens")
    return model and _camera(text(tags, "ExifIFD:LensMake", "XMP-exifEX:LensMake"), model)


def text(tags: dict[str, Any], *names: str) -> str | None:
    for name in names:
        shown = keywords.printable(str(tags.get(name, "")))
        if any(c.isalnum() for c in shown):
            return shown
    return None


def number(tags: dict[str, Any], *names: str) -> int | None:
    return next((round(tags[name]) for name in names if isinstance(tags.get(name), int | float)), None)


def keywords_of(tags: dict[str, Any]) -> list[str] | None:
    every = [keywords.levels(one, separator) for name, separator in TREES for one in listed(tags.get(name))]
    every += [keywords.levels(one, None) for one in str(tags.get("IFD0:XPKeywords", "")).split(";")]
    return list(keywords.union(every)) or None


def listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [] if value is None else [str(value)]


def alike(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, int | float):
        return math.isclose(ours, theirs, abs_tol=1e-6)
    return bool(ours == theirs)


if __name__ == "__main__":
    main()
