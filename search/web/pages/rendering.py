"""Values → HTML: the one environment of templates. Everything is escaped, and a name that is not there is an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from search.photos.keywords import printable
from search.plurals import noun_of
from search.web.pages import statics

_FOLDER = Path(__file__).parent.parent / "templates"


def render(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page made of a template.

    Templates know beside `values`: `request`, `form_token` for hidden fields of that name, `static(name)`; the filters
    `name` (of a path, its last part), `shown` (a text from outside, without what hides or turns other text),
    `number` (1,234), `counted` (1,234 photos), `plural` (of a noun, for so many),
    `percent` (0.873 → 87 %), `size` (of bytes), `sentence` (begins with a capital).
    """
    token = request.scope.get("state", {}).get("form_token", "")
    return HTMLResponse(filled(name, request=request, form_token=token, **values), status)


def filled(name: str, **values: Any) -> str:
    """Return the text that a template and values make."""
    return readable(_environment().get_template(name).render(**values))


def readable(text: str) -> str:
    """Return text that can be sent: bytes of names that are no UTF-8 become the sign for what can't be read."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["static"] = statics.address
    filters: dict[str, Callable[..., str]] = {
        "name": name_of,
        "shown": shown,
        "number": lambda value: f"{value:,}",
        "counted": lambda value, noun: f"{value:,} {noun_of(value, noun)}",
        "plural": noun_of,
        "percent": percent,
        "sentence": lambda text: text[:1].upper() + text[1:],
        "size": size,
    }
    environment.filters.update(filters)
    return environment


def name_of(path: str) -> str:
    """Return the last part of a path as it can be shown."""
    return shown(os.path.basename(path))


def shown(text: str) -> str:
    """Return a text on one line, without characters that can't be seen, or that hide or turn others."""
    return printable(readable(text)) or "(no name)"


def percent(share: float) -> str:
    """Return a share in words; one that is not all or nothing is not rounded to that."""
    value = round(100 * share)
    if value >= 100 and share < 1:
        value = 99
    return f"{'<1' if value == 0 and share > 0 else value} %"


def size(of_bytes: int) -> str:
    """Return a number of bytes as people say it."""
    amount = float(of_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError
