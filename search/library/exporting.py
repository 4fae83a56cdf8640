"""Which labels go into the XMP sidecars beside photos, and out again; photos themselves are never written to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from search.errors import UsageError
from search.library.beside import DEFAULT, STYLES, Account, Decision, Entry, Journal, Wish, Written
from search.photos.keywords import alike
from search.photos.packets import ROOT, Tag
from search.types import ExportReport, LabelSource, Progress, RunKind

if TYPE_CHECKING:
    import threading

    from search.catalog import Writer
    from search.library.seams import Seams
    from search.types import LabelRecord, Photo, RunInfo

_SAID = (LabelSource.USER, LabelSource.IMPORT)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write, and where.

    labels: only these; none: all.   accepted: only what the user accepted.   root: what labels stand below that nobody
    accepted, "" for nothing.   style: how a new sidecar is called, "default" (IMG_1.jpg.xmp) or "adobe" (IMG_1.xmp).
    """

    labels: tuple[str, ...] = ()
    accepted: bool = False
    root: str = ROOT
    style: str = DEFAULT

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"{self.style!r} is no style of sidecars", hint=f"there are {' and '.join(STYLES)}")

    def wants(self, record: LabelRecord) -> bool:
        """Whether a label is asked for at all."""
        if self.labels and record.label not in self.labels:
            return False
        return not self.accepted or (record.source in _SAID and not record.rejected)


def export(
    seams: Seams,
    ids: Sequence[int],
    options: ExportOptions,
    *,
    dry_run: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> ExportReport:
    """Write the labels of photos into their sidecars; `Tags.export` has the words."""
    started = perf_counter()
    said = {"labels": list(options.labels), "accepted": options.accepted, "root": options.root}

    def begin(writer: Writer) -> int:
        with writer.run(RunKind.EXPORT, details=said) as run:
            return run.id

    def wishes(photos: Sequence[Photo]) -> Iterator[Wish]:
        labels = seams.catalog.labels_of([photo.id for photo in photos])
        for photo in photos:
            tags, existing = tags_of(labels[photo.id], options, runs)
            yield Wish(photo, _claim(tags, existing, options), bool(tags))

    with seams.catalog.writing() as writer:
        runs = {run.id: run for run in seams.catalog.runs()}
        account = Account(Journal(seams.catalog, writer, begin), progress, stop, options.style, dry_run)
        try:
            account.work(ids, wishes)
        finally:
            if account.journal.run is not None:
                with writer.again(account.journal.run) as run:
                    run.note({**said, "photos": len(account.photos)})
    return account.report(started)


def undone(
    seams: Seams,
    writer: Writer,
    run: int,
    ids: Sequence[int],
) -> ExportReport:
    """Let sidecars follow a run that is taken back: of what is ours in them, only what stands by itself stays.

    Of an export goes what that run wrote; of another run what the catalog has no more.   ids: of the photos to look at.
    To do it twice does no harm, and goes on with one that was cut short.
    """
    started = perf_counter()
    known = seams.catalog.run(run)
    is_export = known is not None and known.kind == RunKind.EXPORT

    def wishes(photos: Sequence[Photo]) -> Iterator[Wish]:
        labels = seams.catalog.labels_of([photo.id for photo in photos])
        for photo in photos:
            yield Wish(photo, _taken_back(run) if is_export else _still(labels[photo.id]), False)

    account = Account(Journal(seams.catalog, writer), lambda _: None, None)
    account.work(ids, wishes)
    return account.report(started)


# ---- which tags


def tags_of(
    records: Sequence[LabelRecord], options: ExportOptions, runs: Mapping[int, RunInfo]
) -> tuple[list[Tag], tuple[str, ...]]:
    """Return the tags that a photo's labels come to, and the keywords that its files have already.

    What the user accepted stands for itself, what a model proposes below the root; what is rejected or a keyword of the
    photo's own anyway is no tag.
    """
    existing = tuple(sorted(one.label for one in records if one.source == LabelSource.FILE and not one.rejected))
    known = {alike(name) for name in existing}
    found: dict[str, Tag] = {}
    for record in sorted(records, key=lambda one: (one.source not in _SAID, one.label, one.source)):
        if record.rejected or record.source == LabelSource.FILE or not options.wants(record):
            continue
        if alike(record.label) not in known:
            root = "" if record.source in _SAID else options.root
            found.setdefault(record.label, Tag(record.label, root, about(record, runs)))
    return [found[label] for label in sorted(found)], existing


def state_of(record: LabelRecord) -> str:
    """Return what a label is to the user: proposed, accepted, rejected, imported, or the file's own."""
    if record.rejected:
        return "rejected"
    known = {LabelSource.USER: "accepted", LabelSource.IMPORT: "imported", LabelSource.FILE: "file"}
    return {source.value: state for source, state in known.items()}.get(record.source, "proposed")


def about(record: LabelRecord, runs: Mapping[int, RunInfo]) -> dict[str, Any]:
    """Return where a label comes from, as plain values that JSON has."""
    run = runs.get(record.run) if record.run is not None else None
    return {
        "state": state_of(record),
        "source": str(record.source),
        "probability": None if record.probability is None else round(record.probability, 6),
        "score": None if record.score is None else round(record.score, 6),
        "encoder": record.encoder,
        "label_set": run.label_set if run else None,
        "templates": run.templates if run else None,
        "run": record.run,
        "date": record.created_at.isoformat() if record.created_at else None,
    }


# ---- what a sidecar is to have


def _claim(
    tags: Sequence[Tag], existing: tuple[str, ...], options: ExportOptions
) -> Callable[[Entry | None], Decision]:
    """Decide for tags to be written; what is there already stays as it is, with labels that are not asked for."""

    def decide(entry: Entry | None) -> Decision:
        before = {one.tag.label: one for one in entry.tags} if entry else {}
        found = [one for label, one in before.items() if options.labels and label not in options.labels]
        for tag in tags:
            was = before.get(tag.label)
            found.append(was if was and was.is_as(tag) else Written(tag, was=was))
        return sorted(found, key=lambda one: one.tag.label), existing

    return decide


def _taken_back(run: int) -> Callable[[Entry | None], Decision]:
    """Decide for what an export did not write."""

    def decide(entry: Entry | None) -> Decision:
        if entry is None:
            return (), ()
        return [left for one in entry.tags if (left := one.without(run))], entry.existing

    return decide


def _still(records: Sequence[LabelRecord]) -> Callable[[Entry | None], Decision]:
    """Decide for what the catalog still has."""
    standing = {(one.source in _SAID, one.label) for one in records if not one.rejected}

    def stands(one: Written | None) -> Written | None:
        while one and (one.state != "proposed", one.tag.label) not in standing:
            one = one.was
        return one

    def decide(entry: Entry | None) -> Decision:
        if entry is None:
            return (), ()
        return [left for one in entry.tags if (left := stands(one))], entry.existing

    return decide
