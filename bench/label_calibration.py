"""How well a label's probability by itself is calibrated, and how "none of these" is best decided.

    python bench/label_calibration.py --classes DIR --classes DIR --named DIR --captions TSV --model builtin

--classes: a folder of class folders.   --named: photos called NUMBER_class_name.EXT.   --captions: `image` and
`caption` columns, several rows an image: a label of WORDS is true where two captions or more name it, false where none
does. Each way is fitted on all sets but one and judged on that one: expected calibration error (15 bins), log loss, F1
at a half and at the shipped threshold, and average precision over all pairs of photo and label.
"""

from __future__ import annotations

import argparse
import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from search import banks, load_encoder
from search.decoding.pool import ahead, lend
from search.labels import DEFAULT_MULTI_THRESHOLD, LabelSet
from search.types import Skip
from stopwatch import print_row

NEUTRAL = ("a photo.", "a picture of something.", "an image.")
WORDS = {
    "dog": "dogs? pupp(y|ies)",
    "person": "person people m[ae]n wom[ae]n boys? girls? child(ren)? kids? guys? lady players?",
    "child": "child(ren)? kids? boys? girls? toddlers? bab(y|ies)",
    "man": "m[ae]n guys?",
    "woman": "wom[ae]n lady ladies",
    "crowd": "crowds?",
    "water": "water ocean lake river pool sea pond waves?",
    "snow": "snow snowy",
    "beach": "beach",
    "grass": "grass grassy lawn",
    "bicycle": "bikes? bicycles? biker cyclist",
    "ball": "balls? football soccer basketball",
    "horse": "horses?",
    "car": "cars?",
    "street": "street road sidewalk",
    "mountain": "mountains? hills?",
    "tree": "trees?",
    "forest": "forest woods",
    "swimming pool": "pool",
    "motorcycle": "motorcycles? motorbikes?",
    "skateboard": "skateboards? skateboarder skateboarding",
    "boat": "boats? canoe kayak",
    "bird": "birds? gull seagull duck",
    "building": "buildings? house",
    "flower": "flowers?",
    "cat": "cats? kitten",
    "guitar": "guitars?",
    "rock": "rocks? cliff rocky boulder",
    "hat": "hats? caps?",
    "surfing": "surf surfing surfer surfboard",
    "food": "food eating eats",
    "airplane": "plane airplane",
    "bench": "bench",
    "umbrella": "umbrella",
}


@dataclass(frozen=True)
class Task:
    """Photos (N, D), labels and what is true of them: (N, C) of 1, 0 and -1 for what can't be told."""

    name: str
    labels: list[str]
    vectors: np.ndarray
    truth: np.ndarray


class Model:
    """An encoder, its bank, and what it makes of labels."""

    def __init__(self, name: str) -> None:
        self.encoder = load_encoder(name, device="cpu")
        self.bank = banks.load(None, self.encoder.fingerprint) or banks.make(self.encoder)
        neutral = self.encoder.encode_texts(NEUTRAL).mean(axis=0)
        self.neutral = neutral / np.linalg.norm(neutral)

    def photos(self, paths: Sequence[Path]) -> tuple[list[Path], np.ndarray]:
        kept, rows = [], []
        with lend() as decoders:
            loaded = ahead(lambda path: decoders.submit(path, self.encoder.preprocessing), map(str, paths), 64)
            while batch := list(islice(loaded, 32)):
                good = [(Path(path), found.pixels) for path, found in batch if not isinstance(found, Skip)]
                kept += [path for path, _ in good]
                rows.append(self.encoder.encode_images(np.stack([pixels for _, pixels in good])))
        return kept, np.concatenate(rows)

    def evidence(self, vectors: np.ndarray, labels: Sequence[str]) -> dict[str, np.ndarray]:
        """Return each way's number for each photo and label, (N, C)."""
        scale = self.encoder.logit_scale
        scores = vectors @ LabelSet.of(labels).weights(self.encoder).T
        means, spreads = self.bank.usual(vectors)
        return {
            "cosine": scores * scale,
            "above a photo's prompt": (scores - (vectors @ self.neutral)[:, None]) * scale,
            "above the bank": (scores - means[:, None]) * scale,
            "above the bank, in spreads": (scores - means[:, None]) / spreads[:, None],
        }


