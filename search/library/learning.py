"""How verdicts become heads: examples gathered from the catalog, heads trained and kept.

A label that a probe knows begins at what that says in place of its text. Probes stand in the details of runs, the last
one that was not undone counts; a head that is kept corrects the text all the same, so that who uses it need not know.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from search.catalog.rows import PACKED
from search.errors import EncoderMismatch, LibraryError, UsageError
from search.heads import HINT_WEIGHT, Cut, Examples, Gain, Head, Probe, Space, cut, gain, held_out, train
from search.labels import Classifier, LabelOptions, LabelSet
from search.relevance import BACKGROUND
from search.types import RunKind
from search.vectors import normalize

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog import Catalog, EncoderRow
    from search.catalog.rows import HeadRow
    from search.catalog.tags import Word
    from search.encoders import Encoder
    from search.encoders.recipes import TextHalf
    from search.library.seams import Seams
    from search.types import Vectors

_MOST = 2000  # accepted and rejected photos each that a label is learnt from
_REST = 512  # photos that nobody judged
_SPREAD = 2_654_435_761  # 2^32 by the golden ratio
_VERSION = 2  # of what verdicts are made into
_WEIGHTS, _BIASES = PACKED  # in the details of a probe's run: little-endian float32 in base64


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a label's verdicts came to.

    head: as `Teacher.whole` gives it.   cut: None where no precision was asked for, or verdicts show none.
    """

    head: Head
    gain: Gain
    cut: Cut | None


class Teacher:
    """Trains the heads of labels under one model, from verdicts that are kept here too.

    label_set: how the labels are worded.   said: by label, of photo ids, what the user said.
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
        self.names, self._label_set = label_set.names, label_set
        self._probed = probed(seams.catalog, row)
        self.read()
        self._vectors: dict[int, Vectors] = {}
        ids = self._catalog.all_ids()
        self._sample_ids, self._sample = self.vectors(ids[:: max(1, len(ids) // BACKGROUND)].tolist())
        self._space = Space.of(self._sample)

    def read(self) -> None:
        """Learn what was said by now."""
        # First: what is said meanwhile makes heads stale.
        self._marks = made_of(self._catalog, self._label_set, self._probed)
        self.said: dict[str, dict[int, Word]] = self._catalog.words()

    @property
    def space(self) -> Space:
        return self._space

    def vectors(self, ids: Sequence[int]) -> tuple[npt.NDArray[np.int64], Vectors]:
        """Return photos that have a vector, ids ascending, and their unit rows (N, D)."""
        found, vectors = self._catalog.embeddings(self._row, ids)
        return found, normalize(vectors)

    def offsets(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return the log odds (N, C) of photos that labels begin at, in the order of names: probes', else zero-shot."""
        odds = self._classifier.log_odds(vectors)
        for place, name in enumerate(self.names):
            if name in self._probed:
                odds[:, place] = self._probed[name].head.correction(vectors)
        return odds

    def whole(self, head: Head) -> Head:
        """Return a head as a correction of what the label's text says, where a probe speaks in its place."""
        if head.label not in self._probed:
            return head
        begun, (weights, biases) = self._probed[head.label].head, self._texts
        place = self.names.index(head.label)
        base = replace(begun, weights=begun.weights - weights[place], bias=begun.bias - float(biases[place]))
        level = float(base.correction(self._sample).mean()) if len(self._sample) else 0.0
        return replace(
            head, weights=base.weights + head.weights, bias=base.bias + head.bias, level=level + head.level
        )

    @cached_property
    def _texts(self) -> tuple[Vectors, Vectors]:
        return linear(self._classifier, self._sample.shape[1])

    def head(self, label: str, *, before: Head | None = None) -> Head:
        """Train a label's head on its verdicts, a correction of `offsets`; `before`: what it was with fewer."""
        return train(label, self._examples(label), self._space, before=before)

    def lesson(self, label: str, precision: float | None) -> Lesson:
        """Train a label's head, and tell what it brings and from where on it is right as often as asked for."""
        examples = self._examples(label)
        head = train(label, examples, self._space)
        tells = precision is not None or examples.tell_enough
        odds = held_out(examples, self._space) if tells else np.asarray(examples.offsets, np.float64)
        found = None
        if precision is not None:
            others = self._sample[~np.isin(self._sample_ids, list(self.said.get(label, {})))]
            library = self.offsets(others)[:, self.names.index(label)] + head.correction(others)
            found = cut(precision, examples, odds=odds, library=library)
        head = replace(head, precision=precision, threshold=found.threshold if found else None)
        return Lesson(self.whole(head), gain(label, examples, odds), found)

    def _examples(self, label: str) -> Examples:
        """Gather a label's verdicts, as hints other labels' photos, which count no more than those, and some others.

        Of very many verdicts some thousands are taken, as many of either kind where there are.
        """
        said = self.said.get(label, {})
        kinds = ([id_ for id_, word in said.items() if word.accepted == kind] for kind in (True, False))
        own = {id_: said[id_] for ids in kinds for id_ in _some(ids, _MOST)}
        hints = _some(self._others(label), min(_MOST, int(len(own) / HINT_WEIGHT)))
        ids = [*own, *hints]
        self._read(ids)
        ids = [id_ for id_ in ids if id_ in self._vectors]
        dim = self._sample.shape[1]
        vectors = np.stack([self._vectors[id_] for id_ in ids]) if ids else np.empty((0, dim), np.float32)
        return Examples(
            vectors,
            np.array([id_ in own and own[id_].accepted for id_ in ids], bool),
            self.offsets(vectors)[:, self.names.index(label)],
            np.array([id_ in own and not own[id_].by_rule for id_ in ids], bool),
            self._rest(label),
        )

    def _others(self, label: str) -> set[int]:
        """Return photos that were accepted one by one for a label that has nothing to do with this one."""
        own = self.said.get(label, {})
        return {
            id_
            for name, said in self.said.items()
            if not _related(name, label)
            for id_, word in said.items()
            if word.accepted and not word.by_rule and id_ not in own
        }

    def _rest(self, label: str) -> tuple[Vectors, npt.NDArray[np.float32]]:
        """Return photos that were not judged, and their zero-shot log odds."""
        rest = self._sample[[id_ not in self.said.get(label, {}) for id_ in self._sample_ids.tolist()]]
        rest = rest[:: max(1, len(rest) // _REST)]
        return rest, self.offsets(rest)[:, self.names.index(label)]

    def _read(self, ids: Sequence[int]) -> None:
        """Have the vectors of photos at hand, those that there are."""
        missing = [id_ for id_ in ids if id_ not in self._vectors]
        if missing:
            self._vectors |= dict(zip(*_rows(self.vectors(missing)), strict=True))

    # ---- kept

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
                {"made_of": self._marks.get(head.label), "level": head.level},
                at,
            )
            for head in heads
        ]
        with self._catalog.writing() as writer:
            writer.put_heads(self._row.id, rows)


