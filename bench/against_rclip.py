"""Indexing, answering and looking again, held against rclip: the same photos, the same random weights, in turn.

    python bench/against_rclip.py [--photos DIR] [--quick]

Both are whole processes from their start to the end of what they print. rclip indexes and answers in one, so ours is
`index` and a first `find` together; what ours reads once for a model, whatever the number of libraries, it has read
before. The photographs are made (bench/pictures.py), or those of a folder; rows beyond them are written into both
databases with random vectors.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from statistics import median

from pictures import photographs
from rivals import ARCHITECTURE, Ours, Rclip, agreement, fill_rclip, rclip_vectors, rclip_versions
from search import Library
from stopwatch import CACHE, Row, Took, in_turn, print_head, print_table, save_figures, workshop
from synthetic import Identity, cached_library, list_files, make_library, vector_batches

# A comment makes each file another; only their names, sizes and times are looked at.
_TINY_JPEG = bytes.fromhex("ffd8fffe0012") + b"%016d" + bytes.fromhex("ffd9")

PARTS = ("index", "query", "rows", "rescan", "million")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    photos: int = 1000
    large_photos: int = 32
    rows: int = 100_000
    most_rows: int = 1_000_000
    rounds: int = 1
    queries: int = 9
    looks: int = 3

    @classmethod
    def quick(cls) -> Sizes:
        return cls(photos=64, large_photos=8, rows=5_000, most_rows=20_000, queries=3, looks=1)


class Texts:
    """Descriptions never asked for before."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self) -> str:
        number = next(self._numbers)
        colours, things = ("red", "green", "grey", "golden", "dark"), ("boat", "dog", "house", "hill", "bicycle")
        places = ("by the sea", "in the rain", "at night", "in a crowded street", "under old trees")
        return f"{number + 2} {colours[number % 5]} {things[number // 5 % 5]}s {places[number // 25 % 5]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photos in place of 1,000 that are made")
    parser.add_argument("--quick", action="store_true", help="a few of everything, to see that it works")
    parser.add_argument("--rounds", type=int, default=1, help="how often both index")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="some parts alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    arguments = parser.parse_args()
    sizes = Sizes.quick() if arguments.quick else Sizes(rounds=arguments.rounds)
    photos = (arguments.photos or photographs(sizes.photos, megapixels=(0.2, 1.0))).resolve()
    with workshop() as work:
        bench = Bench(work, photos, sizes)
        versions = rclip_versions()
        print_head(f"Against {Rclip.name}", **versions)
        used = ", ".join(f"{name} {number}" for name, number in versions.items())
        print(
            f"{used}. {ARCHITECTURE} with random weights, float32 in rclip. Seconds of whole processes by the clock.\n"
        )
        rows = print_table(Rclip.name, bench.run(arguments.only))
        save_figures(arguments.json, [row.figure("rclip") for row in rows if row.theirs])
        print(*bench.notes, sep="\n")


