"""The OpenAPI document, made of the table that the routes are made of."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from search import __version__

if TYPE_CHECKING:
    from search.web.api import Operation
    from search.web.asking import Parameter, Schema

_ALWAYS = (400, 401, 403, 421, 429, 500)  # what the guard or anything may answer
_PROBLEMS = {
    400: "The request can't be understood, or asks for what can't be meant.",
    401: "It has no token, or a wrong one.",
    403: "It comes from someone or from a site that is not let in.",
    404: "There is no such photo, label or run, or the photo's file can't be reached.",
    408: "The rest of the body did not come in time.",
    409: "Not as things are: a job runs, another process writes, the photo is gone or its file changed.",
    413: "The body is too large.",
    415: "The body is of another type.",
    421: "The server does not answer to this Host.",
    422: "A picture can't be used.",
    429: "Too many requests; `Retry-After` says when to come again.",
    500: "Something went wrong; the server's own output says what.",
    503: "The library or its model can't answer now.",
    507: "The library's disk is full or can't be written to.",
}


@functools.cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the REST interface."""
    from search.web.table import OPERATIONS

    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Search",
            "version": __version__,
            "description": "Find photos by describing them. Errors are problem+json (RFC 9457); answers have ETags.",
        },
        "paths": paths,
        "security": [{}, {"token": []}, {"cookie": []}],
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "search_token"},
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    parameters = [_in_address(one) for one in operation.parameters]
    if "{id}" in operation.path:
        schema = {"type": "integer", "minimum": 0, "maximum": 10**18 - 1}
        parameters.insert(0, {"name": "id", "in": "path", "required": True, "schema": schema})
    answers: dict[str, Any] = {str(operation.status): _answer(operation)}
    if operation.method == "GET":
        answers["304"] = {"description": "What the caller has already, by If-None-Match."}
    for status in sorted({*_ALWAYS, *operation.problems}):
        answers[str(status)] = _problem(status)
    return {
        "operationId": operation.name,
        "summary": operation.about,
        "parameters": parameters,
        **({"requestBody": _body(operation)} if operation.body else {}),
        "responses": answers,
    }


def _in_address(one: Parameter) -> dict[str, Any]:
    return {"name": one.name, "in": "query", "description": one.about, "schema": _schema(one)}


def _schema(one: Parameter) -> Schema:
    return one.schema if one.default is None else {**one.schema, "default": one.default}


_MEDIA: dict[str, dict[str, Any]] = {
    "text/event-stream": {},
    "application/json": {"schema": {"type": "object"}},
}
"""Kinds of files that are no mere bytes."""


def _answer(operation: Operation) -> dict[str, Any]:
    headers = {"ETag": {"schema": {"type": "string"}}}
    if operation.answer is None:
        anything = {"schema": {"type": "string", "format": "binary"}}
        media = {kind: _MEDIA.get(kind, anything) for kind in operation.media}
    else:
        media = {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.answer}"}}}
    return {"description": operation.about, "headers": headers, "content": media}


def _problem(status: int) -> dict[str, Any]:
    media = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": _PROBLEMS[status], "content": media}


def _body(operation: Operation) -> dict[str, Any]:
    asked = _object({one.name: {**_schema(one), "description": one.about} for one in operation.body}, required=())
    content: dict[str, Any] = {"application/json": {"schema": asked}}
    if operation.uploads:
        pictures = {"type": "array", "items": {"type": "string", "format": "binary"}, "maxItems": 4}
        form = _object({"image": pictures, "query": asked}, required=())
        content["multipart/form-data"] = {
            "schema": form,
            "encoding": {"query": {"contentType": "application/json"}},
        }
    return {"required": True, "content": content}


# ---- what answers look like


