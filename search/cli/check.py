"""search check"""

from __future__ import annotations

import click

from search.cli.options import FAILED, OK, Settings, as_command


@as_command("check")
@click.option("--repair", is_flag=True, help="Drop what is damaged, after a copy; index again to make it anew.")
def command(settings: Settings, *, repair: bool) -> int:
    """Look whether the library is whole.

    The database's structure and every vector are read; photos are not touched. Exits with 1 if problems remain.

    \b
    Example:
      search check --repair
    """
    from search.cli.output import emit_json, emit_table

    with settings.open_library() as library:
        report = library.check(repair=repair)
    if settings.json:
        problems = [{"kind": str(problem.kind), "detail": problem.detail} for problem in report.problems]
        emit_json({"ok": report.ok, "problems": problems, "repaired": report.repaired})
    else:
        if report.repaired:
            click.echo(f"{report.repaired} damaged vectors dropped; index their folders to encode them again")
        if report.problems:
            emit_table([(problem.kind, problem.detail) for problem in report.problems])
        else:
            click.echo("all is well")
    return OK if report.ok else FAILED
