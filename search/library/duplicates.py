"""Duplicates of a library: vectors, hashes and pixels are brought together, and groups come out."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search import duplicates as core
from search.duplicates import (
    Duplicate,
    DuplicateGroup,
    DuplicateKind,
    DuplicateOptions,
    DuplicateReport,
    Links,
    Shortlist,
)
from search.encoders.preprocessing import Preprocessing
from search.errors import DamagedLibrary, LibraryBusy, NewerLibrary, StorageError, UsageError
from search.library.seams import spellings
from search.photos.likeness import FINE_PX, METHOD, VIEW_PX, View, agree, compare
from search.plurals import count_of
from search.types import HASH_BYTES, Filter, Picture, Progress, Skip, SkipReason, Stage

if TYPE_CHECKING:
    import threading
    from concurrent.futures import Future

    import numpy.typing as npt

    from search.catalog import Catalog
    from search.decoding.pool import Decoded, Decoders
    from search.duplicates import Hashes
    from search.library.seams import Seams
    from search.photos.likeness import Same
    from search.photos.sources import Sources
    from search.types import Ids, Photo
    from search.vectors import VectorIndex
    from search.vectors.pairs import Pairs

    Floats = npt.NDArray[np.float32]

_VIEWED, _FINE = (Preprocessing((px, px), resize_mode="squash") for px in (VIEW_PX, FINE_PX))
_VIEWS, _FINE_VIEWS = 512, 24  # kept in memory, 0.2 and 3.1 MB each
_AHEAD = 6  # photos to keep whose pixels are fetched before it is their turn
_BATCH = 256  # hashes committed together
_CHUNK = 2**16  # hashes read together
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001, a wall clock's


def chosen(seams: Seams, path: str | os.PathLike[str] | None) -> Ids:
    """Return the photos present, those in a folder if there is a path. Raises UsageError where there are none."""
    if path is None:
        return seams.catalog.all_ids()
    for folder in spellings(path):
        found = seams.catalog.select(Filter(folder=folder))
        if found is None:
            return seams.catalog.all_ids()
        if len(found):
            return found
    raise UsageError(f"no photo of the library is in {os.fspath(path)}")


# ---- hashes


def hash_lacking(
    seams: Seams, ids: Ids, *, progress: Callable[[Progress], None], stop: threading.Event | None
) -> None:
    """Give those of the photos that have no hash one, if the library can be written to."""
    lacking = np.intersect1d(ids, seams.catalog.without_picture(METHOD), assume_unique=True)
    if not len(lacking):
        return
    try:
        with seams.catalog.writing() as writer:
            put = functools.partial(writer.put_pictures, method=METHOD)
            _hash(seams, lacking, put, progress=progress, stop=stop)
    except (LibraryBusy, StorageError, NewerLibrary, DamagedLibrary) as error:
        lack = count_of(len(lacking), "photo has", "photos have")
        seams.notify(f"{lack} no hash yet, compared without: {error.message}")


def _hash(
    seams: Seams,
    ids: Ids,
    put: Callable[[Sequence[Picture]], None],
    *,
    progress: Callable[[Progress], None],
    stop: threading.Event | None,
) -> None:
    """Give photos their hash, from their files; batch by batch, so that a run cut short is not lost.

    put: commits.   A file that can't be read, or is not what was indexed, is left for the next time.
    """
    from search.decoding.pool import ahead, lend

    sources = seams.sources()
    with lend() as decoders:
        batch: list[Picture] = []

        def submit(photo: Photo) -> Future[Decoded | Skip]:
            return decoders.submit(photo.path, _VIEWED, content=sources.content(photo.path, whole=True))

        for done, (photo, found) in enumerate(ahead(submit, _photos_of(seams, ids), 16), start=1):
            if not isinstance(found, Skip) and found.content_hash.hex() == photo.content_hash:
                batch.append(Picture(photo.id, found.likeness.hash, found.likeness.sharpness))
            progress(Progress(Stage.HASH, done, len(ids)))
            stopping = stop is not None and stop.is_set()
            if len(batch) == _BATCH or (batch and stopping):
                put(batch)
                batch = []
            if stopping:
                return
        if batch:
            put(batch)


def _photos_of(seams: Seams, ids: Ids) -> Iterator[Photo]:
    """Yield photos whose root is there."""
    online: dict[str, bool] = {}
    for start in range(0, len(ids), _BATCH):
        for photo in seams.catalog.get(ids[start : start + _BATCH].tolist()):
            if photo.root not in online:
                online[photo.root] = seams.sources().is_there(photo.root)
            if online[photo.root]:
                yield photo


def _hashes(catalog: Catalog, ids: Ids) -> tuple[Ids, Hashes]:
    """Return the ids that have hashes, ascending, and these."""
    known: list[int] = []
    parts = [np.empty((0, 8, 8), np.uint8)]
    for start in range(0, len(ids), _CHUNK):
        pictures = [
            picture
            for picture in catalog.pictures(METHOD, ids[start : start + _CHUNK].tolist())
            if len(picture.hash) == HASH_BYTES
        ]
        known += [picture.id for picture in pictures]
        parts.append(core.unpack([picture.hash for picture in pictures]))
    return np.array(known, np.int64), np.concatenate(parts)


# ---- pixels


class _Pixels:
    """Views of photos, decoded ahead; the latest stay."""

    def __init__(
        self, decoders: Decoders, sources: Sources, photos: Mapping[int, Photo], size: Preprocessing, *, most: int
    ) -> None:
        self._sources = sources
        self._size, self._most = size, most
        self.skipped: dict[int, Skip] = {}
        self._decoders = decoders
        self._photos = photos
        self._views: OrderedDict[int, Future[Decoded | Skip]] = OrderedDict()

    def fetch(self, ids: Iterable[int]) -> None:
        """Begin to decode what is not there yet."""
        for id_ in ids:
            if id_ in self._views:
                self._views.move_to_end(id_)
            else:
                path = self._photos[id_].path
                self._views[id_] = self._decoders.submit(path, self._size, content=self._sources.content(path))
        while len(self._views) > self._most:
            self._views.popitem(last=False)[1].cancel()

    def view(self, id_: int) -> View | None:
        """Return a photo's view; None if its file can't be read or is not what was indexed."""
        if id_ in self.skipped:
            return None
        self.fetch([id_])
        found, photo = self._views[id_].result(), self._photos[id_]
        if not isinstance(found, Skip) and found.content_hash.hex() != photo.content_hash:
            found = Skip(photo.path, SkipReason.UNSTABLE, "the file changed since it was indexed")
        if isinstance(found, Skip):
            self.skipped[id_] = found
            return None
        return View(found.pixels, min(photo.info.width, photo.info.height))


# ---- all together


@dataclass(slots=True)
class _Search:
    """One look for duplicates; `left` are the photos that no stronger group has left out so far."""

    seams: Seams
    index: VectorIndex
    levels: core.Levels
    options: DuplicateOptions
    progress: Callable[[Progress], None]
    stop: threading.Event | None
    left: Ids
    near: Pairs | None = None
    photos: dict[int, Photo] = field(default_factory=dict)
    sharpness: dict[int, float] = field(default_factory=dict)
    found: list[DuplicateGroup] = field(default_factory=list)
    skipped: dict[int, Skip] = field(default_factory=dict)
    gone: list[int] = field(default_factory=list)

    def stopping(self) -> bool:
        return self.stop is not None and self.stop.is_set()

    def learn(self, ids: Iterable[int]) -> None:
        """Read what is known of photos that are to be compared."""
        new = [id_ for id_ in ids if id_ not in self.photos]
        self.photos.update((photo.id, photo) for photo in self.seams.catalog.get(new))
        known = self.seams.catalog.pictures(METHOD, new)
        self.sharpness.update((picture.id, picture.sharpness) for picture in known)

    def best_first(self, ids: Iterable[int], kind: DuplicateKind) -> list[int]:
        """Sort photos, the one to keep first; those that were forgotten meanwhile are left out."""
        here, sharpness = [id_ for id_ in ids if id_ in self.photos], self.sharpness_for(kind)
        return sorted(here, key=lambda id_: core.worth(self.photos[id_], sharpness.get(id_)))

    def sharpness_for(self, kind: DuplicateKind) -> dict[int, float]:
        """Return how sharp photos are, where that says which shot is better: not of one picture, coded twice."""
        return self.sharpness if kind in (DuplicateKind.SAME_MOMENT, DuplicateKind.SIMILAR) else {}

    def look_around(self) -> None:
        """Find each photo's neighbours among those that are left."""
        least = min(core.NEAR, *self.levels)
        with self.seams.lock:
            self.near = self.index.near_pairs(core.NEAREST, least=least, within=self.left)

    def is_hidden(self) -> bool:
        """Whether a photo has as many neighbours as are looked for, and some that no longer count."""
        assert self.near is not None
        first, second = self.near.first, self.near.second
        one, other = np.concatenate([first, second]), np.concatenate([second, first])
        ids, counts = np.unique(one, return_counts=True)
        crowded = np.intersect1d(ids[counts >= core.NEAREST], self.left)
        return bool((np.isin(one, crowded) & ~np.isin(other, self.left)).any())

    def cosines(self, keep: int, others: Sequence[int]) -> Floats:
        vectors = self.index.vectors(np.array([keep, *others], np.int64))
        scores: Floats = vectors[1:] @ vectors[0]
        return scores

    def add(self, kind: DuplicateKind, group: core.Group) -> None:
        """Take a group in: among weaker kinds the photo that is kept stands for the others."""
        self.gone += [id_ for id_, _ in group.others]
        if kind in self.options.kinds:
            self.found.append(self._described(kind, group))

    def settle(self) -> None:
        """Leave out, from the next kind on, whom another photo stands for."""
        self.left = np.setdiff1d(self.left, self.gone)
        self.gone.clear()

    def _described(self, kind: DuplicateKind, group: core.Group) -> DuplicateGroup:
        keep = self.photos[group.keep]
        ids, sharpness = [id_ for id_, _ in group.others], self.sharpness_for(kind)
        scores = self.cosines(group.keep, ids) if kind is not DuplicateKind.EXACT else np.ones(len(ids))
        return DuplicateGroup(
            kind,
            self._reason(kind, keep, [self.photos[id_] for id_ in ids]),
            keep,
            tuple(
                Duplicate(self.photos[id_], _score(score), how, core.why_kept(keep, self.photos[id_], sharpness))
                for (id_, how), score in zip(group.others, scores.tolist(), strict=True)
            ),
        )

    def _reason(self, kind: DuplicateKind, keep: Photo, others: Sequence[Photo]) -> str:
        if kind is DuplicateKind.EXACT:
            return "the same bytes"
        if kind is DuplicateKind.SAME_PICTURE:
            return "the same picture"
        if kind is DuplicateKind.SIMILAR:
            return f"cosine {self.levels.similar:.3f} or more"
        moments = [_moment(photo) for photo in (keep, *others)]
        return f"{keep.info.camera}, within {max(moments) - min(moments):.3g} s"


