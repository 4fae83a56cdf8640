"""A contact sheet: photos in titled groups as one HTML file that needs nothing else.

Pictures are inside it, originals are linked. Its policy lets it load nothing but files, and run nothing but its own
script, whatever stands in a file's name.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from search.cli.destination import GENERATOR
from search.cli.output import printable, taken_at, why_empty
from search.resources import data_path

if TYPE_CHECKING:
    from search.types import Answer, Hit, Photo

_SIZE_PX = 320
_THREADS = 4  # a picture of 48 megapixels takes 150 MB while it is scaled down

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{generator}
<meta name="referrer" content="no-referrer">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<main>
"""

_FOOT = """</main>
<dialog aria-label="Photo">
<header><a href="#">Open original</a><button type="button" class="close" aria-label="Close">✕</button></header>
<div class="stage"><img alt=""><button type="button" class="turn back" aria-label="Previous photo">‹</button>
<button type="button" class="turn on" aria-label="Next photo">›</button></div>
<footer aria-live="polite"></footer>
</dialog>
<script>{script}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Tile:
    """One photo on a sheet.

    badge: a word on the picture, such as "keep".   figures: what was measured, in words.
    relevance: 0 to 1, drawn as a bar.   details: lines beneath the name.
    """

    path: str
    badge: str = ""
    figures: str = ""
    relevance: float | None = None
    details: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """A group of photos; note: a line beneath its title.   empty: what stands there if it has none."""

    title: str
    tiles: tuple[Tile, ...]
    note: str = ""
    empty: str = "Nothing found."


def sheet_of(answers: Sequence[Answer]) -> list[Section]:
    """Return a section for each answer."""
    return [
        Section(
            title=answer.query,
            tiles=tuple(map(_hit_tile, answer.hits)),
            note=f"{len(answer.hits)} of {answer.candidates} photos, by {answer.encoder}: relevance and score",
            empty=f"{why_empty(answer).capitalize()}.",
        )
        for answer in answers
    ]


def photo_details(photo: Photo) -> tuple[str, ...]:
    """Return what a caption tells of a photo: when and by which camera it was taken."""
    taken = taken_at(photo)
    return tuple(text for text in (f"{taken:%Y-%m-%d %H:%M}" if taken else "", photo.info.camera) if text)


def contact_sheet(sections: Sequence[Section], *, title: str = "Search") -> Iterator[str]:
    """Yield an HTML document in parts as its pictures are made; one that can't be read now is named as missing."""
    yield from document(title, _sections(sections))


def document(title: str, body: Iterable[str], *, styles: Sequence[str] = ("sheet",)) -> Iterator[str]:
    """Yield the parts of a body as a document with the house's look.   styles: names of files of data/sheet."""
    style = "".join(data_path("sheet", f"{name}.css").read_text(encoding="utf-8") for name in styles)
    script = data_path("sheet", "sheet.js").read_text(encoding="utf-8")
    yield _HEAD.format(policy=_policy(style, script), title=text(title), style=style, generator=GENERATOR)
    yield from body
    yield _FOOT.format(script=script)


def pictures_of(tiles: Iterable[Tile]) -> Generator[str]:
    """Yield the picture of each tile, made a few ahead; empty where it can't be read now."""
    return _ahead(_picture, (tile.path for tile in tiles))


def grid(tiles: Iterable[Tile], pictures: Iterator[str]) -> Iterator[str]:
    """Yield tiles beside one another.   pictures: theirs come next."""
    yield "<ol>\n"
    for tile in tiles:
        yield _tile(tile, next(pictures))
    yield "</ol>\n"


def _sections(sections: Sequence[Section]) -> Iterator[str]:
    with closing(pictures_of(tile for section in sections for tile in section.tiles)) as pictures:
        for section in sections:
            yield from _section(section, pictures)


def _policy(style: str, script: str) -> str:
    digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script))
    return "default-src 'none'; img-src data: file:; style-src 'sha256-{}'; script-src 'sha256-{}'".format(
        *digests
    )


def _section(section: Section, pictures: Iterator[str]) -> Iterator[str]:
    yield f"<section>\n<h2>{text(section.title)}</h2>\n"
    if section.note:
        yield f'<p class="note">{text(section.note)}</p>\n'
    if section.tiles:
        yield from grid(section.tiles, pictures)
    else:
        yield f'<p class="none">{text(section.empty)}</p>\n'
    yield "</section>\n"


def _tile(tile: Tile, picture: str) -> str:
    name = text(os.path.basename(tile.path))
    link = escape("file://" + quote(os.fsencode(tile.path)))
    shown = (
        f'<img src="{picture}" alt="{name}" decoding="async">'
        if picture
        else '<span class="missing">not readable now</span>'
    )
    badge = f'<span class="badge">{text(tile.badge)}</span>' if tile.badge else ""
    return (
        f'<li><figure><a class="photo" href="{link}" title="{name}">{shown}{badge}</a>\n'
        f'<figcaption><p class="name"><bdi>{name}</bdi></p>{_caption(tile)}</figcaption></figure></li>\n'
    )


def _caption(tile: Tile) -> str:
    figures = text(tile.figures) + (_bar(tile.relevance) if tile.relevance is not None else "")
    labels = "".join(f"<span>{text(label)}</span>" for label in tile.labels)
    return (
        (f'<p class="figures">{figures}</p>' if figures else "")
        + "".join(f'<p class="quiet"><bdi>{text(line)}</bdi></p>' for line in tile.details)
        + (f'<p class="labels">{labels}</p>' if labels else "")
    )


def _bar(part: float) -> str:
    return (
        '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * part:.0f}" height="4"/></svg>'
    )


def _hit_tile(hit: Hit) -> Tile:
    return Tile(
        path=hit.photo.path,
        figures=f"{hit.relevance:.0%} · {hit.score:.3f}",
        relevance=hit.relevance,
        details=photo_details(hit.photo),
        labels=hit.photo.labels,
    )


def _picture(path: str) -> str:
    """The thumbnail as a data URL; empty where the file can't be read now."""
    from search.errors import PhotoError
    from search.photos.thumbnails import thumbnail

    try:
        return (
            "data:image/webp;base64," + base64.b64encode(thumbnail(path, size_px=_SIZE_PX, form="WEBP")).decode()
        )
    except PhotoError:
        return ""


def _ahead(make: Callable[[str], str], paths: Iterable[str]) -> Generator[str]:
    """Yield what `make` makes of each path, in order, made by threads a few paths ahead."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[Future[str]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(make, path))
                if len(waiting) > 2 * _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def text(words: str) -> str:
    """Return text for a page: escaped, and what is no UTF-8 or would hide or reorder it made visible."""
    return escape(printable(words))
