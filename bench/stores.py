"""What an index on a server costs beside exact search here, and what it finds: without a filter, and under two.

    python bench/stores.py URL… [--n 20000] [--dim 512] [--queries 50]

URL: milvus://…, postgresql://…; a collection of that name is made for this and removed. Vectors and queries have the
spectrum of CLIP's, queries lie off the photos as texts do. Times are wall-clock medians of single queries, the vectors
that give scores taken from memory; what is published are ratios to exact search.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from statistics import median
from time import perf_counter

import numpy as np

from index import Collection
from search.conditions import Measured
from search.types import Filter, PhotoInfo
from search.vectors.exact import ExactIndex
from search.vectors.stored import StoredIndex
from search.vectors.stores import Stamp, open_store
from search.vectors.stores.declared import row_of

K = 10
_PART = 4096


class Memory:
    """Vectors by their number, in the catalog's place."""

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def vectors(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = np.unique(ids)
        return some, self._vectors[some]

    def count(self) -> int:
        return len(self._vectors)

    def ids(self) -> np.ndarray:
        return np.arange(len(self._vectors))

    def sample(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors(self.ids()[:: max(1, len(self._vectors) // size)])

    def cameras(self) -> Sequence[str]:
        return ()


def fill(url: str, vectors: np.ndarray, ratings: np.ndarray) -> tuple[StoredIndex, float]:
    """Bring vectors to a server; return the index over them and the seconds that took."""
    store = open_store(url)
    if store.stamp() is not None:
        raise SystemExit(f"{url} is in use")
    started = perf_counter()
    stamp = Stamp("bench", "bench", vectors.shape[1], "fill", "mark")
    store.begin(stamp)
    columns = [row_of(PhotoInfo("jpeg", 1, 1, rating=rating)) for rating in ratings.tolist()]
    for start in range(0, len(vectors), _PART):
        some = slice(start, start + _PART)
        store.put(np.arange(len(vectors))[some], vectors[some], columns[some])
    store.finish(stamp, changed=len(vectors))
    return StoredIndex(store, Memory(vectors), vectors.shape[1]), perf_counter() - started


def answers(index: ExactIndex | StoredIndex, queries: np.ndarray, **given: object) -> tuple[np.ndarray, float]:
    """Return the ids found for each query, and the median of the milliseconds."""
    index.search(queries[:1], K, **given)
    found, taken = [], []
    for query in queries:
        started = perf_counter()
        found.append(index.search(query[None], K, **given)[0][0])
        taken.append(1000 * (perf_counter() - started))
    return np.stack(found), median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL")
    for name, default in (("--n", 20_000), ("--dim", 512), ("--queries", 50)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    collection = Collection(given.dim)
    vectors, queries = collection.images(given.n, 100), collection.texts(given.queries, 1)
    draw = np.random.default_rng(0).random(given.n)
    ratings = (draw < 0.1).astype(int) + (draw < 0.01)
    exact = ExactIndex(given.dim)
    exact.add(np.arange(given.n), vectors)
    for url in given.urls:
        index, seconds = fill(url, vectors, ratings)
        print(f"{index.kind}: {given.n} photos, {given.dim} dimensions, filled in {seconds:.0f} s", flush=True)
        try:
            for least, share in enumerate(("all", "10 %", "1 %")):
                within = None if least == 0 else np.flatnonzero(ratings >= least)
                where = Filter(where=Measured("rating", ">=", least)) if least else None
                right, here_ms = answers(exact, queries, within=within)
                found, there_ms = answers(index, queries, within=within, where=where)
                recall = np.mean([np.isin(a, b).mean() for a, b in zip(right, found, strict=True)])
                short = int((found < 0).any(axis=1).sum())
                print(
                    f"  {share:>5}: recall@{K} {recall:.3f}, {short} short, {there_ms / here_ms:.2f} × exact here"
                )
        finally:
            index.store.drop()
            index.store.close()


if __name__ == "__main__":
    main()
