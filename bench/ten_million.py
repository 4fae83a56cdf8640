"""What an index over ten million vectors takes: time to write, disk, memory, recall and milliseconds.

    python bench/ten_million.py DIR [--n 10000000] [--dim 512] [--queries 100] [--threads 1] [--only ivf|pq]

DIR keeps the files, which are used again: the vectors (1 KB each), the right answers, and each index. Vectors and
queries are those of bench/index.py, right answers are by exact float32. Times are medians of process CPU time with one
thread, of wall-clock time with more. Cold: the files were dropped from the page cache (Linux, files of one's own); what
is read then is counted by the system.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import faiss
import numpy as np

from index import PART, Collection, recall
from search.vectors import scan
from search.vectors.coarse import Coarse, Codebook, Layout, encode
from search.vectors.lists import Filing, ListBook, ListLayout, Lists, lists_for
from search.vectors.mapped import MappedIndex

K = 10
DRAWN = 300  # queries of each kind that have right answers
FILTERS = (0.01, 0.1, 0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("--n", 10_000_000), ("--dim", 512), ("--queries", 100), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--only", choices=["ivf", "pq"])
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    scan._MOST_THREADS = given.threads
    given.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(given.folder, given.n, given.dim, time.process_time if given.threads == 1 else time.perf_counter)
    bench.draw()
    for kind in [given.only] if given.only else ["ivf", "pq"]:
        bench.build(kind)
        bench.cold(kind)
    bench.report(given.queries, [given.only] if given.only else ["ivf", "pq"])


class Bench:
    """One size of collection in a folder."""

    def __init__(self, folder: Path, count: int, dim: int, clock: Callable[[], float]) -> None:
        self.folder, self.count, self.dim, self.clock = folder, count, dim, clock
        self.collection = Collection(dim)
        self.queries = {"text": self.collection.texts(DRAWN, 1), "image": self.collection.images(DRAWN, 3)}

    @property
    def halves(self) -> np.ndarray:
        return np.memmap(self.folder / "vectors.f16", np.float16, "r", shape=(self.count, self.dim))

    def path(self, kind: str) -> Path:
        return self.folder / f"codes-{self.count}.{kind}"

    def draw(self) -> None:
        """Write the vectors, and keep the best of them for each query as they pass."""
        kept = self.folder / f"right-{self.count}.npz"
        if not kept.is_file():
            best = {
                name: (np.zeros((DRAWN, 0), np.float32), np.zeros((DRAWN, 0), np.int64)) for name in self.queries
            }
            with (self.folder / "vectors.f16").open("wb") as file:
                for start in range(0, self.count, PART):
                    part = self.collection.images(min(PART, self.count - start), 100 + start)
                    file.write(part.astype(np.float16).tobytes())
                    for name, queries in self.queries.items():
                        best[name] = merged(*best[name], queries @ part.T, start)
            np.savez(kept, **{name: places for name, (_, places) in best.items()})
        found = np.load(kept)
        self.right = {name: found[name][:, :K] for name in self.queries}

    def build(self, kind: str) -> None:
        """Write an index, unless it is there, and what that took."""
        if (self.folder / f"built-{self.count}.{kind}.json").is_file():
            return
        started, wall = time.process_time(), time.perf_counter()
        ids, probe = np.arange(self.count), 0
        with Memory() as memory, self.path(kind).open("wb") as file:
            if kind == "pq":
                file.writelines(encode(ids, self.halves, Codebook.learn(self.halves)))
            else:
                book = ListBook.learn(self.halves, lists_for(self.count))
                print(
                    f"ivf: {len(book.centres):,} centres learned in {time.process_time() - started:.0f} s",
                    flush=True,
                )
                filing = Filing(ids, self.halves, book)
                file.writelines(filing.parts(self.folder))
                probe = filing.probe
        took = {
            "cpu_s": round(time.process_time() - started, 1),
            "wall_s": round(time.perf_counter() - wall, 1),
            "memory_mb": round(memory.most / 1e6),
            "bytes": self.path(kind).stat().st_size,
            "probe": probe,
        }
        (self.folder / f"built-{self.count}.{kind}.json").write_text(json.dumps(took))
        print(kind, took, flush=True)

    def built(self, kind: str) -> dict[str, float]:
        return json.loads((self.folder / f"built-{self.count}.{kind}.json").read_text())

    def opened(self, kind: str | None) -> MappedIndex:
        ids = np.arange(self.count)
        if kind is None:
            return MappedIndex(ids, self.halves)
        content = np.memmap(self.path(kind), np.uint8, "r")
        if kind == "pq":
            return MappedIndex(ids, self.halves, Coarse(content, Layout(self.count, self.dim)))
        layout = ListLayout(self.count, self.dim, lists_for(self.count))
        return MappedIndex(ids, self.halves, Lists(content, layout, int(self.built(kind)["probe"])))

    def cold(self, kind: str) -> None:
        """Tell what the first queries take when nothing of the files is in memory."""
        for path in (self.folder / "vectors.f16", self.path(kind)):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        index, rows = self.opened(kind), []
        for query in self.queries["text"][:8]:
            before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            index.search(query[None], K)
            after = resource.getrusage(resource.RUSAGE_SELF)
            read = (after.ru_inblock - before.ru_inblock) / 2048  # of 512 bytes
            rows.append((1000 * (time.perf_counter() - started), after.ru_majflt - before.ru_majflt, read))
        for name, (ms, faults, read) in (("first", rows[0]), ("eighth", rows[-1])):
            print(
                f"{kind}, cold, {name} query: {ms:.0f} ms by the clock, {faults} page faults, {read:.1f} MiB",
                flush=True,
            )

    def report(self, queries: int, kinds: list[str]) -> None:
        exact = self.opened(None)
        texts = self.queries["text"]
        base = self.timed(exact, texts[:4])
        print(f"\n{self.count:,} x {self.dim}, K = {K}, memory of its own before indexes {rss():.0f} MB\n")
        print("| | ms | of exact | recall@10 | photos let through |\n|---|---|---|---|---|")
        print(f"| every float16 row, mapped | {base:.1f} | 1/1.0 | 1.000 | 100% |", flush=True)
        for kind in kinds:
            index = self.opened(kind)
            for name, vectors in self.queries.items():
                ms = self.timed(index, vectors[:queries])
                found = recall(index.search(vectors[:queries], K)[0], self.right[name][:queries])
                row(f"{kind}, {name} queries", ms, base, found, 1)
            for share, within, right in self.filtered(exact, texts[:6]):
                ms = self.timed(index, texts[:6], within)
                found = recall(index.search(texts[:6], K, within=within)[0], right)
                row(f"{kind}, text queries, filtered", ms, base, found, share)
            print(f"{kind}: {self.built(kind)}, memory of its own now {rss():.0f} MB", flush=True)

    def filtered(self, exact: MappedIndex, texts: np.ndarray) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
        random = np.random.default_rng(4)
        for share in FILTERS:
            within = np.flatnonzero(random.random(self.count) < share)
            yield share, within, exact.search(texts, K, within=within)[0]

    def timed(self, index: MappedIndex, queries: np.ndarray, within: np.ndarray | None = None) -> float:
        for query in queries[:4]:
            index.search(query[None], K, within=within)
        taken = []
        for query in queries:
            started = self.clock()
            index.search(query[None], K, within=within)
            taken.append(self.clock() - started)
        return 1000 * median(taken)


def row(name: str, ms: float, base: float, found: float, share: float) -> None:
    print(f"| {name} | {ms:.2f} | 1/{base / ms:.1f} | {found:.3f} | {share:.0%} |", flush=True)


def merged(scores: np.ndarray, places: np.ndarray, new: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of what was found and of what came now, in their order."""
    some = np.argpartition(-new, K - 1, axis=1)[:, :K]
    scores = np.concatenate([scores, np.take_along_axis(new, some, 1)], axis=1)
    places = np.concatenate([places, some + start], axis=1)
    order = np.argsort(-scores, axis=1)[:, :K]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)


def rss() -> float:
    """MB of this process that are in no file (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1000
    return 0.0


class Memory:
    """The most memory of its own that the process has while this is entered, looked at ten times a second."""

    def __enter__(self) -> Memory:
        self.most, self._done = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.most = max(self.most, 1e6 * rss())


if __name__ == "__main__":
    main()
