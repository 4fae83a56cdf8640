"""Looking around in a library: everything by time, what there is to filter by, and photos that show the same."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search import addresses
from search.types import TakenAtSource
from search.vectors import normalize, places_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog
    from search.catalog.overview import Overview
    from search.types import Ids, Photo, Vector

_LONG_S = 0.2  # what it may take to read everything on each change
_OLD_S = 15.0
_MOMENT_S = 10.0
_ALIKE, _BURST = 0.85, 0.9
"""Cosines that the same picture coded anew, and two shots of one moment, must reach beside what else speaks for it."""


@dataclass(frozen=True, slots=True)
class Browsed:
    """Photos in order of time, the latest first.   total: how many pass the filter."""

    photos: tuple[Photo, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many of the photos that pass a filter are of this name."""

    name: str
    photos: int


@dataclass(frozen=True, slots=True)
class Facets:
    """What the photos that pass a filter could be filtered by further, the most frequent first.

    times: years, or the months of the only year, as "2024" or "2024-05", the latest first.   folders: absolute, those
    next below the folder that all have in common.   placed: how many tell where they were taken.
    """

    photos: int
    times: tuple[Count, ...] = ()
    cameras: tuple[Count, ...] = ()
    folders: tuple[Count, ...] = ()
    labels: tuple[Count, ...] = ()
    placed: int = 0


class Browsing:
    """A library's overview, kept until the catalog changes; safe to use from several threads.

    One that takes long to read, as of very many photos, may be old while another process writes: ten times what it
    takes to read, 15 s at most.   clock: tells seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._catalog: Catalog | None = None
        self._overview: Overview | None = None
        self._good_until = 0.0

    def overview(self, catalog: Catalog) -> Overview:
        """Return the columns of a catalog as it is now, or was shortly before."""
        with self._lock:
            known = self._overview if self._catalog is catalog else None
            begun = self._clock()
            if known is not None and begun < self._good_until:
                return known
            self._overview, self._catalog = catalog.overview(known), catalog
            if self._overview is not known and (took := self._clock() - begun) > _LONG_S:
                self._good_until = begun + min(10 * took, _OLD_S)
            return self._overview


def browse(catalog: Catalog, overview: Overview, selection: Ids | None, *, k: int, offset: int) -> Browsed:
    """Return a page of photos, the latest first; those without a date last, of these the last indexed first."""
    places = _chosen(overview, selection)
    taken = overview.taken[places].astype(np.int64)  # NaT is the smallest there is
    order = np.lexsort((overview.ids[places], taken))[::-1]
    page = overview.ids[places[order[offset : offset + k]]]
    return Browsed(tuple(catalog.get(page.tolist())), len(places))


def facets(overview: Overview, selection: Ids | None) -> Facets:
    """Count what the chosen photos could be filtered by."""
    places = _chosen(overview, selection)
    chosen = np.zeros(len(overview.ids), bool)
    chosen[places] = True
    return Facets(
        photos=len(places),
        times=_times(overview.taken[places]),
        cameras=_counted(overview.cameras, overview.camera[places]),
        folders=_folders(overview.folders, overview.folder[places]),
        labels=_counted(overview.labels, overview.label[chosen[overview.labelled]]),
        placed=int(overview.placed[places].sum()),
    )


def _chosen(overview: Overview, selection: Ids | None) -> Ids:
    """Return the places of the photos of a selection."""
    if selection is None:
        return np.arange(len(overview.ids))
    return places_of(selection, overview.ids)[0]


def _counted(names: Sequence[str], codes: npt.NDArray[np.int32]) -> tuple[Count, ...]:
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    found = [Count(name, int(count)) for name, count in zip(names, counts, strict=True) if count]
    return tuple(sorted(found, key=lambda one: (-one.photos, one.name)))


def _times(taken: npt.NDArray[np.datetime64]) -> tuple[Count, ...]:
    known = taken[~np.isnat(taken)]
    found = np.unique(known.astype("datetime64[Y]"), return_counts=True)
    if len(found[0]) == 1:
        found = np.unique(known.astype("datetime64[M]"), return_counts=True)
    return tuple(Count(str(time), int(count)) for time, count in zip(*found, strict=True))[::-1]


def _folders(folders: Sequence[str], codes: npt.NDArray[np.int32]) -> tuple[Count, ...]:
    """Count photos by the folders next below what they all have in common."""
    counts = Counter({folders[code]: int(n) for code, n in enumerate(np.bincount(codes)) if n})
    if len(counts) < 2:
        return ()
    common = addresses.common(list(counts))
    before = os.path.join(common, "") if common else ""
    below: Counter[str] = Counter()
    for folder, count in counts.items():
        if inside := addresses.first(folder[len(before) :]):
            below[before + inside] += count
    return tuple(Count(name, count) for name, count in sorted(below.items(), key=lambda one: (-one[1], one[0])))


# ---- what shows the same


def folded(catalog: Catalog, photos: Sequence[Photo]) -> list[tuple[int, ...]]:
    """Return photos' ids as groups that show the same, each group where its first photo was.

    The same bytes, the same picture as hashes tell it, or shots of one moment; every photo is so itself to the first
    of its group.
    """
    from search.photos.likeness import METHOD

    vectors = _unit_vectors(catalog, photos)
    hashes = {one.id: one.hash for one in catalog.pictures(METHOD, [photo.id for photo in photos])}
    left = list(photos)
    groups = []
    while left:
        first, *others = left
        same = {other.id for other in others if _shows_same(first, other, vectors, hashes)}
        groups.append((first.id, *(other.id for other in others if other.id in same)))
        left = [other for other in others if other.id not in same]
    return groups


def _unit_vectors(catalog: Catalog, photos: Sequence[Photo]) -> dict[int, Vector]:
    """Return the photos' unit vectors, (D,), by id; a photo without one is left out."""
    row = catalog.encoder()
    if row is None or not photos:
        return {}
    ids, vectors = catalog.embeddings(row, [photo.id for photo in photos])
    return dict(zip(ids.tolist(), normalize(vectors), strict=True)) if len(ids) else {}


def _shows_same(one: Photo, other: Photo, vectors: Mapping[int, Vector], hashes: Mapping[int, bytes]) -> bool:
    if one.content_hash == other.content_hash:
        return True
    if one.id not in vectors or other.id not in vectors:
        return False
    cosine = float(vectors[one.id] @ vectors[other.id])
    if cosine >= _BURST and _is_one_moment(one, other):
        return True
    return (
        cosine >= _ALIKE
        and one.id in hashes
        and other.id in hashes
        and _is_alike(hashes[one.id], hashes[other.id])
    )


def _is_one_moment(one: Photo, other: Photo) -> bool:
    first, second = one.info, other.info
    if first.taken_at is None or second.taken_at is None or first.camera != second.camera or not first.camera:
        return False
    if TakenAtSource.FILE in (first.taken_at_source, second.taken_at_source):
        return False
    apart = first.taken_at.replace(tzinfo=None) - second.taken_at.replace(tzinfo=None)
    return abs(apart.total_seconds()) <= _MOMENT_S


def _is_alike(one: bytes, other: bytes) -> bool:
    from search.duplicates import turns, unpack

    if len(one) != len(other):
        return False
    first, second = unpack([one, other])
    return bool(turns(first, second))
