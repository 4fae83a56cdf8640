"""search index"""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from search.cli.options import (
    SKIPPED,
    STORAGE,
    F,
    Number,
    Settings,
    as_command,
    completed_by,
    gathered,
    model_option,
    trust_option,
)
from search.errors import LibraryBusy, UsageError
from search.plurals import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from search.library import Library
    from search.shards.run import ShardOptions
    from search.types import IndexReport, Skip

_NAMED = 5  # skipped files that are told one by one


_IN_BULK = (
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="Where photos are encoded.",
    ),
    click.option(
        "--shards", metavar="DIR|URL", help="Encode in shards and keep them there. [with ray: in the library]"
    ),
    click.option("--shard-size", type=click.IntRange(1, 100_000), help="Photos a shard. [default: 512]"),
    click.option("--gpus", type=Number(min=0), help="GPUs that a shard takes with ray; a part of one is shared."),
    click.option(
        "--ray-address", metavar="HOST:PORT", help="A Ray cluster that runs. [default: one on this machine]"
    ),
)


@dataclass(frozen=True, slots=True)
class _Bulk:
    """Whether photos are encoded in shards, and how."""

    engine: str
    shards: str | None
    shard_size: int | None
    gpus: float | None
    ray_address: str | None

    def check(self) -> None:
        """Raise click.UsageError for options that do not go together."""
        if self.engine == "ray":
            return
        if self.gpus is not None or self.ray_address is not None:
            raise click.UsageError("--gpus and --ray-address are for --engine ray")
        if self.shards is None and self.shard_size is not None:
            raise click.UsageError("--shard-size is for --shards and --engine ray")

    @contextmanager
    def opened(self, library: Library, workers: int | None) -> Iterator[ShardOptions | None]:
        """Yield how to encode in shards; None where that is not asked for."""
        if self.engine == "local" and self.shards is None:
            yield None
            return
        from search.engines import LocalEngine, RayEngine, RayOptions
        from search.shards import SIZE
        from search.shards.run import ShardOptions

        folder = library.catalog.folder
        if self.shards is None and folder is None:
            raise UsageError(
                "a library on a database server has no folder for shards", hint="--shards DIR says where"
            )
        store = self.shards or str(folder and folder / "shards")
        on_ray = RayOptions(gpus=self.gpus or 0, address=self.ray_address)
        with nullcontext(LocalEngine()) if self.engine == "local" else RayEngine(on_ray) as engine:
            yield ShardOptions(engine, store, self.shard_size or SIZE, workers)


def _bulk_options(function: F) -> F:
    """Add `bulk`."""
    return gathered(function, "bulk", _Bulk, _IN_BULK)


