"""The REST interface: what the command line prints as JSON, at addresses below /api.

`OPERATIONS` is what can be asked, in the one table that routes are made from and the OpenAPI document tells of
(search.web.table); what changes the library stands in search.web.working.

Pages are asked for by `offset` and `k`, not by a cursor. An answer is the best of a ranking that the query and the
library's state alone decide: nothing need be remembered here, any page can be asked for, also one before, and a link to
it holds. What is indexed meanwhile can move a photo from one page to the next; the ETag tells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from search import documents
from search.errors import UnknownPhoto
from search.web import originals
from search.web.asking import Parameter, Schema, of_address, of_document
from search.web.desk import Desk
from search.web.problems import Problem
from search.web.querying import Asked

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Photo

Handler = Callable[[Request, dict[str, Any]], Awaitable[Response]]

_MOST_PICTURES = 4
_FIELD_BYTES = 2**17
MOST = 10_000  # a ranking is made no further


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be done.

    answer: the schema of its document, None for a file, whose kinds `media` names.   parameters: in the address.
    body: in a JSON body; uploads: the body may be a form, too, with pictures.   problems: statuses of errors that are
    its own.   status: of an answer.
    """

    method: str
    path: str
    name: str
    about: str
    handler: Handler
    answer: str | None
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Parameter, ...] = ()
    uploads: bool = False
    problems: tuple[int, ...] = field(default=())
    status: int = 200
    media: tuple[str, ...] = ("image/*", "application/octet-stream")


def routes(operations: Sequence[Operation]) -> list[BaseRoute]:
    """Return the routes of the interface, one for each path."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(those), methods=list(those)) for path, those in paths.items()]


def _endpoint(operations: dict[str, Operation]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        operation = operations["GET" if request.method == "HEAD" else request.method]
        return await operation.handler(request, of_address(request.query_params, operation.parameters))

    return endpoint


def desk_of(request: Request) -> Desk:
    """Return whose turn it is to ask the library."""
    desk: Desk = request.app.state.desk
    return desk


# ---- answers


def answer(request: Request, document: dict[str, Any], *, status: int = 200) -> Response:
    """Return a document with its ETag; 304 and nothing else where the caller has it already.

    The ETag is weak: it is of all but the seconds that an answer took.
    """
    said = {name: value for name, value in document.items() if name != "seconds"}
    tag = f'W/"{hashlib.sha256(_json(said)).hexdigest()[:32]}"'
    if request.method in ("GET", "HEAD") and _has(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(_json(document), status, media_type="application/json", headers={"ETag": tag})


def _has(request: Request, tag: str) -> bool:
    """Whether the caller says that it has what an ETag is of, compared weakly (RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag.removeprefix("W/") in {
        one.strip().removeprefix("W/") for one in given.split(",")
    }


def _json(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=True, allow_nan=False).encode()


# ---- searching


async def _search(request: Request, given: dict[str, Any]) -> Response:
    return await _found(request, Asked.of(given))


async def _search_by_body(request: Request, given: dict[str, Any]) -> Response:
    """Search for what a JSON document says, or a form with that in its field `query` and pictures beside it."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return await _found(request, Asked.of(of_document(await _text_of(request), SEARCH_BY_BODY)))
    if kind != "multipart/form-data":
        raise Problem(415, "The body is either application/json or multipart/form-data.")
    async with request.form(max_files=_MOST_PICTURES, max_fields=1, max_part_size=_FIELD_BYTES) as form:
        pictures = [one for name, one in form.multi_items() if name == "image" and isinstance(one, UploadFile)]
        query = form.get("query", "{}")
        if not isinstance(query, str) or len(form.multi_items()) != len(pictures) + ("query" in form):
            raise Problem(400, "A form has pictures as `image`, and JSON in one field `query`.")
        contents = [await picture.read() for picture in pictures]
    asked = Asked.of(of_document(query.encode("utf-8", "replace"), SEARCH_BY_BODY), pictures=len(contents))
    pixels = [await request.app.state.uploads.pixels(content) for content in contents]
    return await _found(request, asked.showing(pixels))


async def _text_of(request: Request) -> bytes:
    """Return a body of JSON, which may be no longer than in a form: to parse it takes many times its size."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FIELD_BYTES:
            raise Problem(413, f"A query may have {_FIELD_BYTES} bytes at most.")
    return body


async def _found(request: Request, asked: Asked) -> Response:
    found = await desk_of(request).answer(asked.answered)
    return answer(request, asked.page(documents.answer_document(found)))


# ---- photos


async def _photo(request: Request, given: dict[str, Any]) -> Response:
    id_ = id_of(request)

    def everything(library: Library) -> dict[str, Any]:
        document = documents.whole_photo_document(library.photo(id_))
        records = library.tags.of([id_])[id_]
        return {**document, "label_records": [documents.record_document(record) for record in records]}

    return answer(request, await desk_of(request).look(everything))


async def _similar(request: Request, given: dict[str, Any]) -> Response:
    photo = await _known(request)
    if photo.gone_at is not None:
        raise Problem(409, "The photo is gone: its file was not found by the last run.")
    return await _found(request, Asked.like(photo.id, given))


async def _original(request: Request, given: dict[str, Any]) -> Response:
    photo = await _known(request)
    file = await desk_of(request).look(lambda library: originals.opened(photo, library.sources))
    if _has(request, originals.tag(photo)):
        file.close()
        return Response(status_code=304, headers={"ETag": originals.tag(photo)})
    return originals.sent(photo, file, is_head=request.method == "HEAD")


async def _known(request: Request) -> Photo:
    id_ = id_of(request)
    return await desk_of(request).look(lambda library: library.photo(id_))


def id_of(request: Request) -> int:
    """Return the id in an address. Raises UnknownPhoto for what can be none."""
    text: str = request.path_params["id"]
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise UnknownPhoto("There is no such photo in the library.")
    return int(text)


# ---- the library


async def _status(request: Request, given: dict[str, Any]) -> Response:
    found = await desk_of(request).look(lambda library: library.status())
    return answer(request, documents.status_document(found))


async def _labels(request: Request, given: dict[str, Any]) -> Response:
    found = await desk_of(request).look(lambda library: library.tags.labels())
    return answer(request, listed("labels", found, documents.label_document, given))


async def _skipped(request: Request, given: dict[str, Any]) -> Response:
    found = await desk_of(request).look(lambda library: library.skipped())
    return answer(request, listed("skipped", found, documents.skip_document, given))


def listed(
    name: str, found: Sequence[Any], document_of: Callable[[Any], dict[str, Any]], given: dict[str, Any]
) -> dict[str, Any]:
    """Return one page of a list."""
    begin, end = given["offset"], given["offset"] + given["k"]
    return {
        name: [document_of(one) for one in found[begin:end]],
        "total": len(found),
        "offset": begin,
        "next_offset": end if end < len(found) else None,
    }


async def _openapi(request: Request, given: dict[str, Any]) -> Response:
    from search.web import openapi

    return answer(request, openapi.document())


# ---- the table

TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 1000}
_EXAMPLE: Schema = {"type": "string", "pattern": r"^([0-9]{1,9}(\.[0-9]{1,9})?:)?[0-9]{1,18}$", "maxLength": 40}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema, "maxItems": 16}


