"""The parent's side: files in, pixels or skips out, whatever becomes of the children.

A child has one file at a time. The one that hangs, dies or answers nonsense is replaced alone; its file is tried once
more in a fresh child before it is blamed, for what came before may have spoiled the first. No pickle travels, and
pixels come through memory that both sides hold, by read and write: mapped, it could be cut off under the parent's feet.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import numpy as np

from search.decoding import wire
from search.decoding.budget import default_workers
from search.decoding.wire import Garbled, Limits
from search.errors import PhotoError, SearchError
from search.types import FileStat, Likeness, PhotoInfo, Skip, SkipReason

if TYPE_CHECKING:
    from types import TracebackType

    from search.encoders.preprocessing import Preprocessing
    from search.photos.sources import Content
    from search.types import Pixels

T = TypeVar("T")
R = TypeVar("R")

_LOADER = "search.photos.decode:load"
_BOOT = (
    "import json, sys; config = json.loads(sys.argv[1]); sys.path[:] = config['sys_path']; "
    "from search.decoding.worker import serve; serve(config)"
)
_STARTING_S = 60.0  # a child that is not ready by then never will be
_SETTLING_S = 1.0  # from a child's last word to its end


@dataclass(frozen=True, slots=True)
class Decoded:
    """A photo ready for the encoder.

    pixels: (H, W, 3) uint8.   content_hash: SHA-256.   stat: of what was read.   likeness: of the whole picture.
    """

    pixels: Pixels
    info: PhotoInfo
    content_hash: bytes
    stat: FileStat
    likeness: Likeness


@dataclass(frozen=True, slots=True)
class Read:
    """What a photo says of itself.   stat: of what was read."""

    info: PhotoInfo
    stat: FileStat


@dataclass(frozen=True, slots=True)
class _Task:
    """A file for a child.

    request: what it is told.   data: what follows that.   preprocessing: None: it is only looked into.
    """

    path: str
    request: dict[str, Any]
    data: bytes
    preprocessing: Preprocessing | None


class Decoders:
    """A pool of children that load and preprocess photos; a context manager, and safe to use from several threads.

    workers: children at most; they start when there is work.   max_megapixels: as `photos.decode.load` takes it.
    loader: "module:function" in its place, for tests.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        max_megapixels: float = 200,
        limits: Limits | None = None,
        loader: str = _LOADER,
    ) -> None:
        self._workers = workers or default_workers()
        self._max_megapixels = max_megapixels
        self._limits = limits or Limits()
        self._loader = loader
        # A child dies with the thread that started it (worker._settle): these live until the pool is closed.
        self._threads = ThreadPoolExecutor(self._workers, "decoder")
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._alive: set[_Child] = set()
        self._open: set[Future[Any]] = set()
        self._closing = threading.Event()
        self._watch: threading.Thread | None = None

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, files: int) -> None:
        """Start the children that so many files are worth, in the background."""
        for _ in range(min(files, self._workers) - len(self._alive)):
            self._threads.submit(self._warm)

    def submit(
        self, path: str, preprocessing: Preprocessing, *, content: Content | None = None
    ) -> Future[Decoded | Skip]:
        """Decode a file and bring it to a model's input size.

        content: reads the file where its path does not open it; called when its turn comes, so that no more files
        are held than there are children. The future raises SearchError where children do not start at all or `content`
        does, CancelledError if the pool is closed before.
        """
        return cast("Future[Decoded | Skip]", self._submit(path, preprocessing, content))

    def submit_reading(self, path: str, *, content: Content | None = None) -> Future[Read | Skip]:
        """Read what a file says of itself, without its pixels where that can be; the rest is as in `submit`."""
        return cast("Future[Read | Skip]", self._submit(path, None, content))

    def _submit(self, path: str, preprocessing: Preprocessing | None, content: Content | None) -> Future[Any]:
        future = self._threads.submit(self._decode, path, preprocessing, content)
        with self._lock:
            self._open.add(future)
        future.add_done_callback(self._settled)
        return future

    def _settled(self, future: Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    @property
    def is_idle(self) -> bool:
        """Whether everything submitted is done."""
        return not self._open

    def close(self) -> None:
        """End all children and cancel what is left to do; returns when they are gone."""
        with self._lock:
            self._closing.set()
            alive = list(self._alive)
        for child in alive:
            child.process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._watch:
            self._watch.join()
        for child in list(self._alive):
            self._dismiss(child)

    # ---- in the threads

    def _warm(self) -> None:
        self._idle.append(self._hire())

    def _decode(
        self, path: str, preprocessing: Preprocessing | None, content: Content | None
    ) -> Decoded | Read | Skip:
        request: dict[str, Any] = {"max_megapixels": self._max_megapixels}
        data = b""
        if content is None:
            request["path"] = os.fsencode(os.path.abspath(path)).decode("latin-1")
        else:
            try:
                data, stat = content()
            except PhotoError as error:
                return Skip(path, error.reason, error.message)
            request |= {"content": len(data), "stat": list(stat[1:])}
            request["path"] = os.fsencode(path).decode("latin-1")
        task = _Task(path, request, data, preprocessing)
        return self._try(task, last=False) or cast("Decoded | Read | Skip", self._try(task, last=True))

    def _try(self, task: _Task, *, last: bool) -> Decoded | Read | Skip | None:
        """Return what became of a file; None if it deserves a fresh child."""
        child = self._child()
        try:
            found = child.decode(task)
        except Garbled:
            self._dismiss(child)
            if self._closing.is_set():
                raise CancelledError from None
            reason, detail = child.verdict()
            return Skip(task.path, reason, detail) if last or reason is SkipReason.TIMEOUT else None
        except BaseException:
            self._dismiss(child)
            raise
        short = isinstance(found, Skip) and found.reason == SkipReason.MEMORY
        if short or child.files >= self._limits.files:
            self._dismiss(child)
        else:
            self._idle.append(child)
        return None if short and child.files > 1 and not last else found

    def _child(self) -> _Child:
        try:
            return self._idle.pop()
        except IndexError:
            return self._hire()

    def _hire(self) -> _Child:
        """Start a child and wait until it is ready. Raises SearchError after two that never were."""
        for _ in range(2):
            with self._lock:
                if self._closing.is_set():
                    raise CancelledError
                child = _Child(self._loader, self._limits)
                self._alive.add(child)
                self._begin_watch()
            try:
                child.greet()
                return child
            except Garbled:
                self._dismiss(child)
        if self._closing.is_set():
            raise CancelledError
        raise SearchError(f"the process that decodes photos does not start: {child.verdict()[1]}")

    def _dismiss(self, child: _Child) -> None:
        child.end()
        with self._lock:
            self._alive.discard(child)

    # ---- the clock

    def _begin_watch(self) -> None:
        if self._watch is None:
            self._watch = threading.Thread(target=self._keep_time, name="decoders", daemon=True)
            self._watch.start()

    def _keep_time(self) -> None:
        """End children that are overdue; no file that starts while this sleeps is due before it wakes."""
        while not self._closing.wait(self._next_due()):
            for child in list(self._alive):
                child.end_if_overdue()

    def _next_due(self) -> float:
        with self._lock:
            due = min((child.due for child in self._alive), default=float("inf"))
        return min(max(0.0, due - monotonic()), self._limits.wall_s, _STARTING_S) + 0.01


_warm: dict[tuple[int, int, float, Limits], Decoders] = {}


@contextlib.contextmanager
def lend(
    *, workers: int | None = None, max_megapixels: float = 200, limits: Limits | None = None
) -> Iterator[Decoders]:
    """Lend a pool whose children stay for the next borrower: their start takes as long as a hundred small photos.

    One that is given back with work undone is closed, and so is the one that waited before.
    """
    key = (os.getpid(), workers or default_workers(), max_megapixels, limits or Limits())
    decoders = _warm.pop(key, None) or Decoders(workers=workers, max_megapixels=max_megapixels, limits=limits)
    try:
        yield decoders
    except BaseException:
        decoders.close()
        raise
    if not decoders.is_idle:
        decoders.close()
        return
    close_warm()
    _warm[key] = decoders


@atexit.register
def close_warm() -> None:
    """End the children that wait for the next borrower, but for those of the process this one was forked from."""
    for key in list(_warm):
        decoders = _warm.pop(key)
        if key[0] == os.getpid():
            decoders.close()


def ahead(submit: Callable[[T], Future[R]], items: Iterable[T], depth: int) -> Iterator[tuple[T, R]]:
    """Yield each item with its result, in order, while at most `depth` later ones are worked on."""
    pending: deque[tuple[T, Future[R]]] = deque()
    for item in items:
        pending.append((item, submit(item)))
        if len(pending) > depth:
            first, result = pending.popleft()
            yield first, result.result()
    while pending:
        first, result = pending.popleft()
        yield first, result.result()


class _Child:
    """One child process, with the file it works on and the time by which it must be done."""

    def __init__(self, loader: str, limits: Limits) -> None:
        self.files = 0
        self.due = monotonic() + _STARTING_S
        self._limits = limits
        self._overdue = False
        self._garbled = False
        self._preprocessing: Preprocessing | None = None
        self._lock = threading.Lock()
        self._pixels = _memory_file("pixels")
        self._printed = _memory_file("printed")
        self._last_words = ""
        shared = [fd for fd in (self._pixels, self._printed) if fd is not None]
        config = {
            "sys_path": [os.path.abspath(entry) for entry in sys.path],
            "parent": os.getpid(),
            "loader": loader,
            "limits": asdict(limits),
            "pixels": self._pixels,
        }
        try:
            self.process = subprocess.Popen(  # noqa: S603, our own interpreter and code
                [sys.executable, "-I", "-c", _BOOT, json.dumps(config)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if self._printed is None else self._printed,
                pass_fds=() if self._pixels is None else (self._pixels,),
                process_group=None if sys.platform == "win32" else 0,  # Ctrl-C is the parent's to handle
            )
        except BaseException:
            for fd in shared:
                os.close(fd)
            raise
        self._requests = cast(BinaryIO, self.process.stdin)
        self._replies = cast(BinaryIO, self.process.stdout)

    def greet(self) -> None:
        """Wait until the child is ready. Raises Garbled if it never will be."""
        if self._receive() != {"ready": True}:
            self._garbled = True
            raise Garbled
        self._rest()

    def decode(self, task: _Task) -> Decoded | Read | Skip:
        """Have one file decoded, or only looked into.

        Raises Garbled if the child died, was ended or talks nonsense.
        """
        self.files += 1
        request, preprocessing = task.request, task.preprocessing
        if preprocessing is None:
            request = request | {"info_only": True}
        elif preprocessing != self._preprocessing:
            request = request | {"preprocessing": preprocessing.to_dict()}
            self._preprocessing = preprocessing
        self.due = monotonic() + self._limits.wall_s
        try:
            wire.send(self._requests, request, task.data)
        except OSError:  # a broken pipe: it died before it was asked
            raise Garbled from None
        said = self._receive()
        while said.keys() == {"more_s"}:
            self.due = monotonic() + self._limits.wall_s + wire.seconds(said["more_s"])
            said = self._receive()
        try:
            found = self._understand(said, task.path, preprocessing.size if preprocessing else None)
        except Garbled:
            self._garbled = True
            raise
        self._rest()
        return found

    def _understand(self, said: dict[str, Any], path: str, size: tuple[int, int] | None) -> Decoded | Read | Skip:
        if "reason" in said:
            return Skip(path, *wire.refusal(said))
        if size is None:
            return Read(*wire.understand_info(said, path))
        info, content_hash, stat = wire.understand(said, path)
        likeness = wire.understand_likeness(said)
        return Decoded(self._take_pixels(size), info, content_hash, stat, likeness)

    def _take_pixels(self, size: tuple[int, int]) -> Pixels:
        pixels = np.empty((*size, 3), np.uint8)
        if self._pixels is None:
            read = cast(Any, self._replies).readinto(pixels.data.cast("B"))
        else:
            read = os.preadv(self._pixels, [pixels.data.cast("B")], 0)
        if read != pixels.nbytes:
            raise Garbled
        return pixels

    def _receive(self) -> dict[str, Any]:
        said = wire.receive(self._replies)
        if said is None:
            raise Garbled
        return said

    def _rest(self) -> None:
        """Stop the clock, unless it has struck."""
        with self._lock:
            if self._overdue:
                raise Garbled
            self.due = float("inf")

    def end_if_overdue(self) -> None:
        """Kill the child if its time is up; its reader sees the end of its answers."""
        with self._lock:
            if monotonic() > self.due:
                self._overdue = True
                self.process.kill()

    def end(self) -> None:
        """Reap the child, ending it if it does not end by itself, and close what it was reached by."""
        if not self._overdue and not self._garbled and self.due < float("inf"):
            self._wait()  # its answers have ended: so will it, and its status says why
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._last_words = self._read_printed()
        for stream in (self._requests, self._replies):
            with contextlib.suppress(OSError):  # what was left to write to a broken pipe
                stream.close()
        for fd in (self._pixels, self._printed):
            if fd is not None:
                os.close(fd)

    def _wait(self) -> None:
        try:
            self.process.wait(_SETTLING_S)
        except subprocess.TimeoutExpired:
            self._garbled = True

    def verdict(self) -> tuple[SkipReason, str]:
        """Say what the end of this child means for the file it had."""
        status = self.process.returncode
        if self._overdue:
            return SkipReason.TIMEOUT, f"not decoded after {self._limits.wall_s:g} seconds"
        if self._garbled:
            return SkipReason.CRASHED, "its decoder gave no proper answer"
        name = _signal_name(status)
        if name == "SIGXCPU":
            return SkipReason.TIMEOUT, f"not decoded after {self._limits.cpu_s:g} seconds of computing"
        if name == "SIGKILL":
            return SkipReason.MEMORY, "its decoder was killed, as the system does when memory runs out"
        told = f": {self._last_words}" if self._last_words else ""
        return SkipReason.CRASHED, f"its decoder ended by {name or f'status {status}'}{told}"

    def _read_printed(self) -> str:
        """Return the last line that the child printed."""
        if self._printed is None:
            return ""
        size = os.fstat(self._printed).st_size
        lines = os.pread(self._printed, 1000, max(0, size - 1000)).decode(errors="replace").split("\n")
        return next((" ".join(line.split())[:200] for line in reversed(lines) if line.strip()), "")


def _signal_name(status: int) -> str:
    if status >= 0:
        return ""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _memory_file(name: str) -> int | None:
    """Return a file in memory, None where the system has none: the pipe carries the pixels then."""
    return os.memfd_create(name, os.MFD_CLOEXEC) if hasattr(os, "memfd_create") else None
