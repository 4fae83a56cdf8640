"""How much of what its own stages permit an index run reaches: decoding, encoding, and both with everything between.

    python bench/pipeline.py [--photos DIR] [--rounds 3] [--dtype bfloat16]

Random weights of the given architecture and JPEGs of two sizes, 0.2 and 12 megapixels: mosaics of the pictures in DIR,
or of gradients and noise. Each round measures the three one after the other; where decoding and encoding share the
cores, no run can be faster than 1 / (1 / encode + 1 / decode). Beside photos a second of the clock the same is given
for processor time, parent and children together, which neighbours on a busy machine disturb less.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from PIL import Image

from search import Library, load_encoder
from search.decoding.pool import Decoders, ahead, close_warm

SIZES = {"0.2 megapixels": ((520, 390), 768), "12 megapixels": ((4000, 3000), 96)}
DISTINCT = 6
STAGES = ("decode", "encode", "pipeline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1, help="of the photos: a tenth for a quick look")
    parser.add_argument("--architecture", default="ViT-B-32-256")
    parser.add_argument("--dtype", help="of the encoder, by torch's name; its own if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoder = random_encoder(Path(folder), arguments.architecture, arguments.dtype)
        print(
            "| photos a second | decode | encode | bound | index run | of the bound |\n|---|---|---|---|---|---|"
        )
        for name, (size, count) in SIZES.items():
            count = int(count * arguments.share)
            paths = make(Path(folder, name), size, count, arguments.photos)
            rounds = [measure(paths, encoder) for _ in range(arguments.rounds)]
            report(name, rounds, count)


def random_encoder(folder: Path, architecture: str, dtype: str | None):
    """Save a model of random weights and load it as any other."""
    import torch
    from safetensors.torch import save_file

    from search.encoders import openclip

    if dtype:
        openclip.DTYPE = getattr(torch, dtype)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # "No pretrained weights loaded"
    weights = folder / "random.safetensors"
    save_file(openclip.open_clip.create_model(architecture, pretrained=None).state_dict(), weights)
    return load_encoder(f"{architecture}/{weights}")


def make(folder: Path, size: tuple[int, int], count: int, photos: Path | None) -> list[str]:
    """Write JPEGs, each with content of its own as far as a hash can tell."""
    folder.mkdir()
    made = [mosaic(size, seed, photos) for seed in range(DISTINCT)]
    paths = []
    for number, picture in enumerate(islice(cycle(made), count)):
        path = folder / f"{number:05}.jpg"
        path.write_bytes(picture + b"%09d" % number)
        paths.append(str(path))
    return paths


def mosaic(size: tuple[int, int], seed: int, photos: Path | None) -> bytes:
    """Return a JPEG of tiles with the detail of photographs."""
    from io import BytesIO

    random = np.random.default_rng(seed)
    sources = sorted(photos.rglob("*.[jJ][pP]*[gG]")) if photos else []
    side = max(256, size[0] // 4)
    page = Image.new("RGB", size)
    for left in range(0, size[0], side):
        for top in range(0, size[1], side):
            if sources:
                tile = Image.open(sources[random.integers(len(sources))]).convert("RGB").resize((side, side))
            else:
                layers = [(0.6, side // 4), (0.3, side // 16), (0.1, side // 2)]
                tile = Image.fromarray(
                    sum(noise(random, side, detail) * w for w, detail in layers).astype(np.uint8)
                )
            page.paste(tile, (left, top))
    page.save(buffer := BytesIO(), "JPEG", quality=90)
    return buffer.getvalue()


def noise(random: np.random.Generator, side: int, detail: int) -> np.ndarray:
    cells = Image.fromarray(random.integers(0, 256, (detail, detail, 3), np.uint8))
    return np.asarray(cells.resize((side, side), Image.Resampling.BICUBIC), np.float32)


def measure(paths: list[str], encoder) -> dict[str, tuple[float, float]]:
    """Return seconds of the clock and of the processors for each stage."""
    pixels = []

    def decode() -> None:
        with Decoders() as decoders:
            decoders.start(len(paths))
            for _, found in ahead(lambda path: decoders.submit(path, encoder.preprocessing), paths, 64):
                pixels.append(found.pixels)

    size = getattr(encoder, "batch_size", 32)

    def encode() -> None:
        for batch in batches(pixels, size):
            encoder.encode_images(np.stack(batch))

    def pipeline() -> None:
        with tempfile.TemporaryDirectory() as folder, Library.open(f"{folder}/l", model="builtin") as library:
            library.model.loaded = encoder
            assert library.index([str(Path(paths[0]).parent)]).encoded == len(paths)
        close_warm()

    encoder.encode_images(np.zeros((size, *encoder.preprocessing.size, 3), np.uint8))
    return {name: clock(stage) for name, stage in zip(STAGES, (decode, encode, pipeline), strict=True)}


def batches(items: list, size: int) -> Iterator[list]:
    for at in range(0, len(items), size):
        yield items[at : at + size]


def clock(work: Callable[[], None]) -> tuple[float, float]:
    before, started = processor(), perf_counter()
    work()
    return perf_counter() - started, processor() - before


def processor() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def report(name: str, rounds: list[dict[str, tuple[float, float]]], count: int) -> None:
    """Print photos a second by the clock, and by each second of a processor, medians over the rounds."""
    for kind, what in enumerate(("by the clock", f"by {os.cpu_count()} processors' time")):
        scale = 1 if kind == 0 else os.cpu_count()
        decode, encode, run = (scale * count / median(r[stage][kind] for r in rounds) for stage in STAGES)
        ratio = median((r["decode"][kind] + r["encode"][kind]) / r["pipeline"][kind] for r in rounds)
        bound = 1 / (1 / decode + 1 / encode)
        print(
            f"| {name}, {what} | {decode:.0f} | {encode:.0f} | {bound:.1f} | {run:.1f} | {ratio:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
