"""All photos present at a glance, as columns: for lists in order of time, and for counts beside filters.

A list of everything and a dozen counts would each go through all rows. Held as arrays, a million photos take some
30 MB, and any of it a few milliseconds; they are read again once the catalog has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search.addresses import normal
from search.catalog.rows import to_path

if TYPE_CHECKING:
    import numpy.typing as npt

    from search.catalog.session import Session
    from search.types import Ids

    Codes = npt.NDArray[np.int32]
    """(N,) places in a list of names; -1 for none."""

_PHOTOS = (
    "SELECT id, root_id, path, taken_at, camera, latitude IS NOT NULL AND longitude IS NOT NULL FROM photos "
    "WHERE gone_at IS NULL ORDER BY id"
)
_LABELS = "SELECT DISTINCT label, photo_id FROM labels WHERE NOT rejected"  # in the order of their index
_PART = 2**14  # rows read at a time


@dataclass(frozen=True, slots=True)
class Overview:
    """Columns of all photos present.

    seq: the commit that it is as of.   ids: (N,) ascending.   taken: (N,) datetime64[s], NaT where not known.
    camera, folder: (N,) places in `cameras` and `folders`, which are absolute.   placed: (N,) whether GPS is known.
    labelled: (M,) places of photos, label: (M,) of their labels in `labels`.
    """

    seq: int
    ids: Ids
    taken: npt.NDArray[np.datetime64]
    cameras: tuple[str, ...]
    camera: Codes
    folders: tuple[str, ...]
    folder: Codes
    placed: npt.NDArray[np.bool_]
    labels: tuple[str, ...]
    labelled: npt.NDArray[np.int64]
    label: Codes


def sequence(session: Session) -> int:
    """Return the number of the last commit, of photos or of labels."""
    found: int = session.one("SELECT seq FROM state")[0]
    return found


def read(session: Session) -> Overview:
    """Read everything."""
    roots: dict[int, bytes] = dict(session.rows("SELECT id, path FROM roots"))
    ids: list[int] = []
    taken: list[Any] = []
    cameras, folders, labels = _Names(), _Names(), _Names()
    placed: list[bool] = []
    for rows in session.parts(_PHOTOS, {}, size=_PART):
        for id_, root_id, path, moment, camera, has_place in rows:
            ids.append(id_)
            taken.append(moment)
            cameras.add(camera)
            folders.add((root_id, path.rpartition(b"/")[0]))
            placed.append(bool(has_place))
    places = {id_: place for place, id_ in enumerate(ids)}
    labelled: list[int] = []
    for rows in session.parts(_LABELS, {}, size=_PART):
        for label, id_ in rows:
            if id_ in places:
                labelled.append(places[id_])
                labels.add(label)
    return Overview(
        seq=sequence(session),
        ids=np.array(ids, np.int64),
        taken=np.array(taken, "datetime64[us]").astype("datetime64[s]"),
        cameras=tuple(cameras.names),
        camera=cameras.codes(),
        folders=tuple(normal(to_path(roots[root_id], inside)) for root_id, inside in folders.names),
        folder=folders.codes(),
        placed=np.array(placed, bool),
        labels=tuple(labels.names),
        labelled=np.array(labelled, np.int64),
        label=labels.codes(),
    )


class _Names:
    """Names as they come, each kept once."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}
        self._codes: list[int] = []

    def add(self, name: Any) -> None:
        self._codes.append(-1 if name is None else self._places.setdefault(name, len(self._places)))

    @property
    def names(self) -> list[Any]:
        return list(self._places)

    def codes(self) -> Codes:
        return np.array(self._codes, np.int32)
