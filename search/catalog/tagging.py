"""How labels change: in runs, each of which can be taken back.

A verdict is what the user said of a label on a photo, and is never changed: that of the highest run counts. What else
depends on it follows in the same transaction: whether the labels of that name on that photo are rejected, and the one
label of source "user" or "import" that an accepted one has.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, func, insert, or_, select, union, update

from search.catalog.rows import PACKED, HeadRow, SidecarRow, chunks
from search.catalog.schema import heads, labels, runs, sidecars, verdicts
from search.catalog.transaction import commit, now
from search.catalog.written import written_keywords
from search.errors import UnknownRun
from search.photos.keywords import alike
from search.types import LabelledPhoto, LabelSource, RunKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import ColumnElement, Connection

    from search.types import PhotoInfo

SAID = (LabelSource.USER.value, LabelSource.IMPORT.value)
_PENDING = "undoing"  # in a run's details: photos whose sidecars still have what it added


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back: labels that were written, verdicts that were given, and the photos they were on.

    sidecars: the photos whose sidecars must follow before the run is over.
    """

    kind: str
    labels: int
    verdicts: int
    photos: tuple[int, ...]
    sidecars: tuple[int, ...] = ()


class Run:
    """A run while a transaction of it lasts."""

    def __init__(self, connection: Connection, id_: int) -> None:
        self._connection = connection
        self.id = id_

    def propose(self, labelled: Sequence[LabelledPhoto], among: Sequence[str], *, encoder_id: int) -> int:
        """Write what a model says; return how many photos have a label of it. `Writer.put_labels` has the words."""
        return put_labels(
            self._connection,
            labelled,
            among,
            source=LabelSource.ZERO_SHOT,
            encoder_id=encoder_id,
            run_id=self.id,
        )

    def judge(self, said: Iterable[tuple[int, str, bool]]) -> None:
        """Accept or reject labels on photos: (photo id, label, accepted), the last of each pair counts."""
        wanted = {(id_, label): accepted for id_, label, accepted in said}
        self._withdraw(wanted)
        at = now()
        rows = [
            {"photo_id": id_, "label": label, "run_id": self.id, "accepted": accepted, "created_at": at}
            for (id_, label), accepted in wanted.items()
        ]
        if rows:
            self._connection.execute(insert(verdicts), rows)
        settle(self._connection, wanted)

    def retract(self, pairs: Collection[tuple[int, str]]) -> None:
        """Take back what this run said of labels on photos."""
        self._withdraw(pairs)
        settle(self._connection, pairs)

    def note(self, details: Mapping[str, Any]) -> None:
        """Remember more of the run, in place of what its details were."""
        this = update(runs).where(runs.c.id == self.id)
        self._connection.execute(this.values(details=json.dumps(details)))

    def _withdraw(self, pairs: Iterable[tuple[int, str]]) -> None:
        for label, ids in _by_label(pairs):
            for some in chunks(ids):
                mine = and_(verdicts.c.run_id == self.id, verdicts.c.label == label)
                self._connection.execute(delete(verdicts).where(mine, verdicts.c.photo_id.in_(some)))


