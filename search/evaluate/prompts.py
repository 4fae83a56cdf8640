"""The prompt laboratory: what other wordings, and other labels beside them, do to zero-shot answers.

Everything is reckoned from vectors that are there, so that a wording costs the encoding of its texts and no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.errors import UsageError
from search.evaluate.metrics import confusion_matrix, top_k_accuracy
from search.evaluate.naming import by_class, spoken_names
from search.evaluate.statistics import Interval, Paired, holm, mcnemar, mean_share, paired, share
from search.labels import Label, LabelSet

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.evaluate.datasets import Dataset
    from search.labels import LabelEncoder
    from search.labels.sets import Remember
    from search.types import Vectors

    Integers = npt.NDArray[np.int64]

_CONFUSIONS, _EXAMPLES = 6, 4  # of the worst mistakes, and photos of each
_NOBODY = -1  # the class of photos that a label stands for, where there is none
_BLOCK = 4096  # photos whose scores with every class are in memory as probabilities


@dataclass(frozen=True, slots=True)
class Wording:
    """A way to word the classes of a data set: a label set whose names are the class folders', in their order."""

    name: str
    label_set: LabelSet

    def only(self, folders: Sequence[str]) -> Wording:
        """Return it for some of the classes, in the order given."""
        known = dict(zip(self.label_set.names, self.label_set.labels, strict=True))
        return Wording(self.name, _changed(self.label_set, [known[folder] for folder in folders]))


@dataclass(frozen=True, slots=True)
class WordingResult:
    """What a wording makes of photos.

    predicted: (N,) places of classes.   probability: (N,) of the predicted class.   acc5: NaN below five classes.
    recalls: a share for each class.   confusion: (C, C), rows the true classes.   truncated_tokens: of its texts,
    beyond what the model reads.
    """

    wording: Wording
    predicted: Integers
    probability: npt.NDArray[np.float32]
    accuracy: Interval
    acc5: float
    mean_per_class_recall: Interval
    recalls: tuple[Interval, ...]
    confusion: Integers
    truncated_tokens: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """The winner against another wording.   p: McNemar's, corrected for all pairs of wordings (Holm)."""

    other: int
    paired: Paired
    p: float

    @property
    def is_sure(self) -> bool:
        """Whether the difference can hardly be chance."""
        return self.p < 0.05


@dataclass(frozen=True, slots=True)
class Mistake:
    """Photos of one class that were called another.   rows: those most sure of it first; count: how many in all."""

    true: int
    said: int
    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PromptEvaluation:
    """dataset: as measured.   winner: the place of the most accurate result, of equal ones the first."""

    dataset: Dataset
    results: tuple[WordingResult, ...]
    winner: int
    comparisons: tuple[Comparison, ...]

    @property
    def best(self) -> WordingResult:
        return self.results[self.winner]

    def mistakes(self, result: WordingResult) -> list[Mistake]:
        """Return the most frequent confusions, with the photos of each that were most surely mistaken."""
        wrong = result.confusion - np.diag(np.diag(result.confusion))
        order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
        found = []
        for true, said in zip(*(axis.tolist() for axis in np.unravel_index(order, wrong.shape)), strict=True):
            if wrong[true, said]:
                rows = np.flatnonzero((self.dataset.targets == true) & (result.predicted == said))
                surest = rows[np.argsort(-result.probability[rows], kind="stable")][:_EXAMPLES]
                found.append(Mistake(true, said, len(rows), tuple(surest.tolist())))
        return found


def evaluate_prompts(
    dataset: Dataset,
    vectors: Vectors,
    wordings: Sequence[Wording],
    *,
    encoder: LabelEncoder,
    remember: Remember | None = None,
) -> PromptEvaluation:
    """Classify photos once by each wording, and compare the best with the others on the same photos.

    vectors: (N, D) of the data set's photos, unit rows.   remember: what knows class weights from before.
    """
    results = tuple(_result(dataset, vectors, wording, encoder, remember) for wording in wordings)
    winner = int(np.argmax([result.accuracy.value for result in results]))
    return PromptEvaluation(dataset, results, winner, _compared(results, winner, dataset.targets))


