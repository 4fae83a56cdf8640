"""What a second run costs: 2,000 photos are indexed, half renamed, some touched and some deleted.

    python bench/incremental.py [--photos 2000]
    python bench/incremental.py --files 100000

Prints the report of each run and how many images the model was given. The second run's time is held against the
first's, in the same process.

With --files: a tree of so many tiny files whose rows are put into the catalog without decoding or encoding; then what
`search index` takes of the clock and of the processor when nothing has changed, with its parts and its SQL statements.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from PIL import Image

from search import Library
from search.catalog import Catalog
from search.catalog.scan import ScannedFile, Verdict
from search.catalog.writer import Record
from search.photos.scan import scan
from search.photos.versions import READER
from search.types import PhotoInfo

FIELDS = ("added", "moved", "unchanged", "gone")


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
    parser.add_argument("--files", type=int)
    arguments = parser.parse_args()
    if arguments.files:
        unchanged(arguments.files)
        return
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder, "photos"), arguments.photos)
        with Library.open(Path(folder, "library"), model="builtin", offline=True) as library:
            given = count_images(library)
            print(
                f"{arguments.photos:,} JPEGs of 640 × 480; then half renamed, a tenth touched, a tenth deleted.\n"
            )
            print("| run | " + " | ".join(FIELDS) + " | encoded, in seconds |")
            print("|---" * (len(FIELDS) + 2) + "|")
            for name in ("first", "unchanged", "after renaming, touching, deleting", "again"):
                if name.startswith("after"):
                    change(paths)
                before = given[0]
                report = library.index([Path(folder, "photos")])
                values = " | ".join(str(getattr(report, field)) for field in FIELDS)
                print(f"| {name} | {values} | {given[0] - before} in {report.seconds:.2f} |")


def unchanged(count: int) -> None:
    """Print what a run over many unchanged files takes."""
    with tempfile.TemporaryDirectory() as folder:
        tree, library = f"{folder}/tree", f"{folder}/library"
        plant(Path(tree), count)
        inject(tree, library)
        command = [sys.executable, "-m", "search", "--library", library, "index", tree]
        runs = [taken(command) for _ in range(5)]
        print(f"{count} files, nothing changed; medians of 5 runs")
        print("| | seconds | processor |\n|---|---|---|")
        print(
            f"| `search index`, whole process | {median(r[0] for r in runs):.2f} | {median(r[1] for r in runs):.2f} |"
        )
        print_row("– of it the imports", [taken([sys.executable, "-c", IMPORTS]) for _ in range(3)])
        print_row("– of it the walk", [timed(lambda: sum(1 for _ in scan(tree))) for _ in range(3)])
        print(f"{len(statements(library, tree))} SQL statements")


IMPORTS = "import click, search.library, search.indexer, search.catalog, search.catalog.writer"


def print_row(name: str, runs: list[tuple[float, float]]) -> None:
    print(f"| {name} | {median(r[0] for r in runs):.2f} | {median(r[1] for r in runs):.2f} |")


def timed(work) -> tuple[float, float]:
    started, before = perf_counter(), process_time()
    work()
    return perf_counter() - started, process_time() - before


def taken(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds by the clock and of the processor."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    seconds, after = perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def plant(tree: Path, count: int) -> None:
    """Write tiny JPEGs, a thousand to a folder."""
    for number in range(count):
        path = tree / f"{number // 1000:03}" / f"{number:07}.jpg"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"\xff\xd8 a thumbnail of a thumbnail")


def inject(tree: str, library: str) -> None:
    """Make a library that knows every file of a tree, by vectors drawn at random."""
    with Library.open(f"{library}-other", model="builtin", offline=True) as other:
        encoder = other.encoder
    catalog = Catalog(library)
    catalog.create()
    random = np.random.default_rng(0)
    with catalog.writing() as writer:
        model, scope = writer.register(encoder), writer.add_source(tree, is_folder=True)
        files = list(scan(tree))
        for at in range(0, len(files), 1000):
            records = [
                Record(
                    ScannedFile(
                        scope.root_id, os.fsencode(os.path.relpath(file.path, tree)), file, Verdict.NEW, None
                    ),
                    hashlib.sha256(file.path.encode()).digest(),
                    PhotoInfo("jpeg", 1, 1),
                )
                for file in files[at : at + 1000]
            ]
            vectors = random.standard_normal((len(records), encoder.dim)).astype(np.float32)
            writer.add(records, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), model, reader=READER)


def statements(library: str, tree: str) -> list[str]:
    """Return what SQLite is told in a run."""
    from sqlalchemy import event
    from sqlalchemy.pool import Pool

    told: list[str] = []
    event.listen(Pool, "connect", lambda connection, _: connection.set_trace_callback(told.append))
    with Library.open(library, model="builtin", offline=True) as opened:
        opened.index([tree])
    return told


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
