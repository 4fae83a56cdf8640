"""Photos brought into a library: a run writes, and what came of it is published."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from search.errors import DamagedLibrary, LibraryBusy
from search.indexer import IndexOptions, Model, Run
from search.types import IndexReport

if TYPE_CHECKING:
    from search.catalog import Turn
    from search.library.index import Committed
    from search.library.seams import Seams
    from search.shards.run import ShardOptions
    from search.types import Progress

_POLL_S = 0.2  # between two tries to get a library that is being written to

Work: TypeAlias = "Callable[[Turn, Model, Committed | None], IndexReport]"
"""What writes to a library in its turn, with a model, and tells of every batch that is durable."""


@dataclass(frozen=True, slots=True)
class Bringing:
    """How photos are brought in.   progress: told of every step.

    stop: set to end after the current batch, or the waiting.   wait: until no other process writes.
    """

    options: IndexOptions
    progress: Callable[[Progress], None] | None
    stop: threading.Event | None
    wait: bool


def index(
    seams: Seams, paths: Sequence[str], how: Bringing, *, reencode: bool, shards: ShardOptions | None
) -> IndexReport:
    """See Library.index.   paths: as the catalog knows them."""

    def work(turn: Turn, model: Model, committed: Committed | None) -> IndexReport:
        sources = seams.sources()
        if shards is None:
            return Run(
                turn,
                model,
                how.options,
                progress=how.progress,
                stop=how.stop,
                committed=committed,
                sources=sources,
            )(paths)
        from search.shards.run import ShardRun

        return ShardRun(
            turn,
            model,
            how.options,
            shards,
            offline=seams.model.offline,
            trust_checkpoint=seams.model.trust_checkpoint,
            progress=how.progress,
            stop=how.stop,
            committed=committed,
            sources=sources,
        )(paths)

    return bring_in(seams, work, how, reencode=reencode)


def merge(seams: Seams, store: str, how: Bringing) -> IndexReport:
    """See Library.merge."""
    from search.shards.run import Merge
    from search.shards.store import open_store

    def work(turn: Turn, model: Model, committed: Committed | None) -> IndexReport:
        run = Merge(
            turn,
            model,
            how.options,
            progress=how.progress,
            stop=how.stop,
            committed=committed,
            sources=seams.sources(),
        )
        return run.merge(open_store(store, model.fingerprint))

    return bring_in(seams, work, how)


def bring_in(seams: Seams, work: Work, how: Bringing, *, reencode: bool = False) -> IndexReport:
    """Have something write to the library, made if need be, and publish what came of it."""
    with _turn(seams, how) as turn:
        model = _target(seams, turn, reencode)
        with seams.index.publishing(turn) as committed:
            report = work(turn, model, committed)
        seams.model.save_recipe()
        if not report.interrupted:
            seams.model.save_bank()
        if reencode and not report.interrupted:
            report = replace(report, not_encoded=turn.writer.switch_when_complete(model.id))
        if turn.is_writing or seams.index.is_due():
            unpublished = seams.index.try_publish(turn.writer, also=report.reread)
            report = replace(report, not_published=unpublished, index_behind=seams.index.mirroring.behind)
    return replace(report, photos=seams.catalog.count())


@contextmanager
def _turn(seams: Seams, how: Bringing) -> Iterator[Turn]:
    """Hold a library for writing that is made if need be, as soon as it is free if one may wait."""
    told = False
    with ExitStack() as stack:
        while True:
            try:
                _create(seams)
                turn = stack.enter_context(seams.catalog.turn())
                break
            except LibraryBusy as busy:
                if not how.wait or (how.stop and how.stop.is_set()):
                    raise
                if not told:
                    seams.notify(f"{busy.message}; waiting for it")
                    told = True
            (how.stop or threading.Event()).wait(_POLL_S)
        yield turn


def _create(seams: Seams) -> None:
    """Make the catalog if there was none ever; one that was lost must not be begun anew beside its generations."""
    catalog, generations = seams.catalog, seams.index.generations
    if generations and not catalog.is_begun() and (kept := generations.newest_sound()):
        kept.close()
        raise DamagedLibrary(
            f"the catalog of {catalog.shown} is missing, but a copy of it is there",
            hint="run 'search rebuild'",
        )
    catalog.create()


def _target(seams: Seams, turn: Turn, reencode: bool) -> Model:
    """The model to index with; not loaded before a photo needs it, if the library knows it."""
    row = None if reencode else seams.model.row()
    if row is None:
        encoder = seams.model.encoder
        load = functools.partial(seams.model.made_sure, encoder.fingerprint)
        return Model(turn.writer.register(encoder), encoder.name, encoder.fingerprint, load)
    load = functools.partial(seams.model.made_sure, row.fingerprint)
    return Model(row.id, row.name, row.fingerprint, load)
