"""How a query is answered: its terms become one vector, the filter a selection, the nearest photos hits.

A text that is too long for the model becomes several vectors, one for each of its clauses, and the photos are those
which satisfy every clause best: by the lowest of their standings among the library's photos.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search import query as queries
from search.errors import PhotoError, UsageError
from search.library import choosing
from search.library.texts import Texts, by_clause, is_in_another_script, remembering
from search.query import Kind, Query, Term
from search.relevance import DEFAULT_CUT, Calibration, calibrate
from search.types import Answer, ClauseScore, Filter, Hit
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog, EncoderRow
    from search.library.seams import Seams
    from search.types import Ids, Photo, Vectors
    from search.vectors import VectorIndex

    Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Sought:
    """A query as vectors: whole, (1, D), and, (Q, D), those that each must hold: its clauses', else itself."""

    whole: Vectors
    clauses: tuple[str, ...]
    vectors: Vectors


def answer(
    seams: Seams,
    asked: Query,
    k: int,
    *,
    filter: Filter | None = None,
    min_relevance: float | None = 0.0,
    diverse: bool = False,
    without: Sequence[int] = (),
    templates: Sequence[str] = (),
    examples: bool = False,
) -> Answer:
    """Return the k photos that fit best; `Library.answer` has the words."""
    started = perf_counter()
    row = seams.model.answering()
    with seams.lock:
        seams.live.of(row).prepare()
    meant, named = _with_photos(seams, asked, row)
    sought = _sought(seams, row, meant, templates)
    in_words = all(term.kind is Kind.TEXT for term in meant.terms)
    bank = seams.model.bank(row) if in_words else None
    selection = seams.catalog.select(filter or Filter())
    without = [*without, *(() if examples else named)]
    pool = choosing.pool_size(k, diverse=diverse)
    with seams.lock:
        index = seams.live.of(row)
        background = seams.live.background(row)
        known = [calibrate(v, background=background, bank=bank, photos=len(index)) for v in sought.vectors]
        candidates = len(index) if selection is None else len(selection)
        wanted = min(pool + len(without), max(candidates, 1))
        ids, scores, each = _nearest(index, sought, known, wanted, selection)
    found = np.flatnonzero(~np.isin(ids, without))[:pool]
    ids, scores, each = ids[found], scores[found], each[:, found]
    vectors = choosing.vectors_of(seams.catalog, row, ids)
    meanings = np.stack([c.relevance(by_one, vectors) for c, by_one in zip(known, each, strict=True)])  # (Q, n)
    lowest = dict(zip(ids.tolist(), meanings.min(axis=0).tolist(), strict=True))
    chosen = choosing.choose(
        ids,
        scores,
        meanings.max(axis=0) if min_relevance is None else meanings.min(axis=0),  # some clause holds, or all
        vectors,
        k=k,
        cut=choosing.cut_of(min_relevance, known[0]),
        diverse=diverse,
    )
    clauses = dict(zip(ids.tolist(), _clauses(sought, each, meanings, chosen.cut or DEFAULT_CUT), strict=True))
    photos = {photo.id: photo for photo in seams.catalog.get(chosen.ids.tolist())}
    hits = tuple(
        Hit(score, lowest[id_], photos[id_], clauses[id_])
        for id_, score in zip(chosen.ids.tolist(), chosen.scores.tolist(), strict=True)
        if id_ in photos
    )
    return Answer(
        query=str(asked),
        encoder=row.name,
        hits=hits,
        candidates=candidates - _excluded(seams.catalog, without, selection),
        cut=chosen.cut,
        below=chosen.below,
        best=chosen.best,
        clauses=sought.clauses,
        seconds=perf_counter() - started,
    )


