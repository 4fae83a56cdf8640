"""What correcting labels brings: average precision on photos held out, before and after so many answers.

    python bench/corrections.py DIR [--seeds 5] [--budgets 10 50 200] [--per-label] [--yes-no] [--json FILE]
    python bench/corrections.py DIR --one-sided [--seeds 3]

DIR holds a folder of photos for each class. For each seed half of the photos are a library and the others are held out.
A user who knows each photo's class answers so many questions, and names the right class of those with a wrong label
unless --yes-no. Compared are the questions that `tags review` asks, as many about photos and labels taken by chance,
and heads that begin at nothing instead of the text, with the same answers. Intervals: 95 % over the seeds.

--one-sided: verdicts on one label at a time, of one kind or lopsided, or on all as keywords do. Told are the accuracy
with one label a photo, average precision of the taught label and of the others (by share), and how many photos
--multi lists it on from 0.2, where the text alone would as many as stand in the first row.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from search import Library
from search.heads import Examples, Head, Space, train
from search.labels import Classifier, Label, LabelOptions, LabelSet
from search.library.reviewing import Item, Review
from search.measures import average_precision, sigmoid
from search.vectors import normalize

WAYS = ("asked", "chance", "asked, no text", "chance, no text")
T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


@dataclass
class Album:
    """A folder of class folders, encoded."""

    names: list[str]
    ids: np.ndarray
    paths: list[str]
    vectors: np.ndarray
    targets: np.ndarray  # (N,) places among names
    odds: np.ndarray  # (N, C), zero-shot

    @classmethod
    def of(cls, folder: Path, place: Path, model: str) -> Album:
        with Library.open(place, model=model, offline=True) as library:
            library.index([folder])
            row = library.catalog.encoder()
            ids, vectors = library.catalog.embeddings(row, library.catalog.all_ids().tolist())
            photos = library.catalog.get(ids.tolist())
            folders = [Path(photo.path).parent.name for photo in photos]
            classes = sorted(set(folders))
            names = [name.replace("_", " ").lower() for name in classes]
            labels = LabelSet.of([Label.parse(name) for name in names])
            classifier = Classifier.build(labels, library.encoder, LabelOptions(multi=True))
            vectors = normalize(vectors)
            targets = np.array([classes.index(name) for name in folders])
            odds = classifier.log_odds(vectors)
            return cls(names, ids, [photo.path for photo in photos], vectors, targets, odds)


@dataclass
class User:
    """Answers as the folders have it.   said: (place, class, accepted) of every verdict."""

    album: Album
    yes_no: bool
    said: list[tuple[int, int, bool]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def answer(self, review: Review, item: Item) -> None:
        place = int(np.searchsorted(self.album.ids, item.photo.id))
        asked, right = self.album.names.index(item.label), int(self.album.targets[place])
        started = time.perf_counter()
        if asked == right or self.yes_no:
            review.judge(item, asked == right)
        else:
            review.correct(item, self.album.names[right])
            self.said.append((place, right, True))
        self.seconds.append(time.perf_counter() - started)
        self.said.append((place, asked, asked == right))


def mean_ap(album: Album, places: np.ndarray, scores: np.ndarray) -> float:
    """Mean over the classes.   scores: (n, C)."""
    every = [average_precision(scores[:, c], album.targets[places] == c) for c in range(len(album.names))]
    return float(np.nanmean(every))


def corrected(album: Album, heads: dict[str, Head], places: np.ndarray) -> np.ndarray:
    corrections = [heads[name].correction(album.vectors[places]) for name in album.names]
    return album.odds[places] + np.stack(corrections, axis=1)


def begun_at_nothing(album: Album, user: User, pool: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Scores of heads with the same answers, hints and prior that know no text."""
    space, columns = Space.of(album.vectors[pool]), []
    for c, name in enumerate(album.names):
        own = {place: accepted for place, label, accepted in user.said if label == c}
        hints = [place for place, label, accepted in user.said if label != c and accepted and place not in own]
        if not own:
            columns.append(np.zeros(len(places)))
            continue
        rows = np.array([*own, *hints], int)
        accepted = np.array([*own.values(), *(False for _ in hints)], bool)
        judged = np.arange(len(rows)) < len(own)
        examples = Examples(album.vectors[rows], accepted, np.zeros(len(rows)), judged)
        columns.append(train(name, examples, space).correction(album.vectors[places]))
    return np.stack(columns, axis=1)


