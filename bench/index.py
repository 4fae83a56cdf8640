"""How fast a library's index answers and how much it finds, beside exact float32 search by FAISS's flat index.

    python bench/index.py [--n 1000000] [--dim 512] [--queries 100] [--threads 1] [--keep DIR]

The vectors are synthetic: a mixture of 4,000 Gaussians whose spectrum decays to a participation ratio near 33, as
CLIP's does. "image" queries are drawn as the vectors are; "text" queries lie off them, as texts do: another mean and
noise in every direction. Times are medians of process CPU time with one thread, of wall-clock time with more.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import faiss
import numpy as np

from search.vectors import normalize, scan
from search.vectors.coarse import Coarse, Codebook, Layout, encode
from search.vectors.mapped import MappedIndex
from stopwatch import Figure, save_figures

K = 10
PART = 50_000
FILTERS = (0.01, 0.1, 0.5)


class Collection:
    """Where synthetic vectors come from."""

    def __init__(self, dim: int) -> None:
        random = np.random.default_rng(0)
        self.spectrum = (np.arange(1, dim + 1) ** -0.485).astype(np.float32)
        self.axes = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32)
        self.centres = random.standard_normal((4000, dim)).astype(np.float32) * self.spectrum
        mean = random.standard_normal(dim).astype(np.float32) / dim**0.5
        self.mean = 0.5 * float(np.linalg.norm(self.spectrum)) * mean
        shift = random.standard_normal(dim).astype(np.float32) * self.spectrum @ self.axes
        self.shift = normalize(shift)

    def images(self, count: int, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        noise = random.standard_normal((count, len(self.spectrum)), dtype=np.float32)
        rows = self.centres[random.integers(0, 4000, count)] + 0.7 * noise * self.spectrum + self.mean
        return normalize(rows @ self.axes)

    def texts(self, count: int, seed: int) -> np.ndarray:
        noise = np.random.default_rng(seed).standard_normal((count, len(self.spectrum))).astype(np.float32)
        return normalize(0.6 * self.images(count, seed + 1) + 0.5 * self.shift + 0.03 * noise)


def write(folder: Path, collection: Collection, count: int) -> np.ndarray:
    """Write vectors as a generation does; return them mapped."""
    dim = len(collection.spectrum)
    path = folder / "vectors.f16"
    with path.open("wb") as file:
        for start in range(0, count, PART):
            part = collection.images(min(PART, count - start), 100 + start)
            file.write(part.astype(np.float16).tobytes())
    np.arange(count, dtype="<i8").tofile(folder / "ids.i64")
    return np.memmap(path, np.float16, "r", shape=(count, dim))


def build(folder: Path, halves: np.ndarray) -> float:
    """Write the codes; return the CPU seconds it took."""
    started = time.process_time()
    with (folder / "codes.pq").open("wb") as file:
        for part in encode(np.arange(len(halves)), halves, Codebook.learn(halves)):
            file.write(part)
    return time.process_time() - started


def opened(folder: Path, count: int, dim: int, *, codes: bool = True) -> MappedIndex:
    ids = np.memmap(folder / "ids.i64", np.int64, "r")
    halves = np.memmap(folder / "vectors.f16", np.float16, "r", shape=(count, dim))
    content = np.memmap(folder / "codes.pq", np.uint8, "r") if codes else None
    return MappedIndex(ids, halves, None if content is None else Coarse(content, Layout(count, dim)))


def timed(search: Callable[[np.ndarray], object], queries: np.ndarray, clock: Callable[[], float]) -> float:
    """Milliseconds, the median over queries searched one by one."""
    search(queries[:1])
    taken = []
    for query in queries:
        started = clock()
        search(query[None])
        taken.append(clock() - started)
    return 1000 * median(taken)


def recall(found: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / K for a, b in zip(found, right, strict=True)]))


def flat(halves: np.ndarray) -> faiss.IndexFlatIP:
    index = faiss.IndexFlatIP(halves.shape[1])
    for start in range(0, len(halves), PART):
        index.add(halves[start : start + PART].astype(np.float32))
    return index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("--n", 1_000_000), ("--dim", 512), ("--queries", 100), ("--threads", 1)):
        parser.add_argument(name, type=int, default=default)
    parser.add_argument("--keep", type=Path, help="A folder for the files, used again if they are there.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, too")
    given = parser.parse_args()
    faiss.omp_set_num_threads(given.threads)
    scan._MOST_THREADS = given.threads
    clock = time.process_time if given.threads == 1 else time.perf_counter
    with contextlib.ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        report(folder, given, clock)


def report(folder: Path, given: argparse.Namespace, clock: Callable[[], float]) -> None:
    collection = Collection(given.dim)
    if (folder / "codes.pq").is_file():
        halves = np.memmap(folder / "vectors.f16", np.float16, "r", shape=(given.n, given.dim))
    else:
        halves = write(folder, collection, given.n)
        print(f"Codes written in {build(folder, halves):.1f} s of CPU time;", flush=True)
    texts, images = collection.texts(given.queries, 1), collection.images(given.queries, 3)
    started = time.perf_counter()
    coded = opened(folder, given.n, given.dim)
    opening = time.perf_counter() - started
    started = time.perf_counter()
    coded.search(texts[:1], K)
    print(f"opened in {1000 * opening:.1f} ms, first search {1000 * (time.perf_counter() - started):.1f} ms")
    exact, floats = opened(folder, given.n, given.dim, codes=False), flat(halves)
    few = texts[:12]
    base = timed(lambda q: floats.search(q, K), few, clock)
    right = {name: floats.search(q, K)[1] for name, q in (("text", texts), ("image", images))}
    rows = [("exact float32 (IndexFlatIP)", base, 1.0, 1.0)]
    whole = timed(lambda q: exact.search(q, K), few, clock)
    rows.append(("every float16 row, mapped", whole, recall(exact.search(few, K)[0], right["text"][:12]), 1.0))
    for name, queries in (("text", texts), ("image", images)):
        ms = timed(lambda q: coded.search(q, K), queries, clock)
        rows.append((f"codes, {name} queries", ms, recall(coded.search(queries, K)[0], right[name]), 1.0))
    rows += list(filtered(coded, exact, texts, clock))
    print(f"\n{given.n:,} x {given.dim}, {given.threads} thread{'s' if given.threads > 1 else ''}\n")
    print("| | ms | of exact float32 | recall@10 | photos let through |\n|---|---|---|---|---|")
    for name, ms, found, share in rows:
        print(f"| {name} | {ms:.2f} | 1/{base / ms:.1f} | {found:.3f} | {share:.0%} |")
    text = next(row for row in rows if row[0] == "codes, text queries")
    what = f"search {given.n:,} vectors, {text[2]:.3f} of the best ten found"
    save_figures(
        given.json, [Figure(what, f"{text[1]:.1f} ms", f"{base:.0f} ms, all of them by FAISS", base / text[1])]
    )


def filtered(coded: MappedIndex, exact: MappedIndex, texts: np.ndarray, clock: Callable[[], float]):
    """Rows of the table under filters that let a random part of the photos through."""
    random = np.random.default_rng(4)
    for share in FILTERS:
        within = np.flatnonzero(random.random(len(coded)) < share)
        some = texts[:30]
        ms = timed(lambda q, ids=within: coded.search(q, K, within=ids), some, clock)
        right = exact.search(some, K, within=within)[0]
        yield "text queries, filtered", ms, recall(coded.search(some, K, within=within)[0], right), share


if __name__ == "__main__":
    main()
