"""A library's vectors on a server: brought there by the writer, read with what was committed since laid on top.

The catalog says which store is the library's, and by a mark what it last was. Before anything is changed there, the
catalog names the mark that the store is to have; so a store that was left half changed is known to be ours as it was
before, and one that a catalog of older days would mistake for its own is told by a mark it never heard of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from search import generations
from search.errors import IndexUnavailable
from search.plurals import count_of
from search.vectors import normalize
from search.vectors.stored import StoredIndex
from search.vectors.stores import FORMAT, UNFILLED, Stamp, check_owner
from search.vectors.stores.declared import row_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.catalog import Catalog, Changes, EncoderRow, Writer
    from search.types import Ids, Publication, Vectors
    from search.vectors.stores import Store

_SHORT = 12  # letters of a fingerprint that tell models apart
_SOME = 5  # ids that a message lists
_LOOKS = 3  # at a store that was changed twice between a look at it and one at the catalog


@dataclass(frozen=True, slots=True)
class CatalogRows:
    """One model's vectors in the catalog, as unit rows."""

    catalog: Catalog
    row: EncoderRow

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        found, vectors = self.catalog.embeddings(self.row, ids.tolist())
        return found, normalize(vectors)

    def count(self) -> int:
        return self.catalog.count_vectors(self.row)

    def ids(self) -> Ids:
        return self.catalog.embedded(self.row)

    def sample(self, size: int) -> tuple[Ids, Vectors]:
        """Return about so many, spread evenly, without asking for all ids of a large library."""
        last = self.catalog.last_id()
        if last > 4 * size:
            found, vectors = self.vectors(np.unique(np.linspace(1, last, 2 * size).astype(np.int64)))
            if len(found) >= size:
                places = np.linspace(0, len(found) - 1, size).astype(np.int64)
                return found[places], vectors[places]
        ids = self.ids()
        return self.vectors(ids[:: max(1, len(ids) // max(size, 1))])

    def cameras(self) -> Sequence[str]:
        return self.catalog.cameras()


class Mirror:
    """What a store has of a library. Raises IndexUnavailable, IndexMismatch."""

    def __init__(self, catalog: Catalog, store: Store) -> None:
        self._catalog = catalog
        self.store = store

    # ---- reading

    def index(self, row: EncoderRow) -> tuple[StoredIndex, Changes]:
        """Return the index over the store, brought up to the catalog's last commit, and what that changed."""
        stamp = self._read(row)
        if stamp is None:
            raise IndexUnavailable(
                f"the index {self.store.place} is not filled with the vectors of {row.name}",
                hint="'search rebuild' does that",
            )
        index = StoredIndex(self.store, CatalogRows(self._catalog, row), row.dim)
        with self._catalog.changes(row, stamp.seq, keep=True) as changes:
            index.remove(changes.gone)
            for ids, vectors in changes.added:
                index.add(ids, normalize(vectors))
            if changes.rebuild:
                index.bury_strangers()
        return index, changes

    def _read(self, row: EncoderRow) -> Stamp | None:
        """The stamp as a reader finds it, beside a writer that may change both store and catalog meanwhile.

        The store is asked first: of what it then was the catalog was told before.
        """
        for _ in range(_LOOKS):
            found = self.store.stamp()
            said = self._catalog.publication()
            stamp = self._ours(found, said, row)
            if stamp is not None or found is None or found.fill != said.index_mark.partition(" ")[0]:
                return stamp
        return None

    def _ours(self, stamp: Stamp | None, said: Publication, row: EncoderRow) -> Stamp | None:
        """The stamp of a store that has this model's vectors as we left it; None if it must be filled."""
        if stamp is None:
            return None
        check_owner(stamp, said.uuid, self.store.place)
        marks = said.index_mark.split()
        ours = stamp.format == FORMAT and stamp.fill in marks[:1] and stamp.mark in marks[1:]
        of_model = (stamp.encoder, stamp.dim) == (row.fingerprint, row.dim)
        return stamp if ours and of_model and UNFILLED < stamp.seq <= said.seq else None

    # ---- writing

    def bring(self, writer: Writer, row: EncoderRow, *, anew: bool = False) -> None:
        """Bring the store up to the catalog's last commit; fill it if it is not ours yet, or `anew`."""
        said = self._catalog.publication()
        stamp = self._ours(self.store.stamp(), said, row) if said.index_mark else None
        if anew or stamp is None:
            self._fill(writer, row, said)
        else:
            self._push(writer, row, said, stamp)

    def _fill(self, writer: Writer, row: EncoderRow, said: Publication) -> None:
        check_owner(self.store.stamp(), said.uuid, self.store.place)
        fill, mark = f"{row.fingerprint[:_SHORT]}-{uuid4().hex}", uuid4().hex
        stamp = Stamp(said.uuid, row.fingerprint, row.dim, fill, mark)
        writer.note_index(mark=f"{fill} {mark}", seq=None)
        self.store.begin(stamp)
        with self._catalog.changes(row, -1) as changes:
            count = self._put(changes)
        self._finish(writer, replace(stamp, seq=changes.seq), count)

    def _push(self, writer: Writer, row: EncoderRow, said: Publication, stamp: Stamp) -> None:
        mark = uuid4().hex
        writer.note_index(mark=f"{stamp.fill} {stamp.mark} {mark}")
        with self._catalog.changes(row, stamp.seq, keep=True) as changes:
            self.store.delete(changes.gone)
            count = self._put(changes) + len(changes.gone)
        if changes.rebuild:
            self.store.delete(np.setdiff1d(self.store.ids(), self._catalog.known_ids(), assume_unique=True))
        self._finish(writer, replace(stamp, mark=mark, seq=changes.seq), count)

    def _put(self, changes: Changes) -> int:
        """Bring vectors there with what is known of their photos; return how many."""
        count = 0
        for ids, vectors in changes.added:
            infos = self._catalog.infos(ids.tolist())
            there = np.array([id_ in infos for id_ in ids.tolist()], bool)
            columns = [row_of(infos[id_]) for id_ in ids[there].tolist()]
            self.store.put(ids[there], normalize(vectors[there]), columns)
            count += len(columns)
        return count

    def _finish(self, writer: Writer, stamp: Stamp, changed: int) -> None:
        self.store.finish(stamp, changed=changed)
        writer.note_index(seq=stamp.seq)

    # ---- looking

    def problems(self, row: EncoderRow) -> list[str]:
        """Return what is wrong with the store, in words: whether it is filled, and has every photo and no other."""
        if self._read(row) is None:
            return [f"the index {self.store.place} is not filled with the vectors of {row.name}"]
        there = self.index(row)[0].ids
        expected = self._catalog.embedded(row)
        said = [("lacks", np.setdiff1d(expected, there)), ("should not have", np.setdiff1d(there, expected))]
        return [
            f"the index {self.store.place} {what} {count_of(len(ids), 'photo')}: "
            f"{', '.join(map(str, ids[:_SOME].tolist()))}"
            for what, ids in said
            if len(ids)
        ]


class Pusher:
    """Brings what a long run commits to a store in the midst of it; what goes wrong is told at its end."""

    def __init__(self, bring: Callable[[], str]) -> None:
        """bring: does it; returns why it could not."""
        self._bring = bring
        self._waiting = 0

    def committed(self, count: int) -> None:
        """Account for a batch."""
        self._waiting += count
        if self._waiting >= generations.MOST_CHANGES:
            self._waiting = 0
            self._bring()


def is_due(catalog: Catalog) -> bool:
    """Whether the library has an index on a server that lacks something; the server is not asked."""
    said, row = catalog.publication(), catalog.encoder()
    if not said.on_server or row is None:
        return False
    if said.index_seq < 0 or not said.index_mark.startswith(row.fingerprint[:_SHORT]):
        return catalog.count() > 0
    return said.purge_seq > said.index_seq or catalog.count_changed(said.index_seq) > 0
