"""Reviewing labels: which photo to ask about next, what an answer changes, and what all of them brought.

Labels take turns, the one with fewest verdicts first, so that rare ones get theirs; of a label that photo is asked
about which it is least sure of, unless it looks like one of those asked just before. With a precision asked for, every
second question of a label is one that it takes for likely: where to cut is learnt from those.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from search.catalog.tags import Word
from search.errors import LibraryError, UnknownRun, UsageError
from search.heads import Cut, Gain, Head
from search.labels import Label, LabelSet
from search.library.learning import Teacher
from search.measures import sigmoid
from search.photos.keywords import legible
from search.types import RunKind

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.library.seams import Seams
    from search.types import Ids, Photo, Vectors

_MOST_PHOTOS = 20_000  # that are looked at, taken evenly from more
_TOGETHER = 4096  # photos whose log odds for all labels are in memory at a time
_JUST_ASKED = 12  # of a label, that the next should not look like
_ALIKE = 0.9  # cosine between two photos' features
_SHORTLIST = 200  # the doubtful ones among which one that looks like none of those is sought


@dataclass(frozen=True, slots=True)
class Item:
    """A question: has this photo this label?

    probability: what the label's head says.   uncertainty: in [0, 1], 1 for a probability of a half.   left: how many
    questions there are, this one among them.
    """

    photo: Photo
    label: str
    probability: float
    uncertainty: float
    why: str
    left: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What verdicts changed for a label on the photos that it may be asked about.

    likely: those that it is now more likely on than not; gained of them were not by its text alone, lost were.
    """

    label: str
    photos: int
    likely: int
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a review brought to a label.

    precision: asked for; `cut` says where it begins, None if not enough examples show it yet.
    """

    gain: Gain
    precision: float | None
    cut: Cut | None


@dataclass(frozen=True, slots=True)
class ReviewReport:
    """A review that is over; run: None if nothing was judged.   corrected: rejected for another label."""

    run: int | None
    accepted: int
    rejected: int
    corrected: int
    learnt: tuple[Learnt, ...]


@dataclass(frozen=True, slots=True)
class _Answer:
    item: Item
    said: dict[str, bool]
    before: dict[str, Word | None]


@dataclass(slots=True, eq=False)
class _Pool:
    """The photos that a label may be asked about, by their places among all; zero-shot and current log odds."""

    places: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.float32]
    odds: npt.NDArray[np.float32]
    open: npt.NDArray[np.bool_]
    asked: list[int] = field(default_factory=list)


class Review:
    """A session: ask `next`, answer with `judge`, `correct` or `skip`, take the last answer back with `undo`.

    Every answer is committed at once, and the label's head trained anew; all answers are one run. `finish` keeps the
    heads and tells what was gained. Another process may write to the library meanwhile; where it undoes the run, what
    was answered is gone, and the next answer begins another run.
    """

    def __init__(
        self,
        seams: Seams,
        *,
        labels: Sequence[str] = (),
        precision: float | None = None,
    ) -> None:
        if precision is not None and not 0 < precision < 1:
            raise UsageError(f"a precision of {precision} can't be promised", hint="give one between 0 and 1")
        self._seams, self._precision = seams, precision
        self._row = seams.model.answering()
        self._encoder = seams.model.half(self._row) or seams.model.made_sure(self._row.fingerprint)
        names = tuple(dict.fromkeys(filter(None, map(legible, labels))))
        if labels and not names:
            raise UsageError("there is nothing to read in these labels")
        names = names or tuple(count.label for count in seams.catalog.label_counts() if count.proposed)
        self._run: int | None = None
        self._answers: list[_Answer] = []
        self._heads: dict[str, Head] = {}
        self._pools: dict[str, _Pool] = {}
        self.names = names
        if names:
            self._begin(names, everywhere=bool(labels))

    def _begin(self, names: tuple[str, ...], *, everywhere: bool) -> None:
        catalog = self._seams.catalog
        self._teacher = Teacher(self._seams, self._row, worded(self._seams, names), self._encoder)
        every = _evenly(catalog.all_ids(), _MOST_PHOTOS) if everywhere else np.empty(0, np.int64)
        share = max(1, _MOST_PHOTOS // len(names))
        among = {name: None if everywhere else _evenly(catalog.proposed_ids(name), share) for name in names}
        proposed = [ids for ids in among.values() if ids is not None]
        wanted = np.unique(np.concatenate([every, *proposed]))
        self._ids, self._vectors = self._teacher.vectors(wanted.tolist())
        parts: dict[str, list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]] = {
            name: [] for name in names
        }
        for start in range(0, len(self._ids), _TOGETHER):
            ids = self._ids[start : start + _TOGETHER]
            odds = self._teacher.offsets(self._vectors[start : start + _TOGETHER])
            for column, (name, some) in enumerate(among.items()):
                inside = np.arange(len(ids)) if some is None else np.flatnonzero(np.isin(ids, some))
                parts[name].append((inside + start, odds[inside, column]))
        for name, found in parts.items():
            places = np.concatenate([part[0] for part in found]) if found else np.empty(0, np.int64)
            offsets = np.concatenate([part[1] for part in found]) if found else np.empty(0, np.float32)
            judged = np.array(sorted(self._teacher.said.get(name, {})), np.int64)
            self._pools[name] = _Pool(places, offsets, offsets, ~np.isin(self._ids[places], judged))
            if len(judged):
                self._train(name)

    # ---- asking

    @property
    def left(self) -> int:
        """How many questions there are."""
        return sum(int(pool.open.sum()) for pool in self._pools.values())

    @property
    def run(self) -> int | None:
        """The run that answers are in; None before the first."""
        return self._run

    @property
    def can_undo(self) -> bool:
        """Whether there is an answer to take back."""
        return bool(self._answers)

    def question(self, id_: int, label: str) -> Item | None:
        """Return the question about a photo and a label as it stands; None for one that this does not ask."""
        place = self._place(label, id_)
        return next(iter(self._items([(label, place, "asked for")])), None) if place is not None else None

    def effect(self, label: str) -> Effect | None:
        """Return what verdicts changed for a label; None for one that this does not ask about."""
        pool = self._pools.get(label)
        if pool is None:
            return None
        before, now = pool.offsets > 0, pool.odds > 0
        return Effect(
            label, len(now), int(now.sum()), gained=int((now & ~before).sum()), lost=int((before & ~now).sum())
        )

    def next(self) -> Item | None:
        """Return the next question; the same until it is answered. None if there is none left."""
        return next(iter(self.queue(1)), None)

    def queue(self, k: int) -> list[Item]:
        """Return the next k questions as they would come without answers."""
        counts = {name: len(self._teacher.said.get(name, {})) + len(pool.asked) for name, pool in self._open()}
        taken: dict[str, list[int]] = {name: [] for name in counts}
        chosen: list[tuple[str, int, str]] = []
        while counts and len(chosen) < k:
            name = min(counts, key=lambda name: (counts[name], -self._doubt(name, taken[name])))
            place, why = self._choose(name, taken[name], counts[name])
            if place is None:
                del counts[name]
                continue
            taken[name].append(place)
            counts[name] += 1
            chosen.append((name, place, why))
        return self._items(chosen)

    def _open(self) -> list[tuple[str, _Pool]]:
        return [(name, pool) for name, pool in self._pools.items() if pool.open.any()]

    def _doubt(self, name: str, taken: Sequence[int]) -> float:
        """Return the uncertainty of the most uncertain photo of a label that is left."""
        pool = self._pools[name]
        left = pool.open.copy()
        left[taken] = False
        return float(-np.abs(pool.odds[left]).min(initial=np.inf))

    def _choose(self, name: str, taken: Sequence[int], turn: int) -> tuple[int | None, str]:
        """Return the place in a label's pool to ask about, and why that."""
        pool = self._pools[name]
        left = pool.open.copy()
        left[list(taken)] = False
        places = np.flatnonzero(left)
        if not len(places):
            return None, ""
        middle, why = 0.0, "the least certain"
        likely = pool.odds[places] > 0
        if self._precision is not None and turn % 2 and likely.any():
            middle, why = float(np.median(pool.odds[places][likely])), "likely: how often is that right?"
        apart = np.abs(pool.odds[places] - middle)
        shortlist = places[np.argsort(apart, kind="stable")[:_SHORTLIST]]
        return self._unlike(pool, shortlist, [*pool.asked, *taken][-_JUST_ASKED:]), why

    def _unlike(self, pool: _Pool, shortlist: npt.NDArray[np.int64], asked: Sequence[int]) -> int:
        """Return the first that looks like none of those just asked; the first if all do."""
        if asked:
            one, other = (self._directions(self._vectors[pool.places[some]]) for some in (shortlist, list(asked)))
            good = np.flatnonzero((one @ other.T).max(axis=1) < _ALIKE)
            if len(good):
                return int(shortlist[good[0]])
        return int(shortlist[0])

    def _directions(self, vectors: Vectors) -> Vectors:
        from search.vectors import normalize

        return normalize(vectors - self._teacher.space.centre)

    def _items(self, chosen: Sequence[tuple[str, int, str]]) -> list[Item]:
        ids = [int(self._ids[self._pools[name].places[place]]) for name, place, _ in chosen]
        photos = {photo.id: photo for photo in self._seams.catalog.get(list(dict.fromkeys(ids)))}
        left, items = self.left, []
        for (name, place, why), id_ in zip(chosen, ids, strict=True):
            likely = float(sigmoid(self._pools[name].odds[place]))
            if id_ in photos:
                items.append(Item(photos[id_], name, likely, 1 - abs(2 * likely - 1), why, left))
        return items

    # ---- answering

    def judge(self, item: Item, accepted: bool) -> None:
        """Say whether a photo has a label. Raises LibraryBusy, StorageError; then nothing was said."""
        self._say(item, {item.label: accepted})

    def correct(self, item: Item, label: str) -> None:
        """Say that a photo has another label instead."""
        other = legible(label)
        if not other or other == item.label:
            raise UsageError(
                "say which label is right instead" if not other else f"{other} is the label asked about"
            )
        self._say(item, {item.label: False, other: True})

    def skip(self, item: Item) -> None:
        """Ask no more about this photo and label in this session."""
        self._answers.append(_Answer(item, {}, {}))
        self._close(item.label, item.photo.id, asked=True)

    def undo(self) -> Item | None:
        """Take the last answer back, and return what was asked; None if there is none."""
        if not self._answers:
            return None
        last = self._answers[-1]
        if last.said:
            try:
                with self._seams.catalog.writing() as writer, writer.again(self._begun()) as run:
                    run.retract([(last.item.photo.id, label) for label in last.said])
            except UnknownRun:
                self._forget()
                return None
        self._answers.pop()
        for label, before in last.before.items():
            said = self._teacher.said[label]
            if before is None:
                del said[last.item.photo.id]
            else:
                said[last.item.photo.id] = before
        for label in {last.item.label, *last.said}:
            self._reopen(label, last.item.photo.id)
            self._train(label)
        return last.item

    def _say(self, item: Item, said: dict[str, bool]) -> None:
        id_ = item.photo.id
        rows = [(id_, label, accepted) for label, accepted in said.items()]
        with self._seams.catalog.writing() as writer:
            if self._run is not None:
                try:
                    with writer.again(self._run) as run:
                        run.judge(rows)
                except UnknownRun:
                    self._forget()
            if self._run is None:
                details = {"labels": list(self.names)}
                with writer.run(RunKind.REVIEW, encoder_id=self._row.id, details=details) as run:
                    run.judge(rows)
                self._run = run.id
        known = self._teacher.said
        before = {label: known.get(label, {}).get(id_) for label in said}
        self._answers.append(_Answer(item, said, before))
        for label, accepted in said.items():
            known.setdefault(label, {})[id_] = Word(accepted)
            self._close(label, id_, asked=label == item.label)
            self._train(label)

    def _forget(self) -> None:
        """Begin anew with what was said: the run was undone, and with it all answers."""
        self._seams.tell_once(f"run {self._run} was undone elsewhere, and with it what was answered")
        self._run = None
        answers, self._answers = self._answers, [answer for answer in self._answers if not answer.said]
        self._teacher.read()
        for label, id_ in {(label, answer.item.photo.id) for answer in answers for label in answer.said}:
            self._reopen(label, id_)
        for label in self._pools:
            self._train(label)

    def _begun(self) -> int:
        assert self._run is not None
        return self._run

    def _place(self, label: str, id_: int) -> int | None:
        pool = self._pools.get(label)
        if pool is None:
            return None
        place = int(np.searchsorted(self._ids[pool.places], id_))
        return place if place < len(pool.places) and self._ids[pool.places[place]] == id_ else None

    def _close(self, label: str, id_: int, *, asked: bool) -> None:
        place = self._place(label, id_)
        if place is not None:
            self._pools[label].open[place] = False
            if asked:
                self._pools[label].asked.append(place)

    def _reopen(self, label: str, id_: int) -> None:
        place = self._place(label, id_)
        if place is not None:
            pool = self._pools[label]
            pool.open[place] = id_ not in self._teacher.said.get(label, {})
            if place in pool.asked:
                pool.asked.remove(place)

    def _train(self, label: str) -> None:
        """Score what is left of a label by its head as it is now."""
        if label in self._pools:
            pool = self._pools[label]
            head = self._heads[label] = self._teacher.head(label, before=self._heads.get(label))
            pool.odds = pool.offsets + head.correction(self._vectors[pool.places])

    # ---- the end

    def heads(self) -> dict[str, Head]:
        """Return what the labels' heads are by all verdicts so far."""
        return {name: self._teacher.whole(self._teacher.head(name)) for name in self.names}

    def finish(self) -> ReviewReport:
        """Keep the heads of the labels that were judged, and tell what was learnt of the answers that stand."""
        given = [answer for answer in self._answers if answer.said]
        if given and not self._stands(self._begun()):
            self._forget()
            given = []
        touched = dict.fromkeys(label for answer in given for label in answer.said)
        learnt = self._learn(list(touched)) if touched else ()
        if given:
            self._publish_changes(len({answer.item.photo.id for answer in given}))
        return ReviewReport(
            self._run if given else None,
            sum(answer.said[answer.item.label] for answer in given),
            sum(not answer.said[answer.item.label] and len(answer.said) == 1 for answer in given),
            sum(len(answer.said) > 1 for answer in given),
            tuple(learnt),
        )

    def _stands(self, run: int) -> bool:
        known = self._seams.catalog.run(run)
        return known is not None and known.undone_at is None and known.photos > 0

    def _learn(self, labels: list[str]) -> list[Learnt]:
        teacher = self._teacher
        if all(label in teacher.names for label in labels):
            teacher.read()
        else:
            teacher = Teacher(self._seams, self._row, worded(self._seams, labels), self._encoder)
        rows = self._seams.catalog.heads(self._row.id)
        learnt, heads = [], []
        for label in labels:
            before = rows[label].precision if label in rows else None
            lesson = teacher.lesson(label, self._precision or before)
            heads.append(lesson.head)
            learnt.append(Learnt(lesson.gain, lesson.head.precision, lesson.cut))
        try:
            teacher.keep(heads)
        except LibraryError as error:
            self._seams.tell_once(f"what was learnt is not kept now, and will be learnt again: {error}")
        return learnt

    def _publish_changes(self, photos: int) -> None:
        try:
            with self._seams.catalog.writing() as writer:
                self._seams.index.publish(writer, also=photos)
        except LibraryError as error:
            self._seams.tell_once(f"warning: {error}")


def _evenly(ids: Ids, most: int) -> Ids:
    return ids[:: max(1, -(-len(ids) // most))]


def worded(seams: Seams, names: Sequence[str]) -> LabelSet:
    """Return labels with the words and templates that the newest labelling gave them, else their names alone."""
    words: dict[str, Sequence[str]] = {}
    templates: Sequence[str] | None = None
    for run in seams.catalog.runs():
        if (
            run.kind == RunKind.LABEL
            and run.undone_at is None
            and not set(names).isdisjoint(run.details.get("labels", ()))
        ):
            said = run.details.get("words", {})
            words |= {name: said[name] for name in names if name in said}
            templates = run.details.get("templates") or templates
    labels = [Label(name, tuple(words.get(name) or (Label(name, ()).leaf,))) for name in names]
    return LabelSet.of(labels, list(templates) if templates else None)
