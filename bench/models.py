"""What models of different sizes cost: weights on disk, vectors, and images a second beside the recommended one.

    python bench/models.py [--models builtin ViT-B-32-256 ...] [--photos 32] [--rounds 3]

Architectures are open_clip's, with weights drawn at random, for only their size and speed are looked at; nothing is
downloaded. Each round encodes the same pictures by each model in turn. A photo's vector takes two bytes a dimension.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np

from pipeline import random_encoder
from search import Encoder, load_encoder
from search.resources import data_path
from stopwatch import Figure, print_head, print_rows, save_figures

RECOMMENDED = "ViT-B-32-256"
MODELS = ("builtin", "MobileCLIP2-S0", RECOMMENDED, "ViT-L-14")


@dataclass(slots=True)
class Model:
    """One of them, and what was found: seconds by the clock and of processors for the same pictures, round by round."""

    name: str
    encoder: Encoder
    size_bytes: int
    wall_s: list[float]
    cpu_s: list[float]

    def encode(self, images: np.ndarray) -> None:
        started, used = perf_counter(), process_time()
        self.encoder.encode_images(images)
        self.wall_s.append(perf_counter() - started)
        self.cpu_s.append(process_time() - used)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--photos", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print_head("Models")
    models = [opened(name) for name in arguments.models]
    for number in range(arguments.rounds + 1):
        for model in models:
            model.encode(pictures(model.encoder, arguments.photos))
            if not number:  # the first round warms up
                model.wall_s.clear(), model.cpu_s.clear()
    tell(models, arguments.photos)
    save_figures(arguments.json, figures(models, arguments.photos))


def opened(name: str) -> Model:
    """Open a model, one of random weights but for the built-in."""
    if name == "builtin":
        folder = data_path("builtin")
        size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix == ".safetensors")
        return Model(name, load_encoder(name, offline=True), size, [], [])
    with tempfile.TemporaryDirectory() as place:
        encoder = random_encoder(Path(place), name, None)
        return Model(name, encoder, Path(place, "random.safetensors").stat().st_size, [], [])


def pictures(encoder: Encoder, count: int) -> np.ndarray:
    """Return (N, H, W, 3) uint8 of the size that a model looks at."""
    shape = (count, *encoder.preprocessing.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def tell(models: Sequence[Model], photos: int) -> None:
    whole = next((model for model in models if model.name == RECOMMENDED), models[0])
    print(
        f"Images a second beside `{whole.name}`, which encodes {photos / median(whole.wall_s):.0f} a second here.\n"
    )
    rows = []
    for model in models:
        ratios = (median(whole.wall_s) / median(model.wall_s), median(whole.cpu_s) / median(model.cpu_s))
        height, width = model.encoder.preprocessing.size
        vectors_mb = 100_000 * model.encoder.dim * 2 / 1e6
        rows.append(
            (
                f"`{model.name}`",
                f"{height} × {width}",
                f"{model.size_bytes / 1e6:,.0f} MB",
                f"{vectors_mb:.0f} MB",
                f"{ratios[0]:.2g} ×",
                f"{ratios[1]:.2g} ×",
            )
        )
    head = ("model", "pixels", "weights", "vectors of 100,000 photos", "images a second", "a second of processors")
    print_rows(head, *rows)


def figures(models: Sequence[Model], photos: int) -> list[Figure]:
    return [Figure(model.name, f"{photos / median(model.wall_s):.3g} images/s") for model in models]


if __name__ == "__main__":
    main()
