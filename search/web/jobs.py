"""Long work of a server, one job at a time, done by a child process; whoever watches is told how far it is.

A child rather than a thread: beside a thread that indexes, text queries take several times as long as beside a child
(`bench/query_while_indexing.py`), and what the child took of memory is given back when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from search import errors
from search.types import JobState
from search.web.problems import Problem, problem_of

if TYPE_CHECKING:
    from search.library import Library

_log = logging.getLogger("search.web")

_BOOT = (
    "import json, sys; order = json.loads(sys.stdin.buffer.readline()); sys.path[:] = order['sys_path']; "
    "from search.web.worker import serve; serve(order)"
)
_ENDING_S = 10.0  # for the batch at hand, when the server ends
_QUIET_S = 15.0  # after which a watcher is shown that the connection lives
_PAUSE_S = 0.2  # between two events to a watcher
_MOST_WATCHERS = 16

BUSY = "Another process is writing to the library; try again when it is done."


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of long work as it stands.

    asked: what it was started with, as it is shown.   stage, done, total: how far it is; total is None while it is not
    known.   report: what came of it; problem: why nothing did.   version: grows with every change.
    """

    id: int
    kind: str
    asked: Mapping[str, Any]
    started_at: datetime
    state: JobState = JobState.RUNNING
    stopping: bool = False
    stage: str | None = None
    done: int = 0
    total: int | None = None
    finished_at: datetime | None = None
    report: Mapping[str, Any] | None = None
    problem: Mapping[str, Any] | None = field(default=None)
    version: int = 0

    @property
    def is_running(self) -> bool:
        return self.state is JobState.RUNNING

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "kind": self.kind,
            **self.asked,
            "state": str(self.state),
            "stopping": self.stopping,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "started_at": self.started_at.isoformat(),
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
            "report": self.report,
            "problem": self.problem,
        }


