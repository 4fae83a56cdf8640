"""What conditions cost: the time from a condition to the ids that pass, beside a query that looks at all photos.

    python bench/filters.py [--photos 200000] [--runs 9]

The photos are synthetic: 20 years, 65 cameras of which few take most of the photos, 150 lenses, places all over the
globe for 60 % of them. Times are medians of process CPU time.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from statistics import median

from search import Filter, Library
from search.query import Kind, Query, Term
from search.types import PhotoInfo, TakenAtSource
from search.where import parse
from stopwatch import workshop
from synthetic import make_library

CAMERAS = ("Canon EOS 5D", "Pixel 7", "NIKON D850", "iPhone 14", *(f"Camera {number}" for number in range(61)))
ZONES = (None, None, timezone(timedelta(hours=2)), timezone(timedelta(hours=-8)))
CONDITIONS = (
    "taken in 2023-05..2023-08 and camera:canon",
    "taken in 2023-05..2023-08",
    "taken in 2023-05-01Z..2023-08-31Z",
    "camera:canon",
    "lens:'lens 50mm'",
    "near(48, 11, 100km)",
    "box(40, 0, 50, 20)",
    "rating >= 4",
    "not has gps",
    "folder:/synthetic/photos/0001",
    "taken = 2023-05 and name:*9.jpg",
    "name:*9.jpg",
)


def info(number: int) -> PhotoInfo:
    """What is known of a photo; the same for the same number."""
    drawn = random.Random(number)
    taken = datetime(2005, 1, 1) + timedelta(seconds=drawn.randrange(630_000_000))  # noqa: DTZ001 (wall-clock)
    placed = drawn.random() < 0.6
    return PhotoInfo(
        *("jpeg", 4000, 3000),
        taken_at=taken.replace(tzinfo=ZONES[number % len(ZONES)]),
        taken_at_source=TakenAtSource.EXIF,
        camera=CAMERAS[int(drawn.random() ** 3 * len(CAMERAS))],
        lens=f"Lens {drawn.randrange(150)}mm",
        latitude=drawn.uniform(-90, 90) if placed else None,
        longitude=drawn.uniform(-180, 180) if placed else None,
        rating=None if number % 3 else drawn.randrange(6),
    )


def milliseconds(run: Callable[[], object], runs: int) -> float:
    """Return the median of the CPU time of some runs after a first one."""
    times = []
    for _ in range(runs + 1):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return 1000 * median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=9)
    arguments = parser.parse_args()
    with workshop() as folder:
        make_library(folder / "library", arguments.photos, infos=info)
        with Library.open(folder / "library", offline=True) as library:
            query = Query((Term(Kind.PHOTO, "7"),))
            whole = milliseconds(lambda: library.answer(query), arguments.runs)
            print(f"a query without conditions: {whole:.1f} ms\n")
            print("| condition | photos | ms | of that query |\n|---|---|---|---|")
            for condition in CONDITIONS:
                wanted = Filter(where=parse(condition))
                taken = milliseconds(lambda wanted=wanted: library.catalog.select(wanted), arguments.runs)
                found = library.catalog.select(wanted)
                print(
                    f"| `{condition}` | {0 if found is None else len(found)} | {taken:.2f} | {taken / whole:.2f} |"
                )


if __name__ == "__main__":
    main()
