"""What can be asked of labels: where they are from, which runs wrote them, what the user said of them."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from search.catalog.rows import HeadRow, SidecarRow, chunks, to_time, to_utc
from search.catalog.session import listed
from search.catalog.written import written_keywords
from search.photos.keywords import alike
from search.types import LabelRecord, LabelSource, RunInfo, RunKind, Verdict

if TYPE_CHECKING:
    from search.catalog.session import Row, Session
    from search.types import Ids

LATEST = (
    "run_id = (SELECT max(run_id) FROM verdicts AS other "
    "WHERE other.photo_id = verdicts.photo_id AND other.label = verdicts.label)"
)
"""The verdicts that count."""

_RUNS = (
    "SELECT runs.id, kind, started_at, encoders.name, label_set, templates, {details}, undone_at "
    "FROM runs LEFT JOIN encoders ON encoders.id = encoder_id"
)
# Without PACKED.
_LEAN = {
    "sqlite": "CASE WHEN kind = 'probe' AND json_valid(details) "
    "THEN json_remove(details, '$.weights', '$.biases') ELSE details END",
    "postgresql": "CASE WHEN kind = 'probe' "
    "THEN CAST(CAST(details AS jsonb) - 'weights' - 'biases' AS text) ELSE details END",
}
_RECORD = "photo_id, label, source, probability, score, run_id, rejected, encoders.name, labels.created_at"
_RECORDS = f"SELECT {_RECORD} FROM labels LEFT JOIN encoders ON encoders.id = encoder_id"  # noqa: S608
_VERDICTS = f"SELECT photo_id, label, accepted, run_id, created_at FROM verdicts WHERE {LATEST}"  # noqa: S608
_JUDGING = "SELECT id, details FROM runs WHERE kind IN ('accept', 'reject') AND details IS NOT NULL"
_BOUNDS = {"above", "below"}  # in the details of a run that judged by rule
_TOGETHER = 4096  # verdicts in memory at a time
_PROPOSED = "FROM labels WHERE run_id IS NOT NULL AND source = 'zero-shot' AND NOT rejected"


@dataclass(frozen=True, slots=True)
class LabelCount:
    """On how many photos present a label is, by who says so, and how often it was judged.

    proposed: by a model, rejected ones left out.   judged_proposals: verdicts on photos where a model proposes it, but
    those by a rule, which looks at no photo.   right_proposals: those that accept it.
    """

    label: str
    photos: int = 0
    proposed: int = 0
    accepted: int = 0
    rejected: int = 0
    imported: int = 0
    in_files: int = 0
    judged_proposals: int = 0
    right_proposals: int = 0


@dataclass(frozen=True, slots=True)
class Word:
    """What the user said of a label on a photo.   by_rule: not of this photo, but of all within some probability."""

    accepted: bool
    by_rule: bool = False


_WORDS = {(accepted, rule): Word(accepted, rule) for accepted in (False, True) for rule in (False, True)}


class TagReader(ABC):
    """The part of a catalog that answers for labels."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Session]: ...

    def label_names(self) -> list[str]:
        """Return every label that is on a photo, in order; rejected ones are on none."""
        query = "SELECT DISTINCT label FROM labels WHERE NOT rejected ORDER BY label"
        with self._reading() as session:
            return [row[0] for row in session.rows(query)]

    def known_labels(self, names: Sequence[str]) -> set[str]:
        """Return which of these labels are on a photo or were judged on one."""
        found: set[str] = set()
        with self._reading() as session:
            for chunk in chunks(names):
                among, values = listed("label", chunk)
                for seen in (
                    f"labels WHERE NOT rejected AND label IN {among}",
                    f"verdicts WHERE label IN {among}",
                ):
                    found |= {row[0] for row in session.rows(f"SELECT DISTINCT label FROM {seen}", values)}  # noqa: S608
        return found

    def ids_with(self, label: str) -> list[int]:
        """Return the ids of the photos, present or gone, that have a label or were judged to have or lack it."""
        query = (
            "SELECT photo_id FROM labels WHERE NOT rejected AND label = :label "
            "UNION SELECT photo_id FROM verdicts WHERE label = :label"
        )
        with self._reading() as session:
            ids: list[int] = np.sort(session.ids(query, {"label": label})).tolist()
        return ids

    def labels_of(self, ids: Sequence[int]) -> dict[int, list[LabelRecord]]:
        """Return the labels of photos with where they are from, by label; rejected ones too."""
        found: dict[int, list[LabelRecord]] = {id_: [] for id_ in ids}
        with self._reading() as session:
            for chunk in chunks(ids):
                among, values = listed("id", chunk)
                for id_, *row in session.rows(
                    f"{_RECORDS} WHERE photo_id IN {among} ORDER BY label, source", values
                ):
                    found[id_].append(_record(row))
        return found

    def records(self, label: str) -> dict[int, list[LabelRecord]]:
        """Return what is known of one label on each photo that has it, rejected ones too."""
        query = f"{_RECORDS} WHERE label = :label ORDER BY photo_id, source"
        found: dict[int, list[LabelRecord]] = {}
        with self._reading() as session:
            for id_, *row in session.rows(query, {"label": label}):
                found.setdefault(id_, []).append(_record(row))
        return found

    def verdicts(self, label: str | None = None) -> list[Verdict]:
        """Return what the user said of labels, or of one: the last word on each photo, ids ascending."""
        query = _VERDICTS
        if label is not None:
            query += " AND label = :label"
        with self._reading() as session:
            rows = session.rows(f"{query} ORDER BY photo_id, label", {} if label is None else {"label": label})
        return [_verdict(row) for row in rows]

    def words(self, labels: Sequence[str] | None = None) -> dict[str, dict[int, Word]]:
        """Return the last word on each photo, by label; of some labels or all."""
        found: dict[str, dict[int, Word]] = {}
        with self._reading() as session:
            rules = _rules(session)
            for row in _said(session, "label, photo_id, accepted, run_id", labels):
                label, id_, accepted, run = row
                found.setdefault(label, {})[id_] = _WORDS[bool(accepted), run in rules]
        return found

    def marks(self, labels: Sequence[str]) -> dict[str, int]:
        """Return, of those labels that were judged, a number that is another one once their verdicts are."""
        found: dict[str, int] = {}
        with self._reading() as session:
            for row in _said(session, "label, photo_id, run_id, accepted", labels):
                found[row[0]] = zlib.crc32(b"%d,%d,%d" % tuple(row[1:]), found.get(row[0], 0))
        return found

    def proposed_ids(self, label: str) -> Ids:
        """Return the ids of the photos that `proposals` has, ascending."""
        query = (
            "SELECT photo_id FROM labels JOIN photos ON photos.id = photo_id "
            "WHERE label = :label AND source = :source AND NOT rejected AND gone_at IS NULL"
        )
        with self._reading() as session:
            return np.unique(session.ids(query, {"label": label, "source": LabelSource.ZERO_SHOT.value}))

    def verdicts_of(self, ids: Collection[int]) -> list[Verdict]:
        """Return the last word on every label of some photos, ids ascending."""
        found: list[Verdict] = []
        with self._reading() as session:
            for chunk in chunks(sorted(ids)):
                among, values = listed("id", chunk)
                rows = session.rows(f"{_VERDICTS} AND photo_id IN {among} ORDER BY photo_id, label", values)
                found += [_verdict(row) for row in rows]
        return found

    def rejected(self) -> dict[int, set[str]]:
        """Return the labels that the user rejected, by photo."""
        query = f"SELECT photo_id, label FROM verdicts WHERE NOT accepted AND {LATEST}"  # noqa: S608
        found: dict[int, set[str]] = {}
        with self._reading() as session:
            for id_, label in session.rows(query):
                found.setdefault(id_, set()).add(label)
        return found

    def proposals(self, label: str) -> list[tuple[int, LabelRecord]]:
        """Return the photos present that a model proposes a label for, the most probable first.

        Rejected ones are left out.
        """
        query = (
            f"SELECT {_RECORD} "  # noqa: S608
            "FROM labels JOIN photos ON photos.id = photo_id LEFT JOIN encoders ON encoders.id = encoder_id "
            "WHERE label = :label AND source = :source AND NOT rejected AND gone_at IS NULL "
            "ORDER BY probability DESC NULLS LAST, photo_id"
        )
        with self._reading() as session:
            rows = session.rows(query, {"label": label, "source": LabelSource.ZERO_SHOT.value})
        return [(id_, _record(row)) for id_, *row in rows]

    def own_keywords(self) -> dict[int, list[str]]:
        """Return the keywords in the files of photos present, by photo.

        Those that were rejected, and those that are labels we wrote, are left out.
        """
        query = (
            "SELECT photo_id, label FROM labels JOIN photos ON photos.id = photo_id "
            "WHERE source = :source AND NOT rejected AND gone_at IS NULL ORDER BY photo_id, label"
        )
        found: dict[int, list[str]] = {}
        with self._reading() as session:
            ours = written_keywords(
                (id_, tags) for id_, tags in session.rows("SELECT photo_id, tags FROM sidecars")
            )
            for id_, label in session.rows(query, {"source": LabelSource.FILE.value}):
                if id_ not in ours or alike(label) not in ours[id_]:
                    found.setdefault(id_, []).append(label)
        return found

    def label_counts(self, label: str | None = None) -> list[LabelCount]:
        """Return every label that is on a photo present or was judged on one, in order, with how often.

        label: only this one, if it is there.
        """
        only, of_verdicts = ("", "") if label is None else ("AND label = :label", "AND verdicts.label = :label")
        values = {} if label is None else {"label": label}
        present = "photo_id NOT IN (SELECT id FROM photos WHERE gone_at IS NOT NULL)"
        on = f"SELECT label, source, count(*) FROM labels WHERE NOT rejected AND {present} {only} GROUP BY 1, 2"  # noqa: S608
        photos = (
            "SELECT label, count(*) FROM (SELECT DISTINCT label, photo_id FROM labels "  # noqa: S608
            f"WHERE NOT rejected AND {present} {only}) AS found GROUP BY label"
        )
        said = (
            f"SELECT label, accepted, count(*) FROM verdicts WHERE {LATEST} AND {present} {only} "  # noqa: S608
            "GROUP BY label, accepted"
        )
        proposed = (
            "SELECT verdicts.label, accepted, verdicts.run_id, count(*) FROM verdicts JOIN labels ON labels.photo_id = "  # noqa: S608
            "verdicts.photo_id AND labels.label = verdicts.label AND source = 'zero-shot' WHERE verdicts."
            f"{LATEST} AND verdicts.{present} {of_verdicts} GROUP BY verdicts.label, accepted, verdicts.run_id"
        )
        counts: dict[str, dict[str, int]] = {}
        with self._reading() as session:
            for name, count in session.rows(photos, values):
                counts.setdefault(name, {})["photos"] = count
            for name, source, count in session.rows(on, values):
                if source in _COUNTED:
                    counts.setdefault(name, {})[_COUNTED[source]] = count
            for name, accepted, count in session.rows(said, values):
                if not accepted:
                    counts.setdefault(name, {})["rejected"] = count
            rules = _rules(session)
            for name, accepted, run, count in session.rows(proposed, values):
                if run not in rules:
                    own = counts.setdefault(name, {})
                    own["judged_proposals"] = own.get("judged_proposals", 0) + count
                    own["right_proposals"] = own.get("right_proposals", 0) + count * bool(accepted)
        return [LabelCount(name, **counts[name]) for name in sorted(counts)]

    def runs(self) -> list[RunInfo]:
        """Return every run, the first first, and what still stands of each; without what probes weigh."""
        written = f"SELECT run_id, count(*), count(DISTINCT photo_id) {_PROPOSED} GROUP BY run_id"
        judged = "SELECT run_id, count(*), count(DISTINCT photo_id) FROM verdicts GROUP BY run_id"
        with self._reading() as session:
            counted = {run: (photos, labels) for run, labels, photos in session.rows(written)}
            counted |= {run: (photos, labels) for run, labels, photos in session.rows(judged)}
            rows = session.rows(f"{_runs(session)} ORDER BY runs.id")
        return [_run(row, *counted.get(row[0], (0, 0))) for row in rows]

    def newest_run(self) -> int:
        """Return the number of the latest run, undone or not; 0 before there is one."""
        with self._reading() as session:
            newest: int = session.one("SELECT coalesce(max(id), 0) FROM runs")[0]
        return newest

    def run(self, run: int) -> RunInfo | None:
        """Return a run, and what still stands of it; None if there never was one of this number."""
        written = f"SELECT count(DISTINCT photo_id), count(*) {_PROPOSED} AND run_id = :run"
        judged = "SELECT count(DISTINCT photo_id), count(*) FROM verdicts WHERE run_id = :run"
        with self._reading() as session:
            row = session.first(f"{_runs(session)} WHERE runs.id = :run", {"run": run})
            if row is None:
                return None
            counted = max(session.one(query, {"run": run}) for query in (written, judged))
        return _run(row, *counted)

    def standing(self, kind: RunKind, encoder_id: int) -> dict[int, dict[str, Any]]:
        """Return the details of the runs of a kind by a model that were not undone, by number, the first first."""
        query = "SELECT id, details FROM runs WHERE kind = :kind AND encoder_id = :encoder AND undone_at IS NULL"
        with self._reading() as session:
            rows = session.rows(f"{query} ORDER BY id", {"kind": kind.value, "encoder": encoder_id})
        return {id_: json.loads(details) if details else {} for id_, details in rows}

    # ---- what is made of verdicts, and where labels were written to

    def heads(self, encoder_id: int) -> dict[str, HeadRow]:
        """Return the decisions that were learned under a model, by label."""
        query = (
            "SELECT label, weights, bias, threshold, precision, examples, details, trained_at FROM heads "
            "WHERE encoder_id = :encoder ORDER BY label"
        )
        with self._reading() as session:
            rows = session.rows(query, {"encoder": encoder_id})
        return {row[0]: _head(row) for row in rows}

    def sidecars(self, ids: Sequence[int] | None = None) -> list[SidecarRow]:
        """Return the sidecars that we wrote into, of some photos or all, ids ascending."""
        query = "SELECT photo_id, name, before, after_hash, tags FROM sidecars"
        order = " ORDER BY photo_id, name"
        with self._reading() as session:
            if ids is None:
                return [_sidecar(row) for row in session.rows(query + order)]
            among = [listed("id", chunk) for chunk in chunks(sorted(ids))]
            rows = [
                row
                for names, ids_ in among
                for row in session.rows(f"{query} WHERE photo_id IN {names}{order}", ids_)
            ]
        return [_sidecar(row) for row in rows]


