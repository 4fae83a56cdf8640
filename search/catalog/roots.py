"""The table of roots as the writer keeps it, and what a scope covers in its statements."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, false, insert, or_, select, text, true, update

from search.addresses import is_inside, is_tar_name, relative
from search.catalog import scopes, sql
from search.catalog.rows import to_bytes
from search.catalog.schema import in_flight, photos, roots, skips
from search.catalog.scopes import Scope

if TYPE_CHECKING:
    from sqlalchemy import Connection


def find_scope(connection: Connection, path: str) -> Scope | None:
    """Return the scope of an absolute path in the root that holds it, None if no root does."""
    return scopes.find_scope(connection.execute(select(roots.c.id, roots.c.path)), path)


def add_root(connection: Connection, folder: str, seq: int) -> int:
    """Make a folder a root; roots inside it become part of it, so that no file is known by two names."""
    root_id: int = connection.execute(
        insert(roots).values(path=os.fsencode(folder)).returning(roots.c.id)
    ).scalar_one()
    for row in connection.execute(select(roots).where(roots.c.id != root_id)).all():
        inner = os.fsdecode(row.path)
        if is_inside(inner, folder) and not _is_tar(inner):
            prefix = to_bytes(relative(inner, folder)) + b"/"
            _rehang(connection, photos, row.id, root_id, prefix, seq=seq)
            _rehang(connection, skips, row.id, root_id, prefix)
            _rehang(connection, in_flight, row.id, root_id, prefix)
            connection.execute(delete(roots).where(roots.c.id == row.id))
    return root_id


def _is_tar(root: str) -> bool:
    """Whether a root is a tar file, which a walk of the folder it lies in does not look into."""
    return is_tar_name(root) and not os.path.isdir(root)


def _rehang(connection: Connection, table: Any, old: int, new: int, prefix: bytes, **values: int) -> None:
    places = connection.execute(select(table.c.path).where(table.c.root_id == old)).scalars().all()
    if places:
        connection.execute(
            update(table)
            .where(table.c.root_id == old, table.c.path == bindparam("place"))
            .values(root_id=new, path=bindparam("new_place"), **values),
            [{"place": place, "new_place": prefix + place} for place in places],
        )


def within(table: Any, scope: Scope) -> ColumnElement[bool]:
    """Rows of photos or skips that a scope covers."""
    condition = sql.within(table.name, scope.root_id, scope.relative)
    # Of two scopes of one root each keeps its own parameters.
    own: list[Any] = [bindparam(name, value, unique=True) for name, value in condition.values.items()]
    return and_(true(), text(condition.sql).bindparams(*own))


def within_any(table: Any, among: Sequence[Scope]) -> ColumnElement[bool]:
    """Rows that some scope covers."""
    return or_(false(), *(within(table, scope) for scope in among))
