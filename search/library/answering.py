"""How a query is answered: its terms become one vector, the filter a selection, the nearest photos hits.

A text that is too long for the model becomes several vectors, one for each of its clauses, and the photos are those
which satisfy every clause best: by the lowest of their standings among the library's photos.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search import query as queries
from search.addresses import is_remote, tars
from search.errors import DimensionError, IndexUnavailable, PhotoError, UnknownPhoto, UsageError
from search.library import choosing
from search.library.texts import Texts, by_clause, is_in_another_script, remembering
from search.query import Kind, Query, Term
from search.relevance import DEFAULT_CUT, TOGETHER, calibrate
from search.types import Answer, ClauseScore, Filter, Hit
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog, EncoderRow
    from search.library.choosing import Choice
    from search.library.seams import Seams
    from search.relevance import Bank, Calibration
    from search.types import Ids, Photo, Vector, Vectors
    from search.vectors import VectorIndex

    Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for beside the query itself; `Library.answer` has the words."""

    k: int
    filter: Filter
    min_relevance: float | None
    diverse: bool
    without: Sequence[int]
    templates: Sequence[str]
    examples: bool
    vectors: Mapping[str, Vector]


@dataclass(frozen=True, slots=True)
class _Sought:
    """A query as vectors: whole, (1, D), and, (Q, D), those that each must hold: its clauses', else itself.

    bank: what a query in words is held against.   named: ids of the photos that are examples.
    """

    whole: Vectors
    clauses: tuple[str, ...]
    vectors: Vectors
    bank: Bank | None
    named: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """The best photos: ids and scores, (n,), best first; vectors, (n, D); score and relevance by each part, (Q, n).

    decisive: the relevance that is held against the cut, (n,).   candidates: photos that passed the filter.
    """

    ids: Ids
    scores: Scores
    vectors: Vectors
    each: Scores
    relevance: Scores
    decisive: Scores
    candidates: int


def answer(seams: Seams, asked: Query, wish: Wish) -> Answer:
    """Return the photos that fit best. Raises IndexUnavailable."""
    try:
        return _answer(seams, asked, wish)
    except IndexUnavailable as error:
        with seams.lock:
            if not seams.index.live.degrade():
                raise
        seams.tell_once(f"{error.message}; answering from the index in the library's folder")
        return _answer(seams, asked, wish)


def _answer(seams: Seams, asked: Query, wish: Wish) -> Answer:
    started = perf_counter()
    row = seams.model.answering()
    with seams.lock:
        seams.index.live.of(row).prepare()
    sought = _sought(seams, row, asked, wish)
    cut = choosing.cut_of(wish.min_relevance, by_words=sought.bank is not None)
    found = _find(seams, row, sought, wish, cut)
    chosen = choosing.choose(
        found.ids, found.scores, found.decisive, found.vectors, k=wish.k, cut=cut, diverse=wish.diverse
    )
    return Answer(
        query=str(asked),
        encoder=row.name,
        hits=_hits(seams.catalog, sought, found, chosen),
        candidates=found.candidates,
        cut=chosen.cut,
        below=chosen.below,
        best=chosen.best,
        clauses=sought.clauses,
        seconds=perf_counter() - started,
    )


def _find(seams: Seams, row: EncoderRow, sought: _Sought, wish: Wish, cut: float) -> _Found:
    """Return the best photos, so many that as many as are wanted reach the cut, if there are.

    Relevance follows the score but for what is usual for each photo, so that those which reach the cut lie among
    those which don't: it is looked further down as long as more are found there.
    """
    selection = seams.catalog.select(wish.filter)
    without = [*wish.without, *(() if wish.examples else sought.named)]
    with seams.lock:
        index = seams.index.live.of(row)
        background = seams.index.live.background(row)
        photos = len(index)
    passed = photos if selection is None else len(selection)
    candidates = passed - _excluded(seams.catalog, without, selection)
    known = [
        calibrate(vector, background=background, bank=sought.bank, photos=photos, among=passed)
        for vector in sought.vectors
    ]

    def look(depth: int) -> _Found:
        depth = max(depth, TOGETHER)
        wanted = min(depth + len(without), max(passed, 1))
        with seams.lock:
            ids, scores, each = _nearest(index, sought, known, wanted, selection, wish.filter)
        kept = np.flatnonzero(~np.isin(ids, without))[:depth]
        vectors = choosing.vectors_of(seams.catalog, row, ids[kept])
        relevance = np.stack([one.relevance(by, vectors) for one, by in zip(known, each[:, kept], strict=True)])
        # Some clause holds, unless it was said what all must reach.
        decisive = relevance.max(axis=0) if wish.min_relevance is None else relevance.min(axis=0)
        return _Found(ids[kept], scores[kept], vectors, each[:, kept], relevance, decisive, candidates)

    return choosing.deepened(look, choosing.pool_size(wish.k, diverse=wish.diverse), passed, cut)


