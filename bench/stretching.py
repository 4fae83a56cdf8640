"""What stretching a model's positions does to short and to long texts: how often they find their photo, by length.

    python bench/stretching.py CAPTIONS [--model NAME] [--keep-ratio K/R]...

CAPTIONS: a table of image and caption, several lines an image.   --keep-ratio: 20/4 and 30/3 unless given.

Short texts are the captions. Long ones are the captions of an image one behind the other, its first two, three and so
on: what stands behind is as true of the photo as what stands in front. "averaged" is no model but what there is to be
found: the mean of the vectors that the model as it is gives each caption alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search import load_encoder
from search.encoders.hub import Fetcher
from search.encoders.stretching import stretch
from search.evaluate.datasets import Captions
from search.evaluate.pictures import Pictures
from search.evaluate.retrieval import Retrieval, evaluate_retrieval
from search.evaluate.statistics import Interval
from search.vectors import normalize

EDGES = (21, 41, 61, 78)  # tokens at which bins begin: kept by 20/4, and what CLIP reads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--keep-ratio", action="append", metavar="K/R")
    given = parser.parse_args()
    numbers = [tuple(map(int, text.split("/"))) for text in given.keep_ratio or ("20/4", "30/3")]
    with tempfile.TemporaryDirectory() as folder, Pictures(given.model, offline=True) as pictures:
        captions = Captions.of(given.captions)
        seen = pictures.image_vectors(captions.paths)
        short = captions.take(seen.rows)
        long, parts = joined(short)
        base = load_encoder(given.model, offline=True, precision="float32")
        names = {"as it is": base.name}
        for keep, ratio in numbers:
            out = Path(folder, f"{keep}-{ratio}")
            fetcher = Fetcher(given.model, offline=True)
            names[f"stretched, keep {keep}, ratio {ratio}"] = stretch(
                given.model, out, fetcher=fetcher, keep=keep, ratio=ratio
            ).name
        lengths = [base.count_tokens(one.captions) for one in (short, long)]
        results = {}
        for label, name in names.items():
            encoder = load_encoder(name, offline=True, precision="float32")
            results[label] = [
                evaluate_retrieval(
                    seen.vectors,
                    encoder.encode_texts(one.captions),
                    one,
                    lengths=of_one,
                    context_length=encoder.context_length,
                    edges=EDGES,
                )
                for one, of_one in zip((short, long), lengths, strict=True)
            ]
        alone = base.encode_texts(short.captions)
        means = normalize(np.stack([alone[list(rows)].mean(axis=0) for rows in parts]))
        averaged = evaluate_retrieval(
            seen.vectors, means, long, lengths=lengths[1], context_length=base.context_length, edges=EDGES
        )
        show(given.model, short, long, results, averaged)


def joined(captions: Captions) -> tuple[Captions, list[tuple[int, ...]]]:
    """Return texts of two captions and more, and which captions each is made of."""
    parts = []
    for photo in range(len(captions.paths)):
        rows = np.flatnonzero(captions.owners == photo).tolist()
        parts += [tuple(rows[:count]) for count in range(2, len(rows) + 1)]
    texts = tuple(" ".join(sentence(captions.captions[row]) for row in rows) for rows in parts)
    owners = np.array([captions.owners[rows[0]] for rows in parts], np.int64)
    return replace(captions, captions=texts, owners=owners), parts


def sentence(caption: str) -> str:
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def show(
    model: str,
    short: Captions,
    long: Captions,
    results: dict[str, Sequence[Retrieval]],
    averaged: Retrieval,
) -> None:
    print(f"{model}; {len(short.paths)} photos, {len(short.captions)} captions, {len(long.captions)} long texts\n")
    print("| short texts: captions alone | R@1 | R@5 | R@10 |\n|---|---|---|---|")
    for label, (found, _) in results.items():
        figures = [found.figures[f"image_retrieval_recall@{k}"] for k in (1, 5, 10)]
        print(f"| {label} | " + " | ".join(map(spelled, figures)) + " |")
    for k in (1, 10):
        bins = averaged.bins
        heads = [f"{one.low}–{one.high} ({one.captions})" for one in bins]
        print(f"\n| long texts: R@{k} by tokens (texts) | {' | '.join(heads)} |\n|---{'|---' * len(bins)}|")
        for label, found in [*((label, pair[1]) for label, pair in results.items()), ("averaged", averaged)]:
            print(f"| {label} | " + " | ".join(spelled(one.recalls[k]) for one in found.bins) + " |")
    cut = {label: pair[1].truncated for label, pair in results.items()}
    print("\ncut: " + ", ".join(f"{label} {count}" for label, count in cut.items()))


def spelled(figure: Interval) -> str:
    return f"{figure.value:.3f} ({figure.low:.3f}–{figure.high:.3f})"


if __name__ == "__main__":
    main()
