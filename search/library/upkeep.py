"""Looking whether a library is whole, and putting right or making anew what is not: catalog and index together."""

from __future__ import annotations

import functools
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from search import inspection
from search.generations.manifest import WISHES
from search.types import CheckReport, Problem, ProblemKind, RebuildReport

if TYPE_CHECKING:
    from search.library.seams import Seams

_FILLED = "nothing is lost: 'search rebuild' fills it anew"


def check(seams: Seams, *, full: bool | None, repair: bool) -> CheckReport:
    """See Library.check."""
    generations = seams.index.generations
    publish = functools.partial(_publish_anew, seams) if generations else None
    repaired, backup = inspection.repair(seams.catalog, generations, publish) if repair else (0, None)
    look = functools.partial(
        inspection.inspect,
        seams.catalog,
        generations,
        full=full or repair or None,
        more=functools.partial(_index_problems, seams),
        is_there=seams.sources().is_there,
    )
    report = look()
    if repair and _fill_anew(seams, report):
        report, repaired = look(), repaired + 1
    facts = {**report.facts, **({"backup": backup} if backup else {})}
    return replace(report, repaired=repaired, facts=facts)


def _index_problems(seams: Seams) -> list[Problem]:
    row = seams.catalog.encoder()
    if seams.catalog.publication().on_server:
        wrong = seams.index.mirroring.problems()
        return [Problem(ProblemKind.INDEX_DAMAGED, problem, _FILLED) for problem in wrong]
    with seams.lock:
        return seams.index.live.misplaced(row) if row else []


def _fill_anew(seams: Seams, report: CheckReport) -> bool:
    """Fill an index on a server anew that has something wrong and answers; tell whether that was done."""
    mirroring = seams.index.mirroring
    if not any(problem.detail in mirroring.mendable for problem in report.problems):
        return False
    with seams.catalog.writing() as writer:
        mirroring.choose(writer, None)
    return True


def _publish_anew(seams: Seams) -> None:
    with seams.catalog.writing() as writer:
        seams.index.publish(writer, always=True)


def rebuild(seams: Seams, index: str | None) -> RebuildReport:
    """See Library.rebuild."""
    started = perf_counter()
    generations = seams.index.generations
    chosen = seams.index.choose(index)  # before the generation: it is to know
    if generations is None:
        report = RebuildReport(seams.catalog.count(), None)
    else:
        report = inspection.rebuild(seams.catalog, generations, wish=index if index in WISHES else None)
    if not chosen:
        seams.index.choose(index)
    return replace(report, seconds=perf_counter() - started)


def upgrade(seams: Seams) -> str:
    """See Library.upgrade."""
    catalog = seams.catalog
    before = catalog.upgrade()
    with catalog.writing() as writer:
        always = before != catalog.revision() and catalog.publication().number is not None
        seams.index.publish(writer, always=always)
    return before
