"""Pages with plots, tables and photos: one HTML file that needs nothing else, in the look of a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec

import click

from search.cli import destination
from search.cli.options import not_empty
from search.cli.sheet import Tile, document, grid, pictures_of, text
from search.errors import UsageError
from search.extras import how_to_add

html_option = click.option("--html", metavar="FILE", callback=not_empty, help="Write a page with plots.")


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot: an <svg> element, and what it shows, in words."""

    svg: str
    caption: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Small plots beside one another."""

    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells beneath a header.   words: columns flush left beside the first.   marked: rows set in bold."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    words: frozenset[int] = frozenset()
    marked: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos beside one another, with a heading of their own."""

    tiles: tuple[Tile, ...]
    heading: str = ""


Part = str | Figure | Figures | Table | Photos
"""What a section is made of; a string is a paragraph."""


@dataclass(frozen=True, slots=True)
class Section:
    """Parts beneath a title."""

    title: str
    parts: tuple[Part, ...]


def check(file: str) -> None:
    """Refuse a file that a page can't be written to, before the work begins.

    Raises click.UsageError and UsageError as `destination.check`; UsageError where matplotlib is missing.
    """
    destination.check(file, destination.format_of(file, "html"))
    if find_spec("matplotlib") is None:
        raise UsageError("a page with plots needs matplotlib", hint=how_to_add("evaluate"))


def write(file: str, title: str, sections: Sequence[Section]) -> None:
    """Write a page whole, or leave what was there.   Raises as `destination.write`."""
    destination.write(file, "html", (part.encode() for part in page(title, sections)))


def page(title: str, sections: Sequence[Section]) -> Iterator[str]:
    """Yield an HTML document in parts as its pictures are made."""
    return document(title, _body(sections), styles=("sheet", "report"))


def _body(sections: Sequence[Section]) -> Iterator[str]:
    parts = (part for section in sections for part in section.parts)
    with closing(pictures_of(tile for part in parts if isinstance(part, Photos) for tile in part.tiles)) as made:
        for section in sections:
            yield f"<section>\n<h2>{text(section.title)}</h2>\n"
            for part in section.parts:
                yield from _part(part, made)
            yield "</section>\n"


def _part(part: Part, pictures: Iterator[str]) -> Iterator[str]:
    if isinstance(part, str):
        yield f"<p>{text(part)}</p>\n"
    elif isinstance(part, Figure):
        yield _figure(part)
    elif isinstance(part, Figures):
        yield f'<div class="plots">{"".join(map(_figure, part.figures))}</div>\n'
    elif isinstance(part, Table):
        yield _table(part)
    else:
        if part.heading:
            yield f"<h3>{text(part.heading)}</h3>\n"
        yield from grid(part.tiles, pictures)


def _figure(figure: Figure) -> str:
    caption = f"<figcaption><p>{text(figure.caption)}</p></figcaption>"
    return f'<figure class="plot">\n{figure.svg}\n{caption}</figure>\n'


def _table(table: Table) -> str:
    """A table in a box of its own, which scrolls, by keys too, where the window is narrow."""
    name = text(table.caption or table.header[0] or "figures")
    caption = f"<caption>{text(table.caption)}</caption>" if table.caption else ""
    head = "".join(_cell("th", cell, place, table, ' scope="col"') for place, cell in enumerate(table.header))
    body = "\n".join(_row(number, cells, table) for number, cells in enumerate(table.rows))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>{caption}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _row(number: int, cells: Sequence[str], table: Table) -> str:
    mark = ' class="mark"' if number in table.marked else ""
    first = _cell("th", cells[0], 0, table, ' scope="row"')
    others = "".join(_cell("td", cell, place, table) for place, cell in enumerate(cells[1:], 1))
    return f"<tr{mark}>{first}{others}</tr>"


def _cell(kind: str, cell: str, place: int, table: Table, scope: str = "") -> str:
    words = ' class="words"' if place == 0 or place in table.words else ""
    return f"<{kind}{scope}{words}>{text(cell)}</{kind}>"
