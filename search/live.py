"""The vector index that answers: the published generation where it lies, or a server's, with later commits on top."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np

from search.errors import IndexMismatch, IndexUnavailable
from search.generations.manifest import Unsound
from search.plurals import count_of
from search.relevance import BACKGROUND
from search.types import Problem, ProblemKind
from search.vectors import normalize
from search.vectors.exact import ExactIndex
from search.vectors.mapped import MappedIndex

if TYPE_CHECKING:
    from search.catalog import Catalog, Changes, EncoderRow
    from search.generations import Generation, Generations
    from search.generations.manifest import EncoderFiles
    from search.mirror import Mirror
    from search.types import Publication, Vectors
    from search.vectors import VectorIndex

_SAMPLE = 1000  # vectors searched to see that each finds itself
_MOST_LAID_OVER = 10_000  # vectors in memory from which a newer generation, where they lie in files, is moved to
_PATIENCE_S = 60.0  # without a server that failed, before it is asked again
_TIE = 1e-3  # cosines closer than that are as good as equal


class LiveIndex:
    """The index of one model's vectors, as of the catalog's last commit. Not for two threads at a time.

    tell: told, in a sentence, what the user should know.   mirror: opens an index on a server by its URL.
    """

    def __init__(
        self,
        catalog: Catalog,
        generations: Generations | None,
        tell: Callable[[str], None],
        mirror: Callable[[str], Mirror] | None = None,
    ) -> None:
        self._catalog = catalog
        self._generations = generations
        self._tell = tell
        self._mirror = mirror
        self._away_until = 0.0  # when the server of an index is to be asked again
        self._index: VectorIndex | None = None
        self._reflects = (0, -1)  # encoder and commit
        self._photos = 0  # present at that commit
        self._over: tuple[int | None, str | None, str] = None, None, ""  # what was published when it was filled
        self._pushed = -1  # the commit that a server had then
        self._background: Vectors | None = None

    def of(self, row: EncoderRow) -> VectorIndex:
        """Return the index of a model's vectors, brought up to the catalog's last commit.

        Who lives long moves to a newer generation once many vectors came since its own: they need not stay in memory.
        """
        said = self._catalog.publication()
        if self._away_until and monotonic() > self._away_until:
            self._index, self._away_until = None, 0.0
        if self._index is None or self._reflects != (row.id, said.seq):
            over = (said.number, said.on_server, said.index_mark.partition(" ")[0])
            moved = over[1:] != self._over[1:]  # to a server, from it, or filled anew there
            index = None if moved else self._topped_up(row)
            newer = (over, said.index_seq) != (self._over, self._pushed)
            if index is None or (newer and index.laid_over >= _MOST_LAID_OVER):
                self._over, self._pushed = over, said.index_seq
                index = self._filled(row, said)
            self._index = index
            self._background = None
            if without := self._photos - len(self._index):
                self._tell(
                    f"left out: {count_of(without, 'photo')} without a sound vector by {row.name}; run 'search check'"
                )
        return self._index

    def degrade(self) -> bool:
        """Go on without the server for a while, after it failed; False where there is nothing to go on with."""
        if self._generations is None or not self._catalog.publication().on_server:
            return False
        if not self._away_until:  # else another query, begun before, found out first
            self._index, self._away_until = None, monotonic() + _PATIENCE_S
        return True

    def background(self, row: EncoderRow) -> Vectors:
        """Return photos taken evenly over the library, (M, D), to know what an unrelated photo scores."""
        if self._background is None:
            _, self._background = self.of(row).sample(BACKGROUND)
        return self._background

    def misplaced(self, row: EncoderRow) -> list[Problem]:
        """Search a sample of vectors in the index: each must find its own photo first, or one just like it."""
        ids = self._catalog.all_ids()
        if not len(ids):
            return []
        found, vectors = self._catalog.embeddings(row, ids[:: max(1, len(ids) // _SAMPLE)].tolist())
        vectors = normalize(vectors)
        best, scores = self.of(row).search(vectors, 1)
        own = np.einsum("nd,nd->n", vectors, vectors)
        wrong = found[(best[:, 0] != found) & (scores[:, 0] < own - _TIE)]
        loss = "nothing is lost: the index is made anew from the catalog"
        return [
            Problem(ProblemKind.INDEX_DAMAGED, f"photo {id_} does not find itself", loss, id=id_)
            for id_ in wrong.tolist()
        ]

    def _topped_up(self, row: EncoderRow) -> VectorIndex | None:
        """Bring the index in memory up to date; None if there is none of this model or it must be made anew."""
        encoder_id, seq = self._reflects
        index = self._index
        if index is None or encoder_id != row.id:
            return None
        try:
            with self._catalog.changes(row, seq) as changes:
                if changes.rebuild:
                    return None
                self._apply(changes, index, row)
        except IndexUnavailable:
            return None
        return index

    def _apply(self, changes: Changes, index: VectorIndex, row: EncoderRow) -> None:
        index.remove(changes.gone)
        for ids, vectors in changes.added:
            index.add(ids, normalize(vectors))
        self._reflects, self._photos = (row.id, changes.seq), changes.photos

    def _filled(self, row: EncoderRow, said: Publication) -> VectorIndex:
        """Lay what was committed since over what a server has, else the published generation, else nothing."""
        if self._mirror and said.on_server and not self._away_until and self._catalog.encoder() == row:
            try:
                return self._on_server(row, self._mirror(said.on_server))
            except (IndexUnavailable, IndexMismatch) as error:
                if not self.degrade():
                    raise
                self._tell(f"{error.message}; answering from the index in the library's folder")
        return self._local(row)

    def _on_server(self, row: EncoderRow, mirror: Mirror) -> VectorIndex:
        index, changes = mirror.index(row)
        self._reflects, self._photos = (row.id, changes.seq), changes.photos
        return index

    def _local(self, row: EncoderRow) -> VectorIndex:
        """Lay what was committed since over the published generation, else over nothing."""
        with self._base() as base:
            since = base.manifest.seq if base else -1
            with self._catalog.changes(row, since) as changes:
                known = base.encoder(row.fingerprint) if base and not changes.rebuild else None
                index: VectorIndex = _mapped(base, known) if base and known else ExactIndex(row.dim)
                self._apply(changes, index, row)
        return index

    @contextmanager
    def _base(self) -> Iterator[Generation | None]:
        """Hold the published generation; None if there is none that can be used."""
        found = None
        if self._generations is not None:
            try:
                found = self._generations.current(self._catalog)
            except (Unsound, OSError) as error:
                self._tell(f"the index generation {error}; the catalog answers alone; run 'search rebuild'")
        try:
            yield found
        finally:
            if found is not None:
                found.close()


def _mapped(base: Generation, encoder: EncoderFiles) -> MappedIndex:
    """An encoder's vectors in a generation; photos whose file was not found when it was made are left out."""
    index = MappedIndex(*base.vectors(encoder.id), base.codes(encoder.id))
    index.remove(base.gone)
    return index