class TagWriter:
    """The part of the writer that labels go through. Every method is one transaction, durable when it returns."""

    _connection: Connection

    @contextmanager
    def run(
        self,
        kind: RunKind,
        *,
        encoder_id: int | None = None,
        label_set: str | None = None,
        templates: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Iterator[Run]:
        """Open a run and yield it; what is done with it and the run itself are one transaction."""
        values = {
            "kind": kind.value,
            "started_at": now(),
            "encoder_id": encoder_id,
            "label_set": label_set,
            "templates": templates,
            "details": json.dumps(details) if details else None,
        }
        with commit(self._connection):
            id_ = self._connection.execute(insert(runs).values(values).returning(runs.c.id)).scalar_one()
            yield Run(self._connection, id_)

    @contextmanager
    def again(self, run: int) -> Iterator[Run]:
        """Go on with a run, in one more transaction. Raises UnknownRun as `undo` does."""
        with commit(self._connection):
            self._standing(run)
            yield Run(self._connection, run)

    def undo(self, run: int) -> Undone:
        """Take back what a run added; what others added stays. Raises UnknownRun for no run, or one undone before.

        Where labels of the photos were written to sidecars the run is not over: see `Undone.sidecars`, `end_undo`.
        """
        with commit(self._connection):
            kind, details = self._standing(run)
            written, photos = self._withdraw_labels(run)
            said = self._withdraw_verdicts(run)
            photos |= {id_ for id_, _ in said}
            pending = {*details.get(_PENDING, ()), *self._with_sidecars(photos, every=kind == RunKind.EXPORT)}
            this = update(runs).where(runs.c.id == run)
            if pending:
                noted = {**details, _PENDING: sorted(pending)}
                self._connection.execute(this.values(details=json.dumps(noted)))
            else:
                rest = {name: value for name, value in details.items() if name not in PACKED}
                self._connection.execute(this.values(undone_at=now(), details=json.dumps(rest) if rest else None))
        return Undone(kind, written, len(said), tuple(sorted(photos)), tuple(sorted(pending)))

    def end_undo(self, run: int) -> None:
        """Note that the sidecars are in line with what `undo` left."""
        with commit(self._connection):
            _, details = self._standing(run)
            rest = {name: value for name, value in details.items() if name != _PENDING}
            values = {"undone_at": now(), "details": json.dumps(rest) if rest else None}
            self._connection.execute(update(runs).where(runs.c.id == run).values(values))

    def _withdraw_labels(self, run: int) -> tuple[int, set[int]]:
        """Remove what a run proposed; return how many labels, and of which photos."""
        wrote = and_(labels.c.run_id == run, labels.c.source.not_in(SAID))
        photos = set(self._connection.execute(select(labels.c.photo_id).where(wrote)).scalars())
        return self._connection.execute(delete(labels).where(wrote)).rowcount, photos

    def _withdraw_verdicts(self, run: int) -> list[tuple[int, str]]:
        """Remove what was said in a run, so that what was said before counts again; return of what."""
        gave = select(verdicts.c.photo_id, verdicts.c.label).where(verdicts.c.run_id == run)
        said = [(id_, label) for id_, label in self._connection.execute(gave)]
        self._connection.execute(delete(verdicts).where(verdicts.c.run_id == run))
        settle(self._connection, said)
        return said

    def _with_sidecars(self, photos: Collection[int], *, every: bool) -> set[int]:
        """Return the photos among these, or of all, that labels were written beside."""
        found = set(self._connection.execute(select(sidecars.c.photo_id).distinct()).scalars())
        return found if every else found.intersection(photos)

    def _standing(self, run: int) -> tuple[str, dict[str, Any]]:
        """Return a run's kind and details. Raises UnknownRun unless there is this run and it was not undone."""
        known = select(runs.c.kind, runs.c.details, runs.c.undone_at).where(runs.c.id == run)
        row = self._connection.execute(known).first() if 0 < run < 2**31 else None
        if row is None:
            raise UnknownRun(f"there is no run {run}", hint="'search tags list --runs' shows them")
        if row.undone_at is not None:
            raise UnknownRun(f"run {run} was undone before, on {row.undone_at:%Y-%m-%d at %H:%M} UTC")
        return row.kind, json.loads(row.details) if row.details else {}

    # ---- what is made of verdicts, and where labels were written to

    def put_heads(self, encoder_id: int, rows: Sequence[HeadRow]) -> None:
        """Remember what was learned of labels under a model, in place of what was before."""
        found = [
            {
                "encoder_id": encoder_id,
                "label": row.label,
                "weights": row.weights,
                "bias": row.bias,
                "threshold": row.threshold,
                "precision": row.precision,
                "examples": row.examples,
                "details": json.dumps(row.details) if row.details else None,
                "trained_at": row.trained_at,
            }
            for row in rows
        ]
        with commit(self._connection):
            self._drop_heads(encoder_id, [row.label for row in rows])
            if found:
                self._connection.execute(insert(heads), found)

    def drop_heads(self, encoder_id: int, names: Sequence[str]) -> None:
        """Forget what was learned of labels under a model."""
        with commit(self._connection):
            self._drop_heads(encoder_id, names)

    def _drop_heads(self, encoder_id: int, names: Sequence[str]) -> None:
        for some in chunks(names):
            own = and_(heads.c.encoder_id == encoder_id, heads.c.label.in_(some))
            self._connection.execute(delete(heads).where(own))

    def put_sidecars(self, rows: Sequence[SidecarRow], *, drop: Sequence[tuple[int, bytes]] = ()) -> None:
        """Remember sidecars that we write into, in place of what was known of them.

        drop: those to forget, by photo id and name.
        """
        found = [
            {
                "photo_id": row.photo_id,
                "name": row.name,
                "before": None if row.before is None else zlib.compress(row.before),
                "after_hash": row.after_hash,
                "tags": row.tags,
            }
            for row in rows
        ]
        with commit(self._connection):
            self._drop_sidecars([*drop, *((row.photo_id, row.name) for row in rows)])
            if found:
                self._connection.execute(insert(sidecars), found)

    def _drop_sidecars(self, places: Sequence[tuple[int, bytes]]) -> None:
        if places:
            this = and_(sidecars.c.photo_id == bindparam("id_"), sidecars.c.name == bindparam("name_"))
            rows = [{"id_": id_, "name_": name} for id_, name in places]
            self._connection.execute(delete(sidecars).where(this), rows)


# ---- parts of transactions


def put_labels(
    connection: Connection,
    labelled: Sequence[LabelledPhoto],
    among: Sequence[str],
    *,
    source: str,
    encoder_id: int | None,
    run_id: int | None,
) -> int:
    """Attach labels to photos; `Writer.put_labels` has the words. Those that the user rejected stay so.

    Returns how many photos have one that is not rejected.
    """
    rejected = set[tuple[int, str]]()
    for ids in chunks([photo.id for photo in labelled if photo.id is not None]):
        for names in chunks(among):
            before = and_(labels.c.photo_id.in_(ids), labels.c.label.in_(names), labels.c.source == source)
            connection.execute(delete(labels).where(before))
        rejected |= rejected_pairs(connection, ids)
    at = now()
    rows = [
        {
            "photo_id": photo.id,
            "label": found.label,
            "source": source,
            "encoder_id": encoder_id,
            "probability": found.probability,
            "score": found.score,
            "created_at": at,
            "run_id": run_id,
            "rejected": (photo.id, found.label) in rejected,
        }
        for photo in labelled
        for found in photo.labels
    ]
    if rows:
        connection.execute(insert(labels), rows)
    return len({row["photo_id"] for row in rows if not row["rejected"]})


def put_keywords(connection: Connection, found: Sequence[tuple[int, PhotoInfo]]) -> None:
    """Replace the labels that are files' own keywords, by photo.

    What we wrote into sidecars beside them is none, though other software took out what says so.
    """
    for some in chunks([id_ for id_, _ in found]):
        own = and_(labels.c.photo_id.in_(some), labels.c.source == LabelSource.FILE.value)
        connection.execute(delete(labels).where(own))
    rejected, ours = set[tuple[int, str]](), dict[int, set[str]]()
    for some in chunks([id_ for id_, info in found if info.keywords]):
        rejected |= rejected_pairs(connection, some)
        wrote = select(sidecars.c.photo_id, sidecars.c.tags).where(sidecars.c.photo_id.in_(some))
        ours |= written_keywords((id_, tags) for id_, tags in connection.execute(wrote))
    at = now()
    rows = [
        {
            "photo_id": id_,
            "label": keyword,
            "source": LabelSource.FILE.value,
            "created_at": at,
            "rejected": (id_, keyword) in rejected,
        }
        for id_, info in found
        for keyword in info.keywords
        if id_ not in ours or alike(keyword) not in ours[id_]
    ]
    if rows:
        connection.execute(insert(labels), rows)


def rejected_pairs(connection: Connection, ids: Sequence[int]) -> set[tuple[int, str]]:
    """Return which labels the user rejected on some photos; `ids` are few enough for one statement."""
    query = select(verdicts.c.photo_id, verdicts.c.label, verdicts.c.accepted).order_by(verdicts.c.run_id)
    rows = connection.execute(query.where(verdicts.c.photo_id.in_(ids)))
    last = {(id_, label): accepted for id_, label, accepted in rows}
    return {pair for pair, accepted in last.items() if not accepted}


def settle(connection: Connection, pairs: Iterable[tuple[int, str]]) -> None:
    """Bring the labels of these names on these photos in line with the verdicts that count."""
    for label, ids in _by_label(pairs):
        for some in chunks(ids):
            _settle(connection, label, some)


def settle_all(connection: Connection) -> None:
    """Bring every label in line with the verdicts."""
    own = select(labels.c.photo_id, labels.c.label).where(or_(labels.c.rejected, _is_said()))
    every = union(select(verdicts.c.photo_id, verdicts.c.label), own)
    settle(connection, [(id_, label) for id_, label in connection.execute(every)])


def _is_said() -> ColumnElement[bool]:
    """Labels that stand for a verdict."""
    return and_(labels.c.source.in_(SAID), labels.c.run_id.is_not(None))


def _settle(connection: Connection, label: str, ids: Sequence[int]) -> None:
    here = and_(labels.c.photo_id.in_(ids), labels.c.label == label)
    last = _last_words(connection, label, ids)
    rejected = [id_ for id_, (accepted, *_) in last.items() if not accepted]
    among = labels.c.photo_id.in_(rejected)
    for value, wrong in ((True, and_(among, ~labels.c.rejected)), (False, and_(~among, labels.c.rejected))):
        connection.execute(update(labels).where(here, wrong).values(rejected=value))
    wanted = {(id_, *said[1:]) for id_, said in last.items() if said[0]}
    query = select(labels.c.photo_id, labels.c.source, labels.c.run_id, labels.c.created_at)
    found = {tuple(row) for row in connection.execute(query.where(here, _is_said()))}
    stale = [row[0] for row in found - wanted]
    if stale:
        of_those = and_(labels.c.photo_id.in_(stale), labels.c.label == label)
        connection.execute(delete(labels).where(of_those, _is_said()))
    names = ("photo_id", "source", "run_id", "created_at")
    rows = [{"label": label, **dict(zip(names, row, strict=True))} for row in wanted - found]
    if rows:
        connection.execute(insert(labels), rows)


def _last_words(connection: Connection, label: str, ids: Sequence[int]) -> dict[int, tuple[Any, ...]]:
    """Return the verdicts that count on a label, by photo: accepted, the source it stands for, run, when."""
    query = (
        select(verdicts.c.photo_id, verdicts.c.accepted, runs.c.kind, verdicts.c.run_id, verdicts.c.created_at)
        .join(runs, runs.c.id == verdicts.c.run_id)
        .where(verdicts.c.label == label, verdicts.c.photo_id.in_(ids))
        .order_by(verdicts.c.run_id)
    )
    return {
        id_: (accepted, LabelSource.IMPORT.value if kind == RunKind.IMPORT else LabelSource.USER.value, run, at)
        for id_, accepted, kind, run, at in connection.execute(query)
    }


def _by_label(pairs: Iterable[tuple[int, str]]) -> Iterator[tuple[str, list[int]]]:
    """Gather pairs of photo and label by label."""
    found: dict[str, list[int]] = {}
    for id_, label in pairs:
        found.setdefault(label, []).append(id_)
    yield from found.items()


def stand_in(connection: Connection, run: int) -> dict[str, Any]:
    """Return a row for a run of which nothing is known but its number and what refers to it."""
    first = select(func.min(verdicts.c.created_at)).where(verdicts.c.run_id == run)
    wrote = select(func.min(labels.c.created_at)).where(labels.c.run_id == run)
    at = connection.execute(first).scalar() or connection.execute(wrote).scalar() or now()
    return {"id": run, "kind": RunKind.UNKNOWN.value, "started_at": at}