def _result(
    dataset: Dataset,
    vectors: Vectors,
    wording: Wording,
    encoder: LabelEncoder,
    remember: Remember | None,
) -> WordingResult:
    weights, beyond = wording.label_set.embed(encoder, remember)
    scores = vectors @ weights.T  # (N, C)
    predicted, probability = _decided(scores, encoder.logit_scale)
    targets, classes = dataset.targets, len(dataset.classnames)
    right = predicted == targets
    return WordingResult(
        wording=wording,
        predicted=predicted,
        probability=probability,
        accuracy=share(right),
        acc5=top_k_accuracy(scores, targets, 5),
        mean_per_class_recall=mean_share(right, targets),
        recalls=tuple(share(right[targets == place]) for place in range(classes)),
        confusion=confusion_matrix(predicted, targets, classes),
        truncated_tokens=beyond,
    )


def _decided(scores: npt.NDArray[np.float32], logit_scale: float) -> tuple[Integers, npt.NDArray[np.float32]]:
    """Return the best class of each photo (N,), and its softmax probability (N,)."""
    probability = np.empty(len(scores), np.float32)
    for start in range(0, len(scores), _BLOCK):
        part = scores[start : start + _BLOCK]
        powers = np.exp((part - part.max(axis=1, keepdims=True)) * np.float32(logit_scale))
        probability[start : start + _BLOCK] = 1 / powers.sum(axis=1)
    return scores.argmax(axis=1).astype(np.int64), probability


def _compared(results: Sequence[WordingResult], winner: int, targets: Integers) -> tuple[Comparison, ...]:
    """Compare all pairs, since any could have been the winner's, and return those of the winner."""
    right = [result.predicted == targets for result in results]
    pairs = [(one, other) for one in range(len(right)) for other in range(one)]
    values = holm(
        [mcnemar(int((right[i] & ~right[j]).sum()), int((right[j] & ~right[i]).sum())) for i, j in pairs]
    )
    corrected = {frozenset(pair): p for pair, p in zip(pairs, values, strict=True)}
    return tuple(
        Comparison(other, paired(right[winner], right[other]), corrected[frozenset((winner, other))])
        for other in range(len(right))
        if other != winner
    )


# ---- wordings


def wordings_of(
    dataset: Dataset,
    *,
    templates: Mapping[str, Sequence[str] | Mapping[str, tuple[str, ...]]],
    names: Mapping[str, Sequence[Label]] | None = None,
    captions: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
) -> tuple[Wording, ...]:
    """Return the wordings of a data set: every way to name its classes in all templates, and the captions.

    templates: by what to call them; sentences per class stand alone.   names: labels by what to call them, as
    `read_names` gives them; none: the folders' names.   captions: as `read_captions` gives them.
    """
    found = []
    for called, labels in (names or {"": spoken_names(dataset)}).items():
        for name, texts in templates.items():
            if not isinstance(texts, Mapping):
                found.append(Wording(" · ".join(filter(None, (called, name))), LabelSet.of(labels, tuple(texts))))
    plain = spoken_names(dataset)
    sentences = {name: by_class(texts, dataset) for name, texts in templates.items() if isinstance(texts, Mapping)}
    for name, per_class in {**sentences, **(captions or {})}.items():
        found.append(Wording(name, LabelSet.described(plain, dict(per_class))))
    return tuple(found)


def saved(label_set: LabelSet) -> dict[str, Any]:
    """Return a label set as a document: `search label --labels FILE#labels --templates FILE#templates` reads it.

    Classes spoken of otherwise than they are named have their sentences in it.
    """
    names = list(label_set.names)
    if not label_set.prompts and all(label.words == (label.name,) for label in label_set.labels):
        return {"labels": names, "templates": list(label_set.templates)}
    return {"labels": names, "templates": {label.name: label_set.sentences(label) for label in label_set.labels}}


# ---- other labels beside them


