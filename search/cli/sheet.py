"""A contact sheet: answers with their pictures as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from search.types import Answer, Hit

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }}
body {{ margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }}
h2 {{ font-size: 1.1rem; font-weight: 600; margin: 2rem 0 .75rem; }}
ol {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); list-style: none;
      margin: 0; padding: 0; }}
img {{ aspect-ratio: 1; background: #8882; border-radius: .5rem; display: block; object-fit: contain; width: 100%; }}
figure {{ margin: 0; }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere; padding-top: .35rem; }}
.score {{ font-variant-numeric: tabular-nums; opacity: .7; }}
a {{ color: inherit; text-decoration: none; }}
</style>
<h1>{title}</h1>
{sections}
</html>"""

_SECTION = "<section>\n<h2>{query}</h2>\n<ol>\n{photos}\n</ol>\n</section>"

_PHOTO = (
    '<li><figure><a href="{link}"><img src="{picture}" alt="{name}" loading="lazy"></a>'
    '<figcaption>{name}<br><span class="score">{score:.3f} · {relevance:.0%}</span></figcaption></figure></li>'
)


def contact_sheet(answers: Sequence[Answer], *, title: str = "Search") -> str:
    """Return an HTML document with a section for each answer, thumbnails inside it."""
    sections = "\n".join(
        _SECTION.format(query=escape(answer.query), photos="\n".join(map(_photo, answer.hits)))
        for answer in answers
    )
    return _PAGE.format(title=escape(title), sections=sections)


def _photo(hit: Hit) -> str:
    path = hit.photo.path
    name = os.fsencode(os.path.basename(path)).decode("utf-8", "replace")
    return _PHOTO.format(
        link=escape("file://" + quote(os.fsencode(path)), quote=True),
        picture=_picture(path),
        name=escape(name, quote=True),
        score=hit.score,
        relevance=hit.relevance,
    )


def _picture(path: str) -> str:
    """The thumbnail as a data URL; empty where the file can't be read now."""
    from search.errors import PhotoError
    from search.photos.thumbnails import thumbnail

    try:
        return "data:image/jpeg;base64," + base64.b64encode(thumbnail(path)).decode()
    except PhotoError:
        return ""
