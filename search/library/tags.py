"""The labels of a library: what is known of them, what the user says of them, and runs that are taken back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.catalog.rows import chunks
from search.errors import UnknownLabel, UnknownPhoto, UsageError
from search.library.seams import real, spellings
from search.measures import wilson
from search.photos.keywords import legible
from search.types import (
    ExportReport,
    Filter,
    ImportReport,
    LabelRecord,
    LabelSource,
    LabelSummary,
    RunInfo,
    RunKind,
    Skip,
    TagReport,
    UndoReport,
)

if TYPE_CHECKING:
    import threading

    from search.catalog import Writer
    from search.catalog.tags import LabelCount
    from search.heads import Probe
    from search.library.exporting import ExportOptions
    from search.library.reviewing import Review
    from search.library.seams import Seams
    from search.types import Photo, Progress

_NEAR = 0.6  # how alike a label must be to be suggested
_TOGETHER = 1024  # photos whose labels are in memory together
_SURE = 1.96  # standard deviations around the share that hold 95 %


class Tags:
    """What `Library.tags` is."""

    def __init__(self, seams: Seams) -> None:
        self._seams = seams

    # ---- looking

    def labels(self) -> list[LabelSummary]:
        """Return every label of the library, by name, with how often it is there and how good it is."""
        return [_summary(count) for count in self._seams.catalog.label_counts()]

    def label(self, label: str) -> LabelSummary | None:
        """Return the same of one label, None if it is not there: `labels` reads all, which takes its time."""
        return next(map(_summary, self._seams.catalog.label_counts(label)), None)

    def runs(self) -> list[RunInfo]:
        """Return every run, the first first."""
        return self._seams.catalog.runs()

    def of(self, photos: Sequence[int]) -> dict[int, list[LabelRecord]]:
        """Return the labels of photos, by id, with where they are from.

        Rejected ones too, and a record of its own for the user's word against a label.
        """
        found = self._seams.catalog.labels_of(photos)
        for said in self._seams.catalog.verdicts_of(list(found)):
            if not said.accepted:
                word = LabelRecord(
                    said.label, LabelSource.USER, run=said.run, rejected=True, created_at=said.created_at
                )
                found[said.photo_id].append(word)
        return found

    def photos(self, label: str) -> list[tuple[Photo, list[LabelRecord]]]:
        """Return the photos present that have a label or were said not to, by path, with what is known of it there.

        Raises UnknownLabel.
        """
        self._known([label])
        catalog = self._seams.catalog
        records = catalog.records(label)
        found = [photo for photo in catalog.get(catalog.ids_with(label)) if photo.gone_at is None]
        return [(photo, records.get(photo.id, [])) for photo in sorted(found, key=lambda photo: photo.path)]

    # ---- saying what is so

    def accept(
        self,
        labels: Iterable[str],
        *,
        photos: Iterable[int | str | os.PathLike[str]] | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> TagReport:
        """Say that photos have labels.

        photos: ids, files or folders; labels that nobody proposed are added to them.   above, below: all photos, or
        those of `photos`, that a model proposes the label for at such a probability: above <= p < below. What the user
        judged before such a rule leaves alone.
        All of it is one run and one transaction. Raises UnknownPhoto, UnknownLabel, UsageError, LibraryBusy.
        """
        return self._judge(RunKind.ACCEPT, labels, photos, above, below)

    def reject(
        self,
        labels: Iterable[str],
        *,
        photos: Iterable[int | str | os.PathLike[str]] | None = None,
        above: float | None = None,
        below: float | None = None,
    ) -> TagReport:
        """Say that photos do not have labels, as `accept` says that they do.

        They are not shown with them and not found by them any more, and labelling anew does not bring them back.
        A label that nobody proposed can be rejected, too: that teaches what it is not.
        """
        return self._judge(RunKind.REJECT, labels, photos, above, below)

    def import_(
        self,
        source: str | os.PathLike[str] | None = None,
        *,
        labels: Iterable[str] | None = None,
        from_keywords: bool = False,
    ) -> ImportReport:
        """Take labels over as the user's own, so that they count as accepted.

        source: a CSV or JSON file as `export` writes them; relative paths in it start at its folder.
        from_keywords: the keywords that photos' files have.   labels: only these.
        Raises UsageError for a file that can't be read so; LibraryBusy. What can't be used is skipped and reported.
        """
        from search.library import importing

        if (source is None) != from_keywords:
            raise UsageError("import either a file or the keywords of the photos' files")
        catalog = self._seams.catalog
        if source is None:
            found = importing.keywords(catalog.own_keywords())
        else:
            found = importing.read(real(source), lambda paths: self._at(paths))
        only = None if labels is None else _names(labels)
        said = {pair: accepted for pair, accepted in found.said.items() if only is None or pair[1] in only}
        details = {"from": "keywords" if source is None else os.path.basename(os.fspath(source))}
        report = self._write(RunKind.IMPORT, said, details=details, keep=source is None)
        accepted = sum(said[pair] for pair in report.pairs)
        return ImportReport(
            run=report.run,
            photos=len({id_ for id_, _ in report.pairs}),
            accepted=accepted,
            rejected=len(report.pairs) - accepted,
            unchanged=len(said) - len(report.pairs),
            left=found.left,
            skipped=found.skipped,
        )

    def review(self, labels: Sequence[str] = (), *, precision: float | None = None) -> Review:
        """Begin to ask the user about labels, the most uncertain photos first; every answer teaches the label.

        labels: those to ask about, each about every photo of the library; none: about all that a model proposes, where
        it proposes them.   precision: how often a label is to be right above the threshold that is sought for it.
        Raises LibraryError without photos, UsageError.
        """
        from search.library.reviewing import Review

        return Review(self._seams, labels=labels, precision=precision)

    def teach(self, probe: Probe) -> int:
        """Let a probe decide of its labels under the library's model, in place of their texts; return the run.

        What the user judges corrects it from then on. Of several probes of a label the last counts; `undo` takes one
        back, and the one before counts again.   Raises EncoderMismatch for one of another model, LibraryBusy.
        """
        from search.library.learning import put_probe

        return put_probe(self._seams, probe)

    def taught(self) -> Probe:
        """Return what the user's verdicts taught, of all labels that were judged or that a probe knows.

        For other libraries of the same model: here it counts without.   Raises UsageError where nothing was.
        """
        from search.library.learning import probed, taught
        from search.library.reviewing import worded

        catalog = self._seams.catalog
        names = sorted({*catalog.words(), *probed(catalog, self._seams.model.answering())})
        if not names:
            raise UsageError("no label was judged yet", hint="'search tags review' asks about labels")
        return taught(self._seams, worded(self._seams, names))

    def undo(self, run: int) -> UndoReport:
        """Take back what a run added, from the catalog and from sidecars; what other runs added stays.

        A verdict that the run replaced counts again; a proposal that it replaced does not come back.
        Cut short between the two, it can be called again. Raises UnknownRun, LibraryBusy, StorageError.
        """
        with self._seams.catalog.writing() as writer:
            undone = writer.undo(run)
            sidecars, skipped = self._follow(writer, run, undone.sidecars)
            if undone.sidecars and not skipped:
                writer.end_undo(run)
            self._seams.index.publish(writer, also=len(undone.photos))
        return UndoReport(
            run=run,
            kind=undone.kind,
            labels=undone.labels,
            verdicts=undone.verdicts,
            photos=len(undone.photos),
            sidecars=sidecars,
            skipped=skipped,
        )

    def _follow(self, writer: Writer, run: int, ids: Sequence[int]) -> tuple[int, tuple[Skip, ...]]:
        """Bring the sidecars of photos in line with the catalog; return how many were changed, and which were not."""
        from search.library import exporting

        report = exporting.undone(self._seams, writer, run, ids)
        return report.written + report.removed, report.skipped

    # ---- handing on

    def export(
        self,
        paths: Iterable[str | os.PathLike[str]] | None = None,
        *,
        options: ExportOptions | None = None,
        dry_run: bool = False,
        progress: Callable[[Progress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> ExportReport:
        """Write labels into XMP sidecars beside the photos, where other software reads them.

        Photos themselves are never written to, and of a sidecar that is there only the keywords change. What is written
        as it should be is not touched. All of it is one run, and `undo` takes it back.
        paths: photos and folders of the library, None for all.   dry_run: write nothing, tell what would be.
        stop: set it to end the run after its current batch.
        Raises UnknownPhoto, UnknownLabel, LibraryBusy; StorageError where there is no room. What can't be written
        otherwise is skipped and reported.
        """
        from search.library import exporting

        asked = options or exporting.ExportOptions()
        if asked.labels:
            self._known(asked.labels)
        ids = self._present(paths)
        tell = progress or (lambda _: None)
        return exporting.export(self._seams, ids, asked, dry_run=dry_run, progress=tell, stop=stop)

    def records(
        self, paths: Iterable[str | os.PathLike[str]] | None = None, *, options: ExportOptions | None = None
    ) -> Iterator[tuple[Photo, list[LabelRecord]]]:
        """Yield the photos present that have labels, with these; as `export` chooses them, and the files' own too.

        Raises UnknownPhoto, UnknownLabel.
        """
        from search.library import exporting

        asked = options or exporting.ExportOptions()
        if asked.labels:
            self._known(asked.labels)
        catalog = self._seams.catalog
        for some in chunks(self._present(paths), _TOGETHER):
            labels = catalog.labels_of(some)
            for photo in catalog.get(some):
                if found := [record for record in labels[photo.id] if asked.wants(record)]:
                    yield photo, found

    def _present(self, paths: Iterable[str | os.PathLike[str]] | None) -> list[int]:
        """Return the ids of photos and of all in folders, of every photo present for None. Raises UnknownPhoto."""
        if paths is not None:
            return self._ids(paths)
        ids: list[int] = self._seams.catalog.all_ids().tolist()
        return ids

    # ---- parts

    def _judge(
        self,
        kind: RunKind,
        labels: Iterable[str],
        photos: Iterable[int | str | os.PathLike[str]] | None,
        above: float | None,
        below: float | None,
    ) -> TagReport:
        names, by_rule = _names(labels), above is not None or below is not None
        if photos is None and not by_rule:
            raise UsageError("say on which photos", hint="give photos, or the probability to go by")
        known = self._seams.catalog.known_labels(names)
        if by_rule:
            self._known(names)
        ids = None if photos is None else self._ids(photos)
        if by_rule:
            pairs = [(id_, name) for name in names for id_ in self._proposed(name, ids, above, below)]
        else:
            pairs = [(id_, name) for name in names for id_ in ids or ()]
        details = {"labels": names, **{key: p for key, p in (("above", above), ("below", below)) if p is not None}}
        said = dict.fromkeys(pairs, kind is RunKind.ACCEPT)
        report = self._write(kind, said, details=details, keep=by_rule)
        return TagReport(
            run=report.run,
            photos=len({id_ for id_, _ in report.pairs}),
            labels=len(report.pairs),
            unchanged=len(said) - len(report.pairs),
            new=tuple(name for name in names if name not in known),
        )

    def _proposed(
        self, label: str, ids: Sequence[int] | None, above: float | None, below: float | None
    ) -> Iterator[int]:
        """Yield the photos that a label is proposed for at a probability within bounds."""
        among = None if ids is None else frozenset(ids)
        for id_, record in self._seams.catalog.proposals(label):
            p = record.probability
            inside = p is not None and (above is None or p >= above) and (below is None or p < below)
            if inside and (among is None or id_ in among):
                yield id_

    def _write(
        self, kind: RunKind, said: Mapping[tuple[int, str], bool], *, details: Mapping[str, Any], keep: bool
    ) -> _Written:
        """Write what was said as one run, where it is not what was said last.

        keep: leave alone what was judged before, whatever was said of it.
        """
        catalog = self._seams.catalog
        with catalog.writing() as writer:
            verdicts = catalog.verdicts_of({id_ for id_, _ in said})
            last = {(verdict.photo_id, verdict.label): verdict.accepted for verdict in verdicts}
            pairs = [pair for pair, accepted in said.items() if last.get(pair, not accepted) != accepted]
            if keep:
                pairs = [pair for pair in pairs if pair not in last]
            if not pairs:
                return _Written(None, [])
            with writer.run(kind, details=details) as run:
                run.judge([(*pair, said[pair]) for pair in pairs])
            self._seams.index.publish(writer, also=len({id_ for id_, _ in pairs}))
        return _Written(run.id, pairs)

    def _known(self, names: Sequence[str]) -> None:
        """Raise UnknownLabel for a label that is nowhere in the library, with what it may be meant for."""
        catalog = self._seams.catalog
        known = catalog.known_labels(names)
        for name in names:
            if name not in known:
                near = nearest(name, catalog.label_names())
                hint = f"did you mean {near!r}?" if near else "'search tags list' shows the labels there are"
                raise UnknownLabel(f"no photo has, and none was proposed, the label {name!r}", hint=hint)

    def _ids(self, refs: Iterable[int | str | os.PathLike[str]]) -> list[int]:
        """Return the ids of photos, and of all in folders. Raises UnknownPhoto."""
        found: dict[int, None] = {}
        numbers, paths = [], []
        for ref in refs:
            if isinstance(ref, int):
                numbers.append(ref)
            else:
                paths.append(os.fspath(ref))
        known = {photo.id for photo in self._seams.catalog.get([id_ for id_ in numbers if 0 < id_ < 2**63])}
        for id_ in numbers:
            if id_ not in known:
                raise UnknownPhoto(f"photo {id_} is not in the library")
            found[id_] = None
        at = self._at(paths)
        for path in paths:
            inside = [at[path]] if path in at else self._inside(path)
            if not inside:
                raise UnknownPhoto(f"{path} is not in the library", hint="index it first with 'search index'")
            found |= dict.fromkeys(inside)
        return list(found)

    def _inside(self, path: str) -> list[int]:
        """Return the photos present in a folder."""
        catalog = self._seams.catalog
        selected = catalog.select(Filter(folder=real(path)))
        ids: list[int] = (catalog.all_ids() if selected is None else selected).tolist()
        return ids

    def _at(self, paths: Sequence[str]) -> dict[str, int]:
        """Return the ids of the photos at these paths; others are left out."""
        named = {path: spellings(path) for path in paths}
        catalog = self._seams.catalog
        ids = catalog.ids_at([spelling for every in named.values() for spelling in every])
        known = {photo.path: photo.id for photo in catalog.get(ids)}
        found = {path: [known[one] for one in every if one in known] for path, every in named.items()}
        return {path: ids[0] for path, ids in found.items() if ids}


@dataclass(frozen=True, slots=True)
class _Written:
    """What a run changed: labels on photos."""

    run: int | None
    pairs: list[tuple[int, str]]


def _names(labels: Iterable[str]) -> list[str]:
    """Return labels as they are kept, each once. Raises UsageError for none, or one that is empty."""
    names = list(dict.fromkeys(legible(label) for label in labels))
    if not names or not all(names):
        raise UsageError("there is no label" if not names else "a label is empty", hint="give --label NAME")
    return names


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the label most like another one, None if there is none like it."""
    others = [other for other in known if other != name]
    return next(iter(difflib.get_close_matches(name, others, n=1, cutoff=_NEAR)), None)


def _summary(count: LabelCount) -> LabelSummary:
    judged, right = count.judged_proposals, count.right_proposals
    return LabelSummary(
        label=count.label,
        photos=count.photos,
        proposed=count.proposed,
        accepted=count.accepted,
        rejected=count.rejected,
        imported=count.imported,
        in_files=count.in_files,
        judged=judged,
        right=right,
        precision=interval(right, judged) if judged else None,
    )


def interval(right: int, judged: int) -> tuple[float, float, float]:
    """Return a share with the bounds of its 95 % interval around it (E. B. Wilson, 1927): low, share, high."""
    share = right / judged
    low, high = wilson(share, judged, _SURE)
    return max(0.0, float(low)), share, min(1.0, float(high))
