"""What a store knows of photos beside their vectors: a few columns, and which of a filter's conditions it can tell.

What is told from them is never narrower than the filter: the catalog says which photos pass, a store only which are
worth looking at. A column has no missing values but one that no photo has, so that "not" means what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

from search import conditions
from search.conditions import condition_of

if TYPE_CHECKING:
    from search.conditions import Node
    from search.types import Filter, PhotoInfo

Kind: TypeAlias = Literal["integer", "real", "text"]
Value: TypeAlias = int | float | str

COLUMNS: dict[str, Kind] = {
    "taken_at": "integer",  # microseconds of wall-clock time since 1970
    "rating": "real",  # it may be compared with half a star
    "latitude": "real",
    "longitude": "real",
    "camera": "text",  # its name after "=", nothing where there is none
    "format": "text",
}
"""The columns of a store, by name."""

MOST_BYTES = 1000
"""Of a text in a store; longer ones are cut, and so is what they are compared with."""
_MOST_NAMES = 200  # in one condition
_NEVER, _UNRATED, _NOWHERE = -(2**62), -100.0, 1000.0
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a wall clock's)
_DAY = timedelta(days=1)  # no place is further from UTC than that


@dataclass(frozen=True, slots=True)
class Compared:
    """A column stands so to a value: one of = != < <= > >=."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True, slots=True)
class OneOf:
    """A column has one of some values; there is at least one."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold; there is at least one."""

    parts: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """One part holds, or more; there is at least one."""

    parts: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """The part does not hold."""

    part: Test


Test: TypeAlias = Compared | OneOf | Every | Some | Other

NOTHING = Compared("rating", "=", _UNRATED - 1)
"""Holds of no photo."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What a store can tell of a condition; exact: it holds of no other photo."""

    test: Test
    exact: bool


def row_of(info: PhotoInfo) -> tuple[Value, ...]:
    """Return a photo's columns, in the order of COLUMNS."""
    taken = info.taken_at
    placed = info.latitude is not None and info.longitude is not None
    return (
        _NEVER if taken is None else _microseconds(taken),
        _UNRATED if info.rating is None else float(info.rating),
        float(info.latitude) if placed and info.latitude is not None else _NOWHERE,
        float(info.longitude) if placed and info.longitude is not None else _NOWHERE,
        "" if info.camera is None else _text("=" + info.camera),
        _text(info.format),
    )


def pushed(wanted: Filter, cameras: Sequence[str]) -> Test | None:
    """Return what a store can tell of a filter, which every photo that passes fulfils; None where that is nothing.

    cameras: the names of all cameras of the library.
    """
    told = _tell(condition_of(wanted), cameras)
    return told.test if told else None


def _tell(node: Node, cameras: Sequence[str]) -> _Told | None:
    match node:
        case conditions.And(parts):
            return _all([_tell(part, cameras) for part in parts])
        case conditions.Or(parts):
            return _any([_tell(part, cameras) for part in parts])
        case conditions.Not(part):
            told = _tell(part, cameras)
            return _Told(Other(told.test), True) if told and told.exact else None
        case conditions.Called("camera"):
            return _named(node, cameras)
        case conditions.IsFormat():
            return _Told(OneOf("format", tuple(map(_text, node.names))), True)
        case conditions.Measured("rating", operator, value):
            return _Told(
                Every((Compared("rating", operator, float(value)), Compared("rating", ">", _UNRATED))), True
            )
        case conditions.Taken():
            return _taken(node)
        case conditions.Near():
            return _near(node)
        case conditions.InBox():
            ranges = [Every(tuple(_between("longitude", *limits))) for limits in node.longitudes]
            return _Told(Every((*_between("latitude", node.south, node.north), Some(tuple(ranges)))), True)
        case conditions.Has(thing):
            return _has(thing)
    return None


def _all(parts: Iterable[_Told | None]) -> _Told | None:
    every = list(parts)
    known = [part for part in every if part]
    if not known:
        return None
    exact = len(known) == len(every) and all(part.exact for part in known)
    return _Told(Every(tuple(part.test for part in known)), exact)


def _any(parts: Iterable[_Told | None]) -> _Told | None:
    every = list(parts)
    known = [part for part in every if part]
    if not known or len(known) < len(every):
        return None
    return _Told(Some(tuple(part.test for part in known)), all(part.exact for part in known))


def _named(node: conditions.Called, cameras: Sequence[str]) -> _Told | None:
    meant = [name for name in cameras if node.matches(name)]
    if not meant:
        return _Told(NOTHING, True)
    if len(meant) > _MOST_NAMES:
        return None
    texts = tuple(sorted({_text("=" + name) for name in meant}))
    # Another camera's name may be the same once cut and cleaned: then the opposite would leave its photos out.
    return _Told(OneOf("camera", texts), not any(_is_changed(name) for name in cameras))


def _taken(node: conditions.Taken) -> _Told:
    known = Compared("taken_at", ">", _NEVER)
    if node.moment.tzinfo is None:
        return _Told(Every((Compared("taken_at", node.operator, _microseconds(node.moment)), known)), True)
    wall = node.moment.replace(tzinfo=None)
    slack = _DAY // timedelta(microseconds=1)
    limit = _microseconds(wall) + (-2 * slack if node.operator == ">=" else 2 * slack)
    return _Told(Every((Compared("taken_at", node.operator, limit), known)), False)


def _near(node: conditions.Near) -> _Told:
    return _Told(Every(tuple(_between("latitude", *node.latitudes))), False)


def _between(column: str, low: float, high: float) -> Iterator[Test]:
    yield Compared(column, ">=", float(low))
    yield Compared(column, "<=", float(min(high, _NOWHERE - 1)))


def _has(thing: str) -> _Told | None:
    match thing:
        case "date":  # whose it is, the photo's or the file's, no store knows
            return _Told(Compared("taken_at", ">", _NEVER), False)
        case "camera":
            return _Told(Compared("camera", "!=", ""), True)
        case "gps":
            return _Told(Compared("latitude", "<", _NOWHERE), True)
        case "rating":
            return _Told(Compared("rating", ">", _UNRATED), True)
    return None


def _microseconds(moment: datetime) -> int:
    return (moment.replace(tzinfo=None) - _EPOCH) // timedelta(microseconds=1)


def _text(text: str) -> str:
    """Return a text as every store can keep it: no control characters, no halves of characters, not too long."""
    plain = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return plain.encode("utf-8", "replace")[:MOST_BYTES].decode("utf-8", "ignore")


def _is_changed(name: str) -> bool:
    return _text("=" + name) != "=" + name
