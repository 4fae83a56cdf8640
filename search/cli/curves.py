"""The figures of `search evaluate relevance` as a table, and its curves as sections of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.cli import report

if TYPE_CHECKING:
    from search.evaluate.relevance import RelevanceEvaluation

_KINDS = (
    ("nonsense", "nothing for nonsense"),
    ("absent", "nothing for things not there"),
    ("left_out", "nothing for classes left out"),
)


def sections(found: RelevanceEvaluation) -> list[report.Section]:
    """Return a plot for each kind of query, and the figures."""
    from search.cli.report.plots import trade_off

    figures = tuple(
        trade_off(
            {
                measure: [(point.kept, getattr(point, kind)) for point in getattr(found, measure)]
                for measure in ("relevance", "cosine")
            },
            ring=(found.cut.kept, getattr(found.cut, kind)),
            title=title,
            x="true photos kept",
        )
        for kind, title in _KINDS
    )
    words = (
        f"{found.photos} photos in {found.classes} classes. To the right: true photos among the best that stay. "
        "Upwards: queries for what is not there that find nothing. Relevance, and one cosine for all queries; "
        "the ring is the usual cut."
    )
    header, *others = rows(found)
    return [report.Section("Thresholds", (words, report.Figures(figures), report.Table(header, others)))]


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
