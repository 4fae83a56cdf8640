"""search tags undo"""

from __future__ import annotations

import click

from search.cli.options import SKIPPED, Settings, as_command, completed_by
from search.plurals import count_of

_TOLD = {"probe": "its labels are decided as they were before"}


@as_command("undo")
@click.argument("run", type=click.IntRange(1), shell_complete=completed_by("runs"), metavar="RUN")
@click.option("--strict", is_flag=True, help="Exit with 3 if a sidecar could not be written.")
def command(settings: Settings, *, run: int, strict: bool) -> int | None:
    """Take back what a run added, from the library and from sidecars; what other runs added stays.

    `search tags list --runs` shows the runs.

    \b
    Example:
      search tags undo 12
    """
    from search.cli.output import emit_json
    from search.documents import undo_document

    with settings.open_library() as library:
        report = library.tags.undo(run)
    for skip in report.skipped:
        settings.talk(f"skipped {skip.path}: {skip.reason}: {skip.detail}")
    if settings.json:
        emit_json(undo_document(report))
    taken = [(report.labels, "proposal"), (report.verdicts, "verdict"), (report.sidecars, "sidecar")]
    told = ", ".join(count_of(count, what) for count, what in taken if count) or _TOLD.get(
        report.kind, "nothing was left of it"
    )
    settings.talk(f"run {report.run} ({report.kind}) undone: {told}")
    return SKIPPED if strict and report.skipped else None