def _object(properties: dict[str, Any], *, required: tuple[str, ...] | None = None, open_: bool = False) -> Schema:
    """Return the schema of an object.   required: None for all of it.   open_: there may be more in it."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
        "additionalProperties": open_,
    }


def _list(name: str) -> Schema:
    return {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}


def _or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


_STRING, _INTEGER, _NUMBER, _FLAG = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))
_STRINGS: Schema = {"type": "array", "items": _STRING}
_PHOTO: dict[str, Any] = {
    "id": _INTEGER,
    "path": {"type": "string", "description": "Absolute; what is not UTF-8 in it comes as surrogate escapes."},
    "path_bytes": {"type": "string", "description": "Base64, where the path is not UTF-8."},
    "width": _or_null("integer"),
    "height": _or_null("integer"),
    "taken_at": _or_null("string"),
    "camera": _or_null("string"),
    "latitude": _or_null("number"),
    "longitude": _or_null("number"),
    "labels": _STRINGS,
}
_RELEVANCE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_CLAUSE = _object({"text": _STRING, "score": _NUMBER, "relevance": _RELEVANCE, "holds": _FLAG})
_HIT = {
    "rank": {"type": "integer", "minimum": 1},
    "score": {"type": "number", "description": "The cosine."},
    "relevance": _RELEVANCE,
    **_PHOTO,
    "clauses": {"type": "array", "items": _CLAUSE},
}
_ANSWER = {
    "query": _STRING,
    "encoder": _STRING,
    "hits": _list("Hit"),
    "candidates": {"type": "integer", "description": "Photos that passed the filter."},
    "truncated_tokens": _INTEGER,
    "clauses": _STRINGS,
    "cut": {"type": "number", "description": "The relevance below which photos were dropped."},
    "below": _INTEGER,
    "best": _or_null("number"),
    "seconds": _NUMBER,
    "offset": _INTEGER,
    "next_offset": _or_null("integer"),
}
_RECORD = {
    "label": _STRING,
    "source": _STRING,
    "probability": _or_null("number"),
    "score": _or_null("number"),
    "encoder": _or_null("string"),
    "run": _or_null("integer"),
    "rejected": _FLAG,
    "created_at": _or_null("string"),
}
_WHOLE_PHOTO = {
    **_PHOTO,
    "root": _STRING,
    "format": _or_null("string"),
    "size_bytes": _INTEGER,
    "mtime_ns": _INTEGER,
    "content_hash": _STRING,
    "orientation": _INTEGER,
    "taken_at_source": _or_null("string"),
    "lens": _or_null("string"),
    "rating": _or_null("integer"),
    "keywords": _STRINGS,
    "gone_at": _or_null("string"),
    "label_records": _list("LabelRecord"),
}
_COUNTS = ("photos", "proposed", "accepted", "imported", "rejected", "in_files", "judged", "right")
_PRECISION = {**_object({"low": _NUMBER, "share": _NUMBER, "high": _NUMBER}), "type": ["object", "null"]}
_LABEL = {"label": _STRING, **dict.fromkeys(_COUNTS, _INTEGER), "precision": _PRECISION}
_SKIP = {"path": _STRING, "path_bytes": _STRING, "reason": _STRING, "detail": _STRING}
_ROOT = _object(
    {"path": _STRING, "path_bytes": _STRING, "state": {"enum": ["online", "offline"]}, "photos": _INTEGER},
    required=("path", "state", "photos"),
)
_STATUS = {
    "library": _STRING,
    "photos": _INTEGER,
    "roots": {"type": "array", "items": _ROOT},
    "encoders": {"type": "array", "items": _object({"name": _STRING, "dim": _INTEGER, "photos": _INTEGER})},
    "index": _object(
        {"kind": _STRING, "vectors": _INTEGER, "bytes": _INTEGER},
        required=("kind", "vectors", "bytes"),
        open_=True,
    ),
    "skipped": _INTEGER,
    "schema": _STRING,
    "job": {"type": ["object", "null"]},
}
_PAGED = {"total": _INTEGER, "offset": _INTEGER, "next_offset": _or_null("integer")}
_PROBLEM = {
    "type": _STRING,
    "title": _STRING,
    "status": _INTEGER,
    "detail": _STRING,
    "error": {"type": "string", "description": "The kind of error, as the command line names it."},
    "column": {"type": "integer", "description": "Where in the query, counted from 1."},
    "reason": {"type": "string", "description": "Why a picture or a file can't be used."},
    "parameter": {"type": "string", "description": "What was wrong in the request."},
}


_JOB = {
    "id": _INTEGER,
    "kind": {"enum": ["index", "label"]},
    "folder": _STRING,
    "folder_bytes": _STRING,
    "labels": _STRINGS,
    "label_set": _or_null("string"),
    "state": {"enum": ["running", "done", "interrupted", "failed"]},
    "stopping": _FLAG,
    "stage": _or_null("string"),
    "done": _INTEGER,
    "total": _or_null("integer"),
    "started_at": _STRING,
    "finished_at": _or_null("string"),
    "report": {
        "type": ["object", "null"],
        "description": "What the command line prints, with the first 100 of `skipped` and how many there are, or of a "
        "labelling `counts` by label.",
    },
    "problem": {"type": ["object", "null"], "description": "Why nothing came of it: `status`, `detail`."},
}
_RUN = {
    "run": _INTEGER,
    "kind": _STRING,
    "started_at": _STRING,
    "encoder": _or_null("string"),
    "label_set": _or_null("string"),
    "templates": _or_null("string"),
    "photos": _INTEGER,
    "labels": _INTEGER,
    "details": {"type": "object"},
    "undone_at": _or_null("string"),
}
_QUESTION = {
    "id": _INTEGER,
    "path": _STRING,
    "path_bytes": _STRING,
    "label": _STRING,
    "probability": _NUMBER,
    "uncertainty": _NUMBER,
    "why": _STRING,
}
_TAG_REPORT = {
    "run": _or_null("integer"),
    "photos": _INTEGER,
    "labels": _INTEGER,
    "unchanged": _INTEGER,
    "new": _STRINGS,
}
_UNDO = {
    "run": _INTEGER,
    "kind": _STRING,
    **dict.fromkeys(("labels", "verdicts", "photos", "sidecars"), _INTEGER),
    "skipped": _list("Skip"),
}


def _without(properties: dict[str, Any], *optional: str) -> Schema:
    return _object(properties, required=tuple(name for name in properties if name not in optional))


SCHEMAS: dict[str, Schema] = {
    "Answer": _without(_ANSWER, "clauses"),
    "Hit": _without(_HIT, "clauses", "path_bytes"),
    "WholePhoto": _without(_WHOLE_PHOTO, "path_bytes"),
    "LabelRecord": _object(_RECORD),
    "Labels": _object({"labels": _list("Label"), **_PAGED}),
    "Label": _object(_LABEL),
    "Status": _object(_STATUS),
    "Skipped": _object({"skipped": _list("Skip"), **_PAGED}),
    "Skip": _without(_SKIP, "path_bytes"),
    "JobAnswer": _object(
        {"job": {**_without(_JOB, "folder", "folder_bytes", "labels", "label_set"), "type": ["object", "null"]}}
    ),
    "Runs": _object({"runs": _list("Run"), **_PAGED}),
    "Run": _object(_RUN),
    "Review": _object({"items": _list("Question"), "left": _INTEGER}),
    "Question": _without(_QUESTION, "path_bytes"),
    "TagReport": _object(_TAG_REPORT),
    "UndoReport": _object(_UNDO),
    "Document": {"type": "object"},
    "Problem": _object(_PROBLEM, required=("type", "title", "status", "detail")),
}
