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
    if state is JobState.RUNNING and not _lives(pid, host, boot, folder):
        state = JobState.INTERRUPTED
    started, heartbeat = to_utc(started_at), to_utc(heartbeat_at)
    assert started is not None and heartbeat is not None
    return JobStatus(kind, state, started, heartbeat, done, total, pid, host)


def _lives(pid: int, host: str, boot: str, folder: Path | None) -> bool:
    """Whether the process of a job without an end is there still; of another host only a server would know."""
    if folder is None and host != socket.gethostname():
        return True
    if host != socket.gethostname() or boot != boot_id():
        return False
    return is_alive(pid) and (folder is None or is_held(folder))
