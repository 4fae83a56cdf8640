"""Is the catalog whole? Every structure and every vector is looked at; repairing drops only what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import and_, delete, func, select, text, update

from search.catalog.rows import HALF, checksum, chunks, to_path
from search.catalog.scan import lacking
from search.catalog.schema import embeddings, encoders, photos, roots, state
from search.catalog.transaction import commit
from search.types import Problem, ProblemKind

if TYPE_CHECKING:
    from sqlalchemy import Connection

_CHUNK = 4096
_NORM_TOLERANCE = 1e-2  # float16 keeps a unit vector's length far better than that


def find_problems(connection: Connection) -> Iterator[Problem]:
    """Yield what is wrong, in the order in which it matters."""
    yield from _structure(connection)
    for row, wrong in _damaged(connection):
        yield Problem(ProblemKind.VECTOR_DAMAGED, f"{to_path(row.root, row.path)}: {wrong}")
    without = _without_vector(connection)
    if without:
        yield Problem(ProblemKind.VECTOR_MISSING, f"{without} photos have no vector by the model that answers")


def drop_damaged(connection: Connection) -> int:
    """Delete vectors that are damaged, so that the next run encodes their photos again; return how many."""
    with connection.begin():
        places = [(row.encoder_id, row.photo_id) for row, _ in _damaged(connection)]
    if not places:
        return 0
    with commit(connection) as seq:
        for encoder_id in {encoder_id for encoder_id, _ in places}:
            for ids in chunks([photo_id for owner, photo_id in places if owner == encoder_id]):
                these = and_(embeddings.c.encoder_id == encoder_id, embeddings.c.photo_id.in_(ids))
                connection.execute(delete(embeddings).where(these))
                connection.execute(update(photos).where(photos.c.id.in_(ids)).values(seq=seq))
    return len(places)


def _structure(connection: Connection) -> Iterator[Problem]:
    """What the database says of itself; other databases than SQLite watch over theirs."""
    if connection.dialect.name != "sqlite":
        return
    for line in connection.execute(text("PRAGMA integrity_check")).scalars():
        if line != "ok":
            yield Problem(ProblemKind.CATALOG_DAMAGED, line)
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield Problem(ProblemKind.CATALOG_DAMAGED, f"row {row} of {table} refers to no row of {parent}")


def _damaged(connection: Connection) -> Iterator[tuple[Any, str]]:
    """Every vector that can't be what was written, with what is wrong with it."""
    query = (
        select(
            embeddings.c.encoder_id,
            embeddings.c.photo_id,
            embeddings.c.vector,
            embeddings.c.crc,
            encoders.c.dim,
            photos.c.path,
            roots.c.path.label("root"),
        )
        .select_from(embeddings.join(encoders).join(photos).join(roots))
        .order_by(embeddings.c.encoder_id, embeddings.c.photo_id)
        .execution_options(yield_per=_CHUNK)
    )
    for row in connection.execute(query):
        if wrong := _fault(row.vector, row.crc, row.photo_id, row.encoder_id, row.dim):
            yield row, wrong


def _fault(blob: bytes, crc: int, photo_id: int, encoder_id: int, dim: int) -> str:
    if checksum(blob, photo_id, encoder_id) != crc:
        return "its vector's checksum does not hold"
    vector = np.frombuffer(blob, HALF).astype(np.float32)
    if len(vector) != dim:
        return f"its vector has {len(vector)} numbers, not {dim}"
    norm = float(np.linalg.norm(vector))
    return "" if abs(norm - 1) < _NORM_TOLERANCE else f"its vector has length {norm:.3g}"


def _without_vector(connection: Connection) -> int:
    """How many photos the answering model has no vector of, though it should."""
    answering = select(state.c.encoder_id).scalar_subquery()
    count: int = connection.execute(
        select(func.count()).select_from(photos).where(lacking(answering))
    ).scalar_one()
    return count