def learned(seams: Seams, row: EncoderRow, label_set: LabelSet, encoder: TextHalf | Encoder) -> Mapping[str, Head]:
    """Return the heads of the labels of a set that were judged, or that a probe knows; missing or stale ones anew."""
    marks = made_of(seams.catalog, label_set, probed(seams.catalog, row))
    if not marks:
        return {}
    rows = seams.catalog.heads(row.id)
    kept = {name: _kept(rows.get(name), mark, row.dim) for name, mark in marks.items()}
    heads = {name: head for name, head in kept.items() if head}
    stale = tuple(label for label in label_set.labels if label.name in kept and label.name not in heads)
    if not stale:
        return heads
    teacher = Teacher(seams, row, replace(label_set, labels=stale, thresholds={}), encoder)
    before = {name: rows[name].precision if name in rows else None for name in teacher.names}
    fresh = [teacher.lesson(name, before[name]).head for name in teacher.names]
    with suppress(LibraryError):  # they are made of what is there, and need not be kept
        teacher.keep(fresh)
    return heads | {head.label: head for head in fresh}


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe says of a label: `head.correction` is its log odds.   run: that put it into the library."""

    run: int
    head: Head


def probed(catalog: Catalog, row: EncoderRow) -> dict[str, Probed]:
    """Return what probes say under a model, by label: of several the last that was not undone."""
    found: dict[str, Probed] = {}
    for run, details in catalog.standing(RunKind.PROBE, row.id).items():
        with suppress(KeyError, TypeError, ValueError, UsageError):  # damage took them, or made others of them
            probe = _unpacked(details, row)
            for name, slope, bias in zip(probe.labels, probe.weights, probe.biases.tolist(), strict=True):
                found[name] = Probed(run, Head(name, slope, bias))
    return found


def _unpacked(details: Mapping[str, Any], row: EncoderRow) -> Probe:
    """Read what `put_probe` packed.   Raises KeyError, TypeError, ValueError, UsageError."""
    weights, biases = (np.frombuffer(base64.b64decode(details[name]), "<f4") for name in (_WEIGHTS, _BIASES))
    return Probe(tuple(details["labels"]), weights.reshape(-1, row.dim), biases, row.fingerprint)


def put_probe(seams: Seams, probe: Probe) -> int:
    """Write a probe into the library, as a run; return its number.   Raises EncoderMismatch, LibraryError."""
    row = seams.model.answering()
    if probe.fingerprint != row.fingerprint or probe.weights.shape[1] != row.dim:
        raise EncoderMismatch(
            f"the probe reads vectors of another model than {row.name}, by which the library is indexed",
            hint="train it anew on this library's model",
        )
    packed = {
        name: base64.b64encode(values.astype("<f4").tobytes()).decode()
        for name, values in ((_WEIGHTS, probe.weights), (_BIASES, probe.biases))
    }
    details = {**probe.details, "labels": list(probe.labels), **packed}
    with (
        seams.catalog.writing() as writer,
        writer.run(RunKind.PROBE, encoder_id=row.id, details=details) as run,
    ):
        return run.id


def taught(seams: Seams, label_set: LabelSet) -> Probe:
    """Return what verdicts and probes came to of labels, as a probe that needs neither.   Raises LibraryError."""
    row = seams.model.answering()
    encoder, remember = seams.model.texts(row)
    heads = learned(seams, row, label_set, encoder)
    classifier = Classifier.build(
        label_set, encoder, LabelOptions(multi=True), bank=lambda: seams.model.bank(row), remember=remember
    )
    weights, biases = linear(classifier, row.dim)
    of_each = [heads[name] for name in label_set.names]
    details = {"from": "verdicts", "model": row.name, "verdicts": {head.label: head.examples for head in of_each}}
    return Probe(
        label_set.names,
        weights + np.stack([head.weights for head in of_each]),
        biases + np.array([head.bias for head in of_each], np.float32),
        row.fingerprint,
        details,
    )


def linear(classifier: Classifier, dim: int) -> tuple[Vectors, Vectors]:
    """Return the weights (C, D) and biases (C,) that a classifier's log odds come to."""
    biases = classifier.log_odds(np.zeros((1, dim), np.float32))[0]
    return (classifier.log_odds(np.eye(dim, dtype=np.float32)) - biases).T, biases


