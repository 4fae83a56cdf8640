"""search status"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command
from search.plurals import count_of


@as_command("status")
def command(settings: Settings) -> None:
    """Show what the library holds.

    \b
    Example:
      search status
    """
    from search.cli.output import emit_json, emit_table
    from search.documents import status_document

    with settings.open_library() as library:
        status = library.status()
    if settings.json:
        emit_json(status_document(status))
        return
    rows = [("library", status.path), ("photos", str(status.photos))]
    rows += [
        ("folder", f"{root.path} ({count_of(root.photos, 'photo')}{'' if root.online else ', offline'})")
        for root in status.roots
    ]
    rows += [("model", f"{e.name} ({count_of(e.photos, 'photo')}, {e.dim} dimensions)") for e in status.encoders]
    lists = f", {status.index['probe']} of {status.index['lists']} lists read" if "lists" in status.index else ""
    rows += [
        (
            "index",
            f"{status.index['kind']}, {count_of(int(status.index['vectors'] or 0), 'vector')}, "
            f"{status.index['bytes']} bytes{lists}",
        )
    ]
    if "url" in status.index:
        rows[-1] = ("index", f"{status.index['kind']}, {count_of(int(status.index['vectors'] or 0), 'vector')}")
        rows += [
            (
                "server",
                f"{status.index['url']}, {count_of(int(status.index['behind'] or 0), 'photo')} changed since",
            )
        ]
    if status.index["generation"] is not None:
        rows += [
            (
                "generation",
                f"{status.index['generation']}, {count_of(int(status.index['delta'] or 0), 'photo')} changed since",
            )
        ]
    rows += [("skipped", f"{status.skipped} (see `search skipped`)" if status.skipped else "0")]
    rows += [("schema", status.schema)]
    if job := status.job:
        done = count_of(job.done, "file") if job.total is None else f"{job.done} of {count_of(job.total, 'file')}"
        since = f"{job.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
        rows += [("last job", f"{job.kind}, {job.state}: {done} done, process {job.pid}, {since}")]
    emit_table(rows)
    if not status.photos:
        click.echo("Nothing is indexed yet: search index DIR", err=True)
