"""The curves of `search evaluate relevance` as one HTML page that needs nothing else."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from search.cli.destination import GENERATOR

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.evaluate.relevance import Point, RelevanceEvaluation

_SIDE, _MARGIN = 260, 46
_KINDS = (("nonsense", "nonsense"), ("absent", "things not there"), ("left_out", "classes left out"))
_COLOURS = {"relevance": "#0b6e4f", "cosine": "#b3541e"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">{generator}<title>Relevance</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:64rem;padding:0 1rem}}
svg{{max-width:20rem;margin-right:1rem}}table{{border-collapse:collapse}}td,th{{padding:.2rem .8rem;text-align:right}}
</style></head><body>
<h1>Relevance of {encoder}</h1>
<p>{photos} photos in {classes} classes. To the right: true photos among the best that stay. Upwards: queries for what
is not there that find nothing. <b style="color:{relevance}">Relevance</b>, and
<b style="color:{cosine}">one cosine for all queries</b>; the ring is the usual cut.</p>
{plots}
{table}
</body></html>
"""


def page(found: RelevanceEvaluation) -> str:
    """Return the page: a plot for each kind of query, and the figures."""
    plots = "\n".join(_plot(found, kind, title) for kind, title in _KINDS)
    cells = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows(found))
    return _PAGE.format(
        generator=GENERATOR,
        encoder=escape(found.encoder),
        photos=found.photos,
        classes=found.classes,
        plots=plots,
        table=f"<table>{cells}</table>",
        **_COLOURS,
    )


def rows(found: RelevanceEvaluation) -> list[tuple[str, ...]]:
    """Return the figures as a table."""
    header = ("", "threshold", "true photos kept", "nothing for nonsense", "for what is not there", "for left out")
    thresholds = {
        "relevance, usual cut": found.cut,
        "relevance, keeping 95 %": found.best_relevance,
        "cosine, keeping 95 %": found.best_cosine,
    }
    shares = ("kept", "nonsense", "absent", "left_out")
    return [header] + [
        (name, f"{point.threshold:.3f}", *(f"{getattr(point, share):.1%}" for share in shares))
        for name, point in thresholds.items()
    ]


def _plot(found: RelevanceEvaluation, kind: str, title: str) -> str:
    size = _SIDE + 2 * _MARGIN
    cut_x, cut_y = _place(found.cut, kind)
    ticks = "".join(
        f'<text x="{_MARGIN + share * _SIDE}" y="{size - _MARGIN + 16}" text-anchor="middle">{share:.0%}</text>'
        f'<text x="{_MARGIN - 6}" y="{size - _MARGIN - share * _SIDE + 4}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.5, 1)
    )
    return (
        f'<svg viewBox="0 0 {size} {size}" font-size="12" role="img" aria-label="{escape(title)}">'
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#999"/>'
        f'<text x="{size / 2}" y="{_MARGIN - 14}" text-anchor="middle" font-size="14">{escape(title)}</text>{ticks}'
        f"{_line(found.relevance, kind, _COLOURS['relevance'])}{_line(found.cosine, kind, _COLOURS['cosine'])}"
        f'<circle cx="{cut_x:.1f}" cy="{cut_y:.1f}" r="6" fill="none" stroke="{_COLOURS["relevance"]}"/></svg>'
    )


def _line(curve: Sequence[Point], kind: str, colour: str) -> str:
    points = " ".join("{:.1f},{:.1f}".format(*_place(point, kind)) for point in curve)
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def _place(point: Point, kind: str) -> tuple[float, float]:
    return _MARGIN + point.kept * _SIDE, _MARGIN + (1 - getattr(point, kind)) * _SIDE
