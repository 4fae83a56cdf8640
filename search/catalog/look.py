"""A run's files beside what is known, before anything is written.

A run that finds nothing new is the most frequent one. As long as the walk, which comes in the order of places, meets
just the files that the catalog knows, each as it was, it is enough to hold it against them, and nothing needs to be
written down. At the first difference a scan (search.catalog.scan) goes on; what was met before it can be told by its
last place.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any

from search.addresses import is_inside
from search.catalog.found import Matched, Settled, Unchanged
from search.catalog.rows import to_path
from search.catalog.scopes import Scope
from search.catalog.session import Row, Session, listed
from search.catalog.sql import EMBEDDED, Condition, within
from search.types import FileStat, Skip

FILE = "path, size_bytes, mtime_ns, ctime_ns"
"""What a row says of its file."""

_PAGE = 1024  # rows read at a time
_MATCHED = 20  # scopes in a run that are held against what is known; many more are single files
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


class Look:
    """The walk of some scopes held against the catalog.

    encoder_id: the model whose vectors are wanted.   settled: skips not to try again.
    """

    def __init__(self, session: Session, encoder_id: int, settled: Settled) -> None:
        self._session = session
        self._encoder_id = encoder_id
        self._settled = settled
        self._scopes: list[_Beside] = []

    def take(self, scope: Scope, files: Iterable[FileStat]) -> bool:
        """Whether files are just what is known next in their scope, scope after scope; if not, the look is over."""
        if not self._scopes or self._scopes[-1].scope != scope:
            if not self._may_look(scope):
                return False
            self._scopes.append(_Beside(scope, self._known_files(scope)))
        return self._scopes[-1].take(rows_of(scope, files))

    def settled(self, scope: Scope, files: Sequence[FileStat]) -> list[Skip] | None:
        """Return the skips among some files of a scope if all are as the catalog knows them; None if any is not.

        What else the scope has does not matter.
        """
        wanted = set(rows_of(scope, files))
        wanted.difference_update(self._known_files(scope))
        if wanted:
            return None
        paths = {file.path for file in files}
        skips = as_known(scope, self._encoder_id, self._settled)["skips"]
        query = f"SELECT path, reason, detail FROM skips WHERE {skips.sql} ORDER BY path"  # noqa: S608
        root = os.fsencode(scope.root)
        found = [Skip(to_path(root, path), *why) for path, *why in self._session.rows(query, skips.values)]
        return [skip for skip in found if skip.path in paths]

    def so_far(self) -> list[Matched]:
        """Return what was met before a file differed."""
        return [Matched(beside.scope, beside.last) for beside in self._scopes]

    def conclude(self, file_systems: Sequence[tuple[Scope, str | None]], *, before: datetime) -> Unchanged | None:
        """Return how a run ends that met every file there is; None if there is anything else to do.

        file_systems: every scope that was walked, and what its root lies on now, None if that can't be told.
        before: photos gone since before this moment (UTC, naive) are to be forgotten.
        """
        if not all(beside.is_complete for beside in self._scopes) or self._lie_elsewhere(file_systems):
            return None
        skips: list[Skip] = []
        for beside in self._scopes:
            skipped = self._skips(beside.scope)
            if skipped is None:
                return None
            skips += skipped
        long_gone = [id_ for beside in self._scopes for id_ in self._long_gone(beside.scope, before)]
        found = sum(beside.found for beside in self._scopes)
        return Unchanged(found - len(skips), skips, sorted(long_gone))

    def _may_look(self, scope: Scope) -> bool:
        """Whether a scope shares no file with those before, and all of theirs were found."""
        if len(self._scopes) >= _MATCHED:
            return False
        before = [beside.scope.path for beside in self._scopes]
        lone = not any(is_inside(path, scope.path) or is_inside(scope.path, path) for path in before)
        return lone and all(beside.is_complete for beside in self._scopes)

    def _known_files(self, scope: Scope) -> Iterator[Row]:
        """Yield what the files of photos that lack nothing and of settled skips are like, in the order of places."""
        known = as_known(scope, self._encoder_id, self._settled)
        parts = [f"SELECT {FILE} FROM {table} WHERE {rows.sql}" for table, rows in known.items()]  # noqa: S608
        values = {name: value for rows in known.values() for name, value in rows.values.items()}
        query = f"{' UNION ALL '.join(parts)} ORDER BY path"
        return chain.from_iterable(self._session.parts(query, values, size=_PAGE))

    def _lie_elsewhere(self, file_systems: Sequence[tuple[Scope, str | None]]) -> bool:
        """Whether a root lies on another file system than the catalog knows."""
        known: dict[int, str | None] = dict(self._session.rows("SELECT id, file_system FROM roots"))
        return any(current is not None and known[scope.root_id] != current for scope, current in file_systems)

    def _skips(self, scope: Scope) -> list[Skip] | None:
        """Return the skips of a scope, None if not all are settled."""
        every = within("skips", scope.root_id, scope.relative)
        settled = as_known(scope, self._encoder_id, self._settled)["skips"]
        query = f"SELECT path, reason, detail, {settled.sql} FROM skips WHERE {every.sql} ORDER BY path"  # noqa: S608
        rows = self._session.rows(query, settled.values)
        if not all(holds for *_, holds in rows):
            return None
        root = os.fsencode(scope.root)
        return [Skip(to_path(root, path), reason, detail) for path, reason, detail, _ in rows]

    def _long_gone(self, scope: Scope, before: datetime) -> list[int]:
        """Return the photos gone since before a moment whose place has no file, a skipped one neither."""
        here = within("photos", scope.root_id, scope.relative)
        skipped = "EXISTS (SELECT 1 FROM skips WHERE skips.root_id = photos.root_id AND skips.path = photos.path)"
        query = f"SELECT id FROM photos WHERE gone_at < :before AND {here.sql} AND NOT {skipped}"  # noqa: S608
        return [id_ for (id_,) in self._session.rows(query, {"before": before, **here.values})]


class _Beside:
    """The walk of a scope beside what is known there, both in the order of places."""

    def __init__(self, scope: Scope, known: Iterator[Row]) -> None:
        self.scope = scope
        self.found = 0
        self.last = b""  # the place of the last file that was as known
        self._known = known
        self._is_complete: bool | None = None

    def take(self, rows: list[Row]) -> bool:
        if list(islice(self._known, len(rows))) != rows:
            return False
        self.found += len(rows)
        self.last = rows[-1][0] if rows else self.last
        return True

    @property
    def is_complete(self) -> bool:
        """Whether everything known was found; to be asked when the walk of the scope is over."""
        if self._is_complete is None:
            self._is_complete = next(self._known, None) is None
        return self._is_complete


def as_known(scope: Scope, encoder_id: int, settled: Settled) -> dict[str, Condition]:
    """Return, by table, the rows whose files, if they are as these say, give a scope nothing to do."""
    read = {"encoder": encoder_id, "reader": settled.reader}
    photo = Condition(f"gone_at IS NULL AND reader = :reader AND {EMBEDDED}", read)
    reasons, values = listed("reason", [str(reason) for reason in settled.reasons])
    skip = Condition(f"decoder = :decoder AND reason IN {reasons}", {"decoder": settled.decoder, **values})
    return {
        table: Condition.all_of([within(table, scope.root_id, scope.relative), holds])
        for table, holds in (("photos", photo), ("skips", skip))
    }


def rows_of(scope: Scope, files: Iterable[FileStat]) -> list[tuple[Any, ...]]:
    """Return files as the catalog keeps them: place, size, times."""
    cut = len(os.path.join(scope.root, ""))
    if os.sep == "/":  # for each of very many files: to_bytes takes five times as long
        return [(path[cut:].encode(_ENCODING, _ERRORS), size, mtime, ctime) for path, size, mtime, ctime in files]
    return [
        (path[cut:].replace(os.sep, "/").encode(_ENCODING, _ERRORS), size, mtime, ctime)
        for path, size, mtime, ctime in files
    ]