@as_command("index")
@click.argument("paths", shell_complete=completed_by("files"), nargs=-1, required=True, metavar="PATH...")
@model_option
@trust_option
@click.option("--batch-size", type=click.IntRange(1, 4096), help="Photos a batch. [default: what suits the model]")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes that decode photos. [default: one a core + 1, fewer where memory is short]",
)
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out files and folders of this name or path.")
@click.option("--include-hidden", is_flag=True, help="Take files and folders that begin with a dot.")
@click.option("--follow-symlinks", is_flag=True, help="Follow links.")
@click.option("--reencode", is_flag=True, help="Give all photos vectors by --model, then answer with it.")
@click.option(
    "--confirm-removals", is_flag=True, help="What is not found is gone, even if it looks like a drive away."
)
@click.option("--max-megapixels", type=Number(min=0.01), default=200, show_default=True, help="Skip above.")
@_bulk_options
@click.option("--wait", is_flag=True, help="Wait while another process writes to the library.")
@click.option("--strict", is_flag=True, help="Exit with 3 if anything was skipped.")
def command(
    settings: Settings,
    *,
    paths: tuple[str, ...],
    model: str,
    trust_checkpoint: str | None,
    batch_size: int | None,
    workers: int | None,
    exclude: tuple[str, ...],
    include_hidden: bool,
    follow_symlinks: bool,
    reencode: bool,
    confirm_removals: bool,
    max_megapixels: float,
    bulk: _Bulk,
    wait: bool,
    strict: bool,
) -> int:
    """Bring photos into the library.

    PATH is a folder, a file, a tar file of photos or the address of object storage. Only what is new or changed costs
    anything; renamed and moved files keep their vectors. Stop it at any time: what is done is kept, and the next run
    does the rest.

    \b
    Examples:
      search index ~/Pictures --exclude "*.gif"
      search index photos/00001.tar s3://bucket/photos
    """
    from search.cli.output import printable
    from search.cli.progress import progress_bar, stopping
    from search.indexer import IndexOptions
    from search.photos.scan import ScanOptions

    options = IndexOptions(
        scan=ScanOptions(exclude=exclude, include_hidden=include_hidden, follow_symlinks=follow_symlinks),
        batch_size=batch_size,
        max_megapixels=max_megapixels,
        confirm_removals=confirm_removals,
        **({"workers": workers} if workers else {}),
    )
    bulk.check()
    with settings.open_library(model, trust_checkpoint) as library:
        with (
            bulk.opened(library, workers) as shards,
            stopping(settings) as (stop, signals),
            progress_bar(settings) as progress,
        ):
            try:
                report = library.index(
                    paths,
                    options=options,
                    reencode=reencode,
                    shards=shards,
                    progress=progress,
                    stop=stop,
                    wait=wait,
                )
            except LibraryBusy:
                if signals:  # it was waiting
                    return 128 + signals[0]
                raise
        _tell(settings, library, report)
    if report.not_encoded:
        settings.talk(
            f"{count_of(report.not_encoded, 'photo has', 'photos have')} no vector by {report.encoder} yet, so the "
            "model before it answers still; run this again over all folders"
        )
    if report.not_published:
        click.echo(f"search: {printable(report.not_published)}", err=True)
    if signals:
        return 128 + signals[0]
    if report.not_published:
        return STORAGE
    return SKIPPED if strict and report.skipped else 0


def _tell(settings: Settings, library: Library, report: IndexReport) -> None:
    """Print the report; of a library's first photos also what they are, and what to ask."""
    from search.cli import introduction
    from search.cli.output import emit_json
    from search.documents import report_document

    is_first = not settings.quiet and introduction.is_due(library, report)
    if settings.json:
        document = introduction.document(settings, library) if is_first else {}
        emit_json({**report_document(report, library.catalog.shown), **document})
        return
    _tell_report(report, library.catalog.shown)
    if is_first:
        introduction.tell(settings, library, report)


def _tell_report(report: IndexReport, library: str) -> None:
    from search.cli.introduction import passed_over
    from search.cli.output import printable, short

    ending = "Interrupted: so far" if report.interrupted else "Done:"
    click.echo(f"{ending} {count_of(report.photos, 'photo')} in {printable(library)}, by {report.encoder}")
    click.echo(
        f"  added {report.added} · updated {report.updated} · moved {report.moved} · unchanged {report.unchanged}"
        f" · gone {report.gone} · offline {report.offline} · skipped {len(report.skipped)}"
    )
    click.echo(f"  {report.encoded} encoded in {report.seconds:.1f} s, {report.images_per_second:.1f} a second")
    if report.reread:
        click.echo(f"  metadata of {count_of(report.reread, 'photo')} read again")
    for kept in report.withheld:
        click.echo(
            f"  {count_of(kept.photos, 'photo')} of {printable(short(kept.path))} not found but kept: {kept.reason}; "
            "if gone for good, index with --confirm-removals"
        )
    if not (report.seen or report.offline or report.gone or report.interrupted):
        left_out = passed_over(report)
        click.echo("  no photo was found there" + (f"; passed over: {left_out}" if left_out else ""))
    _tell_skipped(report.skipped)


def _tell_skipped(skipped: Sequence[Skip]) -> None:
    """Print few skipped files one by one, of many an example for each reason."""
    from search.cli.output import emit_skipped, emit_table, short

    if len(skipped) <= _NAMED:
        emit_skipped(skipped)
        return
    by_reason: dict[str, list[Skip]] = defaultdict(list)
    for skip in skipped:
        by_reason[skip.reason].append(skip)
    groups = sorted(by_reason.values(), key=len, reverse=True)
    click.echo("Skipped; `search skipped` lists them all:")
    emit_table(
        [
            (f"  {len(group)}", group[0].reason, f"such as {short(group[0].path)}", group[0].detail)
            for group in groups
        ]
    )
