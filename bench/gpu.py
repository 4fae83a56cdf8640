"""The whole pipeline on a GPU: photos decoded on all cores, encoded on the card.

    python bench/gpu.py [--models ViT-B-32 ViT-L-14 ViT-B-16-SigLIP2] [--photos 4096] [--batches 64 128 256]
    python bench/gpu.py --device cpu --models ViT-B-32 --photos 64 --batches 8 --seconds 2     # does it run at all

The ceiling is the card's own bfloat16 matrix product; operations of an image are counted by torch's flop counter.
Weights are random, photos are JPEGs made on the spot. End to end the next batches are decoded while one is encoded.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch

from decoding import DISTINCT, make
from encoders import NoTokenizer, operations
from search.decoding.pool import Decoders, ahead, default_workers
from search.encoders import exporting
from search.encoders.blueprints import open_clip
from search.encoders.openclip import OpenClipEncoder
from search.encoders.preprocessing import Preprocessing

MODELS = ("ViT-B-32", "ViT-L-14", "ViT-B-16-SigLIP2")
PHOTO = (1024, 768)
GEMM = 8192
WARM = 3


def settle(device: str) -> None:
    """Wait until the card has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def ceiling(device: str) -> float:
    """Return the operations a second of a bfloat16 matrix product."""
    size = GEMM if device.startswith("cuda") else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(WARM + 10):
        settle(device)
        started = perf_counter()
        a @ b
        settle(device)
        seconds.append(perf_counter() - started)
    return 2.0 * size**3 / median(seconds[WARM:])


def open_encoder(name: str, device: str, precision: str | None) -> tuple[OpenClipEncoder, float]:
    """Return an encoder with random weights and the operations it takes for an image."""
    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False).eval()
    size = model.visual.image_size
    preprocessing = Preprocessing(size=(size, size) if isinstance(size, int) else tuple(size))
    flops = operations(model.visual, preprocessing.size)
    with torch.no_grad():
        dim = model.visual(torch.zeros(1, 3, *preprocessing.size)).shape[1]
    made = OpenClipEncoder(
        model,
        NoTokenizer(),
        name=name,
        fingerprint="",
        dim=dim,
        preprocessing=preprocessing,
        device=device,
        precision=precision,
    )
    return made, flops


def encoder_alone(encoder: OpenClipEncoder, batch: int, seconds: float) -> float:
    """Return images a second from pixels in memory to vectors in memory."""
    images = exporting.sample(encoder.preprocessing, min(batch, 64))
    images = np.concatenate([images] * -(-batch // len(images)))[:batch]
    for _ in range(WARM):
        encoder.encode_images(images)
    times = []
    begun = perf_counter()
    while len(times) < WARM or perf_counter() - begun < seconds:
        started = perf_counter()
        encoder.encode_images(images)
        times.append(perf_counter() - started)
    return batch / median(times)


def end_to_end(encoder: OpenClipEncoder, paths: list[str], batch: int, workers: int) -> tuple[float, float]:
    """Return photos a second decoded and encoded, and decoded alone."""
    rates = []
    with Decoders(workers=workers) as decoders:
        for encode in (None, None, encoder.encode_images):  # the first starts the children
            started = perf_counter()
            loaded: Iterator = ahead(
                lambda path: decoders.submit(path, encoder.preprocessing), paths, 2 * batch + workers
            )
            while some := list(islice(loaded, batch)):
                pixels = np.stack([found.pixels for _, found in some])
                if encode:
                    encode(pixels)
            rates.append(len(paths) / (perf_counter() - started))
    return rates[2], rates[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--photos", type=int, default=4096)
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--seconds", type=float, default=5.0, help="for each batch size of the encoder alone")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    card = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "no card"
    limit = ceiling(arguments.device)
    print(f"{card}, {os.cpu_count()} cores, {arguments.workers} workers; product {limit / 1e12:.3f} TFLOP/s\n")
    columns = (
        "model",
        "batch",
        "encoder alone, images/s",
        "share of product",
        "decoding alone",
        "end to end, photos/s",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        paths = (make(Path(folder), PHOTO) * -(-arguments.photos // DISTINCT))[: arguments.photos]
        for name in arguments.models:
            encoder, flops = open_encoder(name, arguments.device, arguments.precision)
            rates = {batch: encoder_alone(encoder, batch, arguments.seconds) for batch in arguments.batches}
            best = max(rates, key=rates.__getitem__)
            whole, decoded = end_to_end(encoder, paths, best, arguments.workers)
            for batch, rate in rates.items():
                ends = (f"{decoded:.0f}", f"{whole:.0f}") if batch == best else ("", "")
                row = (name, str(batch), f"{rate:.1f}", f"{rate * flops / limit:.2f}", *ends)
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
