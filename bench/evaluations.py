"""How good a model's answers are on labelled photos: the figures of `search evaluate`, as tables.

    python bench/evaluations.py KIND SOURCE... [--model builtin]

KIND is zero-shot, robustness, relevance, prompts or probe, for folders of class folders (robustness: of folders of
those, the first in the alphabet's order called photo, if there is one), or retrieval, for a table of image and caption.
Intervals are of 95 %. Nothing is held against another program here: `against_clip_benchmark.py` does that.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stopwatch import print_row, print_rows

Figures = Mapping[str, Any]
WORDINGS = ("{}", "a photo of a {}.", "a photo of a {}, a type of flower.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(TABLES))
    parser.add_argument("sources", nargs="+", metavar="SOURCE", type=Path)
    parser.add_argument("--model", default="builtin")
    arguments = parser.parse_args()
    options, show = TABLES[arguments.kind]
    with tempfile.TemporaryDirectory() as cache:
        found = [
            evaluated(arguments.kind, source, arguments.model, "--cache", cache, *options)
            for source in arguments.sources
        ]
    show(dict(zip((source.name for source in arguments.sources), found, strict=True)))


def evaluated(kind: str, source: Path, model: str, *options: str) -> Figures:
    """Return what the command says of one source."""
    command = [sys.executable, "-m", "search", "--offline", "evaluate", kind, source, "--model", model, "--json"]
    if kind == "relevance":
        options = options[2:]  # it keeps no vectors
    done = subprocess.run([*map(str, command), *options], stdout=subprocess.PIPE, text=True, check=True)
    document: Figures = json.loads(done.stdout)
    return document


def zero_shot(found: Mapping[str, Figures]) -> None:
    for name, figures in found.items():
        print(f"{name}: {figures['photos']} photos, wording {' · '.join(figures['templates'])}\n")
        print_rows(
            ("class", "photos", "right", "95 %", "most often taken for"), *map(_class_row, figures["per_class"])
        )
        metrics, intervals = figures["metrics"], figures["intervals"]
        print_rows(
            ("all classes", "value", "95 %"),
            *(
                (words, _percent(metrics[key]), _between(intervals[key]))
                for key, words in (("acc1", "accuracy"), ("mean_per_class_recall", "mean over classes"))
            ),
        )


def _class_row(one: Figures) -> Sequence[str]:
    taken = ", ".join(f"{other['class']} {other['photos']}" for other in one["confused"][:2])
    return one["class"], one["photos"], _percent(one["recall"]), _between(one["interval"]), taken


def retrieval(found: Mapping[str, Figures]) -> None:
    for figures in found.values():
        print(f"{figures['photos']} photos with {figures['captions']} captions.\n")
        metrics, intervals = figures["metrics"], figures["intervals"]
        rows = []
        for k in (1, 5, 10):
            keys = [f"{kind}_retrieval_recall@{k}" for kind in ("image", "text")]
            cells = (f"{_percent(metrics[key])} ({_between(intervals[key])})" for key in keys)
            rows.append((f"among the first {k}", *cells))
        print_rows(("", "captions find their photo", "photos find a caption"), *rows)
        print_row(("tokens of the caption", "captions", "recall@1", "recall@5", "recall@10"))
        print("|---|---|---|---|---|")
        for one in figures["by_length"]:
            recalls = (_percent(one[f"image_retrieval_recall@{k}"]) for k in (1, 5, 10))
            print_row((" to ".join(map(str, one["tokens"])), one["captions"], *recalls))


def robustness(found: Mapping[str, Figures]) -> None:
    for figures in found.values():
        rows = [
            (
                one["dataset"],
                one["photos"],
                _percent(one["metrics"]["acc1"]),
                _between(one["intervals"]["acc1"]),
                _drop(one),
            )
            for one in figures["results"]
        ]
        print_rows(("style", "photos", "accuracy", "95 %", "less than the first"), *rows)
        spoiled: dict[str, dict[int, float]] = {}
        for one in figures["corruptions"]:
            spoiled.setdefault(one["corruption"], {})[one["strength"]] = one["metrics"]["acc1"]
        strengths = sorted({strength for by in spoiled.values() for strength in by})
        rows = [(name, *(_percent(by[strength]) for strength in strengths)) for name, by in spoiled.items()]
        print_rows(("accuracy on photos spoiled by, at strength", *strengths), *rows)


def _drop(one: Figures) -> str:
    return f"{_percent(one['drop'])} ({_between(one['drop_interval'])})" if one["drop"] else ""


def relevance(found: Mapping[str, Figures]) -> None:
    print(
        "Kept: of the true photos among the ten best. The others: how many queries find nothing, as they should.\n"
    )
    ways = (
        ("cut", "relevance, as it is cut"),
        ("best_relevance", "relevance, keeping 95 %"),
        ("best_cosine", "cosine, keeping 95 %"),
    )
    rows = []
    for name, figures in found.items():
        for key, words in ways:
            one = figures[key]
            shares = (_percent(one[kind]) for kind in ("kept", "nonsense", "absent"))
            rows.append((f"{name}, {figures['classes']} classes", words, f"{one['threshold']:.3f}", *shares))
    print_rows(
        ("set", "shown above", "threshold", "kept", "nothing for nonsense", "nothing for what is not there"), *rows
    )


def prompts(found: Mapping[str, Figures]) -> None:
    for name, figures in found.items():
        print(f"{name}: {figures['photos']} photos, {len(figures['classnames'])} classes.\n")
        rows = []
        for one in figures["results"]:
            accuracy = f"{_percent(one['metrics']['acc1'])} ({_between(one['intervals']['acc1'])})"
            rows.append((f"`{one['wording']}`", accuracy, _percent(one["metrics"]["mean_per_class_recall"])))
        print_rows(("wording", "accuracy (95 %)", "mean over classes"), *rows)


def probe(found: Mapping[str, Figures]) -> None:
    for figures in found.values():
        counts = figures["photos"]
        print(f"{counts['train']} photos to train with, {counts['validation']} to choose by, ", end="")
        print(f"{counts['test']} to test with.\n")
        none = (
            "none: zero-shot",
            _percent(figures["metrics"]["acc1"]),
            _between(figures["intervals"]["acc1"]),
            "",
        )
        rows = [
            (
                one["fewshot_k"] if one["fewshot_k"] > 0 else f"all, {one['examples']}",
                _percent(one["lp_acc1"]),
                _between(one["interval"]),
                f"{100 * one['against_zero_shot']:+.1f} ({_points(one['against_interval'])})",
            )
            for one in figures["curve"]
        ]
        print_rows(("examples a class", "accuracy", "95 %", "more than zero-shot, points"), none, *rows)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _between(interval: Sequence[float]) -> str:
    return " to ".join(f"{100 * bound:.1f}" for bound in interval)


_points = _between

TABLES: dict[str, tuple[Sequence[str], Callable[[Mapping[str, Figures]], None]]] = {
    "zero-shot": ((), zero_shot),
    "retrieval": ((), retrieval),
    "robustness": (("--corruptions", "noise,blur,jpeg,contrast"), robustness),
    "relevance": ((), relevance),
    "prompts": ([word for wording in WORDINGS for word in ("--template", wording)], prompts),
    "probe": (("--seeds", "3", "--template", WORDINGS[-1]), probe),
}


if __name__ == "__main__":
    main()