class Bench:
    """The two programs, what they are given, and the measurements."""

    def __init__(self, work: Path, photos: Path, sizes: Sizes) -> None:
        self.work, self.photos, self.sizes = work, photos, sizes
        self.texts = Texts()
        self.notes: list[str] = []
        self._made = count()

    def run(self, wanted: Sequence[str]) -> Iterator[Row]:
        """Measure these parts."""
        measures = (self.indexing, self.answering, self.many_rows, self.looking_again, self.most_rows)
        for name, measure in zip(PARTS, measures, strict=True):
            if name in wanted:
                yield from measure()

    # ---- indexing

    def indexing(self) -> Iterator[Row]:
        """Both index the photographs, then those of 12 megapixels, then these again with nothing new."""
        large = photographs(self.sizes.large_photos, megapixels=(12.0, 12.0))
        small, _ = self._indexed(self.photos)
        yield Row(f"index {count_files(self.photos):,} photos, a first query included", *small, goal=4)
        whole, used = self._indexed(large)
        yield Row(f"index {self.sizes.large_photos} photos of 12 MP, likewise", *whole, goal=7)
        known = in_turn(
            lambda _: used[0].rescan(large) + self._first(used[0], large),
            lambda _: used[1].index(large),
            self.sizes.rounds,
        )
        rest = [[all_ - none for all_, none in zip(*runs, strict=True)] for runs in zip(whole, known, strict=True)]
        yield Row("– less a run that knows them", *rest)

    def _indexed(self, photos: Path) -> tuple[tuple[list[Took], list[Took]], tuple[Ours, Rclip]]:
        """Index a folder from nothing, by both in turn; return with the runs two that know it now."""
        read(photos)
        pairs = [(Ours(self._place()), Rclip(self._place())) for _ in range(self.sizes.rounds)]
        runs = in_turn(
            lambda i: pairs[i][0].index(photos) + self._first(pairs[i][0], photos),
            lambda i: pairs[i][1].index(photos),
            self.sizes.rounds,
        )
        self.notes.append(agreement(pairs[0][0], rclip_vectors(pairs[0][1])))
        return runs, pairs[0]

    def _first(self, ours: Ours, photos: Path) -> Took:
        """Ask for as many photos as rclip names by itself."""
        return ours.find(self.texts(), wanted=min(10, count_files(photos)))

    # ---- answering

    def answering(self) -> list[Row]:
        """A text query in a new process each time; then the same text again and again."""
        ours, theirs = self.small
        new = self._asked(ours, theirs, self.photos, self.texts)
        again = self._asked(ours, theirs, self.photos, lambda: "a photo of a dog playing in the snow")
        return [
            Row(f"a new text query, {count_files(self.photos):,} photos", *new, goal=3.5, limit_s=0.25),
            Row("– the same text again", *again),
        ]

    def many_rows(self) -> list[Row]:
        """A new text query over many rows."""
        new = self._asked(*self.large, self.tree, self.texts)
        return [Row(f"a new text query, {self.sizes.rows:,} photos", *new, goal=7)]

    def most_rows(self) -> list[Row]:
        """Ours alone: a million rows against the small library, in turn."""
        small, number = self.small[0], self.sizes.most_rows
        large = Ours(cached_library(str(number), number, encoder=self.encoder))
        for program in (large, small):
            program.find(self.texts())
        many, few = in_turn(
            lambda _: large.find(self.texts()), lambda _: small.find(self.texts()), self.sizes.queries
        )
        twice = 2 * median(run.wall_s for run in few)
        return [
            Row(f"a new text query, {number:,} photos, ours alone; wanted is twice the next", many, limit_s=twice),
            Row(f"– {count_files(self.photos):,} photos, in turn with it", few),
        ]

    def _asked(
        self, ours: Ours, theirs: Rclip, photos: Path, text: Callable[[], str]
    ) -> tuple[list[Took], list[Took]]:
        ours.find(self.texts()), theirs.find(self.texts(), photos)  # both have been used before
        asked = [text() for _ in range(self.sizes.queries)]
        return in_turn(lambda i: ours.find(asked[i]), lambda i: theirs.find(asked[i], photos), self.sizes.queries)

    # ---- looking again

    def looking_again(self) -> list[Row]:
        """A folder of many files in which nothing has changed."""
        ours, theirs = self.large
        self._unchanged(), theirs.index(self.tree)
        runs = in_turn(lambda _: self._unchanged(), lambda _: theirs.index(self.tree), self.sizes.looks)
        queries = in_turn(
            lambda _: ours.find(self.texts()), lambda _: theirs.find(self.texts(), self.tree), self.sizes.looks
        )
        both = [run + query for run, query in zip(runs[0], queries[0], strict=True)]
        rest = [run - query for run, query in zip(runs[1], queries[1], strict=True)]
        return [
            Row(
                f"look again at {self.sizes.rows:,} unchanged files: `index` against rclip's whole run",
                *runs,
                goal=8,
            ),
            Row("– less rclip's query without looking", runs[0], rest),
            Row("– ours with a query, too", both, runs[1]),
        ]

    def _unchanged(self) -> Took:
        took = self.large[0].rescan(self.tree)
        report = json.loads(took.out)
        if report["encoded"] or report["unchanged"] != self.sizes.rows:
            raise RuntimeError(f"not all of it was known: {took.out}")
        return took

    # ---- what is measured on

    @cached_property
    def small(self) -> tuple[Ours, Rclip]:
        """Both knowing the photographs."""
        return self._knowing(self.photos)

    @cached_property
    def large(self) -> tuple[Ours, Rclip]:
        """Both knowing the tree."""
        return self._knowing(self.tree)

    @cached_property
    def tree(self) -> Path:
        return tree_of(self.sizes.rows)

    @cached_property
    def encoder(self) -> Identity:
        """Who the model is, as catalogs know it."""
        ours = Ours(self._place())
        with Library.open(ours.library, model=ours.model, offline=True) as library:
            return Identity.of(library.encoder)

    def _knowing(self, photos: Path) -> tuple[Ours, Rclip]:
        """Both knowing a folder's files as they are now, by random vectors, as if they had been indexed."""
        files = list_files(photos)
        ours, theirs = Ours(self._place()), Rclip(self._place())
        make_library(ours.library, len(files), encoder=self.encoder, root=str(photos), files=files)
        fill_rclip(theirs, [file.path for file in files], vector_batches(len(files), theirs.dim))
        return ours, theirs

    def _place(self) -> Path:
        return self.work / str(next(self._made))


def tree_of(number: int) -> Path:
    """Return a folder of this many tiny files, a thousand to a folder."""
    tree = CACHE / f"tree-{number}"
    if not tree.exists():
        draft = tree.with_suffix(".draft")
        shutil.rmtree(draft, ignore_errors=True)
        for i in range(number):
            path = draft / f"{i // 1000:03}" / f"{i:06}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_TINY_JPEG % i)
        draft.rename(tree)
    return tree


def read(photos: Path) -> None:
    """Have the files in memory, so that neither is the first to read them."""
    for file in list_files(photos):
        Path(file.path).read_bytes()


def count_files(photos: Path) -> int:
    return len(list_files(photos))


if __name__ == "__main__":
    main()
