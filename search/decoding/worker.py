"""The child: reads a path, answers with pixels or a reason, until its input ends.

It holds nothing of the library, no model and no connection, and nothing it prints reaches a terminal. The kernel ends
it when it exceeds its CPU seconds, which holds inside a decoder's C code too; when its parent dies, it dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import math
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from search.decoding.wire import (
    Limits,
    describe,
    describe_info,
    describe_likeness,
    extra_seconds,
    receive,
    receive_content,
    send,
)
from search.errors import PhotoError
from search.types import FileStat, SkipReason

try:
    import resource
except ImportError:  # Windows: the parent's clock is the only limit
    resource = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from search.photos.decode import LoadedPhoto
    from search.types import Pixels

_PR_SET_PDEATHSIG = 1
_FILE_BYTES = 2**28  # of what it may write: pixels, and what decoders print

# glibc's mallopt. By default it gives the pixels of every picture back to the system and asks for them again, a page
# fault for each 4 kB: a quarter of the time of a large JPEG. So blocks up to 32 MB come from the heap, and the heap
# keeps what a picture of 24 megapixels needs.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _HEAP_BLOCK_BYTES = 2**27, 2**25


def serve(config: dict[str, Any]) -> None:
    """Answer requests from standard input on standard output; config: as `pool` writes it."""
    _settle(config["parent"])
    requests, replies = _own_streams()
    limits = Limits(**config["limits"])
    decoder = _Decoder(config["loader"], limits, replies, config["pixels"])
    if limits.memory_bytes:
        _limit_memory(limits.memory_bytes)
    send(replies, {"ready": True})
    while (request := receive(requests)) is not None:
        content = receive_content(requests, request["content"]) if "content" in request else None
        decoder.answer(request, content)


class _Decoder:
    """Loads and preprocesses one file at a time, each with an allowance of its own."""

    def __init__(self, loader: str, limits: Limits, replies: BinaryIO, pixels_fd: int | None) -> None:
        from search.encoders.preprocessing import Preprocessing
        from search.photos.decode import load_bytes, read_info, read_info_bytes
        from search.photos.likeness import likeness

        module, _, name = loader.partition(":")
        self._load: Callable[..., LoadedPhoto] = getattr(importlib.import_module(module), name)
        self._load_bytes = load_bytes
        self._read_info = read_info
        self._read_info_bytes = read_info_bytes
        self._read_preprocessing = Preprocessing.from_dict
        self._likeness = likeness
        self._preprocessing = Preprocessing((1, 1))
        self._limits = limits
        self._replies = replies
        self._pixels_fd = pixels_fd

    def answer(self, request: dict[str, Any], content: bytes | None) -> None:
        """Decode one file and say what came of it; preprocessing travels only when it changes.

        content: the file itself, where its path does not open it.
        """
        if "preprocessing" in request:
            self._preprocessing = self._read_preprocessing(request["preprocessing"])
        _forget_what_was_printed()
        _allow_cpu(self._limits.cpu_s)
        path, most = os.fsdecode(request["path"].encode("latin-1")), request["max_megapixels"]
        held = None if content is None else (content, FileStat(path, *request["stat"]))
        pixels: Pixels | None = None
        try:
            if request.get("info_only"):
                read = self._read_info_bytes(*held, max_megapixels=most) if held else None
                said = describe_info(*(read or self._read_info(path, max_megapixels=most)))
            else:
                said, pixels = self._decoded(path, held, most)
        except PhotoError as error:
            said = {"reason": error.reason, "detail": error.message}
        except MemoryError:
            said = {"reason": SkipReason.MEMORY, "detail": "takes more memory than a decoder may"}
        except Exception as error:
            detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            said = {"reason": SkipReason.DECODE_ERROR, "detail": detail}
        self._send(said, pixels)

    def _decoded(
        self, path: str, held: tuple[bytes, FileStat] | None, max_megapixels: float
    ) -> tuple[dict[str, Any], Pixels]:
        load = functools.partial(self._load_bytes, *held) if held else functools.partial(self._load, path)
        photo = load(
            max_megapixels=max_megapixels,
            min_side=self._preprocessing.min_side,
            on_header=self._allow_more,
        )
        pixels = self._preprocessing(photo.image, whole=photo.whole, frame=photo.frame)
        said = describe(photo.info, photo.content_hash, photo.stat)
        return said | describe_likeness(self._likeness(photo.image)), pixels

    def _send(self, said: dict[str, Any], pixels: Pixels | None) -> None:
        data = b"" if pixels is None else pixels.data.cast("B")
        if data and self._pixels_fd is not None:
            os.pwrite(self._pixels_fd, data, 0)  # a memory file takes all of it or fails
            data = b""
        send(self._replies, said, data)

    def _allow_more(self, pixels: int, size_bytes: int) -> None:
        """Give a large picture more time, once its header is known."""
        cpu_s, wall_s = extra_seconds(pixels, size_bytes)
        if cpu_s:
            _allow_cpu(self._limits.cpu_s + cpu_s)
        if wall_s:
            send(self._replies, {"more_s": wall_s})


# ---- the process


def _settle(parent: int) -> None:
    """Become a quiet child: one thread for arithmetic, deaf to Ctrl-C, no core files, no life after the parent."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.putenv(name, "1")  # before numpy is imported
    _keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if resource is not None:
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before it could be watched
            os._exit(1)


def _keep_memory() -> None:
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _HEAP_BLOCK_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """Take standard input and output for ourselves; what a decoder prints goes where errors go."""
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return requests, replies


def _forget_what_was_printed() -> None:
    """Keep of the decoders' messages only those on the present file."""
    with contextlib.suppress(OSError):
        if os.lseek(2, 0, os.SEEK_CUR):
            os.ftruncate(2, 0)
            os.lseek(2, 0, os.SEEK_SET)


def _allow_cpu(seconds: float) -> None:
    """Let the kernel end this process once it has used so many CPU seconds from now, SIGXCPU."""
    if resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        _lower(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds))


def _limit_memory(most: int) -> None:
    """Bound the resident size.

    The kernel bounds only the address space. What lies in it so far and is not resident, mostly libraries, is allowed
    on top: of what comes, all may become resident.
    """
    if resource is None or sys.platform != "linux":  # elsewhere RLIMIT_AS is not kept or not known
        return
    with open("/proc/self/statm", encoding="ascii") as statm:
        size, resident = (int(pages) * resource.getpagesize() for pages in statm.read().split()[:2])
    _lower(resource.RLIMIT_AS, most + size - resident)


def _lower(what: int, soft: int) -> None:
    hard = resource.getrlimit(what)[1]
    resource.setrlimit(what, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
