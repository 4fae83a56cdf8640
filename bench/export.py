"""`tags export` on 10,000 photos: how long it takes, that a second run touches no file, that undo leaves no trace.

python bench/export.py [--count 10000] [--rival-count 1000]

A third of the photos have a sidecar of other software, of several kinds. exiftool is given the same keywords to write
to as many of the same files in one process, and is held against by photos a second.
"""

from __future__ import annotations

import argparse
import io
import resource
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time

from PIL import Image

from search import Library
from search.types import LabelledPhoto, LabelScore, RunKind
from stopwatch import REPOSITORY, print_head, workshop
from synthetic import Identity, list_files, make_library

sys.path.append(str(REPOSITORY / "tests"))
from other_software import STYLES

_FOLDER = 500  # photos to a folder
_LABELS = ("animal/cat", "animal/dog", "sea & sky", "food|drink", "Straße")

State = dict[str, tuple[bytes, int, int]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rival-count", type=int, default=1_000)
    arguments = parser.parse_args()
    print_head("Labels into sidecars")
    with workshop() as folder:
        album = folder / "album"
        _make_album(album, arguments.count)
        make_library(
            folder / "library", arguments.count, encoder=Identity(dim=8), root=str(album), files=list_files(album)
        )
        before = _state(album)
        with Library.open(folder / "library", offline=True) as library:
            _propose(library)
            rate = _round_trip(library, album, before, arguments.count)
        if shutil.which("exiftool"):
            _rival(folder / "rival", arguments.rival_count, rate)


def _make_album(album: Path, count: int) -> None:
    """Write tiny photos, every third with a sidecar of other software."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "JPEG")
    styles = list(STYLES.values())
    for number in range(count):
        path = album / f"{number // _FOLDER:04}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue() + b"%d" % number)
        if number % 3 == 0:
            name = f"{number:06}.xmp" if number % 2 else f"{path.name}.xmp"
            path.with_name(name).write_bytes(styles[number // 3 % len(styles)])


def _labels_of(number: int) -> list[str]:
    return [_LABELS[number % 5], _LABELS[(number // 5) % 5]] if number % 5 != number // 5 % 5 else [_LABELS[0]]


def _propose(library: Library) -> None:
    ids = library.catalog.all_ids().tolist()
    photos = [
        LabelledPhoto("", tuple(LabelScore(label, 0.75, 0.25) for label in _labels_of(id_)), id_) for id_ in ids
    ]
    with library.catalog.writing() as writer, writer.run(RunKind.LABEL, label_set="bench") as run:
        run.propose(photos, list(_LABELS), encoder_id=1)


def _state(album: Path) -> State:
    """Return every sidecar's content, time of change and inode."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in album.rglob("*.xmp")
    }


def _round_trip(library: Library, album: Path, before: State, count: int) -> tuple[float, float]:
    """Print what export, export again and undo do; return the photos a second of the first, and a second of CPU."""
    print(f"{count:,} photos, a third with a sidecar of other software.\n")
    print("| | s | CPU s | written | unchanged | skipped |\n|---|---|---|---|---|---|")
    started, used = perf_counter(), process_time()
    first = library.tags.export()
    took, cpu = perf_counter() - started, process_time() - used
    _row("export", took, cpu, first)
    written = _state(album)
    started, used = perf_counter(), process_time()
    _row("export again", -started, -used, library.tags.export())
    touched = sum(written[path] != found for path, found in _state(album).items())
    started, used = perf_counter(), process_time()
    assert first.run is not None
    undone = library.tags.undo(first.run)
    print(f"| undo | {perf_counter() - started:.1f} | {process_time() - used:.1f} | {undone.sidecars} | | |\n")
    after = _state(album)
    same = sum(after.get(path, (b"",))[0] == content for path, (content, *_) in before.items())
    reasons = Counter(skip.reason for skip in first.skipped)
    print(f"Files touched by the second export: {touched} of {len(written)}.")
    print(f"Sidecars of other software byte for byte as before after undo: {same} of {len(before)};")
    print(f"left of those that were made: {len(after.keys() - before.keys())}. Skipped: {dict(reasons)}.\n")
    return count / took, count / cpu


def _row(what: str, took: float, used: float, report) -> None:
    took, used = (took, used) if took > 0 else (took + perf_counter(), used + process_time())
    counts = (report.written, report.unchanged, len(report.skipped))
    print(f"| {what} | {took:.1f} | {used:.1f} | {' | '.join(map(str, counts))} |", flush=True)


def _rival(album: Path, count: int, ours: tuple[float, float]) -> None:
    """Print how exiftool does with the same keywords, in one process."""
    _make_album(album, count)
    lines: list[str] = []
    for number, photo in enumerate(sorted(album.rglob("*.jpg"))):
        beside = [
            path for path in (photo.with_name(f"{photo.name}.xmp"), photo.with_suffix(".xmp")) if path.exists()
        ]
        for label in _labels_of(number + 1):
            levels = ["auto", *label.split("/")]
            lines += [
                f"-XMP-digiKam:TagsList+={'/'.join(levels)}",
                f"-XMP-lr:HierarchicalSubject+={'|'.join(levels)}",
                f"-XMP-dc:Subject+={levels[-1]}",
            ]
        sidecar = beside[0] if beside else photo.with_name(f"{photo.name}.xmp")
        lines += ["-overwrite_original", "-q", str(sidecar), "-execute"]
    script = album / "arguments"
    script.write_text("\n".join(lines))
    started, used = perf_counter(), _of_children()
    subprocess.run(["exiftool", "-@", str(script)], check=False, capture_output=True)
    wall, cpu = ours[0] * (perf_counter() - started) / count, ours[1] * (_of_children() - used) / count
    version = subprocess.run(["exiftool", "-ver"], capture_output=True, text=True, check=True).stdout.strip()
    written = len(list(album.rglob("*.xmp")))
    print(f"exiftool {version}, one process, {count} photos: {written} sidecars; ", end="")
    print(f"photos a second, ours to its: {wall:.1f} × by the clock, {cpu:.1f} × by CPU time.")


def _of_children() -> float:
    """Return the CPU seconds of processes that were waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


if __name__ == "__main__":
    main()
