"""Photos and vectors of other software, brought into the library once they may be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from search.adoption import AdoptOptions, Listing, Source, look
from search.decoding.pool import lend
from search.documents import passport_document
from search.errors import UntrustedVectors
from search.files import atomic_write
from search.library.indexing import bring_in
from search.types import AdoptReport, Passport

if TYPE_CHECKING:
    from search.adoption.run import Tally
    from search.catalog import Turn
    from search.indexer import Model
    from search.library.index import Committed
    from search.library.indexing import Bringing
    from search.library.seams import Seams
    from search.types import IndexReport, Progress


PASSPORTS = "passports"
"""The folder of a library with a file for each import: what its vectors were trusted for."""


def adopt(seams: Seams, source: Source, options: AdoptOptions, how: Bringing) -> AdoptReport:
    """See Library.adopt."""
    from search.adoption.run import Adoption, Tally

    listing = look(source, options, how.progress or (lambda _: None))
    passports: list[Passport] = []

    def examine() -> Passport | None:
        if not passports and not options.reencode:
            passports.append(inspect(seams, source, listing, options))
        return passports[0] if passports else None

    if not seams.catalog.exists() or seams.model.row() is None:
        examine()  # before anything is made
    taken = Tally()

    def work(turn: Turn, model: Model, committed: Committed | None) -> IndexReport:
        adoption = Adoption(turn, model, how.options, progress=how.progress, stop=how.stop, committed=committed)
        report = adoption.adopt(source, listing, examine, taken, encode=options.encode)
        return replace(report, skipped=(*listing.skipped, *report.skipped))

    index = bring_in(seams, work, how)
    passport = passports[0] if passports else None
    report = AdoptReport(
        passport=passport,
        named=len(source.entries),
        adopted=taken.adopted,
        left=dict(source.left),
        not_adopted=_reasons(listing, taken) if passport else {},
        not_encoded=taken.waiting,
        index=index,
    )
    _keep(seams, report)
    return report


def _keep(seams: Seams, report: AdoptReport) -> None:
    """Write down beside the catalog on what grounds vectors were taken over; that fails without undoing it."""
    folder, passport = seams.catalog.folder, report.passport
    if folder is None or passport is None or not report.adopted:
        return
    now = datetime.now(UTC)
    said = {
        "imported_at": now.isoformat(timespec="seconds"),
        "named": report.named,
        "adopted": report.adopted,
        "not_adopted": dict(report.not_adopted),
        "passport": passport_document(passport),
    }
    place = folder / PASSPORTS / f"{now:%Y%m%dT%H%M%S.%fZ}-{passport.source}.json"
    try:
        place.parent.mkdir(mode=0o700, exist_ok=True)
        atomic_write(place, json.dumps(said, indent=1).encode())
    except OSError as error:
        seams.tell_once(f"the import's passport could not be written to {place}: {error.strerror or error}")


def compare(seams: Seams, source: Source, options: AdoptOptions, progress: Callable[[Progress], None]) -> Passport:
    """See Library.compare."""
    return inspect(seams, source, look(source, options, progress), options)


def inspect(seams: Seams, source: Source, listing: Listing, options: AdoptOptions) -> Passport:
    """Hold a source's vectors against those of the model that is to have made them.

    Raises UntrustedVectors; EncoderMismatch if that is not the library's.
    """
    from search.adoption.passport import examine, require

    if not listing.rows:
        raise UntrustedVectors(
            f"none of the {len(listing.files)} photos of {source.place} that are here is as it was when its vector "
            "was made",
            hint="copies that keep their times ('cp -p', 'rsync -t') count as unchanged; else take the photos alone "
            "with --reencode",
        )
    row = seams.model.row() if seams.catalog.exists() else None
    encoder = seams.model.made_sure(row.fingerprint) if row else seams.model.encoder
    with lend() as decoders:
        passport = examine(source, listing, encoder, decoders, options)
    require(passport, options)
    return passport


def _reasons(listing: Listing, taken: Tally) -> dict[str, int]:
    found = {
        "changed": listing.stale + taken.changed,
        "turned": taken.turned,
        "unsound": taken.unsound,
        "deviating": taken.deviating,
    }
    return {reason: count for reason, count in found.items() if count}
