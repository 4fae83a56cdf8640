"""How photos of a library and beside it are labelled, and what is written down of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.encoders import recipes
from search.errors import UnknownPhoto, UsageError
from search.labels import NONE_OF_THESE, Classifier, LabelOptions, label_photos
from search.library.learning import learned
from search.library.seams import real
from search.types import LabelledPhoto, Labelling, RunKind, Skip, SkipReason
from search.vectors import normalize

if TYPE_CHECKING:
    from search.catalog import EncoderRow
    from search.encoders import Encoder
    from search.encoders.recipes import TextHalf
    from search.labels import LabelSet
    from search.library.seams import Seams
    from search.types import FileStat, LabelScore, Photo, Progress, Vectors

_BATCH = 4096  # photos whose scores with every label are in memory at a time


def label(
    seams: Seams,
    label_set: LabelSet,
    *,
    paths: Sequence[int | str | os.PathLike[str]] | None,
    options: LabelOptions,
    apply: bool,
    progress: Callable[[Progress], None] | None,
) -> Labelling:
    """Label photos; `Library.label` has the words."""
    row, encoder = _labelling(seams, paths)
    remember = encoder.remember if isinstance(encoder, recipes.TextHalf) else None
    heads = learned(seams, row, label_set, encoder) if row and options.learned else None
    classifier = Classifier.build(
        label_set, encoder, options, bank=lambda: seams.model.bank(row or encoder), heads=heads, remember=remember
    )
    skipped: list[Skip] = []
    ids, strangers = _whom_to_label(seams, paths, row, skipped)
    known = _label_known(seams, ids, row, classifier)
    others: list[LabelledPhoto] = []
    if strangers:
        others, unread = label_photos(
            strangers, classifier, encoder=seams.model.encoder, sources=seams.sources(), progress=progress
        )
        skipped += unread
    run, applied = None, 0
    if apply:
        if row is None or not known:
            raise UsageError("none of these photos is in the library", hint="index them first")
        run, applied = _write(seams, row, label_set, options, [one.to_write(options) for one in known])
    return Labelling(
        encoder=row.name if row and seams.model.loaded is None else seams.model.encoder.name,
        labels=classifier.names,
        templates=label_set.templates,
        photos=tuple(sorted([*(one.photo for one in known), *others], key=lambda photo: photo.path)),
        skipped=tuple(skipped),
        applied=applied,
        truncated_tokens=classifier.truncated_tokens,
        label_set=label_set.name,
        templates_name=label_set.templates_name,
        run=run,
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """A photo of the library with its labels.   first: what they would be if the user had rejected none."""

    photo: LabelledPhoto
    first: tuple[LabelScore, ...]
    rejected: frozenset[str]

    def to_write(self, options: LabelOptions) -> LabelledPhoto:
        """Return what to write: also what the model says and the user rejected, which tells how good the label is."""
        wrong = tuple(one for one in options.to_apply(self.first) if one.label in self.rejected)
        return LabelledPhoto(self.photo.path, options.to_apply(self.photo.labels) + wrong, self.photo.id)


def _write(
    seams: Seams, row: EncoderRow, label_set: LabelSet, options: LabelOptions, labelled: list[LabelledPhoto]
) -> tuple[int, int]:
    """Write labels of the library's own photos down; return the run, and how many photos have one of it."""
    with seams.catalog.writing() as writer:
        with writer.run(RunKind.LABEL, encoder_id=row.id, **provenance(label_set, options)) as run:
            applied = run.propose(labelled, label_set.names, encoder_id=row.id)
        seams.index.publish(writer, also=len(labelled))
    return run.id, applied


def provenance(label_set: LabelSet, options: LabelOptions) -> dict[str, Any]:
    """Return what a run remembers of how it labelled."""
    details: dict[str, Any] = {
        "labels": label_set.names,
        "templates": label_set.templates,
        "options": {name: value for name, value in asdict(options).items() if value is not None},
    }
    if words := {label.name: label.words for label in label_set.labels if label.words != (label.leaf,)}:
        details["words"] = words
    if label_set.thresholds:
        details["thresholds"] = dict(label_set.thresholds)
    return {"label_set": label_set.name, "templates": label_set.templates_name, "details": details}


