"""Plots as <svg> elements for a page: vector drawings whose ink is the page's, so that they follow light and dark.

Output depends on the figures alone. Nothing is drawn by style rules, which a page's policy would not let in.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from search.cli.columns import shortened
from search.cli.report import Figure
from search.cli.sheet import text

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from search.evaluate.statistics import Interval

COLOURS = ("#1b8a6b", "#d0752a", "#4f83d1", "#b45fa8", "#8a8a2e", "#7c7c78")
"""Of series, told from one another and from both a light and a dark page."""

MOST_CLASSES = 30
"""Of a confusion matrix, that can be read; of more those with most errors are shown."""

_INK = "#010203"  # stands for the page's own
_NAME_COLUMNS = 44
_TALL_IN = 3.4
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": _INK,
}


def accuracy_intervals(rows: Sequence[tuple[str, Interval]], *, what: str = "accuracy") -> Figure:
    """Plot a value with its interval for each name, from top to bottom."""
    with _drawing((7.2, 0.9 + 0.36 * len(rows)), f"{what}, with 95 % intervals: {_named(rows)}") as (axes, done):
        places = range(len(rows))
        for place, (_, found) in zip(places, rows, strict=True):
            axes.plot([found.low, found.high], [place, place], color=COLOURS[0], linewidth=2, alpha=0.6)
        axes.plot([found.value for _, found in rows], places, "o", color=COLOURS[0])
        axes.set_yticks(places, [shortened(name, _NAME_COLUMNS) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        _percent(axes.xaxis)
        axes.grid(axis="x")
        axes.set_xlabel(f"{what}, with 95 % interval")
    return done()


def few_shot_curve(
    points: Sequence[tuple[int, Interval]], *, zero_shot: Interval, every: tuple[int, Interval] | None = None
) -> Figure:
    """Plot accuracy over examples per class, against zero-shot.   every: with all examples, (per class, accuracy)."""
    shots = [*points, *([every] if every else [])]
    values = _values([("zero-shot", zero_shot), *((str(count), found) for count, found in shots)])
    alt = f"accuracy of linear probes by examples per class, and of zero-shot: {values}"
    with _drawing((7.2, _TALL_IN), alt) as (axes, done):
        at = [count for count, _ in shots]
        axes.set_xscale("log", base=2)
        axes.axhspan(zero_shot.low, zero_shot.high, color=COLOURS[1], alpha=0.15, linewidth=0)
        axes.axhline(zero_shot.value, color=COLOURS[1], label="zero-shot")
        axes.fill_between(
            at, [v.low for _, v in shots], [v.high for _, v in shots], color=COLOURS[0], alpha=0.15, linewidth=0
        )
        axes.plot(at, [v.value for _, v in shots], "o-", color=COLOURS[0], label="linear probe")
        axes.set_xticks(at, [*(str(count) for count, _ in points), *(["all"] if every else [])])
        axes.minorticks_off()
        axes.set_xlabel("labelled examples per class")
        axes.set_ylabel("accuracy")
        _percent(axes.yaxis)
        axes.grid(axis="y")
        axes.legend(loc="lower right")
    return done()


def robustness_bars(rows: Sequence[tuple[str, Interval]], *, what: str = "accuracy") -> Figure:
    """Plot bars with intervals; the first is the reference, drawn as a line across and named by each drop."""
    reference, beside = rows[0][1].value, max(found.high for _, found in rows) + 0.02
    with _drawing((7.2, 0.9 + 0.4 * len(rows)), f"{what}, with 95 % intervals: {_named(rows)}") as (axes, done):
        for place, (_, found) in enumerate(rows):
            axes.barh(place, found.value, color=COLOURS[0 if place == 0 else 2], height=0.62, alpha=0.75)
            axes.plot([found.low, found.high], [place, place], color=_INK, linewidth=1.2)
            drop = f"  {found.value - reference:+.1%}" if place else ""
            axes.text(beside, place, f"{found.value:.1%}{drop}", va="center")
        axes.axvline(reference, color=_INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_yticks(range(len(rows)), [shortened(name, _NAME_COLUMNS) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, max(1.0, beside + 0.24))
        _percent(axes.xaxis)
        axes.set_xticks(np.linspace(0, 1, 6))
        axes.set_xlabel(what)
    return done()


def strength_curves(
    series: Mapping[str, Sequence[Interval]], *, clean: Interval, strengths: Sequence[int] = (1, 2, 3, 4, 5)
) -> Figure:
    """Plot accuracy over the strength of each corruption; strength 0 is the photos as they are."""
    alt = "accuracy by strength: " + "; ".join(
        f"{name} {', '.join(f'{found.value:.0%}' for found in values)}" for name, values in series.items()
    )
    with _drawing((7.2, _TALL_IN), alt) as (axes, done):
        for number, (name, values) in enumerate(series.items()):
            heights = [clean.value, *(found.value for found in values)]
            axes.plot([0, *strengths], heights, _marked(number), color=COLOURS[number % len(COLOURS)], label=name)
        axes.set_xticks([0, *strengths], ["none", *map(str, strengths)])
        axes.set_xlabel("strength")
        axes.set_ylabel("accuracy")
        _percent(axes.yaxis)
        axes.grid(axis="y")
        _legend_beside(axes)
    return done()


def recall_by_length(
    bins: Sequence[str], series: Mapping[str, Sequence[Interval]], *, counts: Sequence[int], what: str = "recall"
) -> Figure:
    """Plot recall over the length of captions in tokens, a line for each k or model.   counts: captions in each bin."""
    alt = f"{what} by caption length: " + "; ".join(
        f"{name} {_values(list(zip(bins, values, strict=True)))}" for name, values in series.items()
    )
    with _drawing((7.2, _TALL_IN), alt) as (axes, done):
        places = np.arange(len(bins))
        for number, (name, values) in enumerate(series.items()):
            colour = COLOURS[number % len(COLOURS)]
            lows, highs = [found.low for found in values], [found.high for found in values]
            axes.fill_between(places, lows, highs, color=colour, alpha=0.13, linewidth=0)
            axes.plot(
                places, [found.value for found in values], _marked(number), color=colour, label=shortened(name, 30)
            )
        axes.set_xticks(places, [f"{name}\n({count})" for name, count in zip(bins, counts, strict=True)])
        axes.set_xlabel("tokens of the caption (captions)")
        axes.set_ylabel(what)
        _percent(axes.yaxis)
        axes.grid(axis="y")
        _legend_beside(axes)
    return done()


def confusion_matrix(matrix: npt.NDArray[np.int64], classnames: Sequence[str]) -> Figure:
    """Plot counts (C, C), rows the true classes; of many classes those with most errors."""
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    shown = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    counts = matrix[np.ix_(shown, shown)]
    names = [shortened(classnames[place], 22) for place in shown]
    side = max(2.6, 0.42 * len(shown))
    part = (
        f", the {len(shown)} of {len(classnames)} classes with most errors" if len(shown) < len(classnames) else ""
    )
    alt = f"confusion matrix{part}; rows are true classes, columns what was said"
    with _drawing((side + 1.8, side + 1.2), alt) as (axes, done):
        for row, column in np.ndindex(counts.shape):
            _confused(axes, row, column, int(counts[row, column]), int(matrix[shown[row]].sum()))
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_aspect("equal")
        axes.set_xlabel("said")
        axes.set_ylabel("true")
        axes.tick_params(length=0)
    return done()


def _confused(axes: Axes, row: int, column: int, count: int, of: int) -> None:
    """One cell, the stronger the larger its share of the true class; right in one colour, wrong in another."""
    if count:
        opacity = 0.08 + 0.5 * count / of
        colour = COLOURS[0] if row == column else COLOURS[1]
        axes.add_patch(
            Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, color=colour, alpha=opacity, linewidth=0)
        )
        axes.text(column, row, str(count), ha="center", va="center", fontsize=9)


def trade_off(
    curves: Mapping[str, Sequence[tuple[float, float]]], *, ring: tuple[float, float], title: str, x: str
) -> Figure:
    """Plot curves of shares against shares; the ring stands on the first."""
    with _drawing((2.9, 2.9), f"{title}, against {x}: {', '.join(curves)}") as (axes, done):
        for number, (name, points) in enumerate(curves.items()):
            colour = COLOURS[number]
            axes.plot(
                *zip(*points, strict=True), color=colour, label=name, linestyle=("-", (0, (5, 2)))[number % 2]
            )
        axes.plot(*ring, "o", markersize=9, markerfacecolor="none", color=COLOURS[0], clip_on=False)
        axes.set_title(title)
        axes.set_xlabel(x)
        for axis, limit in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
            limit(0, 1.02)
            _percent(axis)
            axis.set_ticks(np.linspace(0, 1, 5))
        axes.grid()
        axes.legend(loc="lower left")
    return done()


def _marked(number: int) -> str:
    return "osD^vP"[number % 6] + "-"


def _percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")


def _legend_beside(axes: Axes) -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def _named(rows: Sequence[tuple[str, Interval]]) -> str:
    return "; ".join(f"{name}: {found.value:.1%} ({found.low:.1%} to {found.high:.1%})" for name, found in rows)


def _values(rows: Sequence[tuple[str, Interval]]) -> str:
    return ", ".join(f"{name}: {found.value:.1%}" for name, found in rows)


@contextmanager
def _drawing(inches: tuple[float, float], alt: str) -> Iterator[tuple[Axes, Callable[[], Figure]]]:
    """Give axes, and what returns the figure once the block is left.   alt: it in words."""
    svg: list[str] = []
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": alt}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that matplotlib's fonts lack: a browser has them
        canvas = Canvas(figsize=inches)
        yield canvas.add_subplot(), lambda: Figure(svg[0], _caption(alt))
        svg.append(_svg(canvas, alt))


def _caption(alt: str) -> str:
    """The words before the figures, which stand in the plot."""
    what = alt.partition(":")[0]
    return f"{what[:1].upper()}{what[1:]}."


def _svg(canvas: Canvas, alt: str) -> str:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    whole = re.sub(r"<metadata>.*?</metadata>", "", buffer.getvalue().decode(), flags=re.DOTALL)
    inner = re.sub(r"<style.*?</style>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    inner = re.sub(r' style="([^"]*)"', lambda found: _attributes(found[1]), inner)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner).replace(_INK, "currentColor")
    box = re.search(r'viewBox="[\d. -]+"', inner)
    width = float(box[0].split()[2]) * 4 / 3 if box else 0
    head = f'<svg {box[0] if box else ""} width="{width:.0f}" role="img" aria-label="{text(alt)}">'
    return head + inner[inner.index(">") + 1 :].strip()


def _attributes(style: str) -> str:
    """What a style says as attributes of the element; of fonts no more than the size, the page has its own."""
    rules = [rule.partition(":") for rule in style.split(";") if rule.strip()]
    found = {name.strip(): value.strip() for name, _, value in rules}
    if font := found.pop("font", ""):
        found["font-size"] = font.split()[0]
    found.pop("font-family", None)
    return "".join(f' {name}="{value}"' for name, value in found.items())
