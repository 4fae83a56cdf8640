"""Conditions as SQL, and what SQL can't state, decided exactly from the columns that it needs.

A statement finds every photo that passes. Where a part is only narrowed by SQL (a circle on the globe, a pattern of
names), the statement brings along that part's columns and, as columns of their own, what the parts beside it say;
from these each row's answer is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search import conditions
from search.addresses import relative as inside
from search.catalog.rows import MAX_PARAMETERS, chunks, in_zone, to_path, to_time
from search.catalog.session import listed
from search.catalog.sql import within
from search.conditions import Node

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog.session import Row, Session
    from search.types import Ids

    Mask: TypeAlias = npt.NDArray[np.bool_]
    Test: TypeAlias = Callable[["_Rows"], Mask]

_DAY = timedelta(days=1)  # no place is further from UTC than that

_FIRST, _LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)  # noqa: DTZ001 (wall-clock)

# Cameras and labels are few: each is found in the index after the one before, so that no photo need be looked at.
_DISTINCT = """WITH RECURSIVE names(name) AS (
    SELECT min({column}) FROM {table} WHERE {seen}
    UNION ALL
    SELECT (SELECT min({column}) FROM {table} WHERE {seen} AND {column} > name) FROM names WHERE name IS NOT NULL
) SELECT name FROM names WHERE name IS NOT NULL"""
_LENSES = "SELECT DISTINCT lens FROM photos WHERE lens IS NOT NULL"

_HAS = {
    "date": "taken_at IS NOT NULL AND coalesce(taken_at_source, '') <> 'file'",
    "camera": "camera IS NOT NULL",
    "lens": "lens IS NOT NULL",
    "gps": "latitude IS NOT NULL AND longitude IS NOT NULL",
    "rating": "rating IS NOT NULL",
    # Few are rejected: only of those photos one has to look whether something else is left.
    "label": (
        "photos.id IN (SELECT photo_id FROM labels) AND "
        "(photos.id NOT IN (SELECT photo_id FROM labels WHERE rejected) OR "
        "EXISTS (SELECT 1 FROM labels WHERE photo_id = photos.id AND NOT rejected))"
    ),
}
_AMOUNTS = {
    "width": "width",
    "height": "height",
    "megapixels": "CAST(width AS BIGINT) * height",
    "size": "size_bytes",
    "rating": "rating",
}
_SHAPES = {"portrait": "width < height", "landscape": "width > height", "square": "width = height"}


def select(session: Session, wanted: Node) -> Ids | None:
    """Return the ids of the photos that pass, present or gone; None where all do, for all that is there to see.

    That is where nothing is asked, or only for a folder around every root: to list all photos takes long.
    """
    compiler = _Compiler(session)
    parts = [part for part in map(compiler.compile, _joined(wanted)) if part != _ALL]
    if not parts:
        return None
    if _NONE in parts:
        return np.empty(0, np.int64)
    tests = [part.test for part in parts if part.test]
    columns = ", ".join(["photos.id", *(compiler.columns if tests else ())])
    query = f"SELECT {columns} FROM photos WHERE {' AND '.join(part.sql for part in parts)}"  # noqa: S608
    if not tests:
        return session.ids(query, compiler.values)
    rows = _Rows(session.rows(query, compiler.values), compiler.columns)
    passed: Ids = rows.ids[np.logical_and.reduce([test(rows) for test in tests])]
    return passed


def cameras(session: Session) -> list[str]:
    """Return the names of all cameras."""
    query = _DISTINCT.format(table="photos", column="camera", seen="camera IS NOT NULL")
    return [name for (name,) in session.rows(query)]


def _joined(wanted: Node) -> Iterable[Node]:
    """The conditions that must all hold."""
    if isinstance(wanted, conditions.And):
        for part in wanted.parts:
            yield from _joined(part)
    else:
        yield wanted


@dataclass(frozen=True, slots=True)
class _Said:
    """A condition in SQL that every photo which passes fulfils; no other does, unless there is a test to tell them."""

    sql: str
    test: Test | None = None


_ALL, _NONE = _Said("(1 = 1)"), _Said("(1 = 0)")


class _Rows:
    """What a statement found: ids and columns."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[str]) -> None:
        self.ids: Ids = np.array([row[0] for row in rows], np.int64)
        self._rows, self._columns = rows, columns

    def column(self, name: str) -> list[Any]:
        place = self._columns.index(name) + 1
        return [row[place] for row in self._rows]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A column of numbers (N,), NaN where there is none."""
        return np.array(self.column(name), np.float64)

    def mask(self, values: Iterable[bool]) -> Mask:
        return np.fromiter(values, np.bool_, len(self._rows))


class _Compiler:
    """Turns nodes into SQL; gathers the parameters and the columns that tests need."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._roots: dict[int, bytes] = dict(session.rows("SELECT id, path FROM roots"))
        self._listed = 0
        self.values: dict[str, Any] = {}
        self.columns: list[str] = []
        self._kinds: dict[type[Node], Callable[[Any], _Said]] = {
            conditions.And: self._and,
            conditions.Or: self._or,
            conditions.Not: self._not,
            conditions.Called: self._called,
            conditions.Labelled: self._labelled,
            conditions.Named: self._named,
            conditions.InFolder: self._in_folder,
            conditions.IsFormat: lambda node: _Said(f"(format IN {self._few(node.names)})"),
            conditions.Oriented: lambda node: _Said(f"({_SHAPES[node.shape]})"),
            conditions.Measured: self._measured,
            conditions.Taken: self._taken,
            conditions.Near: self._near,
            conditions.InBox: self._in_box,
            conditions.Has: lambda node: _Said(f"({_HAS[node.thing]})"),
        }

    def compile(self, node: Node) -> _Said:
        """Return what SQL says of a condition."""
        return self._kinds[type(node)](node)

    # ---- how conditions are joined

    def _and(self, node: conditions.And) -> _Said:
        parts = [part for part in map(self.compile, node.parts) if part != _ALL]
        if _NONE in parts:
            return _NONE
        return self._joined(parts, " AND ", np.logical_and.reduce) if parts else _ALL

    def _or(self, node: conditions.Or) -> _Said:
        parts = [part for part in map(self.compile, node.parts) if part != _NONE]
        if _ALL in parts:
            return _ALL
        return self._joined(parts, " OR ", np.logical_or.reduce) if parts else _NONE

    def _joined(self, parts: list[_Said], word: str, join: Callable[[list[Mask]], Mask]) -> _Said:
        sql = f"({word.join(part.sql for part in parts)})"
        if not any(part.test for part in parts):
            return _Said(sql)
        tests = [self._tested(part) for part in parts]
        return _Said(sql, lambda rows: join([test(rows) for test in tests]))

    def _not(self, node: conditions.Not) -> _Said:
        """The exact complement: what SQL says of a missing value is neither true nor false."""
        part = self.compile(node.part)
        if part in (_ALL, _NONE):
            return _NONE if part == _ALL else _ALL
        if part.test is None:
            return _Said(f"({part.sql} IS NOT TRUE)")
        test = part.test
        return _Said(_ALL.sql, lambda rows: ~test(rows))  # SQL's part is too wide, so its opposite is too narrow

    def _tested(self, said: _Said) -> Test:
        """A test of a condition among others, of which a row may fulfil some: SQL says in a column if it does."""
        if said.test:
            return said.test
        column = self._column(f"({said.sql} IS TRUE)")
        return lambda rows: rows.mask(map(bool, rows.column(column)))

    # ---- names

    def _called(self, node: conditions.Called) -> _Said:
        names = (
            self._distinct("photos", "camera", "camera IS NOT NULL")
            if node.field == "camera"
            else self._column_of(_LENSES)
        )
        meant = [name for name in names if node.matches(name)]
        if not meant:
            return _NONE
        if self._fits(meant):
            return _Said(f"({node.field} IN {self._few(meant)})")
        column, known = self._column(node.field), frozenset(meant)
        return _Said(
            f"({node.field} IS NOT NULL)", lambda rows: rows.mask(name in known for name in rows.column(column))
        )

    def _labelled(self, node: conditions.Labelled) -> _Said:
        meant = [label for label in self._distinct("labels", "label", "NOT rejected") if node.matches(label)]
        if not meant:
            return _NONE
        query = "SELECT photo_id FROM labels WHERE NOT rejected AND label IN "
        if self._fits(meant):
            return _Said(f"(photos.id IN ({query}{self._few(meant)}))")
        found = [self._session.ids(query + among, values) for among, values in _lists(meant)]
        return _among(np.concatenate(found))

    def _named(self, node: conditions.Named) -> _Said:
        path = self._column("photos.path")
        if node.field == "name":
            return _Said(_ALL.sql, lambda rows: rows.mask(node.matches(_base(name)) for name in rows.column(path)))
        root = self._column("photos.root_id")

        def test(rows: _Rows) -> Mask:
            places = zip(rows.column(root), rows.column(path), strict=True)
            return rows.mask(node.matches(to_path(self._roots[root_id], name)) for root_id, name in places)

        return _Said(_ALL.sql, test)

    def _in_folder(self, node: conditions.InFolder) -> _Said:
        """Photos in a folder, whichever root they belong to."""
        parts = []
        for root_id, root in self._roots.items():
            relative = _relative(node.folder, os.fsdecode(root))
            if relative is not None:
                here = within("photos", root_id, relative, suffix=f"_{len(self.values)}")
                parts.append(here.sql)
                self.values |= here.values
        if len(parts) == len(self._roots) and all(
            _below(node.folder, os.fsdecode(r)) for r in self._roots.values()
        ):
            return _ALL
        return _Said(f"({' OR '.join(parts)})") if parts else _NONE

    # ---- numbers, dates

    def _measured(self, node: conditions.Measured) -> _Said:
        return _Said(f"({_AMOUNTS[node.field]} {node.operator} {self._value(node.value)})")

    def _taken(self, node: conditions.Taken) -> _Said:
        if node.moment.tzinfo is None:
            return _Said(f"(taken_at {node.operator} {self._value(node.moment)})")
        earliest, latest = _around(node.moment)
        bound = self._value(earliest if node.operator == ">=" else latest)
        sql = f"taken_at {node.operator} {bound}"
        wrong = self._outside(node, earliest, latest)
        if not len(wrong):
            return _Said(f"({sql})")
        if self._fits(wrong):
            return _Said(f"({sql} AND photos.id NOT IN {self._few(wrong.tolist())})")
        column = self._column(f"({sql} IS TRUE)")
        return _Said(
            f"({sql})", lambda rows: rows.mask(map(bool, rows.column(column))) & ~np.isin(rows.ids, wrong)
        )

    def _outside(self, node: conditions.Taken, earliest: datetime, latest: datetime) -> Ids:
        """The photos of the two days around an instant, to which offsets matter, that do not pass."""
        query = (
            "SELECT id, taken_at, taken_offset_s FROM photos WHERE taken_at >= :earliest AND taken_at < :latest"
        )
        rows = self._session.rows(query, {"earliest": earliest, "latest": latest})
        moments = [(id_, in_zone(to_time(taken), offset)) for id_, taken, offset in rows]
        return np.array([id_ for id_, moment in moments if not (moment and node.includes(moment))], np.int64)

    # ---- places

    def _near(self, node: conditions.Near) -> _Said:
        south, north = map(self._value, node.latitudes)
        latitude, longitude = self._column("latitude"), self._column("longitude")

        def test(rows: _Rows) -> Mask:
            places = rows.numbers(latitude), rows.numbers(longitude)
            close: Mask = conditions.distance_km(*places, node.latitude, node.longitude) <= node.km
            return close

        return _Said(f"(latitude BETWEEN {south} AND {north} AND longitude IS NOT NULL)", test)

    def _in_box(self, node: conditions.InBox) -> _Said:
        ranges = [
            f"longitude BETWEEN {self._value(west)} AND {self._value(east)}" for west, east in node.longitudes
        ]
        south, north = self._value(node.south), self._value(node.north)
        return _Said(f"(latitude BETWEEN {south} AND {north} AND ({' OR '.join(ranges)}))")

    # ---- parameters and columns

    def _value(self, value: Any) -> str:
        """Return the parameter that stands for a value."""
        name = f"value{len(self.values)}"
        self.values[name] = value
        return f":{name}"

    def _few(self, items: Iterable[Any]) -> str:
        """Return the list that follows an IN."""
        names = [self._value(item) for item in items]
        self._listed += len(names)
        return f"({', '.join(names)})"

    def _fits(self, items: Sequence[Any] | Ids) -> bool:
        """Whether a statement takes so many more parameters."""
        return self._listed + len(items) <= MAX_PARAMETERS

    def _column(self, expression: str) -> str:
        if expression not in self.columns:
            self.columns.append(expression)
        return expression

    def _distinct(self, table: str, column: str, seen: str) -> list[str]:
        """Return the names in a column of rows that are seen: the condition of an index that begins with it."""
        return self._column_of(_DISTINCT.format(table=table, column=column, seen=seen))

    def _column_of(self, query: str) -> list[str]:
        return [name for (name,) in self._session.rows(query)]


def _among(ids: Ids) -> _Said:
    """Photos of a list that is too long for a statement."""
    return _Said(_ALL.sql, lambda rows: np.isin(rows.ids, ids))


def _lists(items: Sequence[Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    return (listed("item", chunk) for chunk in chunks(items))


def _base(place: bytes) -> str:
    return os.fsdecode(place.rpartition(b"/")[2])


def _below(folder: str, path: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _relative(folder: str, root: str) -> str | None:
    """Return which part of a root lies in a folder, '.' for all of it, None for nothing."""
    if _below(folder, root):
        return "."
    return inside(folder, root) if _below(root, folder) else None


def _around(moment: datetime) -> tuple[datetime, datetime]:
    """Return wall-clock times before and after an instant, wherever one is."""
    offset = moment.utcoffset() or timedelta()
    shown = moment.replace(tzinfo=None)
    return _shifted(shown, -offset - _DAY, _FIRST), _shifted(shown, _DAY - offset, _LAST)


def _shifted(moment: datetime, by: timedelta, beyond: datetime) -> datetime:
    try:
        return moment + by
    except OverflowError:
        return beyond
