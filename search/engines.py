"""Where shards run: in this process, one after the other, or as tasks of Ray on as many machines as it has.

An engine yields one outcome a shard and raises for none (search.shards.Engine); what to do about failures is decided
there, the same for all engines.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from types import TracebackType
from typing import Any

from search.errors import ClusterLost, SearchError, UsageError
from search.extras import how_to_add
from search.shards import RETRIES, Failure, Receipt, Shard
from search.shards.encoding import Stopped

_POLL_S = 0.5  # between two looks whether to stop
_DOOR_S = 5  # for a connection to begin


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

    cpus, gpus: of a machine that one shard at a time takes; a part of a GPU lets several share it, more than one is
    a whole number.   address: HOST:PORT of a cluster that runs already and that this machine is part of; None starts
    one on this machine, which ends with the engine.   stall_s: without any outcome for so long, what runs is ended
    and counts as dead.   lost_s: a cluster that can't be reached for so long is lost.
    """

    cpus: float = 1
    gpus: float = 0
    address: str | None = None
    stall_s: float = 1800
    lost_s: float = 20

    def __post_init__(self) -> None:
        if not (0 < self.cpus < float("inf") and 0 <= self.gpus < float("inf") and self.stall_s > 0):
            raise UsageError("a shard takes a part of a processor at least, and no less than no GPU")
        if any(amount > 1 and amount % 1 for amount in (self.cpus, self.gpus)):
            raise UsageError("more than one processor or GPU of a machine is a whole number of them")
        if self.address is not None:
            _door(self.address)

    def fitting(self, resources: Mapping[str, float]) -> int:
        """Return how many shards a machine with these resources can run at a time."""
        fitting = _times(resources.get("CPU", 0), self.cpus)
        return min(fitting, _times(resources.get("GPU", 0), self.gpus)) if self.gpus else fitting


def _times(there: float, wanted: float) -> int:
    """Return how often a part of one, or a number of whole ones, can be had: none is parted between two."""
    least = 1e-6  # a third three times is one
    return int(there) * int(1 / wanted + least) if wanted < 1 else int(there / wanted + least)


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
        return _Pass(_Cluster(self._started(), self._options, task), retries=retries, stop=stop)(shards)

    def _started(self) -> Any:
        if self._ray is None:
            self._ray = self._held.enter_context(_connected(self._options.address))
        return self._ray


