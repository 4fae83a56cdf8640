"""What training on long captions does to long and to short ones: recall of a model as it is, stretched, and trained.

    python bench/long_clip.py TRAIN TEST [--model NAME] [--runs NAME,NAME] [--epochs N] [--rate R] [--plot FILE.svg]

TRAIN, TEST: tables of image and caption, several lines an image. A long caption is all captions of an image one behind
the other. To train with, it begins with each of them in turn, and that one is its short caption: as where the short
caption is the first sentence. To measure on, the first captions of an image stand in their order, one to all of them.

Runs, all from the stretched model, with the same photos, steps and rate:
  short     short captions alone                          long      long captions alone
  both      long, and short ones against photos           matching  long, and short ones against principal components
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from search import load_encoder
from search.cli.report import plots
from search.encoders.hub import Fetcher
from search.encoders.stretching import stretch
from search.evaluate.datasets import Captions
from search.evaluate.pictures import Pictures
from search.evaluate.retrieval import Retrieval, evaluate_retrieval
from search.evaluate.statistics import Interval
from search.train.contrastive import RECORD, train
from search.train.recipe import LongClipRecipe
from search.train.samples import Pairs
from stopwatch import print_head, workshop

RUNS = {
    "short": {"long_weight": 0.0, "components": 0},
    "long": {"short_weight": 0.0},
    "both": {"components": 0},
    "matching": {},
}
EDGES = (21, 41, 61, 78)  # tokens at which bins begin: kept when stretched, and what CLIP reads
RECALL_K = (1, 5, 10)
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
SHORT, LONG, ALL = "captions alone", "all captions of a photo together", "texts of all lengths"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--rate", type=float, default=2e-4, help="the highest learning rate")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where models stay; finished ones are not made anew"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="recall@1 by tokens, a line for each model")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print_head("Long captions", train=options.train.name, test=options.test.name)
    with nullcontext(options.keep) if options.keep else workshop() as place:
        stretched = stretch(
            options.model, place / "stretched", fetcher=Fetcher(options.model, offline=True), force=True
        ).name
        names = {"as it is": options.model, "stretched": stretched}
        write_table(options.train, place / "train.csv")
        for run in options.runs.split(","):
            names[f"trained: {run}"] = trained(options, stretched, place / run, RUNS[run])
        show({label: measured(name, options.test) for label, name in names.items()}, options.plot)


def trained(options: argparse.Namespace, model: str, out: Path, choices: Mapping[str, object]) -> str:
    """Train a model into a folder; return its name."""
    values = {
        "captions": str(out.parent / "train.csv"),
        "held_out_share": 0.0,
        "model": model,
        "epochs": options.epochs,
        "batch_size": options.batch,
        "learning_rate": options.rate,
        "warm_up": 10,
        "seed": options.seed,
    }
    if not (out / RECORD).exists():
        begun = time.process_time()
        report = train(LongClipRecipe.of({**values, **choices}), out, device="cpu")
        print(f"{out.name}: {report.photos} photos, {report.steps} steps of {options.batch},", end=" ")
        print(f"{time.process_time() - begun:.0f} s of CPU, loss {report.loss:.3f}", flush=True)
    return f"dir:{out}"


def write_table(source: Path, out: Path) -> None:
    """Write each caption as the short one of all captions of its image, itself in front."""
    pairs = Pairs.of(str(source))
    with out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "long", "short"))
        for path, captions in zip(pairs.paths, pairs.captions, strict=True):
            for first, caption in enumerate(captions):
                table.writerow((path, " ".join((*captions[first:], *captions[:first])), caption))


def measured(name: str, test: Path) -> dict[str, Retrieval]:
    """Return what a model finds with captions alone, with all of a photo together, and with texts of all lengths."""
    alone = Captions.of(test)
    every, whole = joined(alone)
    with Pictures(name, offline=True) as pictures:
        images = pictures.image_vectors(alone.paths)
        assert len(images.rows) == len(alone.paths), "all photos can be read"
    encoder = load_encoder(name, offline=True, precision="float32", device="cpu")
    texts = encoder.encode_texts(every.captions)
    kinds = {
        SHORT: (alone, encoder.encode_texts(alone.captions)),
        LONG: (part(every, whole), texts[whole]),
        ALL: (every, texts),
    }
    return {
        kind: evaluate_retrieval(
            images.vectors,
            vectors,
            captions,
            lengths=encoder.count_tokens(captions.captions),
            context_length=encoder.context_length,
            edges=EDGES,
        )
        for kind, (captions, vectors) in kinds.items()
    }


def show(found: Mapping[str, Mapping[str, Retrieval]], plot: Path | None) -> None:
    """Print recall of each model by its label, by kind and by length, and draw the last."""
    for kind in (SHORT, LONG):
        head(kind, [f"R@{k}" for k in RECALL_K])
        for label, of_one in found.items():
            row(label, [of_one[kind].figures[f"image_retrieval_recall@{k}"] for k in RECALL_K])
    bins = next(iter(found.values()))[ALL].bins
    for k in (1, 10):
        head(f"R@{k} by tokens (texts)", [f"{one.low}-{one.high} ({one.captions})" for one in bins])
        for label, of_one in found.items():
            row(label, [one.recalls[k] for one in of_one[ALL].bins])
    if plot:
        curves = {label: [one.recalls[1] for one in of_one[ALL].bins] for label, of_one in found.items()}
        tokens, counts = [f"{one.low} to {one.high}" for one in bins], [one.captions for one in bins]
        drawn = plots.recall_by_length(tokens, curves, counts=counts, what="recall@1").svg
        plot.write_text(drawn.replace("<svg ", f"<svg {NAMESPACES} ", 1))  # a file by itself, no part of a page


def joined(captions: Captions) -> tuple[Captions, list[int]]:
    """Return the first one to all captions of each image as one text, and which texts are of all."""
    texts, owners, whole = [], [], []
    for photo in range(len(captions.paths)):
        own = [captions.captions[row] for row in np.flatnonzero(captions.owners == photo)]
        texts += [" ".join(own[: number + 1]) for number in range(len(own))]
        owners += [photo] * len(own)
        whole.append(len(texts) - 1)
    return replace(captions, captions=tuple(texts), owners=np.array(owners)), whole


def part(captions: Captions, rows: list[int]) -> Captions:
    return replace(captions, captions=tuple(captions.captions[row] for row in rows), owners=captions.owners[rows])


def head(first: str, others: list[str]) -> None:
    print(f"\n| {first} | {' | '.join(others)} |\n|---{'|---' * len(others)}|")


def row(label: str, figures: list[Interval]) -> None:
    cells = (f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})" for one in figures)
    print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
