"""The page of the review: one photo, one question; every answer teaches its label, and what it changed is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from search.errors import LibraryBusy, LibraryNotFound, UsageError
from search.photos.keywords import legible
from search.web.pages.forms import sent, text, wants_part
from search.web.pages.rendering import render
from search.web.pages.searching import large_picture
from search.web.problems import Problem, problem_of

if TYPE_CHECKING:
    from search.library import Library
    from search.library.reviewing import Effect, Item, Review
    from search.types import LabelSummary, Photo
    from search.web.reviews import Reviews

_AHEAD = 3  # photos that are loaded before they are asked about
_MOST_LABELS, _MOST_CHARACTERS = 16, 1000


@dataclass(frozen=True, slots=True)
class View:
    """What is shown.   ahead: the questions after this one.   label: whose state is shown, with what verdicts did."""

    item: Item | None
    ahead: tuple[Item, ...] = ()
    left: int = 0
    label: str = ""
    summary: LabelSummary | None = None
    effect: Effect | None = None
    names: tuple[str, ...] = ()
    can_undo: bool = False


def routes() -> list[BaseRoute]:
    return [Route("/review", page), Route("/review", _answer, methods=["POST"])]


async def page(request: Request) -> Response:
    """GET /review: the next question, or that of `photo` and `of`; of the labels in `label`, else of all proposed."""
    labels = _labels(request.query_params.getlist("label"))
    id_, of = _id_of(request.query_params.get("photo", "")), request.query_params.get("of", "")
    asked = None if id_ is None else (id_, of)
    return await _shown(request, labels, asked=asked, touched=request.query_params.get("touched", ""))


async def _shown(
    request: Request,
    labels: tuple[str, ...],
    *,
    asked: tuple[int, str] | None = None,
    touched: str = "",
    said: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    reviews: Reviews = request.app.state.reviews
    is_part = wants_part(request)

    def look(library: Library) -> View | None:
        if not library.catalog.exists() or not library.catalog.count():
            return None
        return view(library, reviews.of(library, labels), asked=asked, touched=touched, is_page=not is_part)

    try:
        found = await request.app.state.desk.answer(look)
    except LibraryNotFound:
        found = None
    return render(
        request,
        "review_part.html" if is_part else "review.html",
        status=status,
        section="review",
        view=found,
        labels=labels,
        large=_large(found.item.photo) if found and found.item else None,
        ahead=[_large(item.photo) for item in found.ahead] if found else [],
        said=said,
        problem=problem,
    )


def view(library: Library, review: Review, *, asked: tuple[int, str] | None, touched: str, is_page: bool) -> View:
    """Return a question with what there is to say beside it; a page has the names of all labels, too."""
    item = review.question(*asked) if asked else None
    queue = review.queue(_AHEAD + 1)
    item = item or next(iter(queue), None)
    ahead = tuple(one for one in queue if item is None or (one.photo.id, one.label) != (item.photo.id, item.label))
    label = touched if touched in review.names else item.label if item else ""
    return View(
        item,
        ahead[:_AHEAD],
        review.left,
        label,
        library.tags.label(label) if label else None,
        review.effect(label) if label else None,
        tuple(sorted({*(one.label for one in library.tags.labels()), *review.names})) if is_page else (),
        review.can_undo,
    )


async def _answer(request: Request) -> Response:
    """POST /review: `answer` is yes, no, skip, undo, or other with `other`, of `photo` and `of`."""
    form = await sent(request)
    labels = _labels([one for one in form.getlist("label") if isinstance(one, str)])
    answer, of, photo, other = (text(form, name) for name in ("answer", "of", "photo", "other"))
    reviews: Reviews = request.app.state.reviews
    id_ = _id_of(photo) or 0

    def work(library: Library) -> Item | None:
        return answered(reviews.of(library, labels), answer, (id_, of), other)

    try:
        back = await request.app.state.desk.answer(work)
    except (LibraryBusy, UsageError) as error:
        problem = problem_of(error)
        detail = "The library is being written to; say it again when that is done."
        detail = detail if isinstance(error, LibraryBusy) else problem.detail
        return await _shown(request, labels, asked=(id_, of), problem=detail, status=problem.status_code)
    asked = (back.photo.id, back.label) if back else None
    if wants_part(request):
        return await _shown(request, labels, asked=asked, touched=of, said=_words(answer, of, other, back))
    pairs = [*(("label", one) for one in labels), ("touched", of)]
    pairs += [("photo", str(back.photo.id)), ("of", back.label)] if back else []
    return RedirectResponse(f"/review?{urlencode(pairs, errors='replace')}", 303)


def answered(review: Review, answer: str, asked: tuple[int, str], other: str) -> Item | None:
    """Take an answer; return the question that was taken back, if that was the answer. Raises SearchError, Problem."""
    if answer == "undo":
        return review.undo()
    item = review.question(*asked)
    if item is None:
        raise Problem(409, "That is not asked any more: load the page again.")
    if answer == "skip":
        review.skip(item)
    elif answer == "other":
        review.correct(item, other)
    elif answer in ("yes", "no"):
        review.judge(item, answer == "yes")
    else:
        raise Problem(400, "That is no answer.")
    return None


def _words(answer: str, label: str, other: str, back: Item | None) -> str:
    """Say what was answered."""
    if answer == "undo":
        return f"Taken back: {back.label}" if back else "There is nothing to take back"
    if answer == "skip":
        return f"{label}: skipped"
    return {"yes": f"{label}: yes", "no": f"{label}: no"}.get(answer, f"{other}, not {label}")


def _labels(given: list[str]) -> tuple[str, ...]:
    """Return labels as they are kept. Raises Problem for too many."""
    names = tuple(dict.fromkeys(filter(None, map(legible, given))))
    if len(names) > _MOST_LABELS or sum(map(len, names)) > _MOST_CHARACTERS:
        raise Problem(400, "So many labels can't be reviewed together.")
    return names


def _id_of(text: str) -> int | None:
    """Return the photo's id that a text is, None for what can be none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else None


def _large(photo: Photo) -> dict[str, Any]:
    return {**large_picture(photo, "(max-width: 900px) 100vw, 62vw"), "id": photo.id}
