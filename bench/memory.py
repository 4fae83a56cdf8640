"""What indexing large photos takes of memory: the whole tree of processes, by the second.

    python bench/memory.py [--photos 4] [--megapixels 48] [--workers N]

For each format an index run of its own, by the built-in model, at default settings; the largest sum of what parent and
children hold by themselves (PSS) and the share of the children. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from time import sleep

import numpy as np
import psutil
from PIL import Image

FORMATS = {
    "JPEG": ("jpg", {"quality": 90}),
    "PNG": ("png", {"compress_level": 1}),
    "WebP": ("webp", {"method": 0}),
}
EVERY_S = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=4)
    parser.add_argument("--megapixels", type=float, default=48)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    print("| format | children | largest child, MB | all children, MB | everything, MB |\n|---|---|---|---|---|")
    for name, (suffix, options) in FORMATS.items():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder, "photos"), suffix, options, arguments.photos, arguments.megapixels)
            workers, largest, children, everything = watch(folder, arguments.workers)
            print(f"| {name} | {workers} | {largest:.0f} | {children:.0f} | {everything:.0f} |", flush=True)


def make(folder: Path, suffix: str, options: dict, count: int, megapixels: float) -> None:
    folder.mkdir()
    height = round((megapixels * 750_000) ** 0.5)
    size = (height * 4 // 3, height)
    noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)
    picture.save(folder / f"0.{suffix}", **options)
    for number in range(1, count):
        (folder / f"{number}.{suffix}").write_bytes((folder / f"0.{suffix}").read_bytes())


def watch(folder: str, workers: int | None) -> tuple[int, float, float, float]:
    """Return how many children decoded and the largest sizes seen, in MB."""
    command = [sys.executable, "-m", "search", "--library", f"{folder}/library", "index", f"{folder}/photos"]
    command += ["--model", "builtin", *(["--workers", str(workers)] if workers else [])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parent, most = psutil.Process(process.pid), (0, 0.0, 0.0, 0.0)
    while process.poll() is None:
        held = [size / 1e6 for size in map(held_bytes, parent.children(recursive=True))]
        now = (len(held), max(held, default=0), sum(held), sum(held) + held_bytes(parent) / 1e6)
        most = tuple(max(pair) for pair in zip(most, now, strict=True))
        sleep(EVERY_S)
    assert process.returncode == 0
    return most


def held_bytes(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