def _labelling(
    seams: Seams, paths: Sequence[int | str | os.PathLike[str]] | None
) -> tuple[EncoderRow | None, TextHalf | Encoder]:
    """What labels: the text half where photos' vectors may be known, else the whole model; and its row, if any."""
    model = seams.model
    if paths is None:
        row = model.answering()
        return row, model.half(row) or model.made_sure(row.fingerprint)
    if model.loaded is None and seams.catalog.exists():
        known = model.named()
        if known and (half := model.half(known)):
            return known, half
    return _own_row(seams), model.encoder


def _own_row(seams: Seams) -> EncoderRow | None:
    """The loaded model as the catalog knows it; None if there is no library or it has no vectors by it."""
    fingerprint = seams.model.encoder.fingerprint
    return seams.catalog.encoder(fingerprint=fingerprint) if seams.catalog.exists() else None


def _whom_to_label(
    seams: Seams, paths: Sequence[int | str | os.PathLike[str]] | None, row: EncoderRow | None, skipped: list[Skip]
) -> tuple[list[int], list[str]]:
    """Tell photos whose vectors the library has from files that must be read; note what can't be looked at."""
    if paths is None:
        return seams.catalog.all_ids().tolist(), []

    def unread(path: str, error: OSError) -> None:
        skipped.append(Skip(path, SkipReason.UNREADABLE, error.strerror or str(error)))

    sources = seams.sources()
    files: dict[str, FileStat] = {}
    for path in (_place(seams, ref) for ref in paths):
        if not sources.kind(path):
            raise UsageError(f"there is no file or folder {path}")
        files |= {file.path: file for file in sources.scan(path, on_error=unread)}
    ids = []
    for photo in _own_photos(seams, list(files), row):
        file = files[photo.path]
        if (photo.size_bytes, photo.mtime_ns) == (file.size_bytes, file.mtime_ns):
            ids.append(photo.id)
            del files[photo.path]
    return ids, list(files)


def _place(seams: Seams, ref: int | str | os.PathLike[str]) -> str:
    """Return where a photo is, by id or path. Raises UnknownPhoto for an id that is none."""
    if not isinstance(ref, int):
        return real(ref)
    known = seams.known(ref) if seams.catalog.exists() else None
    if known is None:
        raise UnknownPhoto(f"photo {ref} is not in the library")
    return known.path


def _own_photos(seams: Seams, paths: list[str], row: EncoderRow | None) -> list[Photo]:
    """Photos of the library among these paths that have a vector by this model."""
    if row is None:
        return []
    ids, _ = seams.catalog.embeddings(row, seams.catalog.ids_at(paths))
    return seams.catalog.get(ids.tolist())


def _label_known(seams: Seams, ids: list[int], row: EncoderRow | None, classifier: Classifier) -> list[_Known]:
    labelled: list[_Known] = []
    if row is None:
        return labelled
    rejected = seams.catalog.rejected()
    for start in range(0, len(ids), _BATCH):
        found, vectors = seams.catalog.embeddings(row, ids[start : start + _BATCH])
        photos = seams.catalog.get(found.tolist())
        labelled += _around(photos, normalize(vectors), classifier, rejected)
    return labelled


def _around(
    photos: Sequence[Photo], vectors: Vectors, classifier: Classifier, rejected: Mapping[int, Set[str]]
) -> list[_Known]:
    """Label photos with what the user did not reject on them.   vectors: (N, D) float32, unit rows."""
    plain = classifier.classify(vectors)
    rows = [n for n, photo in enumerate(photos) if not rejected.get(photo.id, set()).isdisjoint(classifier.names)]
    without = np.array(
        [[name in rejected[photos[n].id] for name in classifier.names if name != NONE_OF_THESE] for n in rows],
        dtype=bool,
    )
    again = dict(zip(rows, classifier.classify(vectors[rows], without), strict=True)) if rows else {}
    known = []
    for n, (photo, (first, _)) in enumerate(zip(photos, plain, strict=True)):
        best, above = again.get(n, plain[n])
        refused = frozenset(rejected.get(photo.id, ()))
        known.append(
            _Known(LabelledPhoto(photo.path, best, photo.id, above), first if n in again else (), refused)
        )
    return known