class Jobs:
    """The one job of a server, running or over.   ended: called with each that is over, in a thread of its own."""

    def __init__(self, library: Library, ended: Callable[[Job], None] = lambda _: None) -> None:
        self._library = library
        self._ended = ended
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._watchers: set[Callable[[], None]] = set()
        self._ending = False

    @property
    def last(self) -> Job | None:
        """The job that runs, else the last one of this server."""
        return self._job

    def start(self, kind: str, order: Mapping[str, Any], *, asked: Mapping[str, Any]) -> Job:
        """Begin a job. Raises Problem (409) while one runs, here or elsewhere.

        order: what the worker is told; asked: what others are told of that.
        """
        with self._lock:
            if self._ending:
                raise Problem(503, "The server is about to end.")
            if self._job and self._job.is_running:
                raise Problem(409, "One thing at a time: a job is running already.")
            if self._library.catalog.is_written_to():
                raise Problem(409, BUSY, more={"error": errors.LibraryBusy.__name__})
            id_ = self._job.id + 1 if self._job else 1
            self._child = _begun(self._library, kind, order)
            self._job = job = Job(id_, kind, asked, datetime.now(UTC))
            self._thread = threading.Thread(target=self._follow, args=(self._child,), name="job", daemon=True)
            self._thread.start()
        self._wake()
        return job

    def stop(self) -> Job:
        """End the job after the batch at hand; what is done is kept. Raises Problem (409) where none runs."""
        with self._lock:
            if self._job is None or self._child is None or not self._job.is_running:
                raise Problem(409, "Nothing is running.")
            self._job = job = replace(self._job, stopping=True, version=self._job.version + 1)
            _hang_up(self._child)
        self._wake()
        return job

    def end(self) -> None:
        """Have the job end with its batch, and whoever watches go: the server will end. No further job begins."""
        with self._lock:
            self._ending = True
            if self._child is not None:
                _hang_up(self._child)
        self._wake()

    def close(self) -> None:
        """End the job with the server: first politely."""
        self.end()
        child, thread = self._child, self._thread
        if child is None or thread is None:
            return
        thread.join(_ENDING_S)
        if thread.is_alive():
            _log.warning("the job at hand is cut off: its batch takes too long")
            child.kill()
            thread.join()

    # ---- following the child

    def _follow(self, child: subprocess.Popen[bytes]) -> None:
        said: dict[str, Any] = {}
        with child:
            for line in _lines(child.stdout):
                said = line
                if "progress" in said:
                    self._change(**said["progress"])
            _hang_up(child)
        job = self._change(finished_at=datetime.now(UTC), **_outcome(said))
        self._ended(job)

    def _change(self, **fields: Any) -> Job:
        with self._lock:
            assert self._job is not None
            self._job = job = replace(self._job, version=self._job.version + 1, **fields)
        self._wake()
        return job

    # ---- watching

    def _wake(self) -> None:
        with self._lock:
            watchers = list(self._watchers)
        for wake in watchers:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                wake()

    def watch(self) -> AsyncIterator[Job | None]:
        """Yield the job as it stands, then after each change, and None when long nothing changed; ends as it ends,
        or the server.

        Raises Problem (429) where too many watch already.
        """
        if self.watching >= _MOST_WATCHERS:
            raise Problem(429, "Too many watch already.", headers={"Retry-After": "10"})
        return self._watched(asyncio.get_running_loop(), asyncio.Event())

    async def _watched(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> AsyncIterator[Job | None]:
        def wake() -> None:
            loop.call_soon_threadsafe(changed.set)

        with self._lock:
            self._watchers.add(wake)
        try:
            job = self._job
            yield job
            while job is not None and job.is_running and not self._ending:
                try:
                    await asyncio.wait_for(changed.wait(), _QUIET_S)
                except TimeoutError:
                    yield None
                    continue
                changed.clear()
                job = self._job
                yield job
                await asyncio.sleep(_PAUSE_S)  # many small steps are one event
        finally:
            with self._lock:
                self._watchers.discard(wake)

    @property
    def watching(self) -> int:
        """How many watch."""
        return len(self._watchers)


def _begun(library: Library, kind: str, asked: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Start a child with its order."""
    model = library.model
    opening = {
        "model": model.wanted,
        "offline": model.offline,
        "trust_checkpoint": model.trust_checkpoint,
        "index_token": library.index_token,
    }
    order = {
        "sys_path": [os.path.abspath(entry) for entry in sys.path],
        "library": library.catalog.location,
        "opening": opening,
        "kind": kind,
        "asked": dict(asked),
    }
    child = subprocess.Popen(  # noqa: S603, our own interpreter and code
        [sys.executable, "-I", "-c", _BOOT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=None if sys.platform == "win32" else 0,  # Ctrl-C is the server's to handle
    )
    assert child.stdin is not None
    with contextlib.suppress(OSError):  # it died already, which whoever follows it will see
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
    return child


def _hang_up(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        with contextlib.suppress(OSError):
            child.stdin.close()


def _lines(output: IO[bytes] | None) -> Iterator[dict[str, Any]]:
    """Yield what a child says."""
    for line in output or ():
        try:
            yield json.loads(line)
        except ValueError:  # it was cut off
            return


def _outcome(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a job ended, of the last that its child said."""
    if "done" in said:
        report = said["done"]
        state = JobState.INTERRUPTED if report.get("interrupted") else JobState.DONE
        return {"state": state, "report": report}
    failed = said.get("failed")
    problem = problem_of(_error(**failed)) if failed else Problem(500, "It ended before it was done.")
    told = {"status": problem.status_code, "detail": problem.detail, **problem.more}
    _log.warning("a job failed: %s", failed["message"] if failed else "its process died")
    return {"state": JobState.FAILED, "problem": told}


def _error(error: str, message: str, hint: str) -> errors.SearchError:
    """Return an error of a child as it was raised there."""
    kind = getattr(errors, error, errors.SearchError)
    if kind is errors.LibraryBusy:
        return kind(BUSY)
    try:
        made = kind(message, hint=hint)
    except TypeError:  # it needs more than words
        made = errors.SearchError(message, hint=hint)
    assert isinstance(made, errors.SearchError)
    return made
