"""What a second run costs: 2,000 photos are indexed, half renamed, some touched and some deleted.

    python bench/incremental.py [--photos 2000]

Prints the report of each run and how many images the model was given. The second run's time is held against the
first's, in the same process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from search import Library

FIELDS = ("photos", "added", "updated", "moved", "unchanged", "gone", "encoded")


def make(folder: Path, count: int) -> list[Path]:
    """Write small JPEGs of noise, each different, twenty to a folder."""
    paths = [folder / f"{number // 20:03}" / f"{number:05}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=85)
    return paths


def change(paths: list[Path]) -> None:
    """Rename the first half, touch the next tenth, delete the next tenth."""
    half, tenth = len(paths) // 2, len(paths) // 10
    for path in paths[:half]:
        path.rename(path.with_name(f"renamed-{path.name}"))
    for path in paths[half : half + tenth]:
        os.utime(path, (1_600_000_000, 1_600_000_000))
    for path in paths[half + tenth : half + 2 * tenth]:
        path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder, "photos"), arguments.photos)
        with Library.open(Path(folder, "library"), model="builtin", offline=True) as library:
            given = count_images(library)
            print("| run | " + " | ".join(FIELDS) + " | images given to the model | seconds |")
            print("|---" * (len(FIELDS) + 3) + "|")
            for name in ("first", "unchanged", "after renaming, touching, deleting", "again"):
                if name.startswith("after"):
                    change(paths)
                before = given[0]
                report = library.index([Path(folder, "photos")])
                values = " | ".join(str(getattr(report, field)) for field in FIELDS)
                print(f"| {name} | {values} | {given[0] - before} | {report.seconds:.2f} |")


def count_images(library: Library) -> list[int]:
    """Count what the library's encoder is given, in a list of one number."""
    encoder = library.encoder
    encode, given = encoder.encode_images, [0]

    def counted(images):
        given[0] += len(images)
        return encode(images)

    encoder.encode_images = counted
    return given


if __name__ == "__main__":
    main()
