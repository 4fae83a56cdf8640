"""search tags export"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli import destination
from search.cli.options import SKIPPED, Settings, as_command, completed_by, not_empty

if TYPE_CHECKING:
    from search.library import Library
    from search.library.exporting import ExportOptions
    from search.types import ExportReport

_FORMATS = ("xmp", "csv", "json")


@as_command("export")
@click.argument("paths", shell_complete=completed_by("files"), nargs=-1, metavar="[PATH]...")
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="What to write. [default: xmp, or as FILE is named]"
)
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    shell_complete=completed_by("files"),
    callback=not_empty,
    help="Write csv or json there.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME", help="Only this label; may be given often.")
@click.option("--accepted", is_flag=True, help="Only labels that you accepted.")
@click.option(
    "--root", metavar="NAME", help='Put labels nobody accepted below this keyword, "" for none. [default: auto]'
)
@click.option(
    "--sidecar-style",
    "style",
    type=click.Choice(("default", "adobe")),
    default="default",
    help="Name new sidecars IMG_1.jpg.xmp, or IMG_1.xmp.  [default: default]",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be written, and write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 3 if something was skipped.")
def command(
    settings: Settings,
    *,
    paths: tuple[str, ...],
    form: str | None,
    file: str | None,
    labels: tuple[str, ...],
    accepted: bool,
    root: str | None,
    style: str,
    dry_run: bool,
    strict: bool,
) -> int:
    """Write labels where other software reads them: into XMP sidecars, or as CSV or JSON.

    Photos are never written to. A sidecar that is there keeps all it has; labels that you did not accept stand below
    one keyword, auto. 'search tags undo' takes an export back.

    \b
    Examples:
      search tags export
      search tags export ~/Pictures/2024 --accepted --dry-run
      search tags export --output labels.csv
    """
    from search.library.exporting import ExportOptions
    from search.photos.packets import ROOT

    options = ExportOptions(labels, accepted, ROOT if root is None else root, style)
    form = _format(form, file)
    with settings.open_library() as library:
        if form == "xmp":
            return _sidecars(settings, library, paths, options, dry_run=dry_run, strict=strict)
        if dry_run:
            raise click.UsageError("--dry-run is for sidecars; csv and json change nothing")
        _list(settings, library, paths, options, form, file)
    return 0


def _format(form: str | None, file: str | None) -> str:
    """Return what to write. Raises click.UsageError where that and the file's name disagree."""
    if file is None:
        return form or "xmp"
    named = next((one for one in ("csv", "json") if file.lower().endswith(f".{one}")), None)
    if form == "xmp" or (named is None and form is None) or (named and form and named != form):
        raise click.UsageError(f"{file} is no name for this; csv goes to .csv, json to .json, sidecars to no file")
    return form or named or "xmp"


# ---- sidecars


def _sidecars(
    settings: Settings,
    library: Library,
    paths: tuple[str, ...],
    options: ExportOptions,
    *,
    dry_run: bool,
    strict: bool,
) -> int:
    from search.cli.output import emit_json
    from search.cli.progress import progress_bar, stopping

    with stopping(settings) as (stop, signals), progress_bar(settings) as progress:
        report = library.tags.export(paths or None, options=options, dry_run=dry_run, progress=progress, stop=stop)
    if settings.json:
        emit_json(_document(report, dry_run=dry_run))
    else:
        _tell(report, dry_run=dry_run)
    if signals:
        return 128 + signals[0]
    return SKIPPED if strict and report.skipped else 0


def _document(report: ExportReport, *, dry_run: bool) -> dict[str, Any]:
    from search.documents import path_fields, skip_document

    document = {
        "run": report.run,
        "written": report.written,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": [skip_document(skip) for skip in report.skipped],
        "seconds": round(report.seconds, 3),
        "interrupted": report.interrupted,
    }
    if dry_run:
        document["changes"] = [{**path_fields(one.path), "action": one.action} for one in report.changes]
    return document


def _tell(report: ExportReport, *, dry_run: bool) -> None:
    from search.cli.output import emit_skipped, emit_table, short

    if dry_run:
        emit_table([(one.action, short(one.path)) for one in report.changes])
    ending = "Interrupted: so far" if report.interrupted else "Would be" if dry_run else "Done:"
    click.echo(
        f"{ending} written {report.written} · unchanged {report.unchanged} · removed {report.removed}"
        f" · skipped {len(report.skipped)}"
    )
    if report.run is not None:
        click.echo(f"  run {report.run}; search tags undo {report.run} takes it back")
    emit_skipped(report.skipped)


# ---- lists


def _list(
    settings: Settings,
    library: Library,
    paths: tuple[str, ...],
    options: ExportOptions,
    form: str,
    file: str | None,
) -> None:
    from search.cli.output import emit_bytes
    from search.library import label_lists

    runs = {run.id: run for run in library.tags.runs()}
    found = library.tags.records(paths or None, options=options)
    parts = label_lists.PARTS[form](found, runs)
    if file is None:
        emit_bytes(parts)
        return
    destination.write(file, f"labels {form}", parts)
    settings.talk(f"the labels are in {file}")
