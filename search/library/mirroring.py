"""A library's index on a server, if it has one: opened, brought up to date, filled anew, let go of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.errors import IndexMismatch, IndexUnavailable, UsageError
from search.generations.manifest import AUTO, WISHES
from search.vectors import CODES, EXACT, LISTS

if TYPE_CHECKING:
    from search.catalog import Catalog, Writer
    from search.mirror import Mirror

ON_CATALOG = "pgvector"
"""The index that lies in the database where the catalog is."""


class Mirroring:
    """What a library does with its index on a server.   token: what Milvus asks for, if it does."""

    def __init__(self, catalog: Catalog, token: str | None) -> None:
        self._catalog = catalog
        self._token = token
        self._mirrors: dict[str, Mirror] = {}
        self.behind = ""  # why it could not be brought up to date
        self.mendable: tuple[str, ...] = ()  # what is wrong with it and can be put right

    def mirror(self, url: str) -> Mirror:
        """Return what a URL of the catalog's stands for, opened once."""
        from search.mirror import Mirror
        from search.vectors.stores import open_store

        if url not in self._mirrors:
            place = self._catalog.location if url == ON_CATALOG else url
            self._mirrors[url] = Mirror(self._catalog, open_store(place, token=self._token, named=url))
        return self._mirrors[url]

    def close(self) -> None:
        for mirror in self._mirrors.values():
            mirror.store.close()
        self._mirrors.clear()

    def is_due(self) -> bool:
        """Whether the index lacks something, or is to be made; no server is asked."""
        from search.mirror import is_due

        return is_due(self._catalog) or self._is_undecided()

    def _is_undecided(self) -> bool:
        """Whether the catalog is on a server, and nobody said yet what index there is to be."""
        return self._catalog.folder is None and self._catalog.publication().index_url is None

    def bring(self, writer: Writer) -> str:
        """Bring the index up to the last commit where it lacks something; return why it could not be, else ""."""
        from search.mirror import is_due

        self.behind = ""
        if self._is_undecided():
            return self.choose(writer, AUTO)
        said, row = self._catalog.publication(), self._catalog.encoder()
        if not said.on_server or row is None or not is_due(self._catalog):
            return ""
        try:
            self.mirror(said.on_server).bring(writer, row)
        except (IndexUnavailable, IndexMismatch) as error:
            self.behind = (
                f"{error.message}; the photos are found all the same, and the next run goes on from there"
            )
        return self.behind

    def choose(self, writer: Writer, index: str | None) -> str:
        """Have the index be of another kind from now on, or the same one filled anew; return what there is to tell.

        index: one of WISHES, a URL, "pgvector" for the catalog's own database, None: as before. Where the catalog is on
        a server, "auto" stands for pgvector if it can be had.
        Raises UsageError, IndexUnavailable, IndexMismatch; then the library goes by the name it had.
        """
        said = self._catalog.publication()
        wanted = said.index_url if index is None else index
        if wanted in (None, AUTO, CODES, LISTS) and self._catalog.folder is None:
            return self._try_own(writer)
        if wanted in WISHES:
            wanted = EXACT if self._catalog.folder is None else None
        self._fill(writer, wanted)
        return ""

    def _try_own(self, writer: Writer) -> str:
        """Have the index lie beside the catalog, else have none; return why."""
        if self._catalog.encoder() is None:
            return ""
        try:
            self._fill(writer, ON_CATALOG)
        except (IndexUnavailable, IndexMismatch) as error:
            self._fill(writer, EXACT)
            return (
                f"{error}; until then every query reads all vectors ('search rebuild --index' makes another index)"
            )
        return ""

    def _fill(self, writer: Writer, wanted: str | None) -> None:
        row, said = self._catalog.encoder(), self._catalog.publication()
        if wanted is not None and wanted != EXACT:
            self.checked(wanted)
            if row is not None:
                try:
                    self.mirror(wanted).bring(writer, row, anew=True)
                except (IndexUnavailable, IndexMismatch):
                    if wanted != said.index_url:  # then the one there is was not touched, and is good still
                        writer.note_index(mark=said.index_mark or None, seq=said.index_seq)
                    raise
        if wanted != said.index_url:
            writer.note_index(url=wanted)

    def checked(self, index: str) -> str:
        """Return the name of an index on a server as the catalog keeps it. Raises UsageError."""
        from search.vectors.stores import check_url

        if index != ON_CATALOG:
            return check_url(index)
        if self._catalog.folder is not None:
            raise UsageError(
                f"{self._catalog.location} is no database that an index could lie in",
                hint="postgresql://USER@HOST/DATABASE says which",
            )
        return index

    def problems(self) -> list[str]:
        """Return what is wrong with the index, in words."""
        said, row = self._catalog.publication(), self._catalog.encoder()
        if not said.on_server or row is None:
            return []
        try:
            wrong = self.mirror(said.on_server).problems(row)
        except (IndexUnavailable, IndexMismatch) as error:
            return [str(error)]
        self.mendable = tuple(wrong)
        return wrong
