"""How the last piece of work on a library stands, for whoever looks at it from outside."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from search.catalog.lock import boot_id, is_held
from search.catalog.rows import to_utc
from search.files import is_alive
from search.types import JobState, JobStatus

if TYPE_CHECKING:
    from search.catalog.session import Session

_LAST = (
    "SELECT kind, outcome, started_at, heartbeat_at, finished_at, done, total, pid, host, boot_id FROM jobs "
    "WHERE id = (SELECT max(id) FROM jobs)"
)


def last_job(session: Session, folder: Path | None) -> JobStatus | None:
    """Return how the last job stands.   folder: where the writer's lock is, None for a database server."""
    row = session.first(_LAST)
    if row is None:
        return None
    kind, outcome, started_at, heartbeat_at, finished_at, done, total, pid, host, boot = row
    state = JobState(outcome) if finished_at else JobState.RUNNING
    if state is JobState.RUNNING and not _lives(session, folder, pid=pid, host=host, boot=boot):
        state = JobState.INTERRUPTED
    started, heartbeat = to_utc(started_at), to_utc(heartbeat_at)
    assert started is not None and heartbeat is not None
    return JobStatus(kind, state, started, heartbeat, done, total, pid, host)


def _lives(session: Session, folder: Path | None, *, pid: int, host: str, boot: str) -> bool:
    """Whether the process of a job without an end is there still; a server knows of every host's."""
    if folder is None:
        from search.catalog import server

        return server.is_held(session)
    if host != socket.gethostname() or boot != boot_id():
        return False
    return is_alive(pid) and is_held(folder)
