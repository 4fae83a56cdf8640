"""What a form of a page sent."""

from __future__ import annotations

from starlette.datastructures import FormData
from starlette.requests import Request

from search.web.tokens import check_form_token

_MOST_FIELDS, _FIELD_BYTES = 40, 2**17


async def sent(request: Request) -> FormData:
    """Return the fields. Raises Problem for a form of a page that this server did not make."""
    async with request.form(max_files=0, max_fields=_MOST_FIELDS, max_part_size=_FIELD_BYTES) as form:
        check_form_token(request.scope, form.get("form_token"))
        return form


def text(form: FormData, name: str) -> str:
    """Return a field, "" where it is not there."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def wants_part(request: Request) -> bool:
    """Whether a script asks, for the part of the page that changes."""
    return request.headers.get("x-part") == "1"
