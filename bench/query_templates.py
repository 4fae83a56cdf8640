"""Whether a query finds more when prompts are put around it: plain, by one template, by small ensembles.

    python bench/query_templates.py [--classes DIR]... [--captions TSV] [--model NAME]

--classes: a folder of class folders; each class's name is a query, with and without an article.   --captions: a table
of image and caption, images beside it; each image's first caption is a query.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from search import Encoder, Library, load_encoder
from search.vectors import normalize

WAYS = {
    "plain": ["{}"],
    "a photo of": ["a photo of {}"],
    "a picture of": ["a picture of {}"],
    "3: plain, photo, close-up": ["{}", "a photo of {}", "a close-up photo of {}"],
    "4: photo, picture, image, view": ["a photo of {}", "a picture of {}", "an image of {}", "a view of {}"],
    "5: plain and those": ["{}", "a photo of {}", "a picture of {}", "an image of {}", "a view of {}"],
    "7: those, good, cropped": [
        *("{}", "a photo of {}", "a picture of {}", "an image of {}", "a view of {}"),
        *("a good photo of {}", "a cropped photo of {}"),
    ],
}
_VOWELS = tuple("aeiou")

Embed = Callable[[list[str]], np.ndarray]


def embedding(encoder: Encoder, templates: list[str]) -> Embed:
    """Return what turns texts into unit rows by the mean of their prompts' vectors."""

    def embed(texts: list[str]) -> np.ndarray:
        prompts = [template.replace("{}", text) for text in texts for template in templates]
        rows = encoder.encode_texts(prompts).reshape(len(texts), len(templates), -1)
        return normalize(rows.mean(axis=1))

    return embed


def vectors(folder: Path, library: Library) -> tuple[list[Path], np.ndarray]:
    """Index a folder, and return its photos and their vectors."""
    library.index([folder])
    ids, rows = library.vector_index().sample(1 << 30)
    paths = {photo.id: Path(photo.path) for photo in library.catalog.get(ids.tolist())}
    return [paths[id_] for id_ in ids.tolist()], rows


def average_precision(right: np.ndarray) -> float:
    """The mean, over the right ones of a ranking, of the precision down to each."""
    places = np.flatnonzero(right) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def with_article(name: str) -> str:
    return f"{'an' if name.startswith(_VOWELS) else 'a'} {name}"


def of_classes(folder: Path, library: Library, encoder: Encoder) -> Iterable[tuple[str, ...]]:
    """Yield a row for each way: mean average precision and precision at 10, bare and with an article."""
    paths, rows = vectors(folder, library)
    classes = sorted({path.parent.name for path in paths})
    truth = np.array([[path.parent.name == name for path in paths] for name in classes])  # (C, N)
    names = [name.replace("_", " ") for name in classes]
    for way, templates in WAYS.items():
        figures = []
        for texts in (names, [with_article(name) for name in names]):
            order = np.argsort(-(embedding(encoder, templates)(texts) @ rows.T), axis=1, kind="stable")
            ranked = np.take_along_axis(truth, order, axis=1)
            most = np.minimum(truth.sum(axis=1), 10)
            figures += [np.mean([average_precision(right) for right in ranked])]
            figures += [np.mean(ranked[:, :10].sum(axis=1) / most)]
        yield way, *(f"{figure:.3f}" for figure in figures)


def of_captions(table: Path, library: Library, encoder: Encoder) -> Iterable[tuple[str, ...]]:
    """Yield a row for each way: how often a caption's image is among the first 1, 5 and 10, and its median rank."""
    first: dict[str, str] = {}
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            first.setdefault(str((table.parent / row["image"]).resolve()), row["caption"])
    [folder] = {Path(image).parent for image in first}
    paths, rows = vectors(folder, library)
    place = {str(path): number for number, path in enumerate(paths)}
    own = np.array([place[image] for image in first])
    for way, templates in WAYS.items():
        scores = embedding(encoder, templates)(list(first.values())) @ rows.T
        ranks = (scores > np.take_along_axis(scores, own[:, None], axis=1)).sum(axis=1) + 1
        yield way, *(f"{np.mean(ranks <= k):.3f}" for k in (1, 5, 10)), f"{np.median(ranks):g}"


def emit(title: str, columns: list[str], rows: Iterable[tuple[str, ...]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(['way', *columns])} |\n|{'---|' * (len(columns) + 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def cost(encoder: Encoder) -> Iterable[tuple[str, ...]]:
    """Yield a row for each way: milliseconds for a text of three words."""
    for way, templates in WAYS.items():
        times = []
        for number in range(25):
            started = perf_counter()
            embedding(encoder, templates)([f"red car {number}"])
            times.append((perf_counter() - started) * 1e3)
        yield way, f"{median(times):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, action="append", default=[])
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--model", default="builtin")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, precision="float32")
    article = ["mAP", "P@10", "mAP with article", "P@10 with article"]
    with tempfile.TemporaryDirectory() as place:
        for number, path in enumerate(arguments.classes):
            with Library.open(Path(place, f"{number}.library"), model=arguments.model) as library:
                emit(path.name, article, of_classes(path.resolve(), library, encoder))
        if arguments.captions:
            with Library.open(Path(place, "captions.library"), model=arguments.model) as library:
                columns = ["R@1", "R@5", "R@10", "median rank"]
                emit("captions", columns, of_captions(arguments.captions.resolve(), library, encoder))
    emit("time", ["ms"], cost(encoder))


if __name__ == "__main__":
    main()
