"""Our metrics held against CLIP_benchmark's own functions, on random scores and vectors, and their time and memory.

    python bench/against_clip_benchmark.py [--rounds 50] [--photos 5000] [--json FILE]

CLIP_benchmark is installed into an environment of its own (bench/rivals.py), with a numpy older than 2.4: its
`accuracy` makes numbers of arrays in a way that newer versions refuse. Exits with 1 where a figure differs by more than
1e-6. Then both measure retrieval on more photos, five captions each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from search.evaluate import metrics
from stopwatch import Figure, print_rows, save_figures

CLIP_BENCHMARK = "clip-benchmark==1.6.2"
TOLERANCE = 1e-6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50, help="random inputs of each kind")
    parser.add_argument("--photos", type=int, default=5000, help="for time and memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    options = parser.parse_args()
    if "clip-benchmark" not in sys.prefix:  # in its own environment this file goes on below
        return subprocess.run([rival(), __file__, *sys.argv[1:]], check=False).returncode
    from clip_benchmark.metrics import zeroshot_classification, zeroshot_retrieval

    worst: dict[str, float] = {}
    for seed in range(options.rounds):
        random = np.random.default_rng(seed)
        pairs = {**classification(random, zeroshot_classification), **retrieval(random, zeroshot_retrieval)}
        for name, (ours, theirs) in pairs.items():
            worst[name] = max(worst.get(name, 0.0), float(np.abs(np.asarray(ours) - np.asarray(theirs)).max()))
    print(f"{CLIP_BENCHMARK.replace('==', ' ')}; {options.rounds} rounds of random scores and vectors.\n")
    figures = times(options.photos, zeroshot_retrieval)
    print_rows(("", "ours", "theirs", "ratio"), *((f.what, f.ours, f.theirs, f"{f.ratio:.0f} ×") for f in figures))
    save_figures(options.json, figures)
    print_rows(("figure", "largest difference"), *((name, f"{apart:.1e}") for name, apart in worst.items()))
    return int(max(worst.values()) > TOLERANCE)


def rival() -> Path:
    """Return the Python of CLIP_benchmark's environment; torch is borrowed."""
    from rivals import environment

    packages = ["numpy<2.4", "scikit-learn", "tqdm"]
    return environment("clip-benchmark", packages, bare=[CLIP_BENCHMARK], borrowing=True, own=True)


def classification(random, theirs):
    """Figures of single and several labels; each (ours, theirs)."""
    import torch
    from sklearn.metrics import balanced_accuracy_score

    rows, classes = int(random.integers(20, 400)), int(random.integers(5, 60))
    scores = random.standard_normal((rows, classes)).astype(np.float32)
    targets = random.integers(0, classes, rows)
    truth = random.random((rows, classes)) < random.random(classes)
    acc = theirs.accuracy(torch.from_numpy(scores), torch.from_numpy(targets), topk=(1, 5))
    precision = theirs.average_precision_per_class(
        torch.from_numpy(scores), torch.from_numpy(truth.astype(np.int64))
    )
    predicted = scores.argmax(axis=1)
    ours = [metrics.average_precision(scores[:, place], truth[:, place]) for place in range(classes)]
    return {
        "acc1": (metrics.top_k_accuracy(scores, targets, 1), acc[0]),
        "acc5": (metrics.top_k_accuracy(scores, targets, 5), acc[1]),
        "mean_per_class_recall": (
            metrics.mean_per_class_recall(predicted, targets),
            balanced_accuracy_score(targets, predicted),
        ),
        "average_precision": (ours, precision.numpy()),
        "mean_average_precision": (metrics.mean_average_precision(scores, truth), precision.mean().item()),
    }


def retrieval(random, theirs):
    """Recall at 1, 5 and 10, of images and of texts; each (ours, theirs)."""
    images, texts, owners = drawn(random, int(random.integers(20, 200)))
    photos = np.arange(len(images))
    of_images = metrics.first_positive_ranks(texts, images, owners, photos)
    of_texts = metrics.first_positive_ranks(images, texts, photos, owners)
    found = {}
    for k, (image, text) in their_recalls(theirs, images, texts, owners, (1, 5, 10)).items():
        found[f"image recall@{k}"] = ((of_images < k).mean(), image)
        found[f"text recall@{k}"] = ((of_texts < k).mean(), text)
        positives = owners[None, :] == photos[:, None]
        theirs_each = theirs.recall_at_k(*tensors(images @ texts.T, positives), k).numpy()
        found[f"recall_at_k, k={k}"] = (metrics.recall_at_k(images @ texts.T, positives, k), theirs_each)
    return found


def their_recalls(theirs, images, texts, owners, ks):
    """What their `evaluate` computes from embeddings, in its own words."""
    scores, positives = tensors(texts @ images.T, owners[:, None] == np.arange(len(images)))
    return {
        k: tuple(
            (theirs.batchify(theirs.recall_at_k, x, y, 64, "cpu", k=k) > 0).float().mean().item()
            for x, y in ((scores, positives), (scores.T, positives.T))
        )
        for k in ks
    }


def tensors(*arrays):
    import torch

    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def drawn(random, photos: int, dim: int = 32, captions: int = 5):
    """Vectors of photos and of captions that are somewhat like them."""
    images = random.standard_normal((photos, dim)).astype(np.float32)
    owners = np.sort(np.concatenate([np.arange(photos), random.integers(0, photos, (captions - 1) * photos)]))
    texts = images[owners] + 2 * random.standard_normal((len(owners), dim)).astype(np.float32)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    return unit(images), unit(texts), owners


def times(photos: int, theirs) -> list[Figure]:
    """Measure retrieval: seconds of both by the clock, and memory on top of the vectors."""
    images, texts, owners = drawn(np.random.default_rng(0), photos, dim=256)
    places = np.arange(photos)
    before, started = peak(), perf_counter()
    metrics.first_positive_ranks(texts, images, owners, places)
    metrics.first_positive_ranks(images, texts, places, owners)
    ours_s, ours_mb = perf_counter() - started, peak() - before
    before, started = peak(), perf_counter()
    their_recalls(theirs, images, texts, owners, (10,))
    theirs_s, theirs_mb = perf_counter() - started, peak() - before + ours_mb
    what = f"recall of {photos:,} photos and {len(texts):,} captions: ours at every k, theirs at one"
    return [
        Figure(what, f"{ours_s:.3g} s", f"CLIP_benchmark {theirs_s:.3g} s", theirs_s / ours_s),
        Figure("memory for it", f"{ours_mb:.0f} MB", f"{theirs_mb:,.0f} MB", theirs_mb / max(ours_mb, 1)),
    ]


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
