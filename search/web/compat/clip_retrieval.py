"""What clip-retrieval's `back` (2.45) answers, so that its ClipClient and its web page find photos here.

One index, of photos, named `photos`: it has no captions to search. Of a request's body only its content counts, never
the header that says what it is. Duplicates are left out as there: of results that hang together by a cosine of 0.94,
the best stays. What would need models that are not here (safety, violence, aesthetic, mclip) is accepted and not done.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from anyio import CapacityLimiter, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from search.query import Kind, Query, Term
from search.vectors import normalize
from search.vectors.pairs import firsts
from search.web.compat import fetching
from search.web.compat.guests import PICTURE, photo_at
from search.web.problems import Problem

if TYPE_CHECKING:
    from search.library import Library
    from search.types import Hit, Photo, Pixels, Vector
    from search.web.options import ClipRetrieval

INDEX = "photos"
_MOST_IDS = 5_000  # of one answer: there may be a whole library behind it
_LONGEST = 4_000  # characters of a text
_MOST_PARTS = 50_000  # of a body's JSON
_SAME = 0.94  # cosine, where the original's own duplicates begin
_FETCHES = 4  # at the same time
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)  # s, Prometheus's own


# ---- requests


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request to /knn-service asks for: exactly one of text, image, image_url and embedding is there.

    described, most: how many results have metadata, and how many there are at all.
    """

    described: int
    most: int
    text: str | None = None
    image: bytes | None = None
    image_url: str | None = None
    embedding: tuple[float, ...] | None = None
    deduplicate: bool = False


def read_query(body: bytes) -> Asked:
    """Return what a body asks for. Raises Problem, which names the field."""
    given = _object(body)
    _check_index(given)
    if given.get("modality") != "image":
        _refuse("modality must be 'image': there are no captions to search here")
    described = _count(given, "num_images")
    most = described if given.get("num_result_ids") is None else _count(given, "num_result_ids")
    return Asked(described, most, **_example(given), deduplicate=_flag(given, "deduplicate"))


def read_ids(body: bytes) -> list[int]:
    """Return the ids whose metadata are asked for. Raises Problem."""
    given = _object(body)
    _check_index(given)
    ids = given.get("ids")
    if not isinstance(ids, list) or not all(_is_whole(id_) for id_ in ids) or len(ids) > _MOST_IDS:
        _refuse(f"ids must be a list of whole numbers, no more than {_MOST_IDS}")
    return ids


def _object(body: bytes) -> dict[str, Any]:
    if body.count(b",") + body.count(b"[") > _MOST_PARTS:  # parsed, they take a hundred times their bytes
        _refuse("the body has too many parts")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        _refuse("the body is no JSON")
    return given if isinstance(given, dict) else _refuse("the body is no JSON object")


def _check_index(given: dict[str, Any]) -> None:
    if given.get("indice_name", "") not in (None, INDEX):
        _refuse(f"indice_name must be {INDEX!r}: it is the only index here")


def _example(given: dict[str, Any]) -> dict[str, Any]:
    """Return the one thing to search by: the first that is there, in the original's order."""
    if given.get("text"):
        return {"text": _text(given, "text", most=_LONGEST)}
    if given.get("image") is not None:
        return {"image": _decoded(_text(given, "image"))}
    if given.get("image_url") is not None:
        return {"image_url": _text(given, "image_url")}
    if given.get("embedding_input") is not None:
        return {"embedding": _numbers(given["embedding_input"])}
    return _refuse("there must be one of text, image, image_url and embedding_input")