def _score(cosine: float) -> float | None:
    """Vectors of zeros are those that are not there."""
    return round(cosine, 6) if cosine else None


def _moment(photo: Photo) -> float:
    taken = photo.info.taken_at
    return (taken.replace(tzinfo=None) - _EPOCH).total_seconds() if taken else 0.0


def find(
    seams: Seams,
    ids: Ids,
    options: DuplicateOptions,
    *,
    progress: Callable[[Progress], None],
    stop: threading.Event | None,
) -> DuplicateReport:
    """Return groups of duplicates among some photos; `Library.duplicates` has the words."""
    started = perf_counter()
    row = seams.model.answering()
    with seams.lock:
        index = seams.index.live.of(row)
        levels = core.levels(seams.index.live.background(row), len(index))
    if options.threshold is not None:
        levels = core.Levels(levels.alike, options.threshold)
    search = _Search(seams, index, levels, options, progress, stop, ids)
    unknown = 0
    _exact(search)
    search.settle()
    if options.reaches(DuplicateKind.SAME_PICTURE) and not search.stopping():
        search.look_around()
        unknown = _same_picture(search)
    if options.reaches(DuplicateKind.SAME_MOMENT) and not search.stopping():
        _same_moment(search)
    if options.reaches(DuplicateKind.SIMILAR) and not search.stopping():
        _similar(search)
    strength = {kind: number for number, kind in enumerate(core.STRENGTH)}
    return DuplicateReport(
        groups=tuple(sorted(search.found, key=lambda group: (strength[group.kind], group.keep.path))),
        photos=len(ids),
        threshold=levels.similar,
        unknown=unknown,
        skipped=tuple(search.skipped.values()),
        seconds=perf_counter() - started,
        interrupted=search.stopping(),
    )


