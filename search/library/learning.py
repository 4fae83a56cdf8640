"""How verdicts become heads: examples gathered from the catalog, heads trained and kept."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from search.errors import LibraryError
from search.heads import HINT_WEIGHT, Cut, Examples, Gain, Head, Space, cut, gain, held_out, train
from search.labels import Classifier, LabelOptions, LabelSet
from search.relevance import BACKGROUND
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import EncoderRow
    from search.catalog.rows import HeadRow
    from search.encoders import Encoder
    from search.encoders.recipes import TextHalf
    from search.library.seams import Seams
    from search.types import Vectors


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a label's verdicts came to.   cut: None where no precision was asked for, or verdicts show none."""

    head: Head
    gain: Gain
    cut: Cut | None


class Teacher:
    """Trains the heads of labels under one model, from verdicts that are kept here too.

    label_set: how the labels are worded.   said: by label, of photo ids, whether the user accepted it.
    """

    def __init__(self, seams: Seams, row: EncoderRow, label_set: LabelSet, encoder: TextHalf | Encoder) -> None:
        from search.encoders import recipes

        self._catalog, self._row = seams.catalog, row
        remember = encoder.remember if isinstance(encoder, recipes.TextHalf) else None
        self._classifier = Classifier.build(
            label_set,
            encoder,
            LabelOptions(multi=True),
            bank=lambda: seams.model.bank(row),
            remember=remember,
        )
        self.names = label_set.names
        self.said: dict[str, dict[int, bool]] = {}
        for verdict in self._catalog.verdicts():
            self.said.setdefault(verdict.label, {})[verdict.photo_id] = verdict.accepted
        self._vectors: dict[int, Vectors] = {}
        ids = self._catalog.all_ids()
        self._sample_ids, self._sample = self.vectors(ids[:: max(1, len(ids) // BACKGROUND)].tolist())
        self._space = Space.of(self._sample)

    @property
    def space(self) -> Space:
        return self._space

    def vectors(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Return photos that have a vector, ids ascending, and their unit rows (N, D)."""
        found, vectors = self._catalog.embeddings(self._row, ids)
        return found, normalize(vectors)

    def offsets(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return the zero-shot log odds (N, C) of photos, in the order of names."""
        return self._classifier.log_odds(vectors)

    def head(self, label: str, *, before: Head | None = None) -> Head:
        """Train a label's head on its verdicts; `before` is what it was when there were fewer."""
        return train(label, self._examples(label), self._space, before=before)

    def lesson(self, label: str, precision: float | None) -> Lesson:
        """Train a label's head, and tell what it brings and from where on it is right as often as asked for."""
        examples = self._examples(label)
        head = train(label, examples, self._space)
        odds = held_out(examples, self._space)
        found = None
        if precision is not None:
            others = self._sample[~np.isin(self._sample_ids, list(self.said.get(label, {})))]
            library = self.offsets(others)[:, self.names.index(label)] + head.correction(others)
            found = cut(precision, examples, odds=odds, library=library)
        head = replace(head, precision=precision, threshold=found.threshold if found else None)
        return Lesson(head, gain(label, examples, odds), found)

    def _examples(self, label: str) -> Examples:
        """Gather a label's verdicts, and as hints other labels' photos, which together count no more than those."""
        own = self.said.get(label, {})
        others = {
            id_
            for name, said in self.said.items()
            if not _related(name, label)
            for id_, accepted in said.items()
            if accepted and id_ not in own
        }
        most = int(len(own) / HINT_WEIGHT)
        hints = sorted(others)
        hints = hints[:: max(1, -(-len(hints) // most))] if most else []
        ids = [*own, *hints]
        self._read(ids)
        ids = [id_ for id_ in ids if id_ in self._vectors]
        dim = self._sample.shape[1]
        vectors = np.stack([self._vectors[id_] for id_ in ids]) if ids else np.empty((0, dim), np.float32)
        return Examples(
            vectors,
            np.array([own.get(id_, False) for id_ in ids], bool),
            self.offsets(vectors)[:, self.names.index(label)],
            np.array([id_ in own for id_ in ids], bool),
        )

    def _read(self, ids: Sequence[int]) -> None:
        """Have the vectors of photos at hand, those that there are."""
        missing = [id_ for id_ in ids if id_ not in self._vectors]
        if missing:
            self._vectors |= dict(zip(*_rows(self.vectors(missing)), strict=True))

    # ---- kept

    def kept(self, label: str, row: HeadRow | None) -> Head | None:
        """Return a head as the catalog has it; None if it has none, or one of other verdicts or another wording."""
        if row is None or row.details.get("made_of") != self.made_of(label):
            return None
        weights = np.frombuffer(row.weights, "<f4")
        if weights.shape != (self._sample.shape[1],) or not np.isfinite(weights).all():
            return None
        return Head(label, weights, row.bias, row.threshold, row.precision, row.examples)

    def keep(self, heads: Iterable[Head]) -> None:
        """Write heads into the catalog. Raises LibraryError where it can't be written to now."""
        from search.catalog.rows import HeadRow

        at = datetime.now(UTC).replace(tzinfo=None)
        rows = [
            HeadRow(
                head.label,
                head.weights.astype("<f4").tobytes(),
                head.bias,
                head.threshold,
                head.precision,
                head.examples,
                {"made_of": self.made_of(head.label)},
                at,
            )
            for head in heads
        ]
        with self._catalog.writing() as writer:
            writer.put_heads(self._row.id, rows)

    def made_of(self, label: str) -> int:
        """Return a number that is another one once a label's verdicts are, or its wording is."""
        said = repr(sorted(self.said.get(label, {}).items())).encode()
        words = self._classifier.weights[self.names.index(label)]
        return zlib.crc32(said, zlib.crc32(np.round(words, 3).astype("<f4").tobytes()))


def learned(seams: Seams, row: EncoderRow, label_set: LabelSet, encoder: TextHalf | Encoder) -> Mapping[str, Head]:
    """Return the heads of the labels of a set that were judged; those that are missing or stale are trained anew."""
    judged = {verdict.label for verdict in seams.catalog.verdicts()}
    labels = tuple(label for label in label_set.labels if label.name in judged)
    if not labels:
        return {}
    teacher = Teacher(seams, row, replace(label_set, labels=labels, thresholds={}), encoder)
    rows = seams.catalog.heads(row.id)
    heads, fresh = {}, []
    for name in teacher.names:
        head = teacher.kept(name, rows.get(name))
        if head is None:
            before = rows.get(name)
            head = teacher.lesson(name, before.precision if before else None).head
            fresh.append(head)
        heads[name] = head
    if fresh:
        with suppress(LibraryError):  # they are made of what is there, and need not be kept
            teacher.keep(fresh)
    return heads


def _related(one: str, other: str) -> bool:
    """Whether labels are the same, or one is above the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _rows(found: tuple[npt.NDArray[np.int64], Vectors]) -> tuple[list[int], Vectors]:
    return found[0].tolist(), found[1]
