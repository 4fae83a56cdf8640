"""Work on a library as rows: who is at it and how far, and which files it has in hand.

Only the holder of the writer's lock writes, so a job without an end that a new writer finds has died.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, delete, insert, not_, select, update

from search.catalog.lock import boot_id
from search.catalog.schema import in_flight, jobs
from search.catalog.transaction import now
from search.types import JobState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from search.catalog.found import ScannedFile

_KEPT = 100


def begin(connection: Connection, kind: str) -> int:
    """Insert a job of this process and return its id; account for those that died."""
    _bury(connection)
    values = {
        "kind": kind,
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot_id": boot_id(),
        "command": os.path.basename(sys.argv[0]),
        "started_at": now(),
        "heartbeat_at": now(),
        "done": 0,
    }
    id_: int = connection.execute(insert(jobs).values(values).returning(jobs.c.id)).scalar_one()
    needed = select(in_flight.c.job_id)
    connection.execute(delete(jobs).where(jobs.c.id <= id_ - _KEPT, jobs.c.id.not_in(needed)))
    return id_


def _bury(connection: Connection) -> None:
    """Mark jobs that died, and count the death against a file that one had in hand alone.

    After a start of the machine nobody is suspected: it was the power, not a file.
    """
    dead = select(jobs.c.id).where(jobs.c.finished_at.is_(None))
    alone = and_(in_flight.c.alone, in_flight.c.job_id.in_(dead))
    connection.execute(update(in_flight).where(alone).values(alone=False, deaths=in_flight.c.deaths + 1))
    before = select(jobs.c.id).where(jobs.c.boot_id != boot_id())
    connection.execute(delete(in_flight).where(in_flight.c.job_id.in_(before)))
    ended = {"outcome": JobState.INTERRUPTED, "finished_at": jobs.c.heartbeat_at}
    connection.execute(update(jobs).where(jobs.c.finished_at.is_(None)).values(ended))


def beat(connection: Connection, job_id: int, done: int) -> None:
    """Note that a job lives, and how many files more it is done with."""
    this = update(jobs).where(jobs.c.id == job_id)
    connection.execute(this.values(heartbeat_at=now(), done=jobs.c.done + done))


def expect(connection: Connection, job_id: int, total: int) -> None:
    """Note how many files a job has to do."""
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(heartbeat_at=now(), total=total))


def finish(connection: Connection, job_id: int, outcome: JobState) -> None:
    """Note how a job ended; what it has in hand is safe, and what it did not come to stays under suspicion."""
    own = in_flight.c.job_id == job_id
    connection.execute(delete(in_flight) if outcome is JobState.DONE else delete(in_flight).where(own))
    ended = {"outcome": outcome, "finished_at": now(), "heartbeat_at": now()}
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(ended))


# ---- files in hand


def take(connection: Connection, job_id: int, files: Sequence[ScannedFile], *, alone: bool) -> None:
    """Note that a job is about to work on these files; a file that is under suspicion stays so."""
    known = leftovers(connection, job_id) if alone else {}
    values: list[dict[str, Any]] = [
        {
            "root_id": file.root_id,
            "path": file.place,
            "job_id": job_id,
            "alone": alone,
            "deaths": known.get((file.root_id, file.place), 0),
        }
        for file in files
    ]
    drop(connection, files)
    connection.execute(insert(in_flight), values)


def drop(connection: Connection, files: Sequence[ScannedFile]) -> None:
    """Note that files are stored or skipped."""
    place = and_(in_flight.c.root_id == bindparam("in_root"), in_flight.c.path == bindparam("place"))
    places = [{"in_root": file.root_id, "place": file.place} for file in files]
    if places:
        connection.execute(delete(in_flight).where(place), places)


def leftovers(connection: Connection, job_id: int) -> dict[tuple[int, bytes], int]:
    """Return the files that jobs before this one died with, by root and path, and how often one died of it alone."""
    rows = connection.execute(select(in_flight).where(not_(in_flight.c.job_id == job_id)))
    return {(row.root_id, row.path): row.deaths for row in rows}
