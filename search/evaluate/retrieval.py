"""How well captions find their photos and photos their captions, and what the length of a caption does to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.evaluate.metrics import first_positive_ranks
from search.evaluate.statistics import Interval, share, wilson

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.datasets import Captions
    from search.evaluate.pictures import Pictures
    from search.types import Vectors

    Ranks = npt.NDArray[np.int64]

_BINS = 5
_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Bin:
    """Captions of `low` to `high` tokens, start and end included, and the image recall at each k of them."""

    low: int
    high: int
    captions: int
    recalls: Mapping[int, Interval]


@dataclass(frozen=True, slots=True)
class Retrieval:
    """figures: image_retrieval_recall@k and text_retrieval_recall@k, as CLIP_benchmark calls them.

    bins: the image recall of captions by their length.   truncated: captions that are longer than the model reads;
    they count as it reads them, cut.   truncated_tokens: what was cut off.
    """

    figures: Mapping[str, Interval]
    bins: tuple[Bin, ...]
    truncated: int
    truncated_tokens: int


def evaluate_retrieval(
    images: Vectors,
    texts: Vectors,
    captions: Captions,
    *,
    lengths: Sequence[int],
    context_length: int,
    recall_k: Sequence[int] = (1, 5, 10),
    edges: Sequence[int] = (),
    counted: Sequence[int] | None = None,
) -> Retrieval:
    """Search photos with their captions and captions with their photos.

    images: (N, D).   texts: (M, D).   lengths: (M,) of the captions in tokens, start and end included.
    edges: lengths at which bins begin; none: five bins with as many captions each, as far as equal lengths permit.
    counted: lengths by which bins are made, where those of another model stand beside; None: these.
    Image recall at k is the share of captions whose photo is among the k best; text recall the share of photos with
    one of their captions among the k best. Intervals are of 95 %, by bootstrap over photos: what is said of one photo
    is alike.
    """
    photos = np.arange(len(images))
    of_images = first_positive_ranks(texts, images, captions.owners, photos)
    of_texts = first_positive_ranks(images, texts, photos, captions.owners)
    figures = {}
    for k in recall_k:
        figures[f"image_retrieval_recall@{k}"] = _by_photo(of_images < k, captions.owners)
        figures[f"text_retrieval_recall@{k}"] = share(of_texts < k)
    beyond = np.maximum(np.asarray(lengths) - context_length, 0)
    return Retrieval(
        figures,
        _bins(of_images, captions.owners, np.asarray(lengths if counted is None else counted), recall_k, edges),
        int((beyond > 0).sum()),
        int(beyond.sum()),
    )


def embed(captions: Sequence[str], pictures: Pictures) -> tuple[Vectors, list[int]]:
    """Return captions as a model sees them (M, D), and how many tokens each has, start and end included."""
    tower, remember = pictures.text(), pictures.remember()
    if remember is None:
        return tower.encode_texts(captions), tower.count_tokens(captions)
    vectors, _ = remember([[caption] for caption in captions], lambda: (tower.encode_texts(captions), 0))
    return vectors, tower.count_tokens(captions)


def _bins(
    ranks: Ranks, owners: Ranks, lengths: Ranks, recall_k: Sequence[int], edges: Sequence[int]
) -> tuple[Bin, ...]:
    found = []
    starts = [0, *sorted(set(edges))] if edges else _quantiles(lengths)
    for low, high in zip(starts, [*starts[1:], None], strict=True):
        inside = (lengths >= low) & ((lengths < high) if high is not None else True)
        if not inside.any():
            continue
        recalls = {k: _by_photo(ranks[inside] < k, owners[inside]) for k in recall_k}
        tokens = lengths[inside]
        found.append(Bin(int(tokens.min()), int(tokens.max()), int(inside.sum()), recalls))
    return tuple(found)


def _quantiles(lengths: Ranks) -> list[int]:
    """Where bins begin that hold as many each, as far as may be."""
    starts = np.quantile(lengths, np.arange(_BINS) / _BINS, method="higher")
    return sorted(set(starts.tolist()))


def _by_photo(found: npt.NDArray[np.bool_], owners: Ranks) -> Interval:
    """The share of captions (M,), between the bounds that other photos would have given."""
    _, places = np.unique(owners, return_inverse=True)
    sizes, hits = np.bincount(places), np.bincount(places, weights=found)
    if found.all() or not found.any():  # resampling knows no doubt then
        return wilson(float(found.mean()), len(sizes))
    random = np.random.default_rng(0)
    shares = np.empty(_RESAMPLES)
    for number in range(_RESAMPLES):
        rows = random.integers(0, len(sizes), len(sizes))
        shares[number] = hits[rows].sum() / sizes[rows].sum()
    low, high = np.quantile(shares, [0.025, 0.975]).tolist()
    return Interval(low, float(found.mean()), high)
