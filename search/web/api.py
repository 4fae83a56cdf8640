"""The REST interface: what the command line prints as JSON, at addresses below /api."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from search import documents
from search.web.desk import Desk


def routes() -> list[BaseRoute]:
    """Return the routes of the interface."""
    return [Route("/api/status", status, methods=["GET"], name="status")]


async def status(request: Request) -> Response:
    """The library at a glance, as `search status` has it."""
    desk: Desk = request.app.state.desk
    found = await desk.look(lambda library: library.status())
    return answer(request, documents.status_document(found))


def answer(request: Request, document: dict[str, Any]) -> Response:
    """Return a document with its ETag; 304 and nothing else where the caller has it already.

    The ETag is weak: it is of all but the seconds that an answer took.
    """
    said = {name: value for name, value in document.items() if name != "seconds"}
    tag = f'W/"{hashlib.sha256(_json(said)).hexdigest()[:32]}"'
    if _has(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(_json(document), media_type="application/json", headers={"ETag": tag})


def _has(request: Request, tag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag.removeprefix("W/") in {
        one.strip().removeprefix("W/") for one in given.split(",")
    }


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=True, allow_nan=False).encode()