@dataclass(frozen=True, slots=True)
class Change:
    """A label set with a label more, less or split.   owners: (C',) the class each label stands for, -1 for none."""

    name: str
    label_set: LabelSet
    owners: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """What a change of labels does.

    counted: (N,) photos that still have a right answer.   before, after: (N,) labels said, places in the old and the
    new set.   probability: (N,) of the new.   right_before, right_after: (N,).   paired: after against before, on the
    photos counted.   confusion: (C, C'), rows the true classes, columns the new labels.
    """

    change: Change
    counted: npt.NDArray[np.bool_]
    before: Integers
    after: Integers
    probability: npt.NDArray[np.float32]
    right_before: npt.NDArray[np.bool_]
    right_after: npt.NDArray[np.bool_]
    paired: Paired
    confusion: Integers

    @property
    def moved(self) -> Integers:
        """Photos whose answer is of another class now, those that were right first, the surest first."""
        owners = np.array(self.change.owners)
        rows = np.flatnonzero(owners[self.after] != self.before)
        order = np.lexsort((-self.probability[rows], ~self.right_before[rows]))
        return rows[order].astype(np.int64)


def adding(wording: Wording, name: str, words: Sequence[str] = ()) -> Change:
    """Add a label that no photo is of.   words: what prompts call it; for captions, its sentences."""
    kept = wording.label_set.labels
    if name in wording.label_set.names:
        raise UsageError(f"{name} is a class already", hint="--split or --drop changes one that is there")
    owners = (*range(len(kept)), _NOBODY)
    return Change(f"with {name}", _changed(wording.label_set, (*kept, _label(name, words))), owners)


def dropping(wording: Wording, folder: str) -> Change:
    """Leave out a class; its photos have no right answer then."""
    place = _place(wording, folder)
    kept = wording.label_set.labels
    owners = tuple(number for number in range(len(kept)) if number != place)
    if len(owners) < 2:
        raise UsageError(f"without {folder} there is nothing to choose from")
    return Change(f"without {folder}", _changed(wording.label_set, [kept[number] for number in owners]), owners)


def splitting(wording: Wording, folder: str, parts: Sequence[str]) -> Change:
    """Put several labels in the place of a class; its photos are right as any of them."""
    place = _place(wording, folder)
    kept = wording.label_set.labels
    labels = [*kept[:place], *(_label(part, ()) for part in parts), *kept[place + 1 :]]
    owners = (*range(place), *[place] * len(parts), *range(place + 1, len(kept)))
    return Change(f"{folder} as {', '.join(parts)}", _changed(wording.label_set, labels), owners)


def _label(name: str, words: Sequence[str]) -> Label:
    return Label(name, tuple(words) or (name.replace("_", " "),))


def _place(wording: Wording, folder: str) -> int:
    names = wording.label_set.names
    if folder not in names:
        raise UsageError(f"{folder} is no class", hint=f"there are {', '.join(names)}")
    return names.index(folder)


def _changed(label_set: LabelSet, labels: Sequence[Label]) -> LabelSet:
    """A set with other labels and the same templates; with sentences per class, a new one's words are its own."""
    plain = LabelSet.of(labels, label_set.templates or None)
    if not label_set.prompts:
        return plain
    known = label_set.prompts
    return LabelSet.described(plain.labels, {label.name: known.get(label.name, label.words) for label in labels})


def evaluate_changes(
    dataset: Dataset,
    vectors: Vectors,
    result: WordingResult,
    changes: Sequence[Change],
    *,
    encoder: LabelEncoder,
    remember: Remember | None = None,
) -> Iterator[ChangeResult]:
    """Classify photos anew by each changed set of labels.   result: what they are held against."""
    targets = dataset.targets
    for change in changes:
        weights, _ = change.label_set.embed(encoder, remember)
        after, probability = _decided(vectors @ weights.T, encoder.logit_scale)
        counted = np.isin(targets, change.owners)
        before, right = result.predicted == targets, np.array(change.owners)[after] == targets
        confusion = np.zeros((len(dataset.classnames), len(change.owners)), np.int64)
        np.add.at(confusion, (targets, after), 1)
        yield ChangeResult(
            change=change,
            counted=counted,
            before=result.predicted,
            after=after,
            probability=probability,
            right_before=before,
            right_after=right,
            paired=paired(right[counted], before[counted]),
            confusion=confusion,
        )
