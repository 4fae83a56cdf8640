"""Whether photos that are not found are gone, or away with the drive that they lie on."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, or_, select, update

from search.addresses import is_remote, tars
from search.catalog.rows import chunks, to_path
from search.catalog.schema import photos, roots, scanned
from search.catalog.scopes import is_reachable
from search.catalog.standing import here
from search.types import Withheld

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MANY_MISSING = 100  # photos; and
_MANY_MISSING_SHARE = 0.2  # of those looked for: more than both is no tidying up, but a drive that is away
_PROBED = 500  # photos of a root outside the run that are looked for before one of them may move


class Doubts:
    """What a run's roots lie on, now and before, and how many of their photos are not found.

    file_system: tells what a folder lies on now, None if it can't.
    """

    def __init__(self, connection: Connection, file_system: Callable[[str], str | None]) -> None:
        self._connection = connection
        self._file_system = file_system
        self._now: dict[int, str | None] = {}  # what the run's roots lie on
        self._away: dict[int, bool] = {}  # whether other roots are, as far as asked

    def note(self, root_id: int, file_system: str | None) -> None:
        """Note what a root of the run lies on now, None if that can't be told."""
        self._now[root_id] = file_system

    def of(self, missing: Counter[int]) -> dict[int, Withheld]:
        """Return the roots whose missing photos may come back, with the reason."""
        present = select(scanned.c.root_id, func.count().label("files")).join_from(scanned, photos, here())
        query = present.where(photos.c.gone_at.is_(None)).group_by(scanned.c.root_id)
        found = {row.root_id: row.files for row in self._connection.execute(query)}
        doubts = {}
        for row in self._connection.execute(select(roots)).all():
            lost, current = missing[row.id], self._now.get(row.id)
            total = lost + found.get(row.id, 0)
            reason = ""
            if lost and current and row.file_system and current != row.file_system:
                reason = "another file system is there than before"
            elif lost > _MANY_MISSING and lost > _MANY_MISSING_SHARE * total:
                reason = f"{lost} of {total} missing at once looks like a drive that is away"
            if reason:
                doubts[row.id] = Withheld(os.fsdecode(row.path), lost, reason)
        return doubts

    def is_away(self, row: Any) -> bool:
        """Whether the root of a photo outside this run's scopes looks as without its drive; told once by root.

        row: with the photo's root_id, the root and its file_system.
        """
        if row.root_id not in self._away:
            self._away[row.root_id] = self._looks_away(row)
        return self._away[row.root_id]

    def _looks_away(self, row: Any) -> bool:
        """It does if it is empty, lies on another file system than before, or lacks too many of the photos looked for.

        Those are up to 500 of them, spread over the root; too many are all, too.
        """
        root = os.fsdecode(row.root)
        current = self._file_system(root) if row.file_system else None
        if not is_reachable(root) or (current and current != row.file_system):
            return True
        present = select(photos.c.id).where(photos.c.root_id == row.root_id, photos.c.gone_at.is_(None))
        ids = self._connection.execute(present.order_by(photos.c.id)).scalars().all()
        probed = ids[:: -(-len(ids) // _PROBED)]
        lost = 0
        for some in chunks(probed):
            places = select(photos.c.path).where(photos.c.id.in_(some))
            lost += sum(is_nowhere(to_path(row.root, path)) for path in self._connection.execute(places).scalars())
        share = lost / len(probed)
        return lost == len(probed) or (share > _MANY_MISSING_SHARE and share * len(ids) > _MANY_MISSING)

    def remember(self, root_ids: Iterable[int]) -> None:
        """Remember what roots lie on whose photos are all accounted for; part of a transaction."""
        for root_id in root_ids:
            current = self._now[root_id]
            differs = or_(roots.c.file_system.is_(None), roots.c.file_system != current)
            if current is not None:
                this = update(roots).where(roots.c.id == root_id, differs)
                self._connection.execute(this.values(file_system=current))


def is_nowhere(path: str) -> bool:
    """Whether a photo has no file any more; of what is no file in a folder only a run that walks it knows."""
    if is_remote(path) or tars(path):
        return False
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there
        return False
    return False
