"""What contrastive training makes of a small model with random weights, on photos that it was not shown.

    python bench/train.py CAPTIONS [--held-out CAPTIONS] [--epochs N] [--seeds N] [--seconds S] [--threads N]

CAPTIONS is a table of image and caption. A fifth of its photos is held out where no other table is given. The model is
a transformer of four layers on 64 pixels and one of two layers on texts. The figures stand before the first step and
after the last, as means over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import torch

from search.train.contrastive import Report, train
from search.train.recipe import Recipe
from stopwatch import print_head, workshop

ARCHITECTURE = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 64, "layers": 4, "width": 128, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 4, "layers": 2},
}
FIGURES = tuple(f"{kind}_retrieval_recall@{k}" for kind in ("image", "text") for k in (1, 5, 10))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captions", type=Path)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--epochs", type=float, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=280, help="what a seed may take")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_head("A small model from scratch", captions=options.captions.name, epochs=str(options.epochs))
    reports = [run(options, seed) for seed in range(options.seeds)]
    show(reports)


def run(options: argparse.Namespace, seed: int) -> Report:
    """Train one model; what is left when time is up is measured as it is."""
    with workshop() as place:
        (place / "architecture.json").write_text(json.dumps(ARCHITECTURE))
        recipe = Recipe(
            captions=str(options.captions.absolute()),
            held_out=str(options.held_out.absolute()) if options.held_out else "",
            held_out_share=0.2,
            architecture=str(place / "architecture.json"),
            epochs=options.epochs,
            batch_size=100,
            learning_rate=1e-3,
            warm_up=20,
            crop_low=0.5,
            flip=0.5,
            seed=seed,
            memory_mb=2000,
        )
        end = time.monotonic() + options.seconds
        return train(recipe, place / "model", device="cpu", stop=lambda: time.monotonic() > end)


def show(reports: list[Report]) -> None:
    """Print the mean over seeds before and after, and what chance would give."""
    first = reports[0]
    steps, speed = [one.steps for one in reports], mean(one.images_per_second for one in reports)
    print(f"{first.photos} photos with {first.captions} captions to train with, {first.held_out} held out;")
    print(
        f"{min(steps)} of {first.planned} steps, {mean(one.seconds for one in reports):.0f} s, {speed:.0f} images/s\n"
    )
    print("| | at the start | at the end | factor |\n|---|---|---|---|")
    for name in FIGURES:
        before = mean(one.measured[0].figures[name] for one in reports)
        after = mean(one.measured[-1].figures[name] for one in reports)
        factor = f"{after / before:.1f} ×" if before else ""
        print(f"| {name} | {before:.3f} | {after:.3f} | {factor} |")


if __name__ == "__main__":
    main()
