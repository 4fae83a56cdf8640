"""Queries that a library answers well, for who has not asked anything yet."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from search import suggestions
from search.errors import EncoderMismatch
from search.library import answering
from search.query import Kind, Query, Term
from search.suggestions import LEAST_PHOTOS, Kept
from search.types import Filter, Suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from search.library.seams import Seams
    from search.suggestions import Wording

_KEPT = 12  # that are looked for, for whoever asks for more than the first few
_ENOUGH = 3  # with fewer it is looked again once there are twice as many photos


def known(seams: Seams) -> tuple[Suggestion, ...] | None:
    """Return what was found before, if it still holds: by the same model, and not for want of photos.

    Where a model is asked for that made none of the vectors nothing is known: photos are looked through all the same.
    """
    folder = seams.catalog.folder
    found = suggestions.kept(folder) if folder else None
    try:
        row = seams.model.row() if found else None
    except EncoderMismatch:
        return None
    if found is None or row is None or found.encoder != row.fingerprint:
        return None
    if len(found.suggestions) < _ENOUGH and seams.catalog.count() >= max(2 * found.photos, LEAST_PHOTOS):
        return None
    return found.suggestions


def look_for(seams: Seams, n: int) -> tuple[Suggestion, ...]:
    """Look for up to n queries, and keep them. Raises as `answering.answer` does."""
    row = seams.model.answering()
    with seams.lock:
        photos, vectors = len(seams.index.live.of(row)), seams.index.live.background(row)
    found: tuple[Suggestion, ...] = ()
    if photos >= LEAST_PHOTOS:
        # Texts of one length need no padding.
        asked = sorted(suggestions.wordings(), key=lambda one: len(one.query))
        texts = seams.model.text_tower(row).encode_texts([one.query for one in asked])
        sure = suggestions.ranked(asked, texts, vectors, bank=seams.model.bank(row))
        found = tuple(islice(_answered(seams, sure), max(n, _KEPT)))
    if folder := seams.catalog.folder:
        suggestions.keep(folder, Kept(row.fingerprint, photos, found))
    return found[:n]


def _answered(seams: Seams, asked: Iterable[Wording]) -> Iterator[Suggestion]:
    """Yield the queries to which all photos together give an answer, not only those that were looked at."""
    wish = answering.Wish(1, Filter(), None, False, (), (), False, {})
    for one in asked:
        if hits := answering.answer(seams, Query((Term(Kind.TEXT, one.query),)), wish).hits:
            yield Suggestion(one.query, hits[0].relevance)