def _exact(search: _Search) -> None:
    chosen_ids = set(search.left.tolist())
    for copies in search.seams.catalog.copies():
        here = [id_ for id_ in copies if id_ in chosen_ids]
        if len(here) > 1:
            search.learn(here)
            keep, *others = search.best_first(here, DuplicateKind.EXACT)
            search.add(DuplicateKind.EXACT, core.Group(keep, tuple((id_, "the same bytes") for id_ in others)))


def _same_picture(search: _Search) -> int:
    """Find the same pictures; return how many photos have no hash, so that they can't be told from others."""
    from search.decoding.pool import lend

    assert search.near is not None
    ids, hashes = _hashes(search.seams.catalog, search.left)
    unknown = len(search.left) - len(ids)
    if not len(ids):
        return unknown
    first, second, _ = search.near
    links = Links(core.either(core.by_hash(ids, hashes), core.by_vector(first, second, ids, hashes)))
    search.learn(links.ids.tolist())
    order = search.best_first(links.ids.tolist(), DuplicateKind.SAME_PICTURE)
    with lend() as decoders:
        looking = _Looking(search, decoders, order, _Hashed(ids, hashes))
        try:
            for group in core.groups(links, order, looking.same):
                search.add(DuplicateKind.SAME_PICTURE, group)
        finally:
            search.skipped.update(looking.skipped)
    search.settle()
    return unknown


