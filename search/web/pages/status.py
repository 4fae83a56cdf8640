"""The library's page: what it holds, what could not be read and why, and folders brought in with their progress."""

from __future__ import annotations

import base64
import contextlib
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from search.errors import LibraryNotFound
from search.types import JobState
from search.web.pages.forms import sent, text
from search.web.pages.rendering import readable, render
from search.web.problems import Problem
from search.web.working import jobs_of, start_index

if TYPE_CHECKING:
    from search.library import Library
    from search.types import LibraryStatus, Skip
    from search.web.jobs import Job

_SHOWN = 50  # skipped files on a page

REASONS = {
    "decode_error": "damaged, or not what its name says",
    "empty": "empty",
    "too_large": "more pixels than the limit",
    "unsupported_format": "of a format that can't be read here",
    "unreadable": "may not be read",
    "unstable": "changed while it was read",
    "memory": "takes more memory than a decoder may",
    "timeout": "takes too long to decode",
    "crashed": "makes the decoder crash",
    "quarantined": "left out, because indexing died over it twice",
    "bad_vector": "the model made no numbers of it",
}
_STAGES = {
    "scanning": "Looking for photos",
    "recognising": "Recognising what is known",
    "encoding": "Learning what photos show",
    "labelling": "Labelling",
    "reading": "Reading what photos say of themselves",
}


def routes() -> list[BaseRoute]:
    return [
        Route("/library", page),
        Route("/library/index", _index, methods=["POST"]),
        Route("/library/stop", _stop, methods=["POST"]),
    ]


async def page(request: Request, *, problem: str = "", folder: str = "", status: int = 200) -> Response:
    """GET /library."""
    reason, offset = request.query_params.get("reason", ""), request.query_params.get("offset", "0")

    def look(library: Library) -> tuple[LibraryStatus | None, list[Skip]]:
        try:
            return library.status(), library.skipped()
        except LibraryNotFound:
            return None, []

    found, skipped = await request.app.state.desk.look(look)
    return render(
        request,
        "library.html",
        status=status,
        section="library",
        library=found,
        roots=[_root(one.path, one.photos, one.online) for one in found.roots] if found else [],
        skipped=page_of(skipped, reason, int(offset) if offset.isdecimal() and len(offset) < 10 else 0),
        job=told(jobs_of(request).last, of="index"),
        problem=problem,
        folder=folder,
        anywhere=request.app.state.options.indexes_anywhere,
        under=request.app.state.options.index_under,
    )


async def _index(request: Request) -> Response:
    form = await sent(request)
    folder, in_bytes = text(form, "folder"), text(form, "folder_bytes")
    try:
        await start_index(request, {"folder": folder or None, "folder_bytes": in_bytes or None})
    except Problem as error:
        return await page(request, problem=error.detail, folder=folder, status=error.status_code)
    return RedirectResponse("/library#job", 303)


async def _stop(request: Request) -> Response:
    form = await sent(request)
    with contextlib.suppress(Problem):  # it ended meanwhile, which is what was wanted
        jobs_of(request).stop()
    return RedirectResponse("/labels#job" if text(form, "back") == "labels" else "/library#job", 303)


def _root(path: str, photos: int, online: bool) -> dict[str, Any]:
    is_text = readable(path) == path
    return {
        "path": path,
        "photos": photos,
        "online": online,
        "field": ("folder", path) if is_text else ("folder_bytes", base64.b64encode(os.fsencode(path)).decode()),
    }


# ---- skipped files


@dataclass(frozen=True, slots=True)
class SkippedPage:
    """Files that could not be indexed: how many by reason, and some of those of one reason, or of all."""

    total: int
    reasons: tuple[tuple[str, str, int], ...]
    reason: str
    files: tuple[Skip, ...]
    before: int | None
    after: int | None


def page_of(skipped: list[Skip], reason: str, offset: int) -> SkippedPage:
    """Return one page of skipped files.   reason: a code, "" for all."""
    counts = Counter(str(skip.reason) for skip in skipped)
    reason = reason if reason in counts else ""
    chosen = [skip for skip in skipped if not reason or str(skip.reason) == reason]
    end = offset + _SHOWN
    return SkippedPage(
        len(skipped),
        tuple((code, in_words(code), count) for code, count in counts.most_common()),
        reason,
        tuple(chosen[offset:end]),
        max(0, offset - _SHOWN) if offset else None,
        end if end < len(chosen) else None,
    )


def in_words(reason: str) -> str:
    return REASONS.get(reason, reason.replace("_", " "))


# ---- the job


def told(job: Job | None, *, of: str) -> dict[str, Any] | None:
    """Return a job as it is shown; None if there was none, or it is over and of another kind."""
    if job is None or not (job.is_running or job.kind == of):
        return None
    share = job.done / job.total if job.total else None
    return {
        "job": job,
        "title": _title(job),
        "stage": _stage(job),
        "value": min(1.0, share) if share is not None else None,
        "counts": _counts(job),
        "what": _what(job),
        "detail": (job.problem or {}).get("detail", ""),
        "kind": "bad" if job.state is JobState.FAILED else "warn" if job.state is JobState.INTERRUPTED else "good",
    }


def _what(job: Job) -> str:
    if job.kind == "index":
        return str(job.asked["folder"])
    labels = list(job.asked["labels"])
    named = ", ".join(labels[:6]) + ("…" if len(labels) > 6 else "")
    return " and ".join(part for part in (job.asked["label_set"], named) if part)


def _title(job: Job) -> str:
    doing, done = ("Indexing", "Indexed") if job.kind == "index" else ("Proposing labels", "Labels proposed")
    return {
        JobState.RUNNING: "Stopping" if job.stopping else doing,
        JobState.DONE: done,
        JobState.INTERRUPTED: "Stopped; what was done is kept",
        JobState.FAILED: "It could not be done",
    }[job.state]


def _stage(job: Job) -> str:
    said = _STAGES.get(job.stage or "", "Starting")
    if not job.done and job.total is None:
        return said
    return f"{said}: {job.done:,}" + (f" of {job.total:,}" if job.total is not None else "")


def _counts(job: Job) -> list[tuple[str, int]]:
    """Return what came of a job as words and numbers, those that are not nothing."""
    if job.report is None:
        return []
    report = job.report
    if job.kind == "label":
        if job.state is JobState.INTERRUPTED:
            return []
        return [("photos labelled", report["applied"]), ("labels given", len(report["counts"]))]
    names = ("added", "updated", "moved", "unchanged", "gone", "offline")
    counts = [(name, report[name]) for name in names] + [("skipped", report["skipped_total"])]
    return [(name, count) for name, count in counts if count] or [("photos", report["photos"])]
