"""The page to search with: photos by time where nothing is asked, else what fits, and what can be asked further."""

from __future__ import annotations

import calendar
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from search.errors import LibraryNotFound, QueryError, UnknownPhoto, UsageError
from search.query import Kind
from search.types import Hit
from search.web import thumbnails
from search.web.api import MOST
from search.web.pages.asked import PAGE, Address, Wanted
from search.web.pages.rendering import name_of, render, shown
from search.web.problems import Problem, problem_of

if TYPE_CHECKING:
    from search.library import Library
    from search.library.browsing import Count, Facets
    from search.types import Photo
    from search.web.desk import Desk

_NAMES = 14  # of cameras, folders, labels that are offered
_TRIED = 3  # queries that are proposed
_SHORT = 48  # characters of a text in a heading
_TILE_PX = {"small": 116, "large": 224}


@dataclass(frozen=True, slots=True)
class Tile:
    """A photo in a list.   at: its place in the results.   same: photos folded away behind it."""

    photo: Photo
    at: int
    hit: Hit | None = None
    same: tuple[Tile, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A page of results.

    total: photos that were looked through.   next: the offset of the next page.   below: photos that were too
    unlike; best: the relevance of the best photo there was, where one was looked for; cut: what is asked for.
    """

    tiles: tuple[Tile, ...]
    total: int
    next: int | None = None
    below: int = 0
    best: float | None = None
    cut: float = 0.0


def routes() -> list[BaseRoute]:
    return [Route("/", page)]


async def page(request: Request) -> Response:
    """GET /: the page; with `part`, only the photos and where there are more."""
    address = Address.of(request.query_params)
    try:
        wanted = Wanted.of(address, request.app.state.pictures)
        found = await look(request, wanted)
        if request.query_params.get("part"):
            return render(request, "hits.html", **_hits(wanted, found))
        filter_ = wanted.filter
        facets = await request.app.state.desk.look(lambda library: library.facets(filter_))
    except LibraryNotFound:
        return render(request, "welcome.html", section="search")
    except (QueryError, UsageError, UnknownPhoto, Problem) as error:
        return _refused(request, address, error)
    if not found.total and not wanted.is_filtered:
        return render(request, "welcome.html", section="search")
    return render(
        request,
        "search.html",
        section="search",
        title=title_of(wanted),
        facets=_offers(wanted, facets),
        active=_active(wanted),
        tries=await _tries(request, wanted),
        **_hits(wanted, found),
    )


def _refused(request: Request, address: Address, error: Exception) -> Response:
    """Say what can't be meant, with the box to put it right."""
    problem = problem_of(error)
    column = getattr(error, "column", None)
    values = {"address": address, "q": _words_of(address), "detail": problem.detail, "column": column}
    return render(request, "refused.html", status=problem.status_code, section="search", **values)


def _words_of(address: Address) -> str:
    return next(iter(address.all("q")), "")


async def look(request: Request, wanted: Wanted) -> Found:
    """Return a page of results. Raises SearchError."""
    desk: Desk = request.app.state.desk
    end = wanted.offset + PAGE
    if not wanted.terms:
        filter_ = wanted.filter
        browsed = await desk.look(lambda library: library.browse(PAGE, offset=wanted.offset, filter=filter_))
        tiles = await desk.look(lambda library: _folded(library, browsed.photos, {}, wanted))
        return Found(tiles, browsed.total, end if end < min(browsed.total, MOST) else None)
    given = await desk.answer(wanted.asked(offset=wanted.offset, k=PAGE).answered)
    hits = {hit.photo.id: hit for hit in given.hits[wanted.offset : end]}
    photos = [hit.photo for hit in hits.values()]
    tiles = await desk.look(lambda library: _folded(library, photos, hits, wanted))
    more = end if len(given.hits) > end and end < MOST else None
    return Found(tiles, given.candidates, more, given.below, given.best, given.cut)


def _folded(
    library: Library, photos: Sequence[Photo], hits: Mapping[int, Hit], wanted: Wanted
) -> tuple[Tile, ...]:
    """Return photos as tiles, those that show the same behind the first of them."""
    known = {photo.id: Tile(photo, wanted.offset + at, hits.get(photo.id)) for at, photo in enumerate(photos)}
    groups = [(id_,) for id_ in known] if wanted.given["apart"] else library.folded(photos)
    return tuple(
        Tile(known[first].photo, known[first].at, known[first].hit, tuple(known[id_] for id_ in others))
        for first, *others in groups
    )


def _hits(wanted: Wanted, found: Found) -> dict[str, Any]:
    return {
        "wanted": wanted,
        "found": found,
        "terms": _terms(wanted),
        "link": lambda tile: _link(wanted, tile),
        "picture": picture,
        "before": page_with(wanted.address, max(0, wanted.offset - PAGE)).url() if wanted.offset else None,
        "next": None if found.next is None else wanted.address.but(offset=str(found.next)).url(),
    }


def page_with(address: Address, at: int) -> Address:
    """Return the page of results that a place is on."""
    return address.but(offset=str(at // PAGE * PAGE) if at >= PAGE else None)


def _link(wanted: Wanted, tile: Tile) -> str:
    """Return where a photo's own page is, as a place in these results."""
    return wanted.address.but(at=str(tile.at)).url(f"/photos/{tile.photo.id}")


def picture(photo: Photo) -> dict[str, Any]:
    """Return the attributes of a photo's small picture."""
    shape = photo.info.width / max(photo.info.height, 1)
    small, large = (round(px * min(max(shape, 0.5), 3)) for px in _TILE_PX.values())
    return _attributes(photo, thumbnails.SIZES, thumbnails.SIZES[1], f"(max-width: 760px) {small}px, {large}px")


def large_picture(photo: Photo, sizes: str) -> dict[str, Any]:
    """Return the attributes of a photo's large picture.   sizes: how wide it is shown, as HTML has it."""
    return _attributes(photo, thumbnails.SIZES[1:], thumbnails.SIZES[-1], sizes)


def _attributes(photo: Photo, among: Sequence[int], usual: int, sizes: str) -> dict[str, Any]:
    """Return those of a picture that browsers choose among some sizes of, the usual one where they can't."""
    width, height = thumbnails.box(photo.info, usual)
    made = {thumbnails.box(photo.info, size)[0]: thumbnails.address(photo, size) for size in reversed(among)}
    return {
        "src": thumbnails.address(photo, usual),
        "srcset": ", ".join(f"{address} {px}w" for px, address in made.items()),
        "sizes": sizes,
        "width": width,
        "height": height,
        "alt": said_of(photo),
    }


def said_of(photo: Photo) -> str:
    """Return what a photo is called where it can't be seen."""
    labels = ", ".join(map(shown, photo.labels[:4]))
    return f"{name_of(photo.path)}: {labels}" if labels else name_of(photo.path)


# ---- the query


def title_of(wanted: Wanted) -> str:
    """Return what is looked for, in few words."""
    if not wanted.terms:
        return "Photos"
    texts = [shown(term.value) for term in wanted.terms if term.kind is Kind.TEXT and term.weight > 0]
    title = " + ".join(texts) or "More like this"
    return title if len(title) <= _SHORT else title[: _SHORT - 1] + "…"


async def _tries(request: Request, wanted: Wanted) -> list[tuple[str, str]]:
    """Return what to look for, where nothing is looked for yet: what was found worth it when photos came in."""
    if wanted.terms or wanted.is_filtered or wanted.offset:
        return []
    known = await request.app.state.desk.look(lambda library: library.known_suggestions)
    return [(one.query, wanted.address.but(q=one.query).url()) for one in (known or ())[:_TRIED]]


def _terms(wanted: Wanted) -> list[dict[str, Any]]:
    """Return the query's terms as chips: what they are, and where they weigh more, less, nothing."""
    return [
        {
            "kind": str(term.kind),
            "value": term.value,
            "weight": term.weight,
            "without": wanted.without(place).url(),
            "more": _url(wanted.weighed(place, 1)),
            "less": _url(wanted.weighed(place, -1)),
        }
        for place, term in enumerate(wanted.terms)
    ]


def _url(address: Address | None) -> str | None:
    return address.url() if address else None


# ---- filters


def _offers(wanted: Wanted, facets: Facets) -> dict[str, Any]:
    """Return what there is to filter by, each with its count and where it leads."""
    address = wanted.address
    return {
        "photos": facets.photos,
        "placed": facets.placed,
        "times": [_time(address, one) for one in facets.times[:24]],
        "cameras": facets.cameras,
        "folders": [
            (os.path.basename(one.name), one.photos, address.but(folder=one.name).url())
            for one in facets.folders[:_NAMES]
            if _is_text(one.name)
        ],
        "labels": [
            (one.name, one.photos, address.plus("tag", one.name).url())
            for one in facets.labels
            if one.name not in address.all("tag")
        ][:_NAMES],
    }


def _is_text(name: str) -> bool:
    """Whether a name can stand in an address: bytes that are no UTF-8 can't."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _time(address: Address, one: Count) -> tuple[str, int, str]:
    """Return a year or month by name, with its count and where it leads."""
    year, _, month = one.name.partition("-")
    if not month:
        following = str(int(year) + 1)
    else:
        following = f"{int(year) + 1}-01" if month == "12" else f"{year}-{int(month) + 1:02}"
    said = f"{calendar.month_name[int(month)]} {year}" if month else year
    return said, one.photos, address.but(after=one.name, before=following).url()


def _active(wanted: Wanted) -> list[tuple[str, str]]:
    """Return what is filtered by, in words, and where it is not."""
    given, address = wanted.given, wanted.address
    found = []
    if given["after"] or given["before"]:
        found.append((_between(given["after"], given["before"]), address.but(after=None, before=None)))
    if given["folder"]:
        found.append((f"in {os.path.basename(given['folder']) or given['folder']}", address.but(folder=None)))
    if given["camera"]:
        found.append((given["camera"], address.but(camera=None)))
    if given["near"]:
        *place, km = given["near"].split(",")
        found.append((f"within {km.strip()} km of {','.join(place)}", address.but(near=None)))
    found += [(f"label {label}", address.minus("tag", label)) for label in given["tag"]]
    found += [(text, address.minus("where", text)) for text in given["where"]]
    return [(shown(said), one.url()) for said, one in found]


def _between(after: str | None, before: str | None) -> str:
    if after and before:
        year, _, month = after.partition("-")
        if not month and before == str(int(year) + 1 if year.isdecimal() else 0):
            return f"in {year}"
        return f"from {after}, before {before}"
    return f"from {after}" if after else f"before {before}"
