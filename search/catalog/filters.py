"""A Filter as SQL, and the one condition SQL can't state: distance on the globe."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy import ColumnElement, and_, exists, false, or_, select, true

from search.catalog.rows import to_bytes
from search.catalog.schema import labels, photos

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.types import Filter

EARTH_RADIUS_KM = 6371.0088  # mean radius, IUGG
KM_PER_DEGREE = EARTH_RADIUS_KM * np.pi / 180


def conditions(wanted: Filter, roots: dict[int, bytes]) -> list[ColumnElement[bool]]:
    """Return the SQL conditions of a filter; `near` is only narrowed to a band of latitudes.

    roots: path of each root by id.
    """
    found: list[ColumnElement[bool]] = []
    if wanted.folder is not None:
        found.append(in_folder(wanted.folder, roots))
    if wanted.after is not None:
        found.append(photos.c.taken_at >= wanted.after)
    if wanted.before is not None:
        found.append(photos.c.taken_at < wanted.before)
    if wanted.camera is not None:
        found.append(photos.c.camera.icontains(wanted.camera, autoescape=True))
    if wanted.near is not None:
        latitude, _, km = wanted.near
        reach = km / KM_PER_DEGREE
        found.append(photos.c.latitude.between(latitude - reach, latitude + reach))
        found.append(photos.c.longitude.is_not(None))
    for label in wanted.labels:
        found.append(exists(select(1).where(labels.c.photo_id == photos.c.id, labels.c.label == label)))
    return found


def in_folder(folder: str, roots: dict[int, bytes]) -> ColumnElement[bool]:
    """Photos in an absolute folder or below it, whichever root they belong to."""
    wanted = PurePath(os.path.normpath(folder))
    parts: list[ColumnElement[bool]] = []
    for root_id, root_bytes in roots.items():
        root = PurePath(os.fsdecode(root_bytes))
        if root.is_relative_to(wanted):
            parts.append(photos.c.root_id == root_id)
        elif wanted.is_relative_to(root):
            inside = below(str(wanted.relative_to(root)), photos.c.path)
            parts.append(and_(photos.c.root_id == root_id, inside))
    return or_(*parts) if parts else false()


def below(relative: str, path: ColumnElement[bytes]) -> ColumnElement[bool]:
    """Paths inside a folder of their root, or the file of that name; '.' is the root itself."""
    if relative in ("", "."):
        return true()
    prefix = to_bytes(relative)
    inside = and_(path > prefix + b"/", path < prefix + b"0")  # "0" follows "/"
    return or_(inside, path == prefix)


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
