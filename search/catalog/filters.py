"""A Filter as SQL, and the one condition SQL can't state: distance on the globe."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from search.catalog.rows import to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from search.types import Filter

EMBEDDED = "EXISTS (SELECT 1 FROM embeddings WHERE encoder_id = :encoder AND photo_id = photos.id)"
"""Photos that have a vector by a model."""

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180

# Cameras are few: their names are found one after the other in the index, so that no photo need be looked at.
_CAMERAS = """camera IN (
    WITH RECURSIVE cameras(name) AS (
        SELECT min(camera) FROM photos WHERE camera IS NOT NULL
        UNION ALL
        SELECT (SELECT min(camera) FROM photos WHERE camera > name) FROM cameras WHERE name IS NOT NULL
    )
    SELECT name FROM cameras WHERE lower(name) LIKE lower(:camera) ESCAPE '/'
)"""


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must fulfil: SQL text and its parameters."""

    sql: str
    values: Mapping[str, Any]

    @classmethod
    def all_of(cls, conditions: Iterable[Condition]) -> Condition:
        """Return what holds where all of these do, whose parameters have names of their own."""
        parts = list(conditions)
        values = {name: value for part in parts for name, value in part.values.items()}
        return cls(" AND ".join(part.sql for part in parts), values)


def narrowing(wanted: Filter, roots: dict[int, bytes]) -> Filter:
    """Return a filter without its folder where every root is in there: to list all photos takes long."""
    if wanted.folder is None:
        return wanted
    folder = PurePath(os.path.normpath(wanted.folder))
    covers = all(PurePath(os.fsdecode(root)).is_relative_to(folder) for root in roots.values())
    return replace(wanted, folder=None) if covers else wanted


def conditions(wanted: Filter, roots: dict[int, bytes]) -> Condition:
    """Return what photos must fulfil to pass; `near` is only narrowed to a band of latitudes.

    roots: path of each root by id.
    """
    found: list[Condition] = []
    if wanted.folder is not None:
        found.append(in_folder(wanted.folder, roots))
    if wanted.after is not None:
        found.append(Condition("taken_at >= :after", {"after": wanted.after.replace(tzinfo=None)}))
    if wanted.before is not None:
        found.append(Condition("taken_at < :before", {"before": wanted.before.replace(tzinfo=None)}))
    if wanted.camera is not None:
        found.append(Condition(_CAMERAS, {"camera": f"%{_escaped(wanted.camera)}%"}))
    if wanted.near is not None:
        latitude, _, km = wanted.near
        reach = km / KM_PER_DEGREE
        band = {"south": latitude - reach, "north": latitude + reach}
        found.append(Condition("latitude BETWEEN :south AND :north AND longitude IS NOT NULL", band))
    for number, label in enumerate(wanted.labels):
        named = f"photos.id IN (SELECT photo_id FROM labels WHERE label = :label{number})"  # noqa: S608
        found.append(Condition(named, {f"label{number}": label}))
    return Condition.all_of(found)


def _escaped(text: str) -> str:
    """Return text that LIKE takes literally."""
    return text.replace("/", "//").replace("%", "/%").replace("_", "/_")


def in_folder(folder: str, roots: dict[int, bytes]) -> Condition:
    """Photos in an absolute folder or below it, whichever root they belong to."""
    wanted = PurePath(os.path.normpath(folder))
    parts = []
    for root_id, root_bytes in roots.items():
        root = PurePath(os.fsdecode(root_bytes))
        if root.is_relative_to(wanted):
            parts.append(within("photos", root_id, "."))
        elif wanted.is_relative_to(root):
            parts.append(within("photos", root_id, str(wanted.relative_to(root))))
    either = " OR ".join(part.sql for part in parts) or "1 = 0"
    return Condition(f"({either})", {name: value for part in parts for name, value in part.values.items()})


def within(table: str, root_id: int, relative: str) -> Condition:
    """Rows whose path is inside a folder of a root, or is the file of that name; '.' is the root itself.

    The parameters are named after the root.
    """
    root, low, prefix, high = (f"{name}{root_id}" for name in ("root", "low", "prefix", "high"))
    here = f"{table}.root_id = :{root}"
    if relative in ("", "."):
        return Condition(here, {root: root_id})
    name, path = to_bytes(relative), f"{table}.path"
    # One stretch of the index, and out of it what only begins alike: "0" follows "/", others stand before it.
    inside = f"{path} >= :{low} AND {path} < :{high} AND ({path} = :{low} OR {path} > :{prefix})"
    return Condition(f"({here} AND {inside})", {root: root_id, low: name, prefix: name + b"/", high: name + b"0"})


def distance_km(
    latitudes: npt.NDArray[np.float64], longitudes: npt.NDArray[np.float64], latitude: float, longitude: float
) -> npt.NDArray[np.float64]:
    """Return great-circle distances (N,) from one point, by the haversine formula; degrees in, km out."""
    north, east = np.radians(latitudes), np.radians(longitudes)
    here_north, here_east = np.radians(latitude), np.radians(longitude)
    chord = (
        np.sin((north - here_north) / 2) ** 2
        + np.cos(north) * np.cos(here_north) * np.sin((east - here_east) / 2) ** 2
    )
    distances: npt.NDArray[np.float64] = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(chord, 0, 1)))
    return distances
