"""What decoding in child processes costs, held against threads in the same process.

    python bench/decoding.py [--rounds 5]

Makes its own JPEGs: 12 megapixels, 640 × 480 and 160 × 120. Each round reads all of a size once by threads and once
by children, first one then the other; the table shows medians over the rounds, and of the rounds' ratios. With the
built-in model, the encoder works on one batch while the next are loaded, as in an index run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from search import load_encoder
from search.decoding.budget import default_workers
from search.decoding.pool import Decoders, ahead
from search.photos.decode import load

SIZES = {"12 megapixels": ((4000, 3000), 64), "640 × 480": ((640, 480), 1500), "160 × 120": ((160, 120), 4000)}
BATCH = 32
DISTINCT = 8


def make(folder: Path, size: tuple[int, int]) -> list[str]:
    """Write a few JPEGs with the detail of photographs: noise at several scales."""
    paths = []
    for seed in range(DISTINCT):
        random = np.random.default_rng(seed)
        layers = [
            np.asarray(
                Image.fromarray(random.integers(0, 256, (size[1] // step, size[0] // step, 3), np.uint8)).resize(
                    size, Image.Resampling.BICUBIC
                ),
                np.float32,
            )
            for step in (40, 8, 2)
        ]
        picture = Image.fromarray(
            sum(w * x for w, x in zip((0.6, 0.3, 0.1), layers, strict=True)).astype(np.uint8)
        )
        paths.append(str(folder / f"{size[0]}-{seed}.jpg"))
        picture.save(paths[-1], quality=90)
    return paths


def run(submit: Callable[[str], Future], paths: list[str], encode: Callable | None, workers: int) -> float:
    """Return photos a second."""
    started = perf_counter()
    loaded: Iterator = ahead(submit, paths, 2 * BATCH + workers)
    while batch := list(islice(loaded, BATCH)):
        pixels = np.stack([found.pixels if hasattr(found, "pixels") else found for _, found in batch])
        if encode:
            encode(pixels)
    return len(paths) / (perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=default_workers())
    arguments = parser.parse_args()
    encoder = load_encoder("builtin")
    print(f"{os.cpu_count()} cores, {arguments.workers} workers, medians of {arguments.rounds} rounds, photos/s\n")
    print("| photos | encoder | threads | children | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (size, count) in SIZES.items():
            paths = make(Path(folder), size) * (count // DISTINCT)
            for encode in (None, encoder.encode_images):
                compare(name, paths, encoder, encode, arguments)


def in_thread(path: str, preprocessing) -> np.ndarray:
    photo = load(path, min_side=preprocessing.min_side)
    return preprocessing(photo.image, whole=photo.whole, frame=photo.frame)


def compare(name: str, paths: list[str], encoder, encode: Callable | None, arguments: argparse.Namespace) -> None:
    """Print one row: both ways in turn, several times."""
    workers, preprocessing = arguments.workers, encoder.preprocessing
    rates: dict[str, list[float]] = {"threads": [], "children": []}
    with ThreadPoolExecutor(workers) as pool, Decoders(workers=workers) as decoders:
        ways = {
            "threads": lambda path: pool.submit(in_thread, path, preprocessing),
            "children": lambda path: decoders.submit(path, preprocessing),
        }
        for way in ways.values():
            run(way, paths[:BATCH], encode, workers)  # start what must be started
        for number in range(arguments.rounds):
            for way in list(ways)[:: 1 if number % 2 else -1]:
                rates[way].append(run(ways[way], paths, encode, workers))
    ratio = median(b / a for a, b in zip(rates["threads"], rates["children"], strict=True))
    values = " | ".join(f"{median(rates[way]):.4g}" for way in ways)
    print(f"| {name} | {'built-in' if encode else '–'} | {values} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