@dataclass(frozen=True, slots=True)
class _Hashed:
    """Hashes by the ids of their photos, ascending."""

    ids: Ids
    hashes: Hashes

    def of(self, id_: int) -> Hashes:
        found: Hashes = self.hashes[np.searchsorted(self.ids, id_)]
        return found


class _Looking:
    """Tells by their pixels which photos show the same picture.   order: the photos to keep first, first."""

    def __init__(self, search: _Search, decoders: Decoders, order: list[int], hashes: _Hashed) -> None:
        sources = search.seams.sources()
        self._search, self._order, self._hashes = search, order, hashes
        self._place = {id_: number for number, id_ in enumerate(order)}
        self._pixels = _Pixels(decoders, sources, search.photos, _VIEWED, most=_VIEWS)
        self._fine = _Pixels(decoders, sources, search.photos, _FINE, most=_FINE_VIEWS)

    @property
    def skipped(self) -> dict[int, Skip]:
        """Photos that could not be looked at."""
        return self._pixels.skipped | self._fine.skipped

    def same(self, keep: int, others: list[int]) -> dict[int, str]:
        """Return which of some photos show what this one does, and how they differ all the same."""
        if self._search.stopping():
            return {}
        others = [id_ for id_ in others if id_ in self._place]
        place = self._place[keep]
        self._pixels.fetch([keep, *others])
        for later in self._order[place + 1 : place + 1 + _AHEAD]:
            self._pixels.fetch([later])
        view = self._pixels.view(keep)
        found = {id_: how for id_ in others if view and (how := self._how(id_, keep, view))}
        self._search.progress(Progress(Stage.COMPARE, place + 1, len(self._order)))
        return found

    def _how(self, id_: int, keep: int, view: View) -> str:
        """Say how a photo differs from one that shows the same; "" if it shows something else, or can't be read."""
        turns = core.turns(self._hashes.of(id_), self._hashes.of(keep))
        other = self._pixels.view(id_) if turns else None
        found = compare(other, view, turns) if other else None
        if found is None or not self._agree(id_, keep, found):
            return ""
        return found.in_words or _recoded(self._search.photos[keep], self._search.photos[id_])

    def _agree(self, id_: int, keep: int, same: Same) -> bool:
        """Look at two photos once more, finely."""
        self._fine.fetch([id_, keep])
        one, other = self._fine.view(id_), self._fine.view(keep)
        return one is not None and other is not None and agree(one, other, same)


def _recoded(keep: Photo, other: Photo) -> str:
    if (keep.info.width, keep.info.height) != (other.info.width, other.info.height):
        return "another size"
    return "coded anew" if keep.info.format == other.info.format else "another format"


def _same_moment(search: _Search) -> None:
    shots = core.by_time(*search.seams.catalog.shots(), search.options.within_s)
    _by_cosine(search, DuplicateKind.SAME_MOMENT, core.among(shots, search.left), search.levels.alike)


def _similar(search: _Search) -> None:
    if search.is_hidden():  # by its own copies, say
        search.look_around()
    assert search.near is not None
    first, second, scores = search.near
    close = scores >= search.levels.similar
    pairs = core.among(Shortlist(first[close], second[close]), search.left)
    _by_cosine(search, DuplicateKind.SIMILAR, pairs, search.levels.similar)


def _by_cosine(search: _Search, kind: DuplicateKind, pairs: Shortlist, least: float) -> None:
    links = Links(pairs)
    search.learn(links.ids.tolist())

    def hold(keep: int, others: list[int]) -> dict[int, str]:
        if search.stopping():
            return {}
        others = [id_ for id_ in others if id_ in search.photos]
        scores = search.cosines(keep, others).tolist()
        apart = [abs(_moment(search.photos[id_]) - _moment(search.photos[keep])) for id_ in others]
        return {
            id_: f"{seconds:.3g} s apart" if kind is DuplicateKind.SAME_MOMENT else f"cosine {score:.3f}"
            for id_, score, seconds in zip(others, scores, apart, strict=True)
            if score >= least
        }

    for group in core.groups(links, search.best_first(links.ids.tolist(), kind), hold):
        search.add(kind, group)
    search.settle()
