"""What immich's machine learning container answers to its server, as far as it is CLIP; the rest is handed on.

An answer is of the model that was asked for by name, or there is none: vectors of two models side by side would spoil
a whole search for good, and nobody would be told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route

from search.web.compat import upstream
from search.web.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Scope

    from search.library import Library
    from search.types import Pixels, Vector
    from search.web.options import Immich

_TASK = "clip"
_TYPES = ("textual", "visual")
_LONGEST = 4_000  # characters of a text that are looked at: models read some hundred tokens at most
_HANDED_ON = 8  # at the same time
_MOST_FIELDS = 16
_PASSED = ("content-type", "accept")  # headers that go along


# ---- names


def name_at_immich(name: str) -> str:
    """Return how immich writes the name of one of our models: "ViT-B-32__laion2b_e16" for "ViT-B-32/laion2b_e16"."""
    return name.replace("/", "__") if re.fullmatch(r"[^/:]+/[^/:]+", name) else name


def is_same_model(asked: str, name: str) -> bool:
    """Say whether immich's name of a model means one of ours.

    Case, and whether words are joined by - or _, is told apart by neither; architecture and weights are both meant.
    """
    return _plain(asked) == _plain(name_at_immich(name))


def _plain(name: str) -> str:
    return re.sub(r"[:\\/]", "_", name.replace(".", "")).lower().replace("-", "_")


# ---- requests


@dataclass(frozen=True, slots=True)
class Asked:
    """One CLIP vector that is asked for: of which half of which model."""

    model: str
    is_image: bool


def read_entries(text: object) -> Asked | None:
    """Return what entries ask for, None where it is not for CLIP, or for more than CLIP. Raises Problem."""
    entries = _object(_parsed(text))
    tasks = {task: _object(types) for task, types in entries.items()}
    wanted = [(task, type_, _object(entry)) for task, types in tasks.items() for type_, entry in types.items()]
    if not wanted or not all(isinstance(entry.get("modelName"), str) for *_, entry in wanted):
        _refuse()
    if {task for task, *_ in wanted} != {_TASK}:
        return None
    [(_, type_, entry), *more] = wanted
    if more or type_ not in _TYPES:
        _refuse()
    return Asked(entry["modelName"], type_ == "visual")


def _parsed(text: object) -> object:
    if not isinstance(text, str):
        _refuse()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        _refuse()


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else _refuse()


def _refuse() -> NoReturn:
    raise Problem(422, "Invalid request format.")


def check_model(asked: str, name: str) -> None:
    """Raise Problem unless the library's model is the one that is asked for."""
    if not is_same_model(asked, name):
        shown = asked.encode("ascii", "replace").decode()[:80]
        raise Problem(404, f"This server has no {shown}: its model is {_harmless(name)}.")
    if _plain(name).startswith("nllb"):
        raise Problem(501, f"{name} must be told a text's language, which this server does not do.")


def _harmless(name: str) -> str:
    """Return a model's name without the place it lies at."""
    return name_at_immich(name) if "/" not in name_at_immich(name) else "one of its owner's own"


# ---- answers


def literal(vector: Vector) -> str:
    """Return a vector as immich hands it to its database: a text that holds a JSON array.

    Each number as short as its float32 can be told by.
    """
    return "[" + ",".join(map(str, vector)) + "]"


def text_vector(library: Library, text: str, *, model: str) -> Vector:
    """Return the vector of a text, (D,), if the library's model is the one asked for. Raises Problem."""
    short = " ".join(text.split())[:_LONGEST]
    return _by(library, model, work=lambda: library.text_vectors([short])[0])


def image_vector(library: Library, pixels: Pixels, *, model: str) -> Vector:
    """Return the vector of a picture, (D,), if the library's model is the one asked for. Raises Problem."""
    return _by(library, model, work=lambda: library.image_vectors(pixels[None])[0])


def _by(library: Library, model: str, *, work: Callable[[], Vector]) -> Vector:
    """Do some work if it is by the model asked for; it still must be afterwards, as another process may change that."""
    check_model(model, library.model.answering().name)
    vector = work()
    check_model(model, library.model.answering().name)
    return vector


# ---- over HTTP


class _Service:
    def __init__(self, options: Immich) -> None:
        self._options = options
        self._handing_on = CapacityLimiter(_HANDED_ON)

    async def root(self, request: Request) -> Response:
        """Say who answers, as immich's container does."""
        return JSONResponse({"message": "Immich ML"})

    async def ping(self, request: Request) -> Response:
        """Say that the server is there."""
        return PlainTextResponse("pong")

    async def predict(self, request: Request) -> Response:
        """Return the vector of a text or picture; hand on any other task."""
        body = await request.body()  # kept as it came: it may have to be handed on
        async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
            asked = read_entries(form.get("entries"))
            if asked is None:
                return await self._handed_on(request, body)
            return JSONResponse(await self._answered(request, form, asked))

    async def _answered(self, request: Request, form: FormData, asked: Asked) -> dict[str, object]:
        image, text = form.get("image"), form.get("text")
        if isinstance(image, UploadFile) and asked.is_image:
            return await self._image(request, await image.read(), asked.model)
        if isinstance(text, str) and image is None and not asked.is_image:
            desk = request.app.state.desk
            return {
                _TASK: literal(await desk.answer(lambda library: text_vector(library, text, model=asked.model)))
            }
        if image is None and text is None:
            raise Problem(400, "Either image or text must be provided")
        raise Problem(
            400, f"{'An image' if asked.is_image else 'A text'} is asked for, and another thing was sent."
        )

    async def _image(self, request: Request, content: bytes, model: str) -> dict[str, object]:
        state = request.app.state
        await state.desk.look(lambda library: check_model(model, library.model.answering().name))
        decoded = await state.uploads.decoded(content)
        vector = await state.desk.answer(lambda library: image_vector(library, decoded.pixels, model=model))
        return {_TASK: literal(vector), "imageHeight": decoded.info.height, "imageWidth": decoded.info.width}

    async def _handed_on(self, request: Request, body: bytes) -> Response:
        server = self._options.upstream
        if server is None:
            raise Problem(501, "This server answers for CLIP alone; it was given no upstream for other tasks.")
        headers = {name: value for name in _PASSED if (value := request.headers.get(name))}
        reply = await to_thread.run_sync(
            lambda: upstream.post(server, "/predict", body, headers=headers, timeout_s=self._options.timeout_s),
            limiter=self._handing_on,
        )
        return Response(reply.content, reply.status, media_type=reply.media_type)


class _ForPrograms(Route):
    """A route that leaves people with a browser to the page that is there, too."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


def routes(options: Immich) -> list[BaseRoute]:
    """Return the routes of the interface; they stand before the page's."""
    service = _Service(options)
    return [
        _ForPrograms("/", service.root, methods=["GET"]),
        Route("/ping", service.ping, methods=["GET"]),
        Route("/predict", service.predict, methods=["POST"]),
    ]