def of_classes(model: Model, folder: Path) -> Task:
    paths, vectors = model.photos(sorted(path for path in folder.rglob("*") if path.is_file()))
    return _of_names(str(folder.name), [path.relative_to(folder).parts[0] for path in paths], vectors)


def of_named(model: Model, folder: Path) -> Task:
    paths, vectors = model.photos(sorted(path for path in folder.iterdir() if path.is_file()))
    return _of_names(folder.name, [path.stem.partition("_")[2].replace("_", " ") for path in paths], vectors)


def _of_names(name: str, classes: list[str], vectors: np.ndarray) -> Task:
    labels = sorted(set(classes))
    return Task(name, labels, vectors, np.array([[int(found == label) for label in labels] for found in classes]))


def of_captions(model: Model, table: Path) -> Task:
    captions = defaultdict(list)
    with table.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            captions[table.parent / row["image"]].append(row["caption"].lower())
    paths, vectors = model.photos(sorted(captions))
    patterns = [re.compile(rf"\b({'|'.join(words.split())})\b") for words in WORDS.values()]
    named = [[sum(bool(p.search(text)) for text in captions[path]) for p in patterns] for path in paths]
    truth = np.array([[1 if count > 1 else -count for count in row] for row in named])
    return Task(table.stem, list(WORDS), vectors, truth)