def made_of(catalog: Catalog, label_set: LabelSet, begun: Mapping[str, Probed]) -> dict[str, int]:
    """Return, of labels that were judged or probed, a number that is another one once what they are made of is.

    That is their verdicts, their wording and their probe.
    """
    marks = catalog.marks(label_set.names)
    known = marks.keys() | begun.keys()
    words = {label.name: label_set.sentences(label) for label in label_set.labels if label.name in known}
    runs = {name: (begun[name].run,) for name in words if name in begun}
    return {
        name: zlib.crc32(repr((_VERSION, marks.get(name), said, *runs.get(name, ()))).encode())
        for name, said in words.items()
    }


def _kept(row: HeadRow | None, made_of: int, dim: int) -> Head | None:
    """Return a head as the catalog has it; None if it has none, or one of other verdicts or another wording."""
    if row is None or row.details.get("made_of") != made_of:
        return None
    weights = np.frombuffer(row.weights, "<f4")
    if weights.shape != (dim,) or not np.isfinite(weights).all():
        return None
    level = float(row.details.get("level", 0.0))
    return Head(row.label, weights, row.bias, row.threshold, row.precision, row.examples, level)


def _some(ids: Iterable[int], most: int) -> list[int]:
    """Return so many of some ids at most, spread as if by chance; one more changes few of them."""
    every = list(ids)
    return every if len(every) <= most else sorted(every, key=lambda id_: (id_ * _SPREAD % 2**32, id_))[:most]


def _related(one: str, other: str) -> bool:
    """Whether labels are the same, or one is above the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _rows(found: tuple[npt.NDArray[np.int64], Vectors]) -> tuple[list[int], Vectors]:
    return found[0].tolist(), found[1]
