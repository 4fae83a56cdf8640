"""Small pictures of the library's photos: made when first asked for, by the processes that decode for an index run.

They lie in the library's folder under the hash of the photo's content and their size, so a photo that moved has its
own already, and one that changed can't be shown as it was. Over a limit, those go that were asked for least lately.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from search import files
from search.decoding.pool import Decoders
from search.decoding.wire import Limits
from search.errors import SourceAway, UnknownPhoto
from search.types import Skip
from search.web.api import id_of
from search.web.pages.statics import FOR_GOOD
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Photo, PhotoInfo

SIZES = (320, 640, 1600)
"""Pixels of the longer side that a picture is made in; a smaller photo keeps its size."""

_BY_NAME = {str(size): size for size in SIZES}
_WORKERS = 2
_LIMITS = Limits(wall_s=30)
_FOLDER = "thumbnails"
_TOUCH_S = 24 * 3600.0  # so seldom is it written down that one was asked for
_LEFT = 0.8  # of the limit, after old ones went
_NAME = re.compile(r"[0-9a-f]{64}-[0-9]{3,4}\.webp")
_POLICY = "default-src 'none'; sandbox"

_NOTHING = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 90" width="120" height="90">'
    b'<rect width="120" height="90" fill="#8a8782" fill-opacity=".16"/>'
    b'<g fill="none" stroke="#8a8782" stroke-width="2.5" stroke-linecap="round" stroke-linejoin="round">'
    b'<rect x="42" y="30" width="36" height="28" rx="4"/><path d="M45 54l10-10 7 7 6-6 7 8"/>'
    b'<path d="M38 64l44-40"/></g></svg>'
)


def routes() -> list[BaseRoute]:
    return [Route("/thumbnails/{id}/{size}", _thumbnail)]


def address(photo: Photo, size: int) -> str:
    """Return where a photo's picture is: another address once its content is another."""
    return f"/thumbnails/{photo.id}/{size}?v={photo.content_hash[:16]}"


def box(info: PhotoInfo, size: int) -> tuple[int, int]:
    """Return the (width, height) that a photo's picture of a size has."""
    share = min(1.0, size / max(info.width, info.height, 1))
    return max(1, round(info.width * share)), max(1, round(info.height * share))


class Thumbnails:
    """Makes and keeps pictures.   most_bytes: that are kept."""

    def __init__(self, library: Library, *, most_bytes: int) -> None:
        self._library = library
        self._most = most_bytes
        self._making = CapacityLimiter(_WORKERS)
        self._lock = threading.Lock()
        self._kept: int | None = None  # bytes on the disk, None: not counted yet
        self._decoders = Decoders(workers=_WORKERS, limits=_LIMITS)
        self._spare: tempfile.TemporaryDirectory[str] | None = None

    async def of(self, photo: Photo, size: int) -> bytes:
        """Return a photo's picture as WebP. Raises Problem where it can't be made."""
        path = self._place(photo, size)
        if (kept := await to_thread.run_sync(_read, path)) is not None:
            return kept
        return await to_thread.run_sync(self._made, photo, size, path, limiter=self._making)

    def close(self) -> None:
        """End the children."""
        self._decoders.close()
        with self._lock:
            if self._spare is not None:
                self._spare.cleanup()
            self._spare = None

    # ---- making

    def _made(self, photo: Photo, size: int, path: Path) -> bytes:
        if (kept := _read(path)) is not None:  # made while this waited
            return kept
        picture = self._decoded(photo, size)
        self._keep(path, picture)
        return picture

    def _decoded(self, photo: Photo, size: int) -> bytes:
        from search.encoders.preprocessing import Preprocessing
        from search.photos.thumbnails import webp

        width, height = box(photo.info, size)
        wanted = Preprocessing((height, width), resize_mode="squash")
        try:
            content = self._library.sources.content(photo.path)
            found = self._decoders.submit(photo.path, wanted, content=content).result()
        except SourceAway as away:
            raise Problem(404, "The photo can't be reached now.", more={"reason": "missing"}) from away
        if isinstance(found, Skip):
            raise Problem(404, "The photo can't be read now.", more={"reason": str(found.reason)})
        if found.content_hash.hex() != photo.content_hash:
            raise Problem(404, "The photo's file changed since it was indexed.", more={"reason": "changed"})
        return webp(found.pixels)

    # ---- keeping

    def _place(self, photo: Photo, size: int) -> Path:
        return self._folder() / photo.content_hash[:2] / f"{photo.content_hash}-{size}.webp"

    def _folder(self) -> Path:
        """Return where pictures lie: in the library's folder; of a library on a server, as long as this one runs."""
        folder = self._library.catalog.folder
        if folder is not None:
            return folder / "cache" / _FOLDER
        with self._lock:
            if self._spare is None:
                self._spare = tempfile.TemporaryDirectory(prefix="search-thumbnails-")
            return Path(self._spare.name)

    def _keep(self, path: Path, picture: bytes) -> None:
        """Write a picture down if that can be: a full or read-only disk costs time, nothing else."""
        with self._lock, contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.replace_beside(path, picture, like=None)
            if self._kept is None:
                self._kept = sum(size for _, size, _ in _pictures(path.parent.parent))
            else:
                self._kept += len(picture)
            if self._kept > self._most:
                self._kept = _thin(path.parent.parent, round(self._most * _LEFT))


def _read(path: Path) -> bytes | None:
    """Return a kept picture, and see that it counts as asked for lately."""
    try:
        picture = path.read_bytes()
        if time.time() - path.stat().st_mtime > _TOUCH_S:
            os.utime(path)
    except OSError:
        return None
    return picture or None


def _pictures(folder: Path) -> list[tuple[float, int, Path]]:
    """Return when each picture was asked for last, its bytes and its file."""
    found = []
    for path in folder.glob("??/*.webp"):
        with contextlib.suppress(OSError):
            stat = path.stat()
            found.append((stat.st_mtime, stat.st_size, path))
    return found


def _thin(folder: Path, most: int) -> int:
    """Remove what was asked for least lately until no more bytes are left; return how many are."""
    found = sorted(_pictures(folder))
    left = sum(size for _, size, _ in found)
    for _, size, path in found:
        if left <= most:
            break
        if _NAME.fullmatch(path.name):  # of ours
            files.discard(path)
            left -= size
    for part in folder.glob("??"):
        files.sweep(part)
    return left


# ---- over HTTP


async def _thumbnail(request: Request) -> Response:
    """GET /thumbnails/ID/SIZE: a picture, or a quiet sign that there is none."""
    try:
        id_, size = id_of(request), _BY_NAME.get(request.path_params["size"])
        if size is None:
            raise Problem(404, "Pictures are not made in that size.")
        photo = await request.app.state.desk.look(lambda library: library.photo(id_))
        picture = await request.app.state.thumbnails.of(photo, size)
    except (Problem, UnknownPhoto):
        headers = {"Cache-Control": "no-store", "Content-Security-Policy": _POLICY}
        return Response(_NOTHING, 404, media_type="image/svg+xml", headers=headers)
    is_named = request.query_params.get("v") == photo.content_hash[:16]
    lasting = {"Cache-Control": FOR_GOOD} if is_named else {}
    return Response(picture, media_type="image/webp", headers={**lasting, "Content-Security-Policy": _POLICY})
