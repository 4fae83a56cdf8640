"""search tags list"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from search.cli.options import Settings, as_command, completed_by, not_empty
from search.plurals import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.types import LabelRecord


@as_command("list")
@click.option(
    "--photos",
    "label",
    metavar="LABEL",
    callback=not_empty,
    shell_complete=completed_by("tags"),
    help="The photos that have it.",
)
@click.option("--runs", is_flag=True, help="What wrote labels and when, the last first.")
def command(settings: Settings, *, label: str | None, runs: bool) -> None:
    """List the labels of the library: on how many photos each is, who says so, and how good it is.

    How good: of the photos that a model proposes it for and you accepted or rejected, the share accepted, with its
    95 % interval.

    \b
    Examples:
      search tags list
      search tags list --photos cat
      search tags list --runs
    """
    from search.cli.output import emit_json
    from search.documents import label_document, run_document

    if label is not None and runs:
        raise click.UsageError("--photos and --runs are two questions")
    with settings.open_library() as library:
        if label is not None:
            found = library.tags.photos(label)
            rows = [{**_photo(photo.id, photo.path), **_standing(records)} for photo, records in found]
            document: dict[str, Any] = {"label": label, "photos": rows}
            show = _show_photos
        elif runs:
            document, show = {"runs": [run_document(run) for run in reversed(library.tags.runs())]}, _show_runs
        else:
            document, show = {"labels": [label_document(one) for one in library.tags.labels()]}, _show_labels
    if settings.json:
        emit_json(document)
    else:
        show(document)


def _photo(id_: int, path: str) -> dict[str, Any]:
    from search.documents import path_fields

    return {"id": id_, **path_fields(path)}


def _standing(records: Sequence[LabelRecord]) -> dict[str, Any]:
    """What is known of a label on a photo: the user's word first, then a model's, then the file's."""
    by_source = {record.source: record for record in records}
    proposed = by_source.get("zero-shot")
    if not records or all(record.rejected for record in records):
        state = "rejected"
    else:
        state = next(state for source, state in _STATES if source in by_source)
    return {"state": state, "probability": proposed.probability if proposed else None}


_STATES = (("user", "accepted"), ("import", "imported"), ("zero-shot", "proposed"), ("file", "file"))


def _show_labels(document: dict[str, Any]) -> None:
    from search.cli.output import emit_table

    header = ("label", *(name.replace("_", " ") for name in _COUNTS), "proposals that are right")
    rows = [
        (one["label"], *(str(one[name] or "-") for name in _COUNTS), _how_good(one)) for one in document["labels"]
    ]
    if rows:
        emit_table(rows, right=range(1, 1 + len(_COUNTS)), header=header)
    else:
        click.echo("no labels yet; 'search label --labels everyday --apply' proposes some", err=True)


_COUNTS = ("photos", "proposed", "accepted", "rejected", "imported", "in_files")


def _how_good(one: dict[str, Any]) -> str:
    if not one["judged"]:
        return "not judged yet" if one["proposed"] else ""
    found = one["precision"]
    return f"{found['share']:.0%} ({found['low']:.0%} to {found['high']:.0%}), {one['judged']} judged"


def _show_runs(document: dict[str, Any]) -> None:
    from datetime import datetime

    from search.cli.output import emit_table

    rows = [
        (
            str(run["run"]),
            run["kind"],
            f"{datetime.fromisoformat(run['started_at']).astimezone():%Y-%m-%d %H:%M}",
            _stands(run),
            _of(run),
        )
        for run in document["runs"]
    ]
    if rows:
        emit_table(rows, right=(0,), header=("run", "kind", "when", "labels", "by"))
    else:
        click.echo("no runs yet", err=True)


def _stands(run: dict[str, Any]) -> str:
    if run["undone_at"]:
        return "undone"
    return (
        f"{len(run['details']['labels'])} taught"
        if run["kind"] == "probe"
        else f"{run['labels']} on {count_of(run['photos'], 'photo')}"
    )


def _of(run: dict[str, Any]) -> str:
    """What a run was made with, in a few words."""
    details = run["details"]
    if run["label_set"]:
        return ", ".join(part for part in (run["label_set"], run["templates"], run["encoder"]) if part)
    if "from" in details:
        return str(details["from"])
    return ", ".join(details.get("labels", ()))


def _show_photos(document: dict[str, Any]) -> None:
    from search.cli.output import emit_table, short

    emit_table(
        [
            (
                short(row["path"]),
                row["state"],
                "" if row["probability"] is None else f"{row['probability']:.2f}",
            )
            for row in document["photos"]
        ],
        right=(2,),
        header=("photo", "state", "probability"),
    )
