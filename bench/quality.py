"""How good the built-in model is: on the demo's photographs, or on folders of classes; and on captions.

    python bench/quality.py [--classes DIR]... [--captions TSV]

--classes: a folder of class folders.   --captions: a table of image and caption, images beside it.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from statistics import median

from demo import gather
from search import LabelSet, Library
from search.query import parse
from stopwatch import print_rows

SUBJECTS = {
    "a cat": ("chelsea",),
    "a cup of coffee": ("coffee",),
    "an astronaut": ("astronaut",),
    "a rocket": ("rocket",),
    "coins": ("coins",),
    "the moon": ("moon",),
    "a motorcycle": ("motorcycle_left", "motorcycle_right"),
    "a temple": ("china",),
    "a flower": ("flower",),
    "a horse": ("horse",),
    "a brick wall": ("brick",),
    "grass": ("grass",),
}
# The wordings the model's card was measured with, each by itself and all together.
WORDINGS = (["{}"], ["a photo of a {}."], ["a close-up photo of a {}."])
TOGETHER = [wording for [wording] in WORDINGS]


def subjects(folder: Path) -> None:
    """Print the rank of the first right photograph for each subject."""
    photos = gather(folder / "photos")
    with Library.open(folder / "library", model="builtin", offline=True) as library:
        library.index([photos])
        ranks = {}
        for query, names in SUBJECTS.items():
            found = [Path(hit.photo.path).stem for hit in library.search(query, k=100)]
            ranks[query] = 1 + min(found.index(name) for name in names)
    print("| subject | rank of 23 |\n|---|---|")
    for query, rank in ranks.items():
        print(f"| {query} | {rank} |")
    first, three = (sum(rank <= k for rank in ranks.values()) for k in (1, 3))
    print(f"\n{first} of {len(ranks)} first, {three} of {len(ranks)} in the first three")


def classes(folder: Path, library: Path) -> tuple[object, ...]:
    """Return a row: the accuracy under each wording, and under all together."""
    names = sorted(path.name for path in folder.iterdir())
    words = [name.replace("_", " ") for name in names]
    shares = []
    with Library.open(library, model="builtin", offline=True) as opened:
        photos = opened.index([folder]).photos
        for templates in (*WORDINGS, TOGETHER):
            labelled = opened.label(LabelSet.of(words, templates), paths=[folder]).photos
            right = [one.labels[0].label == Path(one.path).parent.name.replace("_", " ") for one in labelled]
            shares.append(f"{sum(right) / len(right):.3f}")
    return f"{folder.name}, {photos} photos, {len(names)} classes", *shares


def captions(table: Path, library: Path) -> None:
    """Print how often a caption's own image is among the first k."""
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    ranks = []
    with Library.open(library, model="builtin", offline=True) as opened:
        opened.index(sorted({str((table.parent / row["image"]).parent) for row in rows}))
        count = opened.status().photos
        for row in rows:
            found = [hit.photo.path for hit in opened.search(parse([row["caption"]]), k=count)]
            ranks.append(1 + found.index(str(table.parent / row["image"])))
    recalls = " · ".join(f"R@{k} {sum(rank <= k for rank in ranks) / len(ranks):.3f}" for k in (1, 5, 10))
    print(f"\n{len(rows)} captions, {count} images: {recalls}, median rank {median(ranks):g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=Path, action="append", default=[])
    parser.add_argument("--captions", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.classes:
            subjects(Path(folder))
        else:
            places = [Path(folder, f"classes{number}.library") for number in range(len(arguments.classes))]
            wordings = (f"`{wording}`" for wording in TOGETHER)
            rows = (classes(path.resolve(), place) for path, place in zip(arguments.classes, places, strict=True))
            print_rows(("accuracy", *wordings, "all three"), *rows)
        if arguments.captions:
            captions(arguments.captions.resolve(), Path(folder, "captions.library"))


if __name__ == "__main__":
    main()
