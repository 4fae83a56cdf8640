"""search tags import"""

from __future__ import annotations

import click

from search.cli.options import SKIPPED, Settings, as_command, completed_by, not_empty
from search.plurals import count_of


@as_command("import")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False), metavar="[FILE]")
@click.option("--from-keywords", is_flag=True, help="The keywords that the photos' files have.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME",
    callback=not_empty,
    shell_complete=completed_by("tags"),
    help="Only this label; may be given often.",
)
@click.option("--strict", is_flag=True, help="Exit with 3 if something was skipped.")
def command(
    settings: Settings, *, file: str | None, from_keywords: bool, labels: tuple[str, ...], strict: bool
) -> int | None:
    """Take labels over as your own: from a CSV or JSON file, or from the keywords of the photos' files.

    FILE is as `tags export` writes it; a CSV with the columns path and label will do. Relative paths start at its
    folder. Labels taken over count as accepted, so that the library learns from them.

    \b
    Examples:
      search tags import labels.csv
      search tags import --from-keywords --label cat
    """
    from search.cli.output import emit_json
    from search.documents import skip_document

    if (file is None) != from_keywords:
        raise click.UsageError("give either FILE or --from-keywords")
    with settings.open_library() as library:
        report = library.tags.import_(file, labels=labels or None, from_keywords=from_keywords)
    for skip in report.skipped:
        settings.talk(f"skipped {skip.path}: {skip.reason}: {skip.detail}")
    if settings.json:
        emit_json(
            {
                "run": report.run,
                "photos": report.photos,
                "accepted": report.accepted,
                "rejected": report.rejected,
                "unchanged": report.unchanged,
                "left": dict(report.left),
                "skipped": [skip_document(skip) for skip in report.skipped],
            }
        )
    if report.run is None:
        settings.talk("nothing new to import")
    else:
        rejected = f" and {report.rejected} rejected" if report.rejected else ""
        settings.talk(
            f"run {report.run}: {count_of(report.accepted, 'label')} imported{rejected} on "
            f"{count_of(report.photos, 'photo')}; search tags undo {report.run} takes that back"
        )
    return SKIPPED if strict and report.skipped else None
