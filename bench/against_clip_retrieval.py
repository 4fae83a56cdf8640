"""Indexing held against clip-retrieval's inference: the same photos, the same random weights, in turn.

    python bench/against_clip_retrieval.py [--photos DIR] [--quick]

Its requirements fit no Python and numpy of today together, so its reading, encoding and writing runs without the rest
of it (bench/clip_retrieval_run.py). It writes vectors and names to files; ours is `search index`, whose photos can be
searched afterwards. What one image more costs is the difference between a run over all photos and one over a few.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pictures import photographs
from rivals import ARCHITECTURE, Ours, agreement, environment, model_files, versions_in
from stopwatch import Row, Took, in_turn, print_head, print_table, save_figures, timed, workshop
from synthetic import list_files

if TYPE_CHECKING:
    from search.types import Vectors

CLIP_RETRIEVAL = "clip-retrieval==2.45.0"
FEW = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos in place of 256 that are made")
    parser.add_argument("--quick", action="store_true", help="a few photos, to see that it works")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    arguments = parser.parse_args()
    folder = arguments.photos or photographs(64 if arguments.quick else 256, megapixels=(0.2, 1.0))
    python = environment(
        "clip-retrieval",
        ["fire<0.6", "braceexpand", "fsspec", "pandas<3", "pyarrow"],
        bare=[CLIP_RETRIEVAL],
        borrowing=True,
    )
    model_files()
    versions = versions_in(python, "clip-retrieval", "torch", "pandas", "pyarrow")
    print_head("Against clip-retrieval", **versions)
    used = ", ".join(f"{name} {number}" for name, number in versions.items())
    print(f"{used}. {ARCHITECTURE} with random weights, float32 there. Seconds of whole processes by the clock.\n")
    with workshop() as work:
        rows = print_table("clip-retrieval", compare(folder.resolve(), work, python, arguments.rounds))
    save_figures(arguments.json, [row.figure("clip-retrieval") for row in rows])


def compare(photos: Path, work: Path, python: Path, rounds: int) -> Iterator[Row]:
    """Run both over all photos and over the first few."""
    files = [Path(file.path) for file in list_files(photos)]
    few = work / "few"
    few.mkdir()
    for path in files[: min(FEW, len(files) // 2)]:
        shutil.copy2(path, few / f"{path.parent.name}-{path.name}")

    def run(folder: Path, name: str) -> tuple[list[Took], list[Took]]:
        return in_turn(
            lambda i: Ours(work / f"{name}-ours-{i}").index(folder),
            lambda i: infer(folder, work / f"{name}-theirs-{i}", python),
            rounds,
        )

    whole = run(photos, "all")
    said = agreement(Ours(work / "all-ours-0"), vectors(work / "all-theirs-0", files, photos))
    print(said, file=sys.stderr)
    yield Row(f"index {len(files)} photos, the whole process", *whole)
    little = run(few, "few")
    more = len(files) - len(list_files(few))
    each = [
        [share(all_ - some, more) for all_, some in zip(*runs, strict=True)]
        for runs in zip(whole, little, strict=True)
    ]
    yield Row("index one photo more, the start left aside", *each)


def share(took: Took, parts: int) -> Took:
    return replace(took, wall_s=took.wall_s / parts, cpu_s=took.cpu_s / parts)


def infer(photos: Path, output: Path, python: Path) -> Took:
    """Let clip-retrieval encode a folder."""
    script = Path(__file__).with_name("clip_retrieval_run.py")
    return timed([python, script, photos, output, ARCHITECTURE, model_files() / "model.safetensors"])


def vectors(output: Path, files: Sequence[Path], folder: Path) -> dict[str, Vectors]:
    """Return what clip-retrieval wrote, by the photo's path: in the order of the relative paths as text."""
    rows = np.load(output / "img_emb" / "img_emb_0.npy").astype(np.float32)
    names = sorted(files, key=lambda path: path.relative_to(folder).as_posix())
    return dict(zip(map(str, names), rows, strict=True))


if __name__ == "__main__":
    main()
