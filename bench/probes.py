"""What `search train probe` brings: accuracy among classes, and how far it claims photos that show none of them.

    python bench/probes.py ~/flowers ~/animals ~/cars

Means over splits: a quarter of each class to test with; half of the other photos hold the probe back, half of them it
may claim.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from search.evaluate.datasets import Dataset
from search.evaluate.pictures import Pictures, default_place
from search.evaluate.probe import VALIDATION, Examples, log_probabilities, split, sweep
from search.evaluate.zero_shot import label_set
from search.heads import Space
from search.labels import Classifier, LabelOptions
from search.measures import sigmoid
from search.photos.scan import scan
from search.train.probe import Task, joined
from stopwatch import print_rows

BOUNDS = (0.2, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", help="a folder of class folders")
    parser.add_argument("others", nargs="+", help="photos that show none of the classes")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--splits", type=int, default=6)
    given = parser.parse_args()
    dataset = Dataset.of(given.classes)
    with Pictures(given.model, place=default_place(), offline=True) as pictures:
        seen = pictures.image_vectors(dataset.paths, root=dataset.root)
        dataset = dataset.take(seen.rows).present()
        contents = pictures.content_hashes(dataset.paths)
        paths = [file.path for one in given.others for file in scan(str(Path(one).resolve()))]
        others = pictures.image_vectors(paths).vectors
        options = LabelOptions(multi=True)
        classifier = Classifier.build(label_set(dataset), pictures.text(), options, bank=pictures.bank)
    photos = Examples(seen.vectors, dataset.targets, contents)
    columns = {"with no other photos": 0, f"with {min(512, len(others) // 2)} other photos": 512}
    runs = [
        [measured(photos, classifier, others, most=most, seed=seed) for seed in range(given.splits)]
        for most in columns.values()
    ]
    print(
        f"{len(photos)} photos of {len(dataset.classnames)} classes, {len(others)} others; {given.splits} splits.\n"
    )
    rows = [
        (what, *(f"{np.mean([row[what] for row in run]):.2f}" if what in run[0] else "" for run in runs))
        for what in runs[0][0]
    ]
    print_rows(("", *columns), *rows)


def measured(photos: Examples, classifier: Classifier, others, *, most: int, seed: int) -> dict[str, float]:
    random = np.random.default_rng(seed)
    left, tested = split(photos, 0.25, random)
    train, validation = split(left, VALIDATION, random)
    order = random.permutation(len(others))
    rest, strange = others[order[: len(order) // 2][:most]], others[order[len(order) // 2 :]]
    task = Task(classifier, Space.of(photos.vectors), rest)

    def right(correction, part: Examples) -> float:
        return float((task.scores(part, correction).argmax(axis=1) == part.targets).mean())

    correction = task.fit(joined(train, validation), sweep(lambda c: right(task.fit(train, c), validation)))
    found = {"right, zero-shot": right(None, tested), "right, probe": right(correction, tested)}
    if not most:

        def plainly_right(c: float) -> float:
            scores = log_probabilities(train, validation.vectors, c)
            return float((scores.argmax(axis=1) == validation.targets).mean())

        c = sweep(plainly_right)
        scores = log_probabilities(joined(train, validation), tested.vectors, c)
        found["right, multinomial without texts"] = float((scores.argmax(axis=1) == tested.targets).mean())

    def likely(vectors):
        return sigmoid(classifier.log_odds(vectors) + vectors @ correction[0].T + correction[1])

    own = likely(tested.vectors)[np.arange(len(tested)), tested.targets]
    plain = sigmoid(classifier.log_odds(strange)).max(axis=1)
    for bound in BOUNDS:
        found[f"other photos claimed at {bound}, zero-shot"] = float((plain >= bound).mean())
        found[f"other photos claimed at {bound}"] = float((likely(strange).max(axis=1) >= bound).mean())
        found[f"right class found at {bound}"] = float((own >= bound).mean())
    return found


if __name__ == "__main__":
    main()