_COUNTED = {
    LabelSource.ZERO_SHOT.value: "proposed",
    LabelSource.USER.value: "accepted",
    LabelSource.IMPORT.value: "imported",
    LabelSource.FILE.value: "in_files",
}


def _said(session: Session, columns: str, labels: Sequence[str] | None) -> Iterator[Row]:
    """Yield every verdict, of a label and photo the one that counts last."""
    query, order = f"SELECT {columns} FROM verdicts", " ORDER BY label, photo_id, run_id"  # noqa: S608
    if labels is None:
        yield from chain.from_iterable(session.parts(query + order, {}, size=_TOGETHER))
        return
    for chunk in chunks(labels):
        among, values = listed("label", chunk)
        for part in session.parts(f"{query} WHERE label IN {among}{order}", values, size=_TOGETHER):
            yield from part


def _runs(session: Session) -> str:
    return _RUNS.format(details=_LEAN.get(session.dialect, "details"))


def _rules(session: Session) -> set[int]:
    """Return the runs that judged by a rule."""
    return {run for run, details in session.rows(_JUDGING) if _BOUNDS & json.loads(details).keys()}


def _record(row: Sequence[Any]) -> LabelRecord:
    label, source, probability, score, run, rejected, encoder, created_at = row
    return LabelRecord(label, source, probability, score, run, bool(rejected), encoder, to_utc(created_at))


def _verdict(row: Row) -> Verdict:
    id_, label, accepted, run, created_at = row
    created = to_utc(created_at)
    assert created is not None
    return Verdict(id_, label, bool(accepted), run, created)


def _run(row: Row, photos: int, labels: int) -> RunInfo:
    id_, kind, started_at, encoder, label_set, templates, details, undone_at = row
    started = to_utc(started_at)
    assert started is not None
    said = json.loads(details) if details else {}
    if kind == RunKind.EXPORT:
        photos = said.get("photos", photos)
    return RunInfo(
        id_, kind, started, encoder, label_set, templates, photos, labels, said, undone_at=to_utc(undone_at)
    )


def _sidecar(row: Row) -> SidecarRow:
    id_, name, before, after_hash, tags = row
    return SidecarRow(id_, name, None if before is None else zlib.decompress(before), after_hash, tags)


def _head(row: Row) -> HeadRow:
    label, weights, bias, threshold, precision, examples, details, trained_at = row
    trained = to_time(trained_at)
    assert trained is not None
    said = json.loads(details) if details else {}
    return HeadRow(label, weights, bias, threshold, precision, examples, said, trained)
