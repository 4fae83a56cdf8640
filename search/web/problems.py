"""Errors as they are told over HTTP: problem+json (RFC 9457) to programs, a plain page to people.

What is told never names a place of the file system: only messages about what the caller asked for are passed on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from search import errors

_log = logging.getLogger("search.web")


class Problem(HTTPException):
    """A request that can't be answered.   more: members beside those that every problem has."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(status, detail, headers)
        self.more = more or {}


def problem_of(error: Exception) -> Problem:
    """Return what is told of an error; of one that was not foreseen, and of the library's own, nothing but its kind."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        return Problem(error.status_code, _phrase(error.status_code), headers=error.headers)
    if not isinstance(error, errors.SearchError):
        return Problem(500, "Something went wrong here; the server's own output says what.")
    for kind, (status, detail) in _TOLD.items():
        if isinstance(error, kind):
            return Problem(status, detail or _harmless(error), more=_of(error))
    return Problem(500, "The request can't be answered; the server's own output says why.", more=_of(error))


# By type, the first that fits; no words: the error's own, which are about the request.
_TOLD: dict[type[errors.SearchError], tuple[int, str]] = {
    errors.QueryError: (400, ""),
    errors.UnknownPhoto: (404, ""),
    errors.UnknownLabel: (404, ""),
    errors.UnknownRun: (404, ""),
    errors.UsageError: (400, ""),
    errors.PhotoError: (422, "The picture can't be used."),
    errors.DimensionError: (400, ""),
    errors.LibraryBusy: (503, "Another process is writing to the library; try again later."),
    errors.StorageError: (507, "The library's disk is full or can't be written to."),
    errors.LibraryError: (503, "The library can't answer; `search status` on its machine says why."),
    errors.IndexUnavailable: (
        503,
        "The server that has the index can't answer; the server's own output says why.",
    ),
    errors.IndexMismatch: (
        503,
        "The server that has the index has another one; the server's own output says why.",
    ),
    errors.ModelError: (503, "The library's model can't be loaded; the server's own output says why."),
    errors.EncoderMismatch: (503, "The library was indexed with another model than the one that is loaded."),
}


def _of(error: errors.SearchError) -> dict[str, object]:
    """What a program can tell errors apart by."""
    column = getattr(error, "column", None)
    reason = getattr(error, "reason", None)
    return {
        "error": type(error).__name__,
        **({"column": column} if column is not None else {}),
        **({"reason": str(reason)} if reason is not None else {}),
    }


def _harmless(error: errors.SearchError) -> str:
    """Return an error's words; those of calls that name files are not passed on if a path may be in them.

    What to do next is told unless it is an option of the command line.
    """
    is_callers_own = isinstance(error, errors.QueryError)
    if not is_callers_own and (os.sep in error.message or "\\" in error.message):
        return "The request can't be meant as it stands."
    return str(error) if is_callers_own and "--" not in error.hint else error.message


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).description or HTTPStatus(status).phrase
    except ValueError:
        return "The request can't be answered."


def respond(problem: Problem, scope: Scope) -> Response:
    """Return a problem as whoever asked reads it: a person with a browser a page, a program problem+json."""
    status = problem.status_code
    if _wants_page(scope):
        return HTMLResponse(_page(problem), status, headers=dict(problem.headers or {}))
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(status),
        "status": status,
        "detail": problem.detail,
        **problem.more,
    }
    return JSONResponse(
        document, status, headers=dict(problem.headers or {}), media_type="application/problem+json"
    )


def _wants_page(scope: Scope) -> bool:
    return not scope["path"].startswith("/api/") and "text/html" in Headers(scope=scope).get("accept", "")


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _page(problem: Problem) -> str:
    from search.web.pages.rendering import filled

    return filled("problem.html", title=_title(problem.status_code), problem=problem)


def handle(request: Request, error: Exception) -> Response:
    """Answer a request that failed; what is not told is written to the log."""
    problem = problem_of(error)
    if problem.status_code >= 500:
        _log.warning("%s %r: %s", request.method, request.url.path, error)
    return respond(problem, request.scope)
