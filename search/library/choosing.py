"""Which of the photos found are shown: those relevant enough, and unlike each other where that is wanted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from search.errors import IndexUnavailable
from search.relevance import DEFAULT_CUT
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog, EncoderRow
    from search.types import Ids, Vectors

_SECOND, _DEEPER, _DEEPEST = 128, 4, 4096  # photos of the second look at least, growth, and where it ends


class Judged(Protocol):
    """Photos and the relevance of each that is held against the cut, (n,)."""

    @property
    def decisive(self) -> npt.NDArray[np.float32]: ...


T = TypeVar("T", bound=Judged)


@dataclass(frozen=True, slots=True)
class Choice:
    """Photos to show, best first: ids, scores and relevance, (n,) each.

    cut: the relevance below which photos were dropped.   below: how many of those looked at were.   best: the highest
    relevance seen.
    """

    ids: Ids
    scores: npt.NDArray[np.float32]
    relevance: npt.NDArray[np.float32]
    cut: float
    below: int
    best: float | None


def pool_size(k: int, *, diverse: bool) -> int:
    """Return how many photos to find in order to show k."""
    from search import diversity

    return diversity.pool_size(k) if diverse else k


def deepened(look: Callable[[int], T], pool: int, photos: int, cut: float) -> T:
    """Return what a look finds that goes deep enough for so many relevant photos, if there are so many.

    A photo that is near to all texts has a high score and little relevance, so those that reach the cut lie among
    those which don't. It is looked further down until a deeper look brings no more of them, or the index can't tell.
    look: told how many of the best photos to judge.   pool: how many are wanted.   photos: how many there are.
    """
    depth = pool
    found = look(depth)
    reaching = int((found.decisive >= cut).sum())
    while reaching < pool and depth < min(photos, _DEEPEST):
        depth = max(_DEEPER * depth, _SECOND)
        try:
            before, found = reaching, look(depth)
        except IndexUnavailable:  # it names only so many: what was found before is right as far as it goes
            break
        reaching = int((found.decisive >= cut).sum())
        if reaching == before:
            break
    return found


def cut_of(min_relevance: float | None, *, by_words: bool) -> float:
    """Return the cut that holds: the one given, else the usual one for words and none for images."""
    if min_relevance is not None:
        return min_relevance
    return DEFAULT_CUT if by_words else 0.0


def choose(
    ids: Ids,
    scores: npt.NDArray[np.float32],
    relevance: npt.NDArray[np.float32],
    vectors: Vectors,
    *,
    k: int,
    cut: float,
    diverse: bool = False,
) -> Choice:
    """Choose k of the photos found, (n,) each and best first: relevant enough, `diverse` also unlike each other.

    vectors: (n, D) unit rows, the photos'.
    """
    keep = np.flatnonzero(relevance >= cut)
    if diverse:
        from search import diversity

        keep = keep[diversity.diverse(vectors[keep], scores[keep], k)] if len(keep) else keep
    best = float(relevance.max()) if len(relevance) else None
    below = int((relevance < cut).sum())
    shown = keep[:k]
    return Choice(ids[shown], scores[shown], relevance[shown], cut, below, best)


def vectors_of(catalog: Catalog, row: EncoderRow, ids: Ids) -> Vectors:
    """Return the photos' unit rows (n, D) in the order asked for; a photo without a sound vector has one of zeros."""
    rows = np.zeros((len(ids), row.dim), np.float32)
    if len(ids):
        found, vectors = catalog.embeddings(row, ids.tolist())
        place = {id_: number for number, id_ in enumerate(ids.tolist())}
        rows[[place[id_] for id_ in found.tolist()]] = normalize(vectors)
    return rows
