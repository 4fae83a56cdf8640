"""Style sheet and scripts: few and small, kept in memory, under an address that changes with what is in them."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

FOR_GOOD = "private, max-age=31536000, immutable"
"""How long a browser may keep what never changes under its address."""

_FOLDER = Path(__file__).parent.parent / "static"
_KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".png": "image/png"}


def routes() -> list[BaseRoute]:
    return [Route("/static/{version}/{name:path}", _file)]


def address(name: str) -> str:
    """Return where a file of the static folder is. Raises KeyError for one that is not there."""
    version, files = _files()
    _ = files[name]
    return f"/static/{version}/{name}"


async def _file(request: Request) -> Response:
    version, files = _files()
    name: str = request.path_params["name"]
    if name not in files:
        raise HTTPException(404)
    # Asked for by a page that an older server made: what is there now, but not for good.
    lasting = FOR_GOOD if request.path_params["version"] == version else "no-store"
    return Response(files[name], media_type=_KINDS[Path(name).suffix], headers={"Cache-Control": lasting})


@cache
def _files() -> tuple[str, dict[str, bytes]]:
    """Read all files by name; the version is of all together, as scripts import each other by their names."""
    found = {path.name: path.read_bytes() for path in sorted(_FOLDER.iterdir()) if path.suffix in _KINDS}
    digest = hashlib.sha256()
    for name, content in found.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16], found