def fit(numbers: np.ndarray, truth: np.ndarray, weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return slope and intercept of the log odds, beside what is known of them."""

    def loss(line: np.ndarray) -> float:
        odds = line[0] * numbers + line[1] + known
        return float((weights * (np.logaddexp(0, odds) - truth * odds)).sum())

    return minimize(loss, [0.3, -2.0], method="L-BFGS-B").x


def fit_tasks(tasks: Sequence[tuple[np.ndarray, np.ndarray]], *, known: bool = False) -> np.ndarray:
    """Fit sets that count alike.   known: the share of true pairs is."""
    numbers, truth = (np.concatenate(parts) for parts in zip(*tasks, strict=True))
    weights = np.concatenate([np.full(len(true), 1000 / len(true)) for _, true in tasks])
    offsets = np.concatenate([np.full(len(true), _share(true) if known else 0.0) for _, true in tasks])
    return fit(numbers, truth, weights, offsets)


def judged(odds: np.ndarray, truth: np.ndarray) -> list[float]:
    likely = 1 / (1 + np.exp(-odds))
    bins = np.minimum((likely * 15).astype(int), 14)
    error = sum(
        abs(likely[bins == b].mean() - truth[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())
    )
    ordered = truth[np.argsort(-odds, kind="stable")]
    precision = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    return [
        float(error),
        float((np.logaddexp(0, odds) - truth * odds).mean()),
        _f1(likely >= 0.5, truth),
        _f1(likely >= DEFAULT_MULTI_THRESHOLD, truth),
        float((precision * ordered).sum() / max(1, ordered.sum())),
    ]


def _f1(said: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (said & (truth == 1)).sum() / max(1, said.sum() + truth.sum()))


def tell_calibration(model: Model, tasks: Sequence[Task]) -> None:
    found = [(model.evidence(task.vectors, task.labels), task.truth) for task in tasks]
    print_row(("log odds", "ECE", "log loss", "F1 at 0.5 · as shipped", "AP", "slope, intercept of all"))
    print("|---" * 6 + "|")
    before = [(ways["above a photo's prompt"][truth >= 0], truth[truth >= 0]) for ways, truth in found]
    _row("above a photo's prompt, unfitted", [judged(*flat) for flat in before])
    for way in found[0][0]:
        flat = [(ways[way][truth >= 0], truth[truth >= 0]) for ways, truth in found]
        lines = [fit_tasks([other for other in flat if other is not held]) for held in flat]
        rows = [judged(line[0] * held[0] + line[1], held[1]) for line, held in zip(lines, flat, strict=True)]
        _row(way, rows, fit_tasks(flat))

    flat = [(ways["above the bank"][truth >= 0], truth[truth >= 0]) for ways, truth in found]
    rows = []
    for held in flat:
        slope, intercept = fit_tasks([other for other in flat if other is not held], known=True)
        rows.append(judged(slope * held[0] + intercept + _share(held[1]), held[1]))
    _row("above the bank, share known", rows)


def _share(truth: np.ndarray) -> float:
    """Return the log odds of the share of pairs that are true."""
    return float(np.log(truth.mean() / (1 - truth.mean())))


def _row(name: str, rows: Sequence[Sequence[float]], line: np.ndarray | None = None) -> None:
    error, loss, half, shipped, precision = np.mean(rows, axis=0)
    told = "" if line is None else f"{line[0]:.2f}, {line[1]:+.2f}"
    print_row((name, f"{error:.3f}", f"{loss:.3f}", f"{half:.2f} · {shipped:.2f}", f"{precision:.2f}", told))


def tell_none(model: Model, tasks: Sequence[Task]) -> None:
    """Tell photos that have one of the labels from others, by how far the best label lies above."""
    floors = np.array([1.0, 2.0, 2.5, 3.0])
    print()
    print_row(("none of these, at least", "AUROC", *(f"balanced accuracy at {floor}" for floor in floors)))
    print("|---" * 6 + "|")
    for kind, cases in (("labels of the other half", _halves(tasks)), ("photos of other sets", _strangers(tasks))):
        for way in ("above a photo's prompt", "above the bank"):
            rows = []
            for labels, known, none in cases:
                best, rest = (model.evidence(vectors, labels)[way].max(axis=1) for vectors in (known, none))
                rows.append([_auroc(best, rest), *_balanced(best, rest, floors)])
            area, *balanced = np.mean(rows, axis=0)
            print_row((f"{kind}, {way}", f"{area:.2f}", *(f"{share:.2f}" for share in balanced)))


def _halves(tasks: Sequence[Task]) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
    """Each set with every other label: its photos that have one, and those that have none of them."""
    return [
        (
            task.labels[half],
            task.vectors[(task.truth[:, half] == 1).any(axis=1)],
            task.vectors[(task.truth[:, half] == 0).all(axis=1)],
        )
        for task in tasks
        for half in (slice(0, None, 2), slice(1, None, 2))
    ]


def _strangers(tasks: Sequence[Task]) -> list[tuple[list[str], np.ndarray, np.ndarray]]:
    """Each set of class folders with all its labels: its own photos, and those of sets that share none."""
    whole = [task for task in tasks if (task.truth >= 0).all() and len(task.labels) < 100]
    pairs = [(task, other) for task in whole for other in whole if not set(task.labels) & set(other.labels)]
    return [(task.labels, task.vectors, other.vectors) for task, other in pairs]


def _balanced(known: np.ndarray, none: np.ndarray, floors: np.ndarray) -> list[float]:
    return [float((known >= floor).mean() + (none < floor).mean()) / 2 for floor in floors]


def _auroc(known: np.ndarray, none: np.ndarray) -> float:
    return float((known[:, None] > none[None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--classes", type=Path, action="append", default=[])
    parser.add_argument("--named", type=Path, action="append", default=[])
    parser.add_argument("--captions", type=Path, action="append", default=[])
    given = parser.parse_args()
    model = Model(given.model)
    tasks = [of_classes(model, folder) for folder in given.classes]
    tasks += [of_named(model, folder) for folder in given.named]
    tasks += [of_captions(model, table) for table in given.captions]
    for task in tasks:
        known = task.truth >= 0
        print(
            f"- {task.name}: {len(task.vectors)} photos, {len(task.labels)} labels, {task.truth[known].mean():.1%} true"
        )
    print()
    tell_calibration(model, tasks)
    tell_none(model, tasks)


if __name__ == "__main__":
    main()
