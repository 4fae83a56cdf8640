"""What another wording costs once the photos are encoded: whole processes of `search evaluate prompts` and `probe`.

    python bench/laboratory.py DIR [--model NAME] [--rounds N]

DIR holds a folder of photos for each class. Each round begins without vectors; its other runs have words of their own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from stopwatch import Took, print_head, timed, workshop

WORDS = ("a photo of a {}.", "a picture of a {}.", "a close-up of a {}", "one {} outdoors", "a drawing of a {}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    print_head("Other words for the same photos", model=options.model)
    print("| round | | s | CPU s | of the first, CPU |\n|---|---|---|---|---|")
    for number in range(options.rounds):
        with workshop() as place:
            show(number, place, options.folder.resolve(), options.model)


def show(number: int, place: Path, folder: Path, model: str) -> None:
    """Run once without vectors and then with them, by other words each time."""

    def run(kind: str, *more: str) -> Took:
        command = (sys.executable, "-m", "search", "evaluate", kind, folder, "--model", model)
        return timed([*command, "--cache", place / "vectors", "--json", *more])

    first, wordings = WORDS[0], [("--template", "{}", "--template", words) for words in WORDS[1:]]
    took = {
        "first run, two wordings": run("prompts", "--template", "{}", "--template", first),
        **{f"then {words[-1]!r}": run("prompts", *words) for words in wordings},
        "the same again": run("prompts", "--template", "{}", "--template", WORDS[-1]),
        "80 templates": run("prompts", "--templates", "imagenet80"),
        "with a page": run("prompts", *wordings[0], "--html", str(place / "page.html")),
        "probes of 1 to 16 and all": run("probe", "--template", first),
    }
    whole = next(iter(took.values())).cpu_s
    for what, one in took.items():
        print(
            f"| {number + 1} | {what} | {one.wall_s:.1f} | {one.cpu_s:.1f} | 1/{whole / one.cpu_s:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
