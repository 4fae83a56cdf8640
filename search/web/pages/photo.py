"""A photo's own page: the picture large, everything known of it, what is like it, and its neighbours in the results."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from search.errors import LibraryError, QueryError, UnknownPhoto, UsageError
from search.types import LabelSource, TakenAtSource
from search.web.api import id_of
from search.web.compat.guests import PICTURE
from search.web.pages.asked import Address, Wanted
from search.web.pages.rendering import render, size
from search.web.pages.searching import large_picture, page_with, picture, said_of
from search.web.problems import Problem
from search.web.querying import Asked

if TYPE_CHECKING:
    from search.types import LabelRecord, Photo
    from search.web.desk import Desk

_SIMILAR = 24
_SHOWN = 12  # of the similar photos, those that are not the same left out
_AROUND_KM = 1
_DEGREES = 5  # decimals: a metre


@dataclass(frozen=True, slots=True)
class Around:
    """What lies around a photo: those that show the same, those that are like it, in order."""

    same: tuple[Photo, ...] = ()
    similar: tuple[Photo, ...] = ()


def routes() -> list[BaseRoute]:
    return [Route("/photos/{id}", page)]


async def page(request: Request) -> Response:
    """GET /photos/ID: what is known of a photo; with a search and `at`, its place in the results."""
    id_, desk = id_of(request), request.app.state.desk
    photo: Photo = await desk.look(lambda library: library.photo(id_))
    records = await desk.look(lambda library: library.tags.of([id_])[id_])
    around = await _around(desk, photo)
    back, before, after = await _neighbours(request, photo)
    return render(
        request,
        "photo.html",
        section="search",
        photo=photo,
        facts=facts(photo),
        place=place_of(photo),
        labels=[(record, why(record)) for record in records if not record.rejected],
        rejected=sorted({record.label for record in records if record.rejected}),
        around=around,
        picture=picture,
        large=_large(photo),
        original=PICTURE.format(photo.id),
        back=back,
        before=before,
        after=after,
        said=said_of(photo),
    )


def _large(photo: Photo) -> dict[str, Any]:
    width = photo.info.width
    return large_picture(photo, f"(max-width: 1000px) min(100vw, {width}px), min(70vw, {width}px)")


async def _around(desk: Desk, photo: Photo) -> Around:
    """Return what is like a photo; nothing where it is gone, or there is no model to tell."""
    if photo.gone_at is not None:
        return Around()
    given = {**dict.fromkeys(("folder", "after", "before", "camera", "near")), "tag": (), "where": ()}
    asked = Asked.like(photo.id, {**given, "k": _SIMILAR, "offset": 0, "min_relevance": None, "diverse": False})

    try:
        found = [hit.photo for hit in (await desk.answer(asked.answered)).hits]
    except (UsageError, LibraryError):
        return Around()
    same, *_ = await desk.look(lambda library: library.folded([photo, *found]))
    like = [other for other in found if other.id not in same]
    return Around(tuple(other for other in found if other.id in same), tuple(like[:_SHOWN]))


Neighbour: TypeAlias = dict[str, Any] | None
"""Where the page of a photo beside another is, as `url`, and the attributes of its large picture."""


async def _neighbours(request: Request, photo: Photo) -> tuple[str, Neighbour, Neighbour]:
    """Return where the results are that a photo was opened from, and the photos before and after it there."""
    address = Address.of(request.query_params)
    try:
        wanted = Wanted.of(address, request.app.state.pictures)
        at = wanted.given["at"]
        if at is None:
            return address.url(), None, None
        found = await _short(request.app.state.desk, wanted, max(at - 1, 0), 3)
    except (QueryError, UsageError, UnknownPhoto, Problem):
        return "/", None, None
    back = page_with(address, at).url() + f"#photo-{photo.id}"
    here = next((place for place, one in enumerate(found) if one.id == photo.id), None)
    if here is None:  # the library is another than it was
        return back, None, None
    beside: dict[int, Neighbour] = {
        step: {"url": address.but(at=str(at + step)).url(f"/photos/{found[here + step].id}")}
        | _large(found[here + step])
        for step in (-1, 1)
        if 0 <= here + step < len(found)
    }
    return back, beside.get(-1), beside.get(1)


async def _short(desk: Desk, wanted: Wanted, offset: int, k: int) -> list[Photo]:
    """Return the photos of a short page of results."""
    if not wanted.terms:
        filter_ = wanted.filter
        return list((await desk.look(lambda library: library.browse(k, offset=offset, filter=filter_))).photos)
    found = await desk.answer(wanted.asked(offset=offset, k=k).answered)
    return [hit.photo for hit in found.hits[offset : offset + k]]


# ---- in words


def facts(photo: Photo) -> list[tuple[str, str]]:
    """Return what is known of a photo's file, as names and texts."""
    info = photo.info
    when = info.taken_at.strftime("%A, %d %B %Y, %H:%M:%S") if info.taken_at else ""
    zone = f"({info.taken_at.tzname()})" if info.taken_at and info.taken_at.tzinfo else ""
    by_file = " (the file's time)" if info.taken_at_source == TakenAtSource.FILE else ""
    stars = {-1: "rejected", 0: "none"}.get(info.rating or 0, "★" * (info.rating or 0))
    known = [
        ("Taken", " ".join(filter(None, (when, zone))) + by_file if when else ""),
        ("Camera", info.camera or ""),
        ("Lens", info.lens or ""),
        ("Size", f"{info.width:,} × {info.height:,} pixels, {info.width * info.height / 1e6:.1f} megapixels"),
        ("File", f"{info.format.upper()}, {size(photo.size_bytes)}"),
        ("Turned by EXIF", f"orientation {info.orientation}" if info.orientation != 1 else ""),
        ("Rating", stars if info.rating is not None else ""),
        ("Keywords", ", ".join(info.keywords)),
        ("Folder", os.path.dirname(photo.path)),
        ("Gone since", photo.gone_at.strftime("%d %B %Y") if photo.gone_at else ""),
    ]
    return [(name, text) for name, text in known if text]


def place_of(photo: Photo) -> tuple[str, str] | None:
    """Return where a photo was taken, in numbers, and where photos around it are."""
    latitude, longitude = photo.info.latitude, photo.info.longitude
    if latitude is None or longitude is None:
        return None
    said = f"{abs(latitude):.{_DEGREES}f}° {'N' if latitude >= 0 else 'S'}, "
    said += f"{abs(longitude):.{_DEGREES}f}° {'E' if longitude >= 0 else 'W'}"
    near = f"{latitude:.{_DEGREES}f},{longitude:.{_DEGREES}f},{_AROUND_KM}"
    return said, Address().but(near=near).url()


def why(record: LabelRecord) -> str:
    """Say where a label is from."""
    if record.source == LabelSource.ZERO_SHOT:
        share = f", {round(100 * record.probability)} % sure" if record.probability is not None else ""
        return f"proposed by {record.encoder or 'a model'}{share}" + _run(record)
    if record.source == LabelSource.FILE:
        return "a keyword of the file"
    return ("taken over" if record.source == LabelSource.IMPORT else "said by you") + _run(record)


def _run(record: LabelRecord) -> str:
    return f" (run {record.run})" if record.run is not None else ""
