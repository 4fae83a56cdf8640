"""How a query is answered: its terms become one vector, the filter a selection, the nearest photos hits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from search import query as queries
from search.errors import PhotoError, UsageError
from search.library import choosing
from search.query import Kind
from search.relevance import calibrate
from search.types import Answer, Filter, Hit
from search.vectors import normalize

if TYPE_CHECKING:
    from search.catalog import Catalog, EncoderRow
    from search.library.seams import Seams
    from search.query import Query
    from search.types import Ids, Vectors


def answer(
    seams: Seams,
    asked: Query,
    k: int,
    *,
    filter: Filter | None = None,
    min_relevance: float | None = 0.0,
    diverse: bool = False,
    without: Sequence[int] = (),
) -> Answer:
    """Return the k photos that fit best; `Library.answer` has the words."""
    started = perf_counter()
    row = seams.model.answering()
    with seams.lock:
        seams.live.of(row).prepare()
    vector = queries.embed(asked, _vectors_of(seams, row))
    in_words = all(term.kind is Kind.TEXT for term in asked.terms)
    bank = seams.model.bank(row) if in_words else None
    selection = seams.catalog.select(filter or Filter())
    pool = choosing.pool_size(k, diverse=diverse)
    with seams.lock:
        index = seams.live.of(row)
        candidates = len(index) if selection is None else len(selection)
        wanted = min(pool + len(without), max(candidates, 1))
        best, scores = (found[0] for found in index.search(vector, wanted, within=selection))
        background = seams.live.background(row)
    calibration = calibrate(vector[0], background=background, bank=bank, photos=len(index))
    found = (best >= 0) & ~np.isin(best, without)
    ids, scores = best[found][:pool], scores[found][:pool]
    vectors = choosing.vectors_of(seams.catalog, row, ids)
    chosen = choosing.choose(
        ids,
        scores,
        calibration.relevance(scores, vectors),
        vectors,
        k=k,
        cut=choosing.cut_of(min_relevance, calibration),
        diverse=diverse,
    )
    photos = {photo.id: photo for photo in seams.catalog.get(chosen.ids.tolist())}
    hits = tuple(
        Hit(float(score), float(meaning), photos[id_])
        for id_, score, meaning in zip(chosen.ids.tolist(), chosen.scores, chosen.relevance, strict=True)
        if id_ in photos
    )
    return Answer(
        query=str(asked),
        encoder=row.name,
        hits=hits,
        candidates=candidates - _excluded(seams.catalog, without, selection),
        truncated_tokens=_truncated(seams, row, asked),
        seconds=perf_counter() - started,
        cut=chosen.cut,
        below=chosen.below,
        best=chosen.best,
    )


def _vectors_of(seams: Seams, row: EncoderRow) -> dict[Kind, Callable[[list[str]], Vectors]]:
    """How the values of each kind of term become unit rows (N, D)."""
    return {
        Kind.TEXT: lambda texts: seams.model.text_tower(row).encode_texts(texts),
        Kind.IMAGE: lambda paths: _image_vectors(seams, row, paths),
        Kind.PHOTO: lambda ids: _photo_vectors(seams.catalog, row, ids),
    }


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


def _truncated(seams: Seams, row: EncoderRow, asked: Query) -> int:
    texts = [term.value for term in asked.of(Kind.TEXT)]
    if not texts:
        return 0
    tower = seams.model.text_tower(row)
    return sum(max(0, length - tower.context_length) for length in tower.count_tokens(texts))


def _excluded(catalog: Catalog, without: Sequence[int], selection: Ids | None) -> int:
    """How many of the photos to leave out would else have been searched."""
    among = {photo.id for photo in catalog.get(without) if not photo.gone_at} if without else set()
    return len(among) if selection is None else int(np.isin(list(among), selection).sum())