def by_chance(album: Album, pool: np.ndarray, user: User, library: Library, random: np.random.Generator) -> Item:
    """A question about a photo and a label that were not asked about, all alike."""
    known = {(place, label) for place, label, _ in user.said}
    while True:
        place, label = int(random.choice(pool)), int(random.integers(len(album.names)))
        if (place, label) not in known:
            return Item(library.photo(int(album.ids[place])), album.names[label], 0.5, 1.0, "by chance", 1)


def run(album: Album, place: Path, seed: int, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """One seed: mean average precision by way, before and after each budget."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(album.ids))
    pool, held = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    budgets = [budget * (len(album.names) if arguments.per_label else 1) for budget in arguments.budgets]
    before = mean_ap(album, held, album.odds[held])
    found: dict[str, list[float]] = {way: [before] for way in WAYS}
    found |= {"seconds": [], "kept": [], "right": [], "promised": []}
    for way in ("asked", "chance"):
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder, "library")
            shutil.copytree(place, own)
            with Library.open(own, model=arguments.model, offline=True) as library:
                library.remove([album.paths[index] for index in held])
                review = library.tags.review(album.names, precision=arguments.precision)
                user = User(album, arguments.yes_no)
                for count in range(1, budgets[-1] + 1):
                    item = review.next() if way == "asked" else by_chance(album, pool, user, library, random)
                    if item is None:
                        break
                    user.answer(review, item)
                    if count in budgets:
                        found[way].append(mean_ap(album, held, corrected(album, review.heads(), held)))
                        nothing = begun_at_nothing(album, user, pool, held)
                        found[f"{way}, no text"].append(mean_ap(album, held, nothing))
                if way == "asked":
                    found["seconds"] = user.seconds
                    if arguments.precision:
                        promises(album, review, held, found)
    return found


def promises(album: Album, review: Review, held: np.ndarray, found: dict[str, list[float]]) -> None:
    """What the thresholds that were promised come to on photos held out."""
    heads = review.heads()
    odds = corrected(album, heads, held)
    for learnt in review.finish().learnt:
        label = album.names.index(learnt.gain.label)
        found["kept"].append(float(learnt.cut is not None))
        if learnt.cut:
            above = sigmoid(odds[:, label]) >= learnt.cut.threshold
            found["right"].append(float((album.targets[held][above] == label).sum()))
            found["promised"].append(float(above.sum()))


def cases(album: Album, pool: np.ndarray, label: int) -> dict[str, dict[int, tuple]]:
    """Verdicts by name of the case: label -> ids accepted, ids rejected, and above which probability."""
    own = {c: album.ids[pool[album.targets[pool] == c]].tolist() for c in range(len(album.names))}
    others = album.ids[pool[album.targets[pool] != label]].tolist()
    random = np.random.default_rng(label)
    random.shuffle(others)
    return {
        "text alone": {},
        "20 accepted": {label: (own[label][:20], [], None)},
        "20 accepted, 1 rejected": {label: (own[label][:20], others[:1], None)},
        "20 rejected": {label: ([], others[:20], None)},
        "60 rejected": {label: ([], others[:60], None)},
        "10 accepted, 10 rejected": {label: (own[label][:10], others[:10], None)},
        "accepted above 0.7": {label: (album.ids[pool].tolist(), [], 0.7)},
        "keywords: 10 of each label": {c: (ids[:10], [], None) for c, ids in own.items()},
    }


def say(library: Library, name: str, verdicts: tuple[list[int], list[int], float | None]) -> None:
    *both, above = verdicts
    for ids, judge in zip(both, (library.tags.accept, library.tags.reject), strict=True):
        if ids:
            judge([name], photos=ids, above=above)


def told(album: Album, library: Library, held: np.ndarray, label: int) -> tuple[float, ...]:
    """Accuracy, AP of the label, mean AP of the others, share of photos listed; of photos held out."""
    paths = [album.paths[place] for place in held]
    names, targets = album.names, album.targets[held]
    scores = {}
    for multi in (False, True):
        labelling = library.label(names, options=LabelOptions(multi=multi))
        found = {photo.path: {one.label: one.probability for one in photo.labels} for photo in labelling.photos}
        scores[multi] = np.array([[found[path][name] for name in names] for path in paths])
    every = [average_precision(scores[False][:, c], targets == c) for c in range(len(names)) if c != label]
    own = average_precision(scores[True][:, label], targets == label)
    right = scores[False].argmax(axis=1) == targets
    return float(right.mean()), own, float(np.mean(every)), float((scores[True][:, label] >= 0.2).mean())


def one_sided(album: Album, place: Path, arguments: argparse.Namespace) -> None:
    """Print a table: verdicts are on half of the photos, figures of the others, mean over labels and seeds."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(arguments.seeds):
        order = np.random.default_rng(seed).permutation(len(album.ids))
        pool, held = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(place, Path(folder, "library"))
            with Library.open(Path(folder, "library"), model=arguments.model, offline=True) as library:
                library.label(album.names, apply=True)
                for label in range(len(album.names)):
                    for case, verdicts in cases(album, pool, label).items():
                        for taught, said in verdicts.items():
                            say(library, album.names[taught], said)
                        rows.setdefault(case, []).append(told(album, library, held, label))
                        for run in library.tags.runs():
                            if run.kind in ("accept", "reject") and not run.undone_at:
                                library.tags.undo(run.id)
    print(
        "| verdicts | accuracy | lowest, less text | AP, taught | AP, others | listed from 0.2 |\n"
        "|---|---|---|---|---|---|"
    )
    text = np.array(rows["text alone"])
    for case, figures in rows.items():
        found = np.array(figures)
        mean = found.mean(axis=0)
        lowest = (found - text)[:, 0].min()
        print(f"| {case} | {mean[0]:.3f} | {lowest:+.3f} | {mean[1]:.3f} | {mean[2]:.3f} | {mean[3]:.2f} |")


def stated(values: list[float]) -> str:
    """Mean and 95 % interval over seeds."""
    mean, count = float(np.mean(values)), len(values)
    half = T95.get(count, 1.96) * float(np.std(values, ddof=1)) / count**0.5 if count > 1 else float("nan")
    return f"{mean:.3f} ± {half:.3f}"


def main() -> None:
    """Read the options, run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--per-label", action="store_true", help="budgets are for each label")
    parser.add_argument("--yes-no", action="store_true", help="the user does not say what is right instead")
    parser.add_argument("--one-sided", action="store_true", help="verdicts on one label, of one kind")
    parser.add_argument("--precision", type=float)
    parser.add_argument("--library", type=Path, help="where the photos' vectors are kept [default: nowhere]")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = arguments.library or Path(folder, "library")
        album = Album.of(arguments.folder, place, arguments.model)
        if arguments.one_sided:
            one_sided(album, place, arguments)
            return
        runs = [run(album, place, seed, arguments) for seed in range(arguments.seeds)]
    print(
        f"{arguments.folder.name}: {len(album.ids)} photos, {len(album.names)} classes, {arguments.seeds} seeds.\n"
    )
    head = [f"{budget}{' each' if arguments.per_label else ''}" for budget in ("before", *arguments.budgets)]
    print(f"| heads | {' | '.join(map(str, head))} |\n|{'---|' * (len(head) + 1)}")
    for way in WAYS:
        columns = list(zip(*(found[way] for found in runs), strict=True))
        cells = [stated(list(column)) for column in columns]
        print(f"| {way} | {' | '.join(cells)} |")
    apart = [np.array(found["asked"]) - np.array(found["chance"]) for found in runs]
    print(
        "\nAsked less chance:", ", ".join(stated([row[step] for row in apart]) for step in range(1, len(apart[0])))
    )
    seconds = np.concatenate([found["seconds"] for found in runs])
    print(f"an answer takes {np.median(seconds) * 1e3:.0f} ms, at most {seconds.max() * 1e3:.0f} ms")
    if arguments.precision:
        kept = np.mean(np.concatenate([found["kept"] for found in runs]))
        right, promised = (sum(sum(found[key]) for found in runs) for key in ("right", "promised"))
        share = right / promised if promised else float("nan")
        print(
            f"{kept:.0%} of labels had a threshold; {share:.2f} of {promised:.0f} held-out photos above are right"
        )
    if arguments.json:
        document = {"dataset": arguments.folder.name, "classes": album.names, "runs": runs}
        arguments.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
