"""search check"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli.options import FAILED, OK, Number, Settings, as_command
from search.plurals import count_of

if TYPE_CHECKING:
    from search.types import CheckReport, Problem

_SHOWN = 20  # problems of one kind that are named


@as_command("check")
@click.option("--full", is_flag=True, help="Look at everything, however large the library is.")
@click.option("--photos", is_flag=True, help="Look at the original files, those looked at longest ago first.")
@click.option("--hash", "content", is_flag=True, help="With --photos: read every file to its end.")
@click.option("--max-duration", type=Number(min=0), metavar="S", help="With --photos: stop after so many seconds.")
@click.option("--repair", is_flag=True, help="Restore or drop what is damaged, after a copy.")
def command(
    settings: Settings, *, full: bool, photos: bool, content: bool, max_duration: float | None, repair: bool
) -> int:
    """Look whether the library is whole.

    Up to 20,000 photos everything is looked at: the database's structure, every row, every vector, the index. Beyond
    that it is a quick look, unless --full is given. Each problem comes with what --repair would do about it, and
    lose. Original files are looked at only with --photos, and never changed. Exits with 1 if problems remain.

    \b
    Example:
      search check --full
      search check --photos --hash --max-duration 600
    """
    from search.cli.output import emit_json
    from search.cli.progress import progress_bar, stopping

    if (content or max_duration is not None) and not photos:
        raise click.UsageError("--hash and --max-duration go with --photos")
    if photos and (full or repair):
        raise click.UsageError("--photos goes without --full and --repair")
    signals: list[int] = []
    with settings.open_library() as library:
        if photos:
            with stopping(settings) as (stop, signals), progress_bar(settings) as progress:
                report = library.check_photos(
                    content=content, max_duration_s=max_duration, progress=progress, stop=stop
                )
        else:
            report = library.check(full=full or None, repair=repair)
    if settings.json:
        emit_json(_document(report, photos=photos))
    else:
        _tell(report, settings, photos=photos)
    if signals:
        return 128 + signals[0]
    return OK if report.ok else FAILED


def _document(report: CheckReport, *, photos: bool) -> dict[str, Any]:
    looked = (
        {"checked": report.checked, "remaining": report.remaining, "offline": report.offline} if photos else {}
    )
    return {
        "ok": report.ok,
        "problems": [_problem_document(problem) for problem in report.problems],
        "repaired": report.repaired,
        **looked,
        **report.facts,
    }


def _problem_document(problem: Problem) -> dict[str, Any]:
    from search.documents import path_fields

    where = {} if problem.path is None else path_fields(problem.path)
    id_ = {} if problem.id is None else {"id": problem.id}
    return {"kind": str(problem.kind), "detail": problem.detail, "loss": problem.loss, **where, **id_}


def _tell(report: CheckReport, settings: Settings, *, photos: bool) -> None:
    """Say what was found, kind by kind, and what repairing it loses."""
    from search.cli.output import emit_table, printable

    if report.repaired:
        click.echo(
            f"{count_of(report.repaired, 'damaged row')} restored or dropped; index again to make anew what is missing"
        )
    if backup := report.facts.get("backup"):
        click.echo(f"the catalog as it was: {printable(str(backup))}")
    for kind in dict.fromkeys(problem.kind for problem in report.problems):
        own = [problem for problem in report.problems if problem.kind is kind]
        shown = own if settings.verbose else own[:_SHOWN]
        click.echo(f"{kind} ({len(own)})")
        emit_table([(f"  {problem.detail}", problem.loss) for problem in shown])
        if len(own) > len(shown):
            click.echo(f"  and {len(own) - len(shown)} more: --verbose or --json lists them all")
    if photos:
        click.echo(
            f"{count_of(report.checked, 'photo')} looked at, {report.remaining} left, {report.offline} offline"
        )
    elif report.ok:
        click.echo("all is well" if report.facts.get("level") == "full" else "all is well at a quick look")
    if low := report.facts.get("space"):
        click.echo(f"room is short: {low}")
    if why := report.facts.get("not_remembered"):
        settings.talk(f"which photos were looked at could not be noted: {why}")
