"""A library's index: in memory what answers, and what of it is written down, in the library's folder or on a server."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, TypeAlias

from search import generations
from search.errors import DamagedLibrary, LibraryNotFound, StorageError
from search.library.mirroring import ON_CATALOG, Mirroring
from search.live import LiveIndex
from search.vectors import EXACT

if TYPE_CHECKING:
    from search.catalog import Catalog, EncoderRow, Turn, Writer
    from search.generations import Generations
    from search.types import Publication

Committed: TypeAlias = Callable[[int], None]
"""Told how many photos a batch made durable."""


class LibraryIndex:
    """Keeps the index over one catalog in line with it: in memory, as generations in a folder, on a server.

    generations: None where the catalog has no folder.   token: what the server asks for that has the index.
    notify: says a sentence to the user, `tell_once` none a second time.
    """

    def __init__(
        self,
        catalog: Catalog,
        generations: Generations | None,
        *,
        token: str | None,
        notify: Callable[[str], None],
        tell_once: Callable[[str], None],
    ) -> None:
        self.generations = generations
        self.mirroring = Mirroring(catalog, token)
        self.live = LiveIndex(catalog, generations, tell_once, self.mirroring.mirror)
        self._catalog, self._notify = catalog, notify

    def close(self) -> None:
        """Let go of servers; what is in memory may be read on."""
        self.mirroring.close()

    # ---- written down

    def publish(self, writer: Writer, *, always: bool = False, also: int = 0) -> None:
        """Write a generation if one is due, and bring a server up to date; tell the user why that could not be.

        always: due or not.   also: changes that are not the photos' own, such as labels.
        """
        self._warn(self.try_publish(writer, always=always, also=also))

    def try_publish(self, writer: Writer, *, always: bool = False, also: int = 0) -> str:
        """Do as `publish` does, but return why a generation could not be written, "" if all is well."""
        self._warn(self.mirroring.bring(writer))
        if self.generations is None:
            return ""
        try:
            if always or self.generations.is_due(self._catalog, also=also):
                self.generations.publish(self._catalog, writer)
        except StorageError as error:
            return str(error)
        return ""

    def is_due(self) -> bool:
        """Whether `publish` has something to do; no server is asked."""
        due = self.generations is not None and self.generations.is_due(self._catalog)
        return due or self.mirroring.is_due()

    @contextmanager
    def publishing(self, turn: Turn) -> Iterator[Committed | None]:
        """Yield what publishes in the midst of a long run; what is being written then is waited for at its end."""
        told: list[Committed] = []
        with ExitStack() as stack:
            if self._catalog.publication().on_server:
                from search.mirror import Pusher

                told.append(Pusher(lambda: self.mirroring.bring(turn.writer)).committed)
            if self.generations is None:
                yield told[0] if told else None
                return
            from search.generations.beside import Publisher

            beside = stack.enter_context(Publisher(self.generations, self._catalog, turn))
            yield functools.partial(_tell_each, [*told, beside.committed])
            beside.finish()

    def choose(self, index: str | None) -> bool:
        """Have the index on a server be filled anew, or be another one; False where the catalog can't say.

        index: as `Mirroring.choose` has it.
        """
        try:
            with self._catalog.writing() as writer:
                self._warn(self.mirroring.choose(writer, index))
        except (DamagedLibrary, LibraryNotFound):
            if self.generations is None:
                raise
            return False
        return True

    def _warn(self, why: str) -> None:
        if why:
            self._notify(f"warning: {why}")

    # ---- at a glance

    def status(self) -> dict[str, int | str | None]:
        """Return the kind of index that answers and its size, the kind asked for, and what was published of it.

        vectors: those of the model that answers.   bytes: on the disk.   delta: photos changed since the generation.
        """
        row, said = self._catalog.encoder(), self._catalog.publication()
        vectors = self._catalog.count_vectors(row) if row else 0
        delta = self._catalog.count_changed(said.generation_seq)
        return {"vectors": vectors, **self._kind(row, vectors, said), "generation": said.number, "delta": delta}

    def _kind(self, row: EncoderRow | None, vectors: int, said: Publication) -> dict[str, int | str]:
        if said.on_server:
            behind = said.seq if said.index_seq < 0 else self._catalog.count_changed(said.index_seq)
            kind = "milvus" if said.on_server.startswith("milvus") else ON_CATALOG
            return {"kind": kind, "bytes": 0, "wanted": kind, "url": said.on_server, "behind": behind}
        manifest = self.generations.manifest(self._catalog) if self.generations else None
        wanted = manifest.wish if manifest else said.index_url or generations.AUTO
        published = manifest.encoder(row.fingerprint) if manifest and row else None
        if published is not None:
            lists = {"lists": published.lists, "probe": published.probe} if published.lists else {}
            return {"kind": published.kind, "bytes": published.size_bytes, "wanted": wanted, **lists}
        return {"kind": EXACT, "bytes": vectors * (4 * row.dim + 8) if row else 0, "wanted": wanted}


def _tell_each(told: Sequence[Committed], count: int) -> None:
    for tell in told:
        tell(count)
