"""How near encoders come to what the processor can do.

    python bench/encoders.py [--models ViT-B-32 ...] [--batches 32 64] [--rounds 5] [--busy]

The ceiling is a matrix product of the same type, measured in turns with the encoders; operations of an image are
counted by torch's flop counter on the whole tower, including what the tuned one leaves out. Weights are random:
cosines tell rounding, nothing else. Rows: open_clip's own tower, ours in torch, and OpenVINO's where it is installed.

--busy: one thread and its CPU time instead of all cores and the clock, for machines that others use too.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from copy import deepcopy
from importlib import util
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from search.encoders import exporting, tuning
from search.encoders.blueprints import open_clip
from search.encoders.openclip import OpenClipEncoder
from search.encoders.preprocessing import Preprocessing

MODELS = ("ViT-B-32", "ViT-B-32-256", "ViT-B-32-SigLIP2-256", "MobileCLIP2-S0")
GEMMS = {torch.float32: (2048,), torch.bfloat16: (2048, 4096)}
Encode = Callable[[np.ndarray], np.ndarray]


class NoTokenizer:
    context_length = 77


def gemm(size: int, dtype: torch.dtype) -> tuple[Callable[[], object], float]:
    """Return a matrix product and its operations."""
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return (lambda: a @ b), 2.0 * size**3


def operations(tower: torch.nn.Module, size: tuple[int, int]) -> float:
    """Count the operations of one image; the fused attention of torch hides its own."""
    with tuning.plain_attention(), FlopCounterMode(display=False) as counter:
        tower(torch.zeros(1, 3, *size))
    return float(counter.get_total_flops())


def plain(tower: torch.nn.Module, preprocessing: Preprocessing, dtype: torch.dtype) -> Encode:
    """Encode with open_clip's tower as it is."""
    tower = deepcopy(tower).to(dtype)
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))

    def encode(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            batch = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
            return torch.nn.functional.normalize(tower(batch.to(dtype)).float(), dim=-1).numpy()

    return encode


def ways(model: torch.nn.Module, preprocessing: Preprocessing, threads: int) -> dict[str, Encode]:
    """Return every way to encode, by name."""

    def ours(precision: str) -> Encode:
        made = OpenClipEncoder(
            deepcopy(model),
            NoTokenizer(),
            name="",
            fingerprint="",
            dim=dim,
            preprocessing=preprocessing,
            precision=precision,
        )
        return made.encode_images

    with torch.no_grad():
        dim = model.visual.eval()(torch.zeros(1, 3, *preprocessing.size)).shape[1]
    found = {
        "open_clip float32": plain(model.visual, preprocessing, torch.float32),
        "open_clip bfloat16": plain(model.visual, preprocessing, torch.bfloat16),
        "ours float32": ours("float32"),
        "ours bfloat16": ours("bfloat16"),
    }
    if util.find_spec("openvino"):
        from search.encoders import openvino

        with tuning.plain_attention(), torch.no_grad():
            tower = tuning.image_tower(deepcopy(model.visual))
            graph = openvino.convert(tower, torch.zeros(2, 3, *preprocessing.size), preprocessing)
        found["OpenVINO"] = openvino.ImageTower(graph, threads=threads)
    return found


def compare(name: str, arguments: argparse.Namespace, threads: int) -> None:
    """Print the rows of one model."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False).eval()
    size = model.visual.image_size
    preprocessing = Preprocessing(size=(size, size) if isinstance(size, int) else tuple(size))
    flops = operations(model.visual, preprocessing.size)
    encoders = ways(model, preprocessing, threads)
    images = exporting.sample(preprocessing, max(arguments.batches))
    reference = encoders["open_clip float32"](images)
    for batch in arguments.batches:
        some = images[:batch]
        limit, rates = measure(encoders, some, arguments)
        for way, rate in rates.items():
            rows = encoders[way](some)
            cosine = (rows * reference[:batch]).sum(axis=1) / np.linalg.norm(rows, axis=1)
            share = rate * flops / limit
            row = (
                f"{name} ({flops / 1e9:.1f} GFLOP)",
                batch,
                way,
                f"{rate:.1f}",
                f"{share:.2f}",
                f"{cosine.min():.5f}",
            )
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def measure(
    encoders: dict[str, Encode], images: np.ndarray, arguments: argparse.Namespace
) -> tuple[float, dict[str, float]]:
    """Return the operations a second of a matrix product, and images a second by way, measured in turns."""
    clock = time.process_time if arguments.busy else time.perf_counter
    product, count = gemm(1024 if arguments.busy else 2048, torch.bfloat16)
    seconds: dict[str, list[float]] = {way: [] for way in (*encoders, "product")}
    for number in range(arguments.rounds + 1):
        for way, taken in seconds.items():
            started = clock()
            encoders[way](images) if way in encoders else product()
            if number:  # the first round warms up
                taken.append(clock() - started)
    limit = count / median(seconds.pop("product"))
    return limit, {way: len(images) / median(taken) for way, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", action="store_true")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    if arguments.busy:
        torch.set_num_threads(1)
    threads = torch.get_num_threads()
    clock = time.process_time if arguments.busy else time.perf_counter
    print(
        f"{threads} threads, {'CPU time' if arguments.busy else 'wall clock'}, medians of {arguments.rounds} rounds\n"
    )
    for dtype, sizes in GEMMS.items():
        for size in sizes:
            product, count = gemm(size, dtype)
            product()
            seconds = []
            for _ in range(arguments.rounds):
                started = clock()
                product()
                seconds.append(clock() - started)
            print(f"{str(dtype).removeprefix('torch.')} {size}³: {count / median(seconds) / 1e12:.3f} TFLOP/s")
    columns = ("model", "batch", "way", "images/s", "share of bfloat16 product", "cosine to float32")
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name in arguments.models:
        compare(name, arguments, threads)


if __name__ == "__main__":
    main()