def _hits(catalog: Catalog, sought: _Sought, found: _Found, chosen: Choice) -> tuple[Hit, ...]:
    """The photos chosen, as the catalog knows them; one that was removed meanwhile is left out."""
    place = {id_: number for number, id_ in enumerate(found.ids.tolist())}
    photos = {photo.id: photo for photo in catalog.get(chosen.ids.tolist())}
    holds = chosen.cut or DEFAULT_CUT
    return tuple(
        Hit(
            float(found.scores[at]),
            float(found.relevance[:, at].min()),
            photos[id_],
            _by_clause(sought.clauses, found.each[:, at], found.relevance[:, at], holds),
        )
        for id_ in chosen.ids.tolist()
        if id_ in photos
        for at in (place[id_],)
    )


def _nearest(
    index: VectorIndex,
    sought: _Sought,
    calibrations: Sequence[Calibration],
    k: int,
    within: Ids | None,
    where: Filter,
) -> tuple[Ids, Scores, Scores]:
    """Return the best ids, (n,), best first, their scores, (n,), and those by each of the vectors, (Q, n)."""
    if not sought.clauses:
        (ids,), (scores,) = index.search(sought.whole, k, within=within, where=where)
        return ids[ids >= 0], scores[ids >= 0], scores[None, ids >= 0]
    from search.vectors.minimum import scores_of, search_minimum

    ids, each = search_minimum(
        index, sought.vectors, [c.standing for c in calibrations], k, within=within, where=where
    )
    return ids, scores_of(index, sought.whole, ids)[0], each


def _sought(seams: Seams, row: EncoderRow, asked: Query, wish: Wish) -> _Sought:
    meant, named = _with_photos(seams, asked, row)
    texts = _texts(seams, row, meant, wish.templates)
    every = {**_vectors_of(seams, row, texts), Kind.VECTOR: lambda names: _given(wish.vectors, names, row)}
    sources = {kind: remembering(vectors_of) for kind, vectors_of in every.items()}
    parts = by_clause(meant, texts) if texts else {}
    if parts:
        sources[Kind.TEXT](list(parts))  # all of them at once
    whole = queries.embed(meant, sources)
    each = [queries.embed(part, sources) for part in parts.values()]
    in_words = all(term.kind is Kind.TEXT for term in meant.terms)
    return _Sought(
        whole,
        clauses=tuple(parts),
        vectors=np.concatenate(each) if each else whole,
        bank=seams.model.bank(row) if in_words else None,
        named=tuple(named),
    )


def _texts(seams: Seams, row: EncoderRow, asked: Query, templates: Sequence[str]) -> Texts | None:
    """Open what embeds the texts; None where there are none."""
    words = [term.value for term in asked.of(Kind.TEXT)]
    if not words:
        return None
    tower = seams.model.text_tower(row)
    if tower.english_only and is_in_another_script(words):
        seams.tell_once(
            f"{row.name} reads English, and a query is in another script: translate it, or index with a model of many "
            "languages, such as 'search index --reencode --model ViT-B-16-SigLIP2-256/webli'"
        )
    return Texts(tower, templates)


def _with_photos(seams: Seams, asked: Query, row: EncoderRow) -> tuple[Query, list[int]]:
    """Put photos of the library in the place of their files; return the query, and the photos it names.

    Raises UsageError for an id that is not here.
    """
    terms, ids = [], []
    for term in asked.terms:
        known = seams.known(term.value) if term.kind is Kind.IMAGE else None
        if term.kind is Kind.PHOTO:
            ids.append(_present(seams, int(term.value)))
        elif known and not known.gone_at:
            ids.append(known.id)
            if _is_as_indexed(seams, known) and len(seams.catalog.embeddings(row, [known.id])[0]):
                term = Term(Kind.PHOTO, str(known.id), term.weight)
        terms.append(term)
    return Query(tuple(terms)), ids