_PAGE = (
    Parameter("k", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many at most.", 10),
    Parameter("offset", {"type": "integer", "minimum": 0, "maximum": MOST - 1}, "How many to pass over first.", 0),
)
LIST_PAGE = (
    Parameter("k", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many at most.", 100),
    Parameter("offset", {"type": "integer", "minimum": 0, "maximum": 10**9}, "How many to pass over first.", 0),
)
FILTER = (
    Parameter("folder", TEXT, "Only photos in this folder and below; an absolute path."),
    Parameter("after", TEXT, "Taken on this date or later: 2024, 2024-05, 2024-05-01, 2024-05-01T18:30+02:00."),
    Parameter("before", TEXT, "Taken before this date."),
    Parameter("camera", TEXT, "The camera's name has this in it."),
    Parameter("near", TEXT, "LAT,LON,KM: taken within so many kilometres of this place."),
    Parameter("tag", many(TEXT), "Has this label, or one below it."),
    Parameter("where", many(TEXT), "A condition such as `rating >= 4 and not has gps`."),
    Parameter("min_relevance", {"type": "number", "minimum": 0, "maximum": 1}, "Drop hits below."),
    Parameter(
        "diverse", {"type": "boolean"}, "Photos unlike each other rather than the best; one page only.", False
    ),
)
_WORDS = (
    Parameter(
        "q",
        {"type": "string", "minLength": 1, "maxLength": 2000},
        "What to look for: `red car + 2:beach - people + like:12`, where 12 is a photo's id.",
    ),
    Parameter("not", many(TEXT), "Push away from this text."),
    Parameter("like", many(_EXAMPLE), "Like the photo of this id; a weight may stand in front: `2:12`."),
    Parameter("unlike", many(_EXAMPLE), "Push away from the photo of this id."),
    Parameter("template", many(TEXT), "Texts are put into this at {}; several are averaged."),
)
_WEIGHTS = Parameter(
    "image_weights",
    {
        "type": "array",
        "items": {"type": "number", "minimum": -1000, "maximum": 1000},
        "maxItems": _MOST_PICTURES,
    },
    "How much each picture that is sent along counts, in their order; less than 0 pushes away. Else 1.",
)
SEARCH = (*_WORDS, *FILTER, *_PAGE)
SEARCH_BY_BODY = (*SEARCH, _WEIGHTS)

OPERATIONS = (
    Operation(
        "GET",
        "/api/search",
        "search",
        "Find photos by description, by example, or both.",
        _search,
        "Answer",
        parameters=SEARCH,
        problems=(404, 503),
    ),
    Operation(
        "POST",
        "/api/search",
        "searchByBody",
        "Find photos as GET does, and by pictures that are sent along.",
        _search_by_body,
        "Answer",
        body=SEARCH_BY_BODY,
        uploads=True,
        problems=(404, 408, 413, 415, 422, 503),
    ),
    Operation(
        "GET",
        "/api/photos/{id}",
        "photo",
        "Everything known of one photo.",
        _photo,
        "WholePhoto",
        problems=(404, 503),
    ),
    Operation(
        "GET",
        "/api/photos/{id}/similar",
        "similar",
        "The photos most like one, itself left out.",
        _similar,
        "Answer",
        parameters=(*FILTER, *_PAGE),
        problems=(404, 409, 503),
    ),
    Operation(
        "GET",
        "/api/photos/{id}/original",
        "original",
        "The photo's file as it was indexed.",
        _original,
        None,
        problems=(404, 409, 503),
    ),
    Operation(
        "GET",
        "/api/labels",
        "labels",
        "Every label, how often it is there and how good it is.",
        _labels,
        "Labels",
        parameters=LIST_PAGE,
        problems=(503,),
    ),
    Operation("GET", "/api/status", "status", "What the library holds.", _status, "Status", problems=(503,)),
    Operation(
        "GET",
        "/api/skipped",
        "skipped",
        "The files that could not be indexed, with reasons.",
        _skipped,
        "Skipped",
        parameters=LIST_PAGE,
        problems=(503,),
    ),
    Operation("GET", "/api/openapi.json", "openapi", "This document.", _openapi, "Document"),
)
