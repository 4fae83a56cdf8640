"""Pictures that people search by: sent once, then named in addresses by a key, until newer ones take their place."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from search.web.problems import Problem
from search.web.tokens import check_form_token

if TYPE_CHECKING:
    from search.types import Vector

_MOST = 500  # some 20 kB each
_FIELD_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Sent:
    """A picture that was sent.   vector: (D,).   small: what is shown of it, a WebP file."""

    vector: Vector
    small: bytes


class Pictures:
    """The latest pictures by their keys: the hash of their content, which nobody guesses who has not sent it."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: OrderedDict[str, Sent] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, key: str, sent: Sent) -> None:
        """Take a picture in, as the latest."""
        with self._lock:
            self._kept[key] = sent
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)

    def get(self, key: str) -> Sent | None:
        """Return a picture, None if it is not here any more."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)


def routes() -> list[BaseRoute]:
    return [Route("/pictures", _send, methods=["POST"]), Route("/pictures/{key}", _small)]


async def _send(request: Request) -> Response:
    """POST /pictures: a form with `image`, and in `back` the query of the page that is to be searched further."""
    async with request.form(max_files=1, max_fields=4, max_part_size=_FIELD_BYTES) as form:
        check_form_token(request.scope, form.get("form_token"))
        image, back = form.get("image"), form.get("back", "")
        if not isinstance(image, UploadFile):
            raise Problem(400, "There is no picture in the form.")
        content = await image.read()
    key = await _kept(request, content)
    pairs = [(name, value) for name, value in parse_qsl(back if isinstance(back, str) else "") if name != "offset"]
    if ("picture", key) not in pairs:
        pairs.append(("picture", key))
    return RedirectResponse(f"/?{urlencode(pairs)}", 303)


async def _kept(request: Request, content: bytes) -> str:
    from search.photos.thumbnails import webp

    decoded = await request.app.state.uploads.decoded(content)
    pixels = decoded.pixels
    vectors = await request.app.state.desk.answer(lambda library: library.image_vectors(pixels[None]))
    key: str = decoded.content_hash.hex()[:32]
    request.app.state.pictures.keep(key, Sent(vectors[0], webp(pixels)))
    return key


async def _small(request: Request) -> Response:
    """GET /pictures/KEY: what is shown of a picture that was sent."""
    sent = request.app.state.pictures.get(request.path_params["key"])
    if sent is None:
        raise Problem(404, "The picture is not here any more: send it again.")
    return Response(sent.small, media_type="image/webp", headers={"Cache-Control": "private, max-age=86400"})
