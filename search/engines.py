"""Where shards run: in this process, one after the other, or as tasks of Ray on as many machines as it has.

An engine yields one outcome a shard and raises for none (search.shards.Engine); what to do about failures is decided
there, the same for all engines.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Any

from search.errors import SearchError, UsageError
from search.shards import RETRIES, Failure, Receipt, Shard
from search.shards.encoding import Stopped

_POLL_S = 0.5  # between two looks whether to stop


class LocalEngine:
    """Runs shards here, one after the other; the decoders' children and the model's threads keep the cores busy."""

    in_process = True

    def run(
        self,
        task: Callable[[Shard], Receipt],
        shards: Iterable[Shard],
        *,
        retries: int = RETRIES,
        stop: threading.Event | None = None,
    ) -> Iterator[Receipt | Failure]:
        """See search.shards.Engine."""
        for shard in shards:
            if stop and stop.is_set():
                return
            try:
                yield _tried(task, shard, retries)
            except Stopped:
                return


def _tried(task: Callable[[Shard], Receipt], shard: Shard, retries: int) -> Receipt | Failure:
    for left in range(retries, -1, -1):
        try:
            return task(shard)
        except Stopped:
            raise
        except Exception as error:
            if not left:
                return Failure(shard, _said(error), died=False)
    raise AssertionError("retries begin at 0")


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How Ray runs shards.

    cpus, gpus: of a machine that one shard at a time takes; a part of a GPU lets several share it.
    address: of a cluster that runs already; None starts one on this machine, which ends with the engine.
    stall_s: without any outcome for so long, what runs is ended and counts as dead.
    """

    cpus: float = 1
    gpus: float = 0
    address: str | None = None
    stall_s: float = 1800

    def __post_init__(self) -> None:
        if not (0 < self.cpus < float("inf") and 0 <= self.gpus < float("inf") and self.stall_s > 0):
            raise UsageError("a shard takes a part of a processor at least, and no less than no GPU")


class RayEngine:
    """Runs shards as tasks of Ray; a context manager, and Ray starts with the first shard.

    A worker process keeps its model for all the shards it gets. A cluster of our own listens on loopback, has no
    dashboard and asks for a token. Only shards, jobs and receipts travel.
    """

    in_process = False

    def __init__(self, options: RayOptions | None = None) -> None:
        self._options = options or RayOptions()
        self._held = ExitStack()
        self._ray: Any = None

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the cluster, or leave it if it is somebody else's."""
        self._held.close()
        self._ray = None

    def run(
        self,
        task: Callable[[Shard], Receipt],
        shards: Iterable[Shard],
        *,
        retries: int = RETRIES,
        stop: threading.Event | None = None,
    ) -> Iterator[Receipt | Failure]:
        """See search.shards.Engine.   Raises UsageError without Ray, SearchError without a machine to run on."""
        ray = self._started()
        options = self._options
        # Retries are counted here, where deaths are told from errors. max_calls=0: Ray would end a worker, and the
        # model with it, after each task that has a GPU.
        remote = ray.remote(num_cpus=options.cpus, num_gpus=options.gpus, max_retries=0, max_calls=0)(_run)
        return _Pass(ray, lambda shard: remote.remote(task, shard), self._slots, retries, options.stall_s, stop)(
            shards
        )

    def _slots(self) -> int:
        """Return how many shards can run at a time now."""
        there = self._ray.cluster_resources()
        slots = there.get("CPU", 0) / self._options.cpus
        if self._options.gpus:
            slots = min(slots, there.get("GPU", 0) / self._options.gpus)
        return int(slots)

    def _started(self) -> Any:
        if self._ray is None:
            self._ray = self._held.enter_context(_cluster(self._options.address))
        return self._ray


