"""The files of the library's photos, sent as they lie: only such files, and only what was indexed."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from anyio import to_thread
from starlette.responses import Response, StreamingResponse

from search.errors import PhotoError, SourceAway
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.photos.sources import Sources
    from search.types import Photo

_CHUNK = 2**18

# What browsers show by themselves and nothing can be run by; anything else is for saving.
_SHOWN = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    "ICO": "image/x-icon",
}
_SAVED = {
    "TIFF": "image/tiff",
    "HEIF": "image/heic",
    "JPEG2000": "image/jp2",
    "DIB": "image/bmp",
    "TGA": "image/x-tga",
    "PPM": "image/x-portable-anymap",
}
_POLICY = "default-src 'none'; sandbox"


def opened(photo: Photo, sources: Sources) -> BinaryIO:
    """Open the file of a photo for reading. Raises Problem if it is not there, or not what was indexed.

    Size and time are those of the very file that is open: nothing can be put in its place between look and read. What
    is no file in a folder is read at once, and told by its content.
    """
    missing = Problem(404, "The photo's file can't be reached; its drive may be away.", more={"reason": "missing"})
    changed = Problem(
        409, "The photo's file changed since it was indexed: index its folder again.", more={"reason": "changed"}
    )
    if photo.gone_at is not None:
        raise missing
    try:
        if read := sources.content(photo.path):
            content = read()[0]
            if hashlib.sha256(content).hexdigest() != photo.content_hash:
                raise changed
            return io.BytesIO(content)
    except (PhotoError, SourceAway):
        raise missing from None
    try:
        descriptor = os.open(photo.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError):
        raise missing from None
    file = os.fdopen(descriptor, "rb")
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and (found.st_size, found.st_mtime_ns) == (photo.size_bytes, photo.mtime_ns):
        return file
    file.close()
    raise changed


def tag(photo: Photo) -> str:
    """Return the ETag of a photo's file."""
    return f'"{photo.content_hash}"'


def sent(photo: Photo, file: BinaryIO, *, is_head: bool = False) -> Response:
    """Return the answer that a photo's file is; it closes the file.   is_head: the file itself is not asked for."""
    kind = _SHOWN.get(photo.info.format.upper())
    media_type = kind or _SAVED.get(photo.info.format.upper(), "application/octet-stream")
    place = "inline" if kind else "attachment"
    headers = {
        "ETag": tag(photo),
        "Content-Length": str(photo.size_bytes),
        "Content-Disposition": f"{place}; filename*=UTF-8''{_quoted(photo.path)}",
        "Content-Security-Policy": _POLICY,
        "Cache-Control": "private, max-age=0, must-revalidate",
    }
    if is_head:
        file.close()
        return Response(media_type=media_type, headers=headers)
    return StreamingResponse(_chunks(file, photo.size_bytes), media_type=media_type, headers=headers)


async def _chunks(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    """Yield so many bytes; a file that became shorter meanwhile cuts the answer off."""
    left = size
    with file:
        while left:
            chunk = await to_thread.run_sync(file.read, min(left, _CHUNK))
            if not chunk:
                raise OSError("a photo's file became shorter while it was sent")
            left -= len(chunk)
            yield chunk


def _quoted(path: str) -> str:
    """Return a file's name as a header can have it; what is not UTF-8 in it becomes a question mark."""
    name = os.path.basename(path).encode("utf-8", "replace").decode()
    return quote(name, safe="")