def _text(given: dict[str, Any], name: str, *, most: int | None = None) -> str:
    text = given[name]
    if not isinstance(text, str) or any("\ud800" <= char <= "\udfff" for char in text[:most]):
        _refuse(f"{name} is no text")
    if most is not None and len(text) > most:
        _refuse(f"{name} has more than {most} characters")
    return text


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        _refuse("image must be the bytes of a file in base64")


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(_is_number(one) for one in value):
        _refuse("embedding_input must be a list of numbers")
    return tuple(map(float, value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e18  # NaN is not


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _count(given: dict[str, Any], name: str) -> int:
    value = given.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _refuse(f"{name} must be a whole number, and not negative")
    return min(value, _MOST_IDS)


def _flag(given: dict[str, Any], name: str) -> bool:
    value = given.get(name)
    if value not in (None, True, False):
        _refuse(f"{name} must be true or false")
    return bool(value)


def _refuse(why: str) -> NoReturn:
    raise Problem(400, why, more={"message": why})  # where this interface's clients look for it


# ---- answers


def nearest(
    library: Library, asked: Asked, *, pixels: Pixels | None, photo: int | None
) -> list[tuple[Hit, float]]:
    """Return hits, best first, each with its similarity.

    pixels: of the picture to search by; photo: the id of one that is in the library; else it goes by `asked`.
    """
    vectors: dict[str, Vector] = {}
    length = 1.0
    if photo is not None:
        term = Term(Kind.PHOTO, str(photo))
    elif asked.text:
        term = Term(Kind.TEXT, asked.text)
    else:
        given = library.image_vectors(pixels[None])[0] if pixels is not None else np.array(asked.embedding)
        vectors, term = {"given": given}, Term(Kind.VECTOR, "given")
        length = 1.0 if asked.embedding is None else float(np.linalg.norm(given))
    if not asked.most:
        return []
    found = library.answer(Query((term,)), asked.most, examples=True, vectors=vectors).hits
    kept = _unlike(library, found) if asked.deduplicate else found
    return [(hit, hit.score * length) for hit in kept]


def _unlike(library: Library, hits: Sequence[Hit]) -> list[Hit]:
    """Return hits without those that hang together with a better one."""
    ids = [hit.photo.id for hit in hits]
    found, vectors = library.catalog.embeddings(library.model.answering(), ids)
    place = {id_: at for at, id_ in enumerate(found.tolist())}
    known = [hit for hit in hits if hit.photo.id in place]
    kept = firsts(normalize(vectors[[place[hit.photo.id] for hit in known]]), _SAME)
    return [known[at] for at in kept]


def metadata_of(photo: Photo, address: Callable[[int], str]) -> dict[str, str]:
    """Return what is told of a photo: where it is shown, its labels or else its name, and its file.

    A file whose name is no UTF-8 is left out: nothing that JSON can hold would open it.
    """
    name = os.path.splitext(os.path.basename(photo.path))[0]
    caption = ", ".join(photo.labels) or name
    readable = caption.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    file = {} if photo.path.encode("utf-8", "replace") != os.fsencode(photo.path) else {"image_path": photo.path}
    return {"url": address(photo.id), "caption": readable, **file}


# ---- over HTTP


class _Service:
    """The endpoints, and how long the searches took."""

    def __init__(self, options: ClipRetrieval) -> None:
        self._options = options
        self._fetching = CapacityLimiter(_FETCHES)
        self._seconds: list[int] = [0] * (len(_BUCKETS) + 1)
        self._sum = 0.0

    async def knn(self, request: Request) -> Response:
        """Return the photos nearest to a text, a picture, an address or a vector."""
        started = perf_counter()
        asked = read_query(await request.body())
        photo = _own_photo(request, asked.image_url)
        content = (
            asked.image if asked.image_url is None or photo else await self._fetched(request, asked.image_url)
        )
        pixels = None if content is None else await request.app.state.uploads.pixels(content)
        work = functools.partial(nearest, asked=asked, pixels=pixels, photo=photo)
        found = await request.app.state.desk.answer(work)
        self._count(perf_counter() - started)
        address = functools.partial(_address_of, request)
        return JSONResponse(
            [
                {
                    **(metadata_of(hit.photo, address) if place < asked.described else {}),
                    "id": hit.photo.id,
                    "similarity": similarity,
                }
                for place, (hit, similarity) in enumerate(found)
            ]
        )

    async def _fetched(self, request: Request, url: str) -> bytes:
        if not self._options.fetch_from:
            raise Problem(403, "This server fetches no pictures; send the picture itself.")
        limits = fetching.Limits(request.app.state.options.max_upload_bytes)
        work = functools.partial(fetching.fetch, url, self._options, limits=limits)
        return await to_thread.run_sync(work, limiter=self._fetching)

    async def indices(self, request: Request) -> Response:
        """Name the one index there is."""
        return JSONResponse([INDEX])

    async def metadata(self, request: Request) -> Response:
        """Return what is known of photos by their ids."""
        ids = [id_ for id_ in read_ids(await request.body()) if 0 < id_ < 2**63]
        photos = await request.app.state.desk.look(lambda library: library.catalog.get(ids))
        address = functools.partial(_address_of, request)
        return JSONResponse([{"id": photo.id, "metadata": metadata_of(photo, address)} for photo in photos])

    async def config(self, request: Request) -> Response:
        """Tell a web page where to ask."""
        backend = str(request.base_url).rstrip("/")
        return JSONResponse({"defaultBackend": backend, "defaultIndex": INDEX, "urlColumn": "url"})

    async def metrics(self, request: Request) -> Response:
        """Return how many queries were answered and how fast, for Prometheus."""
        return PlainTextResponse(
            "\n".join(self._exposed()) + "\n", headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def summary(self, request: Request) -> Response:
        """Return how many queries were answered and how fast, for people."""
        count = sum(self._seconds)
        if not count:
            return PlainTextResponse("No request yet, go do some")
        return PlainTextResponse(f"{count} calls to the knn end point took {self._sum / count:.4f}s on average\n")

    def _count(self, seconds: float) -> None:
        self._seconds[next((at for at, most in enumerate(_BUCKETS) if seconds <= most), len(_BUCKETS))] += 1
        self._sum += seconds

    def _exposed(self) -> list[str]:
        """The histogram as Prometheus reads it."""
        name = "full_knn_request_time"
        counts = list(accumulate(self._seconds))
        return [
            f"# HELP {name} Time spent processing knn request",
            f"# TYPE {name} histogram",
            *(f'{name}_bucket{{le="{most}"}} {n}' for most, n in zip((*_BUCKETS, "+Inf"), counts, strict=True)),
            f"{name}_count {counts[-1]}",
            f"{name}_sum {self._sum}",
        ]


def routes(options: ClipRetrieval) -> list[BaseRoute]:
    """Return the routes of the interface."""
    service = _Service(options)
    return [
        Route("/knn-service", service.knn, methods=["POST"]),
        Route("/indices-list", service.indices, methods=["GET"]),
        Route("/metadata", service.metadata, methods=["POST"]),
        Route("/config.json", service.config, methods=["GET"]),
        Route("/metrics", service.metrics, methods=["GET"]),
        Route("/metrics-summary", service.summary, methods=["GET"]),
    ]


def _address_of(request: Request, id_: int) -> str:
    return str(request.base_url).rstrip("/") + PICTURE.format(id_)


def _own_photo(request: Request, url: str | None) -> int | None:
    """Return the id of the photo that an address of this very server shows: nothing needs to be fetched for it."""
    base = str(request.base_url).rstrip("/")
    return photo_at(url.removeprefix(base)) if url is not None and url.startswith(base) else None