def _nearest(
    index: VectorIndex, sought: _Sought, calibrations: Sequence[Calibration], k: int, within: Ids | None
) -> tuple[Ids, Scores, Scores]:
    """Return the best ids, (n,), best first, their scores, (n,), and those by each of the vectors, (Q, n)."""
    if not sought.clauses:
        (ids,), (scores,) = index.search(sought.whole, k, within=within)
        return ids[ids >= 0], scores[ids >= 0], scores[None, ids >= 0]
    from search.vectors.minimum import scores_of, search_minimum

    ids, each = search_minimum(index, sought.vectors, [c.standing for c in calibrations], k, within=within)
    return ids, scores_of(index, sought.whole, ids)[0], each


def _sought(seams: Seams, row: EncoderRow, asked: Query, templates: Sequence[str]) -> _Sought:
    texts = _texts(seams, row, asked, templates)
    sources = {kind: remembering(vectors_of) for kind, vectors_of in _vectors_of(seams, row, texts).items()}
    parts = by_clause(asked, texts) if texts else {}
    if parts:
        sources[Kind.TEXT](list(parts))  # all of them at once
    whole = queries.embed(asked, sources)
    each = [queries.embed(part, sources) for part in parts.values()]
    return _Sought(whole, tuple(parts), np.concatenate(each) if each else whole)


def _texts(seams: Seams, row: EncoderRow, asked: Query, templates: Sequence[str]) -> Texts | None:
    """Open what embeds the texts; None where there are none."""
    words = [term.value for term in asked.of(Kind.TEXT)]
    if not words:
        return None
    tower = seams.model.text_tower(row)
    if tower.english_only and is_in_another_script(words):
        seams.tell(
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
            if _is_as_indexed(known) and len(seams.catalog.embeddings(row, [known.id])[0]):
                term = Term(Kind.PHOTO, str(known.id), term.weight)
        terms.append(term)
    return Query(tuple(terms)), ids


def _present(seams: Seams, id_: int) -> int:
    known = seams.known(id_)
    if known is None:
        raise UsageError(f"photo {id_} is not in the library")
    if known.gone_at:
        raise UsageError(f"photo {id_} is gone: its file was not found by the last run")
    return id_


def _is_as_indexed(photo: Photo) -> bool:
    """Whether a photo's vector still stands for its file; of one that can't be reached there is no other."""
    try:
        found = os.stat(photo.path)
    except OSError:
        return True
    return (found.st_size, found.st_mtime_ns) == (photo.size_bytes, photo.mtime_ns)


def _clauses(sought: _Sought, each: Scores, meanings: Scores, cut: float) -> list[tuple[ClauseScore, ...]]:
    """What each photo is by each clause, (Q, n) → n; empty ones where there are no clauses."""
    columns = zip(each.T.tolist(), meanings.T.tolist(), strict=True)
    return [
        tuple(
            ClauseScore(text, score, meaning, meaning >= cut)
            for text, score, meaning in zip(sought.clauses, scores, relevances, strict=False)
        )
        for scores, relevances in columns
    ]


def _vectors_of(seams: Seams, row: EncoderRow, texts: Texts | None) -> dict[Kind, Callable[[list[str]], Vectors]]:
    """How the values of each kind of term become unit rows (N, D)."""
    sources = {
        Kind.IMAGE: lambda paths: _image_vectors(seams, row, paths),
        Kind.PHOTO: lambda ids: _photo_vectors(seams.catalog, row, ids),
    }
    return {Kind.TEXT: texts.vectors, **sources} if texts else sources


def _image_vectors(seams: Seams, row: EncoderRow, paths: list[str]) -> Vectors:
    from search.photos.decode import load

    encoder = seams.model.made_sure(row.fingerprint)
    images = []
    for path in paths:
        try:
            images.append(encoder.preprocess(load(path).image))
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


def _excluded(catalog: Catalog, without: Sequence[int], selection: Ids | None) -> int:
    """How many of the photos to leave out would else have been searched."""
    among = {photo.id for photo in catalog.get(without) if not photo.gone_at} if without else set()
    return len(among) if selection is None else int(np.isin(list(among), selection).sum())
