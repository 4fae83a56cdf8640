"""A process that has everything imported and forks a child for each trial, so that a trial costs no start.

    python -m reliability.nursery MODEL

It reads one request a line, forks a child for it and kills that child with SIGKILL when its time is over. It has
no thread of its own, so that its children may have any. `Nursery` is its other end.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Outcome:
    """How a child ended and what it had said until then."""

    code: int  # exit code, or minus the signal that ended it
    seconds: float
    orphans: bool  # processes it started outlived it by more than five seconds
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def all(self, name: str) -> list[Any]:
        """Return what the child said under a name, oldest first."""
        return [event[name] for event in self.events if name in event]

    @property
    def acknowledged(self) -> set[str]:
        """Photos that were committed, as the child was told."""
        return {path for paths in self.all("acknowledged") for path in paths}

    @property
    def encoded(self) -> int:
        return sum(self.all("encoded"))

    @property
    def result(self) -> Any:
        """Return what the job returned; a job that failed by itself fails the test."""
        assert self.code == 0, f"exit {self.code}\n" + "\n".join(map(str, self.all("failed")))
        return self.all("result")[-1]


class Nursery:
    """Starts jobs of `reliability.jobs` one after the other, each in a child of its own.

    model: a name for `load_encoder`.   environment: added to the children's.
    """

    def __init__(self, model: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
        self._log = folder / "events.jsonl"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "reliability.nursery", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path, "SEARCH_OFFLINE": "1", **(environment or {})},
        )

    def run(self, job: str, *, kill_after_s: float | None = None, **arguments: Any) -> Outcome:
        """Run one job to its end, which may come early."""
        self.start(job, kill_after_s=kill_after_s, **arguments)
        return self.finish()

    def start(self, job: str, *, kill_after_s: float | None = None, **arguments: Any) -> None:
        """Begin a job; `finish` must be called before the next one."""
        self._log.write_bytes(b"")
        request = {"job": job, "log": str(self._log), "kill_after_s": kill_after_s, "arguments": arguments}
        print(json.dumps(request), file=self._server.stdin, flush=True)

    def finish(self) -> Outcome:
        """Wait for the job that was begun."""
        answer = self._server.stdout.readline()
        assert answer, f"the nursery ended: {self._server.wait()}"
        return Outcome(**json.loads(answer), events=_read(self._log))

    def wait_for(self, name: str, timeout_s: float = 60) -> None:
        """Wait, beside a running job, until it says something under a name."""
        until = time.monotonic() + timeout_s
        while not any(name in event for event in _read(self._log)):
            assert time.monotonic() < until, f"no {name} in {timeout_s} s"
            time.sleep(0.01)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._server.stdout.close()


def _read(log: Path) -> list[dict[str, Any]]:
    """Every complete line; the last one may have been cut short."""
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]


def serve(model: str) -> None:
    from reliability import jobs

    jobs.prepare(model)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            jobs.work(request["job"], request["log"], request["arguments"])  # never returns
        code = _wait(child, request["kill_after_s"])
        seconds = time.monotonic() - started
        print(json.dumps({"code": code, "seconds": seconds, "orphans": _orphans(child)}), flush=True)
    os._exit(0)  # taking all that was imported down would take a second


def _wait(child: int, kill_after_s: float | None) -> int:
    """Wait for a child that nobody else reaps, so its id can't be another's when it is killed."""
    if kill_after_s is not None and signal.sigtimedwait({signal.SIGCHLD}, kill_after_s) is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    signal.sigtimedwait({signal.SIGCHLD}, 0)
    return os.waitstatus_to_exitcode(status)


def _orphans(group: int) -> bool:
    """Whether processes of a dead child's session are still there after half a minute; they are ended then."""
    until = time.monotonic() + 30  # on a busy machine; a moment on others
    while _alive(group):
        if time.monotonic() > until:
            os.killpg(group, signal.SIGKILL)
            return True
        time.sleep(0.002)
    return False


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    serve(sys.argv[1])