class _Pass:
    """One pass over shards: a bounded number of them in the cluster, each settled once."""

    def __init__(
        self,
        ray: Any,
        submit: Callable[[Shard], Any],
        slots: Callable[[], int],
        retries: int,
        stall_s: float,
        stop: threading.Event | None,
    ) -> None:
        self._ray, self._submit, self._slots, self._stop = ray, submit, slots, stop
        self._retries, self._stall_s = retries, stall_s
        self._running: dict[Any, Shard] = {}
        self._again: deque[Shard] = deque()
        self._tries: Counter[str] = Counter()

    def __call__(self, shards: Iterable[Shard]) -> Iterator[Receipt | Failure]:
        waiting, heard = iter(shards), monotonic()
        while not (self._stop and self._stop.is_set()) and self._fill(waiting):
            ready, _ = self._ray.wait(list(self._running), timeout=_POLL_S)
            if ready:
                heard = monotonic()
            elif monotonic() - heard > self._stall_s:
                ready, heard = self._give_up(), monotonic()
            settled = [self._settled(reference) for reference in ready]
            self._fill(waiting)  # workers go on while what they did is taken in
            yield from filter(None, settled)
        self._give_up()

    def _fill(self, waiting: Iterator[Shard]) -> bool:
        """Hand out as many shards as can run; False once all are settled.

        None waits in the cluster: one that is ended for being late did run. Raises SearchError without any machine.
        """
        slots = self._slots()
        if not slots:
            raise SearchError(
                "Ray has no machine for it, or none left", hint="--gpus asks for some, of each machine"
            )
        while len(self._running) < slots:
            shard = self._again.popleft() if self._again else next(waiting, None)
            if shard is None:
                break
            self._running[self._submit(shard)] = shard
        return bool(self._running)

    def _give_up(self) -> list[Any]:
        """End the workers of all that runs."""
        for reference in self._running:
            with suppress(Exception):  # it may have ended meanwhile
                self._ray.cancel(reference, force=True)
        return list(self._running)

    def _settled(self, reference: Any) -> Receipt | Failure | None:
        """Return the outcome of a shard that ended; None where it is tried again."""
        shard = self._running.pop(reference)
        try:
            outcome: Receipt | str = self._ray.get(reference, timeout=60)
            reason, died = str(outcome), False
        except Exception as error:  # of Ray itself: the worker, its machine, or its memory
            outcome, reason, died = "", _said(error), True
        if isinstance(outcome, Receipt):
            return outcome
        self._tries[shard.name] += 1
        if self._tries[shard.name] <= self._retries:
            self._again.append(shard)
            return None
        return Failure(shard, reason, died=died)


def _run(task: Callable[[Shard], Receipt], shard: Shard) -> Receipt | str:
    """Run in a worker: an error is told in words, since not every one can travel."""
    try:
        return task(shard)
    except Exception as error:
        return _said(error)


def _said(error: BaseException) -> str:
    text = error.message if isinstance(error, SearchError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Hold a connection to a cluster, or a cluster of our own.   Raises UsageError, SearchError."""
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(_environment(**_for_a_cluster_of_our_own()))
        stack.enter_context(_environment(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_USAGE_STATS_ENABLED="0"))
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray", hint='pip install "search[ray]"') from None
        # An address is always named: without one Ray joins whatever it finds, alive or not.
        own: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        stack.callback(ray.shutdown)
        try:
            with _own_signals():
                ray.init(
                    address=address or "local",
                    log_to_driver=False,
                    configure_logging=False,
                    **({} if address else own),
                )
        except Exception as error:
            raise SearchError(f"Ray does not start: {_said(error)}") from error
        whole: Any = ray
        if address is None and whole.util.get_node_ip_address() != "127.0.0.1":
            raise SearchError("Ray would listen beyond this machine", hint="give the address of a cluster")
        yield ray


_told: dict[str, str] = {}


def _for_a_cluster_of_our_own() -> dict[str, str]:
    """Return what keeps a cluster to this machine; the same for all of a process, since Ray reads it but once.

    Raises SearchError where it has done so already.
    """
    if not _told:
        if "ray" in sys.modules:
            raise SearchError(
                "Ray was imported before it was started here, and would let others in",
                hint="start the engine first, or give the address of a cluster",
            )
        _told.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        # What Ray does on other systems than Linux: it stays on loopback. There it takes an address of 127.0.0.1 for
        # one that others are to reach, and listens on all.
        _told.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0")
    return _told


@contextmanager
def _environment(**wanted: str) -> Iterator[None]:
    """Tell what is started what it is told in no other way; what the user has set stays."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's answers to signals over the block: Ray puts its own in their place, which end it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
