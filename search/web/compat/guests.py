"""Web pages of other origins that may ask: those that were named, and only clip-retrieval's interface and pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import Scope

    from search.web.options import ClipRetrieval

PICTURE = "/api/photos/{}/original"
"""Where a photo is shown, by its id."""

_PICTURE = re.compile(PICTURE.format("([0-9]{1,18})"))
_OPEN = {
    "/knn-service": ("POST", "OPTIONS"),
    "/metadata": ("POST", "OPTIONS"),
    "/indices-list": ("GET", "OPTIONS"),
    "/config.json": ("GET", "OPTIONS"),
}


def guest(scope: Scope, headers: Headers, options: ClipRetrieval | None) -> str | None:
    """Return the origin of a named web page that asks for what it may ask, None for all other requests.

    A page asks for data with its Origin, for a picture with its address in the Referer; no page can give another's.
    """
    if options is None or not options.origins:
        return None
    if photo_at(scope["path"]) is not None:
        origin = _origin_of(headers.get("referer", "")) if scope["method"] == "GET" else ""
    else:
        origin = headers.get("origin", "") if scope["method"] in _OPEN.get(scope["path"], ()) else ""
    return origin if origin in options.origins else None


def photo_at(path: str) -> int | None:
    """Return the id of the photo that is shown at a path, None where none is."""
    found = _PICTURE.fullmatch(path)
    return int(found[1]) if found else None


def preflight(scope: Scope, headers: Headers) -> Response | None:
    """Answer the question whether a request may follow; None for what is no such question."""
    if scope["method"] != "OPTIONS" or "access-control-request-method" not in headers:
        return None
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": ", ".join(_OPEN[scope["path"]]),
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": "600",
        },
    )


def welcome(origin: str) -> dict[str, str]:
    """Return the headers by which a browser shows a page what it asked for."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Cross-Origin-Resource-Policy": "cross-origin",
        "Vary": "Origin",
    }


def _origin_of(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}"