def _present(seams: Seams, id_: int) -> int:
    known = seams.known(id_)
    if known is None:
        raise UnknownPhoto(f"photo {id_} is not in the library")
    if known.gone_at:
        raise UsageError(f"photo {id_} is gone: its file was not found by the last run")
    return id_


def _is_as_indexed(seams: Seams, photo: Photo) -> bool:
    """Whether a photo's vector still stands for its file; of one that can't be reached there is no other.

    What is far away is not asked for: its vector is what is known of it.
    """
    if is_remote(photo.path):
        return True
    try:
        if tars(photo.path) and not seams.sources().is_plain(photo.path):
            now = seams.sources().stat(photo.path)
            return (now.size_bytes, now.mtime_ns) == (photo.size_bytes, photo.mtime_ns)
        found = os.stat(photo.path)
    except OSError:
        return True
    return (found.st_size, found.st_mtime_ns) == (photo.size_bytes, photo.mtime_ns)


def _by_clause(
    clauses: tuple[str, ...], scores: Scores, meanings: Scores, holds: float
) -> tuple[ClauseScore, ...]:
    """What a photo is by each clause, (Q,); nothing where there are no clauses."""
    each = zip(clauses, scores.tolist(), meanings.tolist(), strict=False)
    return tuple(ClauseScore(text, score, meaning, meaning >= holds) for text, score, meaning in each)


def _vectors_of(seams: Seams, row: EncoderRow, texts: Texts | None) -> dict[Kind, Callable[[list[str]], Vectors]]:
    """How the values of each kind of term become unit rows (N, D)."""
    sources = {
        Kind.IMAGE: lambda paths: _image_vectors(seams, row, paths),
        Kind.PHOTO: lambda ids: _photo_vectors(seams.catalog, row, ids),
    }
    return {Kind.TEXT: texts.vectors, **sources} if texts else sources


def _image_vectors(seams: Seams, row: EncoderRow, paths: list[str]) -> Vectors:
    from search.photos.decode import load, load_bytes

    encoder = seams.model.made_sure(row.fingerprint)
    images = []
    for path in paths:
        try:
            read = seams.sources().content(path)
            images.append(encoder.preprocess((load_bytes(*read()) if read else load(path)).image))
        except PhotoError as error:
            raise PhotoError(error.reason, f"can't read {path}: {error.message}") from error
    return encoder.encode_images(np.stack(images))


def _photo_vectors(catalog: Catalog, row: EncoderRow, ids: list[str]) -> Vectors:
    wanted = [int(id_) for id_ in ids]
    found, vectors = catalog.embeddings(row, wanted)
    row_of = {id_: row for row, id_ in enumerate(found.tolist())}
    if missing := [id_ for id_ in wanted if id_ not in row_of]:
        raise UsageError(f"the library has no vector of photo {missing[0]}")
    return normalize(vectors[[row_of[id_] for id_ in wanted]])


def _given(vectors: Mapping[str, Vector], names: list[str], row: EncoderRow) -> Vectors:
    for name in names:
        if name not in vectors:
            raise UsageError(f"there is no vector {name}")
        if vectors[name].shape != (row.dim,):
            raise DimensionError(f"{row.name} has vectors of {row.dim} numbers, {name} is {vectors[name].shape}")
        if not np.isfinite(vectors[name]).all() or not vectors[name].any():
            raise UsageError(f"{name} is no vector that points anywhere")
    return normalize(np.stack([vectors[name] for name in names]).astype(np.float32))


def _excluded(catalog: Catalog, without: Sequence[int], selection: Ids | None) -> int:
    """How many of the photos to leave out would else have been searched."""
    among = {photo.id for photo in catalog.get(without) if not photo.gone_at} if without else set()
    if selection is None or not among:
        return len(among)
    return int(np.isin(list(among), selection, assume_unique=True).sum())  # else it would sort millions for a few
