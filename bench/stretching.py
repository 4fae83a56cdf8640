"""What stretching a model's positions does to short and to long texts: how often they find their photo, by length.

    python bench/stretching.py CAPTIONS [--model NAME] [--keep-ratio K/R]...

CAPTIONS: a table of image and caption, several lines an image.   --keep-ratio: 20/4 and 30/3 unless given.

Short texts are the captions. Long ones are the captions of an image one behind the other, its first two, three and so
on: what stands behind is as true of the photo as what stands in front. Late ones are an image's first caption behind
sentences that say nothing of any photo: who reads a text to its end must find it there.
"by clauses": what `search find` does with a text that the model can't read whole. "averaged" is no model but what there
is to be found: the mean of the vectors that the model as it is gives each caption of a long text alone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search import Library, load_encoder
from search.encoders import Encoder
from search.encoders.hub import Fetcher
from search.encoders.stretching import stretch
from search.evaluate.datasets import Captions
from search.evaluate.metrics import first_positive_ranks
from search.evaluate.pictures import Pictures
from search.evaluate.retrieval import Retrieval, evaluate_retrieval
from search.evaluate.statistics import Interval, share
from search.query import parse
from search.vectors import normalize

if TYPE_CHECKING:
    from search.types import Vectors

EDGES = (21, 41, 61, 78)  # tokens at which bins begin: kept by 20/4, and what CLIP reads
BEFORE = (0, 30, 50, 90, 200)  # tokens before a late caption
SAYING_NOTHING = (
    "This is one of the pictures that we have kept for a long time.",
    "It belongs to a collection which was put together over the years.",
    "Nobody remembers any more who made it or on which day that was.",
    "We write these lines so that it can be found again later on.",
    "What can be seen in it is said at the very end of the text.",
    "The text is longer than it would have to be, as such texts often are.",
)


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
        encoders = opened(given.model, numbers, Path(folder))
        print(f"{given.model}; {len(short.paths)} photos, {len(short.captions)} captions\n")
        show_short(short, seen.vectors, encoders)
        with Library.open(Path(folder, "library"), model=given.model, offline=True) as library:
            library.index(sorted(short.paths))
            show_long(short, seen.vectors, encoders, library)
        show_late(short, seen.vectors, encoders)


def opened(model: str, numbers: Sequence[tuple[int, ...]], folder: Path) -> dict[str, Encoder]:
    """The model as it is, first, and stretched."""
    names = {"as it is": model}
    for keep, ratio in numbers:
        out, fetcher = folder / f"{keep}-{ratio}", Fetcher(model, offline=True)
        made = stretch(model, out, fetcher=fetcher, keep=keep, ratio=ratio)
        names[f"stretched, keep {keep}, ratio {ratio}"] = made.name
    return {label: load_encoder(name, offline=True, precision="float32") for label, name in names.items()}


def show_short(short: Captions, images: Vectors, encoders: dict[str, Encoder]) -> None:
    print("| short texts: captions alone | R@1 | R@5 | R@10 |\n|---|---|---|---|")
    for label, encoder in encoders.items():
        found = measured(images, encoder.encode_texts(short.captions), short, encoder)
        row(label, [found.figures[f"image_retrieval_recall@{k}"] for k in (1, 5, 10)])


def show_long(short: Captions, images: Vectors, encoders: dict[str, Encoder], library: Library) -> None:
    long, parts = joined(short)
    base = encoders["as it is"]
    alone = base.encode_texts(short.captions)
    results = {
        label: measured(images, encoder.encode_texts(long.captions), long, encoder)
        for label, encoder in encoders.items()
    }
    means = normalize(np.stack([alone[list(rows)].mean(axis=0) for rows in parts]))
    results["averaged"] = measured(images, means, long, base)
    beyond = [at for at, count in enumerate(base.count_tokens(long.captions)) if count > base.context_length]
    by_clause = asked(
        library, [long.captions[at] for at in beyond], [long.paths[long.owners[at]] for at in beyond]
    )
    for k in (1, 10):
        bins = results["averaged"].bins
        head(f"long texts: R@{k} by tokens (texts)", [f"{one.low}-{one.high} ({one.captions})" for one in bins])
        for label, found in results.items():
            row(label, [one.recalls[k] for one in found.bins])
        if beyond:
            row("by clauses", [None] * (len(bins) - 1) + [share(by_clause < k)])


def show_late(short: Captions, images: Vectors, encoders: dict[str, Encoder]) -> None:
    base = encoders["as it is"]
    _, first = np.unique(short.owners, return_index=True)
    owners = np.arange(len(images))
    texts = {before: [behind(before, short.captions[at], base.count_tokens) for at in first] for before in BEFORE}
    head("late texts: R@10 by tokens before the caption", [str(before) for before in BEFORE])
    for label, encoder in encoders.items():
        ranks = (first_positive_ranks(encoder.encode_texts(texts[n]), images, owners, owners) for n in BEFORE)
        row(label, [share(of_one < 10) for of_one in ranks])


def measured(images: Vectors, texts: Vectors, captions: Captions, encoder: Encoder) -> Retrieval:
    lengths = encoder.count_tokens(captions.captions)
    return evaluate_retrieval(
        images, texts, captions, lengths=lengths, context_length=encoder.context_length, edges=EDGES
    )


def joined(captions: Captions) -> tuple[Captions, list[tuple[int, ...]]]:
    """Return texts of two captions and more, and which captions each is made of."""
    parts = []
    for photo in range(len(captions.paths)):
        rows = np.flatnonzero(captions.owners == photo).tolist()
        parts += [tuple(rows[:count]) for count in range(2, len(rows) + 1)]
    texts = tuple(" ".join(sentence(captions.captions[row]) for row in rows) for rows in parts)
    owners = np.array([captions.owners[rows[0]] for rows in parts], np.int64)
    return replace(captions, captions=texts, owners=owners), parts


def behind(before: int, caption: str, count: Callable[[Sequence[str]], list[int]]) -> str:
    """Put a caption behind as many whole sentences as it takes for so many tokens."""
    text = ""
    for number in range(before):
        if count([text])[0] - 2 >= before:
            break
        text += SAYING_NOTHING[number % len(SAYING_NOTHING)] + " "
    return text + sentence(caption)


def sentence(caption: str) -> str:
    return caption if caption.endswith((".", "!", "?")) else f"{caption}."


def asked(library: Library, texts: Sequence[str], paths: Sequence[str]) -> np.ndarray:
    """Return how many photos `search find` has before each text's own."""
    ranks = np.empty(len(texts), np.int64)
    count = library.status().photos
    for at, (text, path) in enumerate(zip(texts, paths, strict=True)):
        found = [hit.photo.path for hit in library.search(parse([text]), k=count)]
        ranks[at] = found.index(path) if path in found else count
    return ranks


def head(first: str, others: Sequence[str]) -> None:
    print(f"\n| {first} | {' | '.join(others)} |\n|---{'|---' * len(others)}|")


def row(label: str, figures: Sequence[Interval | None]) -> None:
    cells = (f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})" if one else "" for one in figures)
    print(f"| {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
