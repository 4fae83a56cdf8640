"""search status"""

from __future__ import annotations

import click

from search.cli.options import Settings, as_command


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
        ("folder", f"{root.path} ({root.photos} photos{'' if root.online else ', offline'})")
        for root in status.roots
    ]
    rows += [("model", f"{e.name} ({e.photos} photos, {e.dim} dimensions)") for e in status.encoders]
    rows += [
        ("index", f"{status.index['kind']}, {status.index['vectors']} vectors, {status.index['bytes']} bytes")
    ]
    if "url" in status.index:
        rows[-1] = ("index", f"{status.index['kind']}, {status.index['vectors']} vectors")
        rows += [("server", f"{status.index['url']}, {status.index['behind']} photos changed since")]
    if status.index["generation"] is not None:
        rows += [("generation", f"{status.index['generation']}, {status.index['delta']} photos changed since")]
    rows += [("skipped", f"{status.skipped} (see `search skipped`)" if status.skipped else "0")]
    rows += [("schema", status.schema)]
    if job := status.job:
        done = str(job.done) if job.total is None else f"{job.done} of {job.total}"
        since = f"{job.heartbeat_at:%Y-%m-%d %H:%M:%S} UTC"
        rows += [("last job", f"{job.kind}, {job.state}: {done} files done, process {job.pid}, {since}")]
    emit_table(rows)
    if not status.photos:
        click.echo("Nothing is indexed yet: search index DIR", err=True)
