"""Conditions on photos, as a tree. A node tells of a photo whether it holds, and writes itself as text.

The text is what `search.where.parse` reads; `search.catalog.filters` says the same in SQL.
A comparison with something that a photo does not have does not hold; `Not` holds exactly where its part does not.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from search import addresses

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from search.types import Filter, Photo

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
KM_PER_DEGREE = EARTH_RADIUS_KM * math.pi / 180  # of latitude
_SLACK = 1e-6  # degrees by which a band of latitudes is made wider, so that rounding costs no photo

Amount: TypeAlias = Literal["width", "height", "megapixels", "size", "rating"]
Operator: TypeAlias = Literal["=", "<", "<=", ">", ">="]
Shape: TypeAlias = Literal["portrait", "landscape", "square"]
Thing: TypeAlias = Literal["date", "camera", "lens", "gps", "rating", "label"]

COMPARE = {"=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

FORMATS = {
    "jpeg": ("jpeg", "mpo"),
    "jpg": ("jpeg", "mpo"),
    "heic": ("heif",),
    "tif": ("tiff",),
    "jp2": ("jpeg2000",),
}
"""Names that stand for formats as decoders call them; JPEGs with a second picture in them are called MPO."""

_BARE = re.compile(r"[^\s\"'(),\0]+")


class Node(ABC):
    """A condition; `str` writes it so that parsing gives an equal one."""

    __slots__ = ()

    @abstractmethod
    def holds(self, photo: Photo) -> bool:
        """Whether a photo fulfils it, by what the catalog knows of the photo."""

    def __str__(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class And(Node):
    """All parts hold."""

    parts: tuple[Node, ...]

    def holds(self, photo: Photo) -> bool:
        return all(part.holds(photo) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(map(_part, self.parts))


@dataclass(frozen=True, slots=True)
class Or(Node):
    """One part holds, or more."""

    parts: tuple[Node, ...]

    def holds(self, photo: Photo) -> bool:
        return any(part.holds(photo) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(map(_part, self.parts))


@dataclass(frozen=True, slots=True)
class Not(Node):
    """The part does not hold, for whatever reason."""

    part: Node

    def holds(self, photo: Photo) -> bool:
        return not self.part.holds(photo)

    def __str__(self) -> str:
        return f"not {_part(self.part)}"


@dataclass(frozen=True, slots=True)
class Called(Node):
    """The camera or lens has a text in its name, in any case; `whole`: is called so."""

    field: Literal["camera", "lens"]
    text: str
    whole: bool = False

    def matches(self, name: str) -> bool:
        """Whether a camera or lens is meant."""
        given, wanted = folded(name), folded(self.text)
        return given == wanted if self.whole else wanted in given

    def holds(self, photo: Photo) -> bool:
        name = photo.info.camera if self.field == "camera" else photo.info.lens
        return name is not None and self.matches(name)

    def __str__(self) -> str:
        return f"{self.field}{'=' if self.whole else ':'}{quoted(self.text)}"


@dataclass(frozen=True, slots=True)
class Labelled(Node):
    """Has a label, in any case, or one below it (`animal` finds `animal/cat`); `whole`: that label itself."""

    label: str
    whole: bool = False

    def matches(self, label: str) -> bool:
        """Whether a label is meant."""
        given, wanted = folded(label), folded(self.label)
        return given == wanted or (not self.whole and given.startswith(f"{wanted}/"))

    def holds(self, photo: Photo) -> bool:
        return any(map(self.matches, photo.labels))

    def __str__(self) -> str:
        return f"label{'=' if self.whole else ':'}{quoted(self.label)}"


@dataclass(frozen=True, slots=True)
class Named(Node):
    """The file's name, or its whole path, matches a pattern: * any text, ? one character, any case.

    whole: is the text itself, as the file system has it.
    """

    field: Literal["name", "path"]
    pattern: str
    whole: bool = False

    def matches(self, text: str) -> bool:
        """Whether a name or path is meant."""
        if self.whole:
            return text == self.pattern
        return _glob(self.pattern).fullmatch(unicodedata.normalize("NFC", text)) is not None

    def holds(self, photo: Photo) -> bool:
        return self.matches(photo.path if self.field == "path" else os.path.basename(photo.path))

    def __str__(self) -> str:
        return f"{self.field}{'=' if self.whole else ':'}{quoted(self.pattern)}"


@dataclass(frozen=True, slots=True)
class InFolder(Node):
    """The file lies in an absolute folder or below it, whose name is as the file system has it."""

    folder: str

    def holds(self, photo: Photo) -> bool:
        return photo.path == self.folder or photo.path.startswith(os.path.join(self.folder, ""))

    def __str__(self) -> str:
        return f"folder:{quoted(self.folder)}"


@dataclass(frozen=True, slots=True)
class IsFormat(Node):
    """The file is of a format, by the name of its decoder or one of FORMATS."""

    format: str

    @property
    def names(self) -> tuple[str, ...]:
        """What decoders call it."""
        return FORMATS.get(self.format, (self.format,))

    def holds(self, photo: Photo) -> bool:
        return photo.info.format in self.names

    def __str__(self) -> str:
        return f"format={quoted(self.format)}"


@dataclass(frozen=True, slots=True)
class Oriented(Node):
    """The picture, upright, is higher than wide, wider than high, or neither."""

    shape: Shape

    def holds(self, photo: Photo) -> bool:
        wider = photo.info.width - photo.info.height
        return {"portrait": wider < 0, "landscape": wider > 0, "square": wider == 0}[self.shape]

    def __str__(self) -> str:
        return f"orientation={self.shape}"


@dataclass(frozen=True, slots=True)
class Measured(Node):
    """An amount compares with a number; megapixels are counted in pixels, size in bytes."""

    field: Amount
    operator: Operator
    value: float

    def holds(self, photo: Photo) -> bool:
        amount = _amount(photo, self.field)
        return amount is not None and bool(COMPARE[self.operator](amount, self.value))

    def __str__(self) -> str:
        return f"{self.field} {self.operator} {_number(self.value, -6 if self.field == 'megapixels' else 0)}"


@dataclass(frozen=True, slots=True)
class Taken(Node):
    """Taken at a moment or later, or before it.

    A moment without zone is wall-clock time. One with a zone is an instant for photos whose offset is known; what
    others show is taken for the time in the moment's zone.
    """

    operator: Literal[">=", "<"]
    moment: datetime

    def holds(self, photo: Photo) -> bool:
        taken = photo.info.taken_at
        return taken is not None and self.includes(taken)

    def includes(self, taken: datetime) -> bool:
        """Whether a photo taken then is meant."""
        both = self.moment.tzinfo is not None and taken.tzinfo is not None
        given, moment = (taken, self.moment) if both else (_wall_clock(taken), _wall_clock(self.moment))
        return given >= moment if self.operator == ">=" else given < moment

    def __str__(self) -> str:
        return f"taken {self.operator} {self.moment.isoformat(timespec='microseconds')}"


@dataclass(frozen=True, slots=True)
class Near(Node):
    """Taken within a radius of a place on the globe."""

    latitude: float
    longitude: float
    km: float

    @property
    def latitudes(self) -> tuple[float, float]:
        """The band, from south to north, that all of it lies in; it may reach beyond the poles."""
        reach = self.km / KM_PER_DEGREE + _SLACK
        return self.latitude - reach, self.latitude + reach

    def holds(self, photo: Photo) -> bool:
        latitude, longitude = photo.info.latitude, photo.info.longitude
        if latitude is None or longitude is None:
            return False
        return bool(distance_km(latitude, longitude, self.latitude, self.longitude) <= self.km)

    def __str__(self) -> str:
        return f"near({_number(self.latitude)}, {_number(self.longitude)}, {_number(self.km)}km)"


@dataclass(frozen=True, slots=True)
class InBox(Node):
    """Taken between two latitudes and, from west to east, two longitudes; west of them may be the greater one."""

    south: float
    west: float
    north: float
    east: float

    @property
    def longitudes(self) -> tuple[tuple[float, float], ...]:
        """The ranges it covers; the meridian opposite Greenwich goes by two numbers."""
        if self.west > self.east:
            return (self.west, 180), (-180, self.east)
        opposite = [(180, 180)] * (self.west == -180) + [(-180, -180)] * (self.east == 180)
        return (self.west, self.east), *opposite

    def holds(self, photo: Photo) -> bool:
        latitude, longitude = photo.info.latitude, photo.info.longitude
        if latitude is None or longitude is None or not self.south <= latitude <= self.north:
            return False
        return any(west <= longitude <= east for west, east in self.longitudes)

    def __str__(self) -> str:
        return f"box({', '.join(map(_number, (self.south, self.west, self.north, self.east)))})"


@dataclass(frozen=True, slots=True)
class Has(Node):
    """Something is known of the photo; a date only if it is the photo's own, not the file's."""

    thing: Thing

    def holds(self, photo: Photo) -> bool:
        info = photo.info
        if self.thing == "date":
            return info.taken_at is not None and info.taken_at_source != "file"
        if self.thing == "gps":
            return info.latitude is not None and info.longitude is not None
        return bool(photo.labels) if self.thing == "label" else getattr(info, self.thing) is not None

    def __str__(self) -> str:
        return f"has {self.thing}"


def condition_of(wanted: Filter) -> Node:
    """Return all that a filter asks for as one condition; `And(())` where that is nothing."""
    parts: list[Node] = []
    if wanted.folder is not None:
        parts.append(InFolder(normal_folder(wanted.folder)))
    if wanted.after is not None:
        parts.append(Taken(">=", wanted.after))
    if wanted.before is not None:
        parts.append(Taken("<", wanted.before))
    if wanted.camera is not None:
        parts.append(Called("camera", wanted.camera))
    if wanted.near is not None:
        parts.append(Near(*wanted.near))
    parts += map(Labelled, wanted.labels)
    return And((*parts, *([wanted.where] if wanted.where else [])))


def normal_folder(folder: str) -> str:
    """Return the one way to write an absolute folder."""
    normal = addresses.normal(folder)
    return normal[1:] if normal.startswith("//") else normal


def distance_km(
    latitudes: npt.ArrayLike, longitudes: npt.ArrayLike, latitude: float, longitude: float
) -> npt.NDArray[np.float64]:
    """Return great-circle distances from one point, by the haversine formula; degrees in, km out."""
    import numpy as np  # only where places are asked for

    north, east = np.radians(latitudes), np.radians(longitudes)
    here_north, here_east = np.radians(latitude), np.radians(longitude)
    chord = np.sin((north - here_north) / 2) ** 2
    chord = chord + np.cos(north) * np.cos(here_north) * np.sin((east - here_east) / 2) ** 2
    distances: npt.NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))
    return distances


@functools.lru_cache(4096)
def folded(text: str) -> str:
    """Return what texts that differ in case, or in how an accent is put together, have in common."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def quoted(text: str) -> str:
    """Return a value as it is written in a condition, in quotes where it needs them."""
    return text if _BARE.fullmatch(text) else '"' + text.replace('"', '""') + '"'


@functools.lru_cache(64)
def _glob(pattern: str) -> re.Pattern[str]:
    """Return the expression of a pattern; what a star skipped is not tried again, so that none takes for ever."""
    first, *rest = [
        re.escape(part).replace(r"\?", ".") for part in unicodedata.normalize("NFC", pattern).split("*")
    ]
    if not rest:
        return re.compile(first, re.DOTALL | re.IGNORECASE)
    between = "".join(f"(?>.*?{part})" for part in rest[:-1])
    return re.compile(f"{first}{between}.*{rest[-1]}", re.DOTALL | re.IGNORECASE)


def _amount(photo: Photo, field: Amount) -> int | None:
    if field == "size":
        return photo.size_bytes
    if field == "megapixels":
        return photo.info.width * photo.info.height
    amount: int | None = getattr(photo.info, field)
    return amount


def _number(value: float, exponent: int = 0) -> str:
    """Write a number times a power of ten, to the last digit."""
    from decimal import Decimal

    number = Decimal(repr(value)).scaleb(exponent)
    if number and abs(number) < 1e-6:
        return str(number).lower()
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _wall_clock(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


def _part(node: Node) -> str:
    return f"({node})" if isinstance(node, And | Or) else str(node)
