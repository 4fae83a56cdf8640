"""What labelling a library costs: the label set's prompts, cold and remembered, and the photos' scores.

    python bench/labels.py --model builtin --labels 1000 --templates 8 --photos 100000

Processor time of this process and its threads, so that neighbours on the machine change little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from search.encoders import load_encoder, recipes
from search.labels import Classifier, LabelOptions, LabelSet
from search.labels import classifier as scoring

SIZE = 2048  # of the square product that stands for what the processor can do


def cpu_seconds(act: Callable[[], object], repeats: int = 3) -> float:
    """The least of some runs."""
    taken = []
    for _ in range(repeats):
        started = time.process_time()
        act()
        taken.append(time.process_time() - started)
    return min(taken)


def half_of(folder: Path, model: str) -> recipes.TextHalf:
    """The model's text half as another process would find it: whole models stay closed."""
    encoder = load_encoder(model, device="cpu")
    recipes.save(encoder, folder)
    half = recipes.open_half(folder, encoder.fingerprint, lambda: encoder)
    assert half is not None
    return half


def time_prompts(half: recipes.TextHalf, label_set: LabelSet, options: LabelOptions) -> Classifier:
    count = sum(len(label_set.sentences(label)) for label in label_set.labels)
    cold = cpu_seconds(lambda: Classifier.build(label_set, half, options, remember=half.remember), 1)
    again = cpu_seconds(lambda: Classifier.build(label_set, half, options, remember=half.remember))
    print("| | processor time | |\n|---|---|---|")
    print(f"| {count:,} prompts, never seen before | {cold:.1f} s | {count / cold:,.0f} prompts a second |")
    print(f"| the same again, in another process | {again * 1e3:.0f} ms | |")
    return Classifier.build(label_set, half, options, remember=half.remember)


def time_scores(classifier: Classifier, photos: int) -> None:
    count, dim = classifier.weights.shape
    vectors = np.random.default_rng(1).standard_normal((photos, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    square = np.random.default_rng(2).standard_normal((SIZE, SIZE), dtype=np.float32)
    ceiling = 2 * SIZE**3 / cpu_seconds(lambda: square @ square)
    step = max(1, scoring._PRODUCT_SCORES // count)
    starts = range(0, photos, step)
    product = cpu_seconds(lambda: [vectors[start : start + step] @ classifier.weights.T for start in starts])
    whole = cpu_seconds(lambda: classifier.label(vectors), 2)
    rate = 2 * photos * dim * count / product
    print(
        f"| matrix product, {photos:,} photos by {count:,} labels | {product:.2f} s | "
        f"{rate / ceiling:.0%} of the speed of one of {SIZE}³ |"
    )
    print(f"| the best labels of each photo, with the product | {whole:.2f} s | |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--templates", type=int, default=8)
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("-k", type=int, default=5)
    arguments = parser.parse_args()
    templates = [f"a photo of the {{}} in manner {number}." for number in range(arguments.templates)]
    label_set = LabelSet.of([f"thing number {number}" for number in range(arguments.labels)], templates)
    with tempfile.TemporaryDirectory() as folder:
        half = half_of(Path(folder), arguments.model)
        classifier = time_prompts(half, label_set, LabelOptions(k=arguments.k))
    time_scores(classifier, arguments.photos)


if __name__ == "__main__":
    main()