class _Cluster:
    """What a pass asks of Ray."""

    def __init__(self, ray: Any, options: RayOptions, task: Callable[[Shard], Receipt]) -> None:
        self._ray, self._options, self._task = ray, options, task
        # Retries are counted by the pass, where deaths are told from errors. max_calls=0: Ray would end a worker, and
        # the model with it, after each task that has a GPU.
        limits = {"num_cpus": options.cpus, "num_gpus": options.gpus, "max_retries": 0, "max_calls": 0}
        self._remote = ray.remote(**limits)(_run)
        self._address: str = ray.get_runtime_context().gcs_address
        self.stall_s = options.stall_s

    def slots(self) -> int:
        """Return how many shards can run at a time now.   Raises SearchError if that is none."""
        self._reach()
        slots = sum(self._options.fitting(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if not slots:
            raise SearchError(
                "Ray has no machine for it, or none left", hint="--gpus asks for some, of each machine"
            )
        return slots

    def submit(self, shard: Shard) -> Any:
        """Have a shard run; return what stands for its outcome."""
        return self._remote.remote(self._task, shard)

    def ended(self, references: Sequence[Any]) -> list[Any]:
        """Return some that have ended, after a while none.   Raises SearchError if the cluster is lost."""
        self._reach()
        ready: list[Any] = self._ray.wait(references, timeout=_POLL_S)[0]
        return ready

    def outcome(self, reference: Any) -> Receipt | tuple[str, bool]:
        """Return what came of one that has ended; without a receipt why, and whether its worker died."""
        try:
            outcome: Receipt | str = self._ray.get(reference, timeout=60)
        except self._ray.exceptions.RayTaskError as error:  # the worker lives: it could not begin
            return _said(error.cause or error), False
        except Exception as error:  # of Ray itself: the worker, its machine, or its memory
            return _said(error), True
        return (outcome, False) if isinstance(outcome, str) else outcome

    def end(self, references: Iterable[Any]) -> None:
        """End the workers of what runs."""
        for reference in references:
            with suppress(Exception):  # it may have ended meanwhile
                self._ray.cancel(reference, force=True)

    def _reach(self) -> None:
        """Look whether the cluster is there. Ray itself would wait for it for a minute, then end this process."""
        ends = monotonic() + self._options.lost_s
        while not _answers(self._address):
            if monotonic() > ends:
                raise ClusterLost(
                    f"the Ray cluster at {self._address} is lost",
                    hint="what is done is kept; once it is back, the same command does the rest",
                )
            sleep(_POLL_S)


class _Pass:
    """One pass over shards: a bounded number of them in the cluster, each settled once."""

    def __init__(self, cluster: _Cluster, *, retries: int, stop: threading.Event | None) -> None:
        self._cluster, self._retries, self._stop = cluster, retries, stop
        self._running: dict[Any, Shard] = {}
        self._again: deque[Shard] = deque()
        self._tries: Counter[str] = Counter()

    def __call__(self, shards: Iterable[Shard]) -> Iterator[Receipt | Failure]:
        waiting, heard = iter(shards), monotonic()
        try:
            while not (self._stop and self._stop.is_set()) and self._fill(waiting):
                ended = self._cluster.ended(list(self._running))
                if ended:
                    heard = monotonic()
                elif monotonic() - heard > self._cluster.stall_s:
                    ended, heard = list(self._running), monotonic()
                    self._cluster.end(ended)
                settled = [self._settled(reference) for reference in ended]
                self._fill(waiting)  # workers go on while what they did is taken in
                yield from filter(None, settled)
        except ClusterLost:
            self._running.clear()
            raise
        finally:  # whoever asked for outcomes may want no more
            self._cluster.end(self._running)

    def _fill(self, waiting: Iterator[Shard]) -> bool:
        """Hand out as many shards as can run; False once all are settled.

        None waits in the cluster: one that is ended for being late did run. Raises SearchError without any machine.
        """
        slots = self._cluster.slots()
        while len(self._running) < slots:
            shard = self._again.popleft() if self._again else next(waiting, None)
            if shard is None:
                break
            self._running[self._cluster.submit(shard)] = shard
        return bool(self._running)

    def _settled(self, reference: Any) -> Receipt | Failure | None:
        """Return the outcome of a shard that ended; None where it is tried again."""
        shard, outcome = self._running.pop(reference), self._cluster.outcome(reference)
        if isinstance(outcome, Receipt):
            return outcome
        self._tries[shard.name] += 1
        if self._tries[shard.name] <= self._retries:
            self._again.append(shard)
            return None
        reason, died = outcome
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


def _door(address: str) -> tuple[str, int]:
    """Return the host and port of an address.   Raises UsageError if it is none."""
    host, _, port = address.rpartition(":")
    if not host.strip("[]") or "/" in host or not port.isdecimal():
        raise UsageError(
            f"{address} is no address of a Ray cluster", hint="HOST:PORT of its head, such as 10.0.0.5:6379"
        )
    return host.strip("[]"), int(port)


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_door(address), timeout=_DOOR_S).close()
    except OSError:
        return False
    return True


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Hold a connection to a cluster, or a cluster of our own.   Raises UsageError, SearchError."""
    with ExitStack() as stack:
        if address is not None and not _answers(address):  # Ray would try for minutes
            raise ClusterLost(f"no Ray cluster answers at {address}", hint="`ray status` there tells of it")
        if address is None:
            stack.enter_context(_environment(**_for_a_cluster_of_our_own()))
        stack.enter_context(_environment(RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0", RAY_USAGE_STATS_ENABLED="0"))
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray", hint=how_to_add("cluster")) from None
        stack.enter_context(_silenced(ray._private.worker))
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
            if address is None:
                raise SearchError(f"Ray does not start: {_said(error)}") from error
            raise ClusterLost(
                f"the Ray cluster at {address} does not let us in: {_said(error)}",
                hint="this machine must be part of it, have the same Python and Ray, and its token (RAY_AUTH_TOKEN)",
            ) from error
        whole: Any = ray
        if address is None and whole.util.get_node_ip_address() != "127.0.0.1":
            raise SearchError("Ray would listen beyond this machine", hint="give the address of a cluster")
        yield ray


@contextmanager
def _silenced(worker: Any) -> Iterator[None]:
    """Keep Ray from telling of machines it lost on stdout, which is for data; whom that costs a shard is an outcome."""
    said = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = said


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
