"""The page of labels: how many there are and how good, what proposes them, what is taken back, and lists of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from search.errors import LibraryBusy, LibraryError, LibraryNotFound, UnknownRun
from search.labels.sources import built_in
from search.photos.keywords import legible
from search.web.pages.forms import sent, text
from search.web.pages.rendering import render
from search.web.pages.status import told
from search.web.problems import Problem, problem_of
from search.web.working import LABEL, jobs_of, start_label

if TYPE_CHECKING:
    from search.library import Library
    from search.types import LabelSummary, RunInfo

_RUNS = 30
_ORDERS = {"label": "by name", "photos": "most photos first", "precision": "least right first"}
_SETS = {
    "everyday": "everyday subjects",
    "photo-tags": "what private photos show",
    "coco80": "objects of COCO",
    "imagenet1k": "ImageNet's classes",
    "places365": "scenes",
}
_MOST_LABELS = 2000


def routes() -> list[BaseRoute]:
    return [
        Route("/labels", page),
        Route("/labels/propose", _propose, methods=["POST"]),
        Route("/labels/undo", _undo, methods=["POST"]),
    ]


async def page(request: Request, *, problem: str = "", typed: str = "", status: int = 200) -> Response:
    """GET /labels."""
    order = request.query_params.get("order", "label")
    order = order if order in _ORDERS else "label"

    def look(library: Library) -> tuple[list[LabelSummary], list[RunInfo], bool]:
        try:
            return library.tags.labels(), library.tags.runs()[::-1], bool(library.catalog.count())
        except LibraryNotFound:
            return [], [], False

    labels, runs, has_photos = await request.app.state.desk.look(look)
    return render(
        request,
        "labels.html",
        status=status,
        section="labels",
        labels=ordered([one for one in labels if not is_keyword(one)], order),
        keywords=[one for one in labels if is_keyword(one)],
        orders=_ORDERS,
        order=order,
        runs=[(run, _of(run)) for run in runs[:_RUNS]],
        sets=[(name, _SETS.get(name, name)) for name in built_in("labels")],
        has_photos=has_photos,
        job=told(jobs_of(request).last, of="label"),
        problem=problem,
        typed=typed,
    )


def is_keyword(one: LabelSummary) -> bool:
    """Whether a label is only what photos' files say."""
    return not (one.proposed or one.accepted or one.rejected or one.imported)


def ordered(labels: list[LabelSummary], order: str) -> list[LabelSummary]:
    """Return labels in an order, a key of _ORDERS."""
    if order == "photos":
        return sorted(labels, key=lambda one: (-one.photos, one.label))
    if order == "precision":
        return sorted(labels, key=lambda one: (one.precision[1] if one.precision else 2.0, one.label))
    return labels


def _of(run: RunInfo) -> str:
    """What a run was made with, in a few words."""
    if run.label_set:
        return ", ".join(part for part in (run.label_set, run.encoder) if part)
    return str(run.details["from"]) if "from" in run.details else ", ".join(run.details.get("labels", ()))


async def _propose(request: Request) -> Response:
    form = await sent(request)
    typed, label_set = text(form, "labels"), text(form, "label_set")
    labels = list(dict.fromkeys(filter(None, map(legible, typed.splitlines()))))
    asked: dict[str, Any] = {one.name: one.default for one in LABEL}
    asked |= {"labels": labels, "label_set": label_set or None, "multi": bool(text(form, "multi"))}
    try:
        if len(labels) > _MOST_LABELS:
            raise Problem(400, f"More than {_MOST_LABELS} labels at a time are too many.")
        await start_label(request, asked)
    except (Problem, LibraryError) as error:
        problem = problem_of(error)
        return await page(request, problem=problem.detail, typed=typed, status=problem.status_code)
    return RedirectResponse("/labels#job", 303)


async def _undo(request: Request) -> Response:
    form = await sent(request)
    number = text(form, "run")
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        raise Problem(400, "There is no such run.")
    try:
        await request.app.state.desk.look(lambda library: library.tags.undo(int(number)))
    except (UnknownRun, LibraryBusy) as error:
        problem = problem_of(error)
        return await page(request, problem=problem.detail, status=problem.status_code)
    return RedirectResponse("/labels#runs", 303)
