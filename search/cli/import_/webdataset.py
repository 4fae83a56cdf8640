"""search import webdataset"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from search.cli.options import SKIPPED, STORAGE, Settings, as_command, completed_by, model_option, trust_option
from search.plurals import count_of

if TYPE_CHECKING:
    from search.interop.webdataset import UnpackReport
    from search.types import IndexReport


@as_command("webdataset")
@click.argument("sources", nargs=-1, required=True, metavar="TAR|FOLDER...", shell_complete=completed_by("files"))
@click.option(
    "--to", required=True, metavar="FOLDER", shell_complete=completed_by("folders"), help="Unpack there."
)
@model_option
@trust_option
@click.option("--unpack-only", is_flag=True, help="Index nothing: vectors of the pictures are imported next.")
@click.option("--wait", is_flag=True, help="Wait while another process writes to the library.")
@click.option("--strict", is_flag=True, help="Exit with 3 if anything was skipped.")
def command(
    settings: Settings,
    *,
    sources: tuple[str, ...],
    to: str,
    model: str,
    trust_checkpoint: str | None,
    unpack_only: bool,
    wait: bool,
    strict: bool,
) -> int:
    """Unpack tar files of pictures, and index them.

    Each tar file, as img2dataset and webdataset write them, becomes a folder below --to; captions stay beside their
    pictures. Run again, it goes on where it was.

    \b
    Example:
      search import webdataset shards --to pictures
    """
    from pathlib import Path

    from search.cli.output import emit_json
    from search.cli.progress import progress_bar, stopping
    from search.documents import report_document, skip_document
    from search.interop.webdataset import unpack

    index: IndexReport | None = None
    with (
        settings.open_library(model, trust_checkpoint) as library,
        stopping(settings) as (stop, signals),
        progress_bar(settings) as progress,
    ):
        folder = Path(to).expanduser().absolute()
        unpacked = unpack(sources, folder, progress=progress, stop=stop)
        if signals:
            return 128 + signals[0]
        if not unpack_only:
            index = library.index([folder], progress=progress, stop=stop, wait=wait)
    if settings.json:
        report = report_document(index, library.catalog.shown) if index else {"skipped": []}
        report["skipped"] = [skip_document(skip) for skip in unpacked.skipped] + report["skipped"]
        counts = {"shards": unpacked.shards, "shards_unchanged": unpacked.unchanged, "pictures": unpacked.photos}
        emit_json({**counts, **report})
    else:
        _tell(unpacked, index)
    if index and index.not_published:
        settings.talk(index.not_published)
    if signals:
        return 128 + signals[0]
    if index and index.not_published:
        return STORAGE
    return SKIPPED if strict and (unpacked.skipped or (index and index.skipped)) else 0


def _tell(unpacked: UnpackReport, index: IndexReport | None) -> None:
    from search.cli.output import emit_table, short

    click.echo(
        f"{count_of(unpacked.shards, 'tar file')} unpacked, {unpacked.unchanged} as before; "
        f"{count_of(unpacked.photos, 'picture')} in all"
    )
    if index:
        click.echo(f"  encoded {index.encoded} · unchanged {index.unchanged} · skipped {len(index.skipped)}")
    if skipped := (*unpacked.skipped, *(index.skipped if index else ())):
        click.echo("Skipped:")
        emit_table([(f"  {short(skip.path)}", skip.reason, skip.detail) for skip in skipped[:10]])
