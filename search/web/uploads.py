"""A picture that someone sent → pixels as the library's model takes them.

It is decoded as the files of an index run are: by a child process with little memory and time, which a hostile file may
have to itself. What is sent is written to a folder of this server's own, under a name of its own, for as long as that
takes.
"""

from __future__ import annotations

import os
import tempfile
import threading
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread

from search.decoding.pool import Decoders
from search.decoding.wire import Limits
from search.types import Skip, SkipReason
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.decoding.pool import Decoded
    from search.encoders.preprocessing import Preprocessing
    from search.types import Pixels
    from search.web.desk import Desk

_WORKERS = 2
_WAITING = 16  # pictures for their turn
_LIMITS = Limits(cpu_s=10, wall_s=20, memory_bytes=1_000_000_000)

_REFUSED = {
    SkipReason.TOO_LARGE: (413, "The picture has too many pixels."),
    SkipReason.UNSUPPORTED_FORMAT: (415, "That is no picture in a format that is read here."),
    SkipReason.EMPTY: (422, "The picture is empty."),
    SkipReason.MEMORY: (422, "To decode the picture takes too much memory."),
    SkipReason.TIMEOUT: (422, "To decode the picture takes too long."),
}


class Uploads:
    """Decodes what is sent.   max_megapixels: larger pictures are refused by their header."""

    def __init__(self, desk: Desk, *, max_megapixels: float) -> None:
        self._desk = desk
        self._decoding = CapacityLimiter(_WORKERS)  # their own: what is slow to decode keeps nobody else waiting
        self._pending = 0
        self._decoders = Decoders(workers=_WORKERS, max_megapixels=max_megapixels, limits=_LIMITS)
        self._opening = threading.Lock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def pixels(self, content: bytes) -> Pixels:
        """Return a picture, (H, W, 3), as `Library.image_vectors` takes it. Raises Problem for what is none."""
        return (await self.decoded(content)).pixels

    async def decoded(self, content: bytes) -> Decoded:
        """Return a picture with what it says of itself. Raises Problem for what is none, and where too many wait."""
        if self._pending >= _WORKERS + _WAITING:
            raise Problem(429, "Too many pictures at the same time; try again.", headers={"Retry-After": "2"})
        self._pending += 1
        try:
            preprocessing = await self._desk.answer(lambda library: library.preprocessing())
            return await to_thread.run_sync(self._decoded, content, preprocessing, limiter=self._decoding)
        finally:
            self._pending -= 1

    def close(self) -> None:
        """End the children."""
        self._decoders.close()
        with self._opening:
            if self._folder is not None:
                self._folder.cleanup()
            self._folder = None

    def _decoded(self, content: bytes, preprocessing: Preprocessing) -> Decoded:
        descriptor, path = tempfile.mkstemp(dir=self._place())
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            found = self._decoders.submit(path, preprocessing).result()
        finally:
            os.unlink(path)
        if isinstance(found, Skip):
            reason = SkipReason(found.reason)
            status, detail = _REFUSED.get(reason, (422, "The picture is damaged."))
            raise Problem(status, detail, more={"reason": str(reason)})
        return found

    def _place(self) -> str:
        """Return this server's own folder, made when the first picture comes."""
        with self._opening:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="search-uploads-")
            return self._folder.name
