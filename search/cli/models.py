"""search models list|info|download|export|stretch"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import FAILED, OK, Settings, as_command, completed_by, trust_option

if TYPE_CHECKING:
    from search.encoders import Encoder
    from search.encoders.exports import Record


@click.group("models")
def command() -> None:
    """List, inspect, download, export and stretch models.

    \b
    Examples:
      search models list
      search models download ViT-B-32-256/datacomp_s34b_b86k
    """


@as_command("list")
@click.option("--all", "all_", is_flag=True, help="Every model open_clip knows, not only the recommended ones.")
def list_(settings: Settings, *, all_: bool) -> None:
    """List models by name, and which are on this machine.

    \b
    Example:
      search models list --all
    """
    from search.cli.output import emit_json, emit_table
    from search.encoders.hub import known_models

    models = known_models(all_=all_)
    if settings.json:
        fields = ("name", "source", "cached", "size_bytes", "description")
        emit_json({"models": [{field: getattr(model, field) for field in fields} for model in models]})
        return
    rows = [(m.name, "here" if m.cached else "", _size(m.size_bytes), m.description) for m in models]
    emit_table(rows, right=(2,))


@as_command("info")
@click.argument("name", shell_complete=completed_by("models"))
@trust_option
def info(settings: Settings, *, name: str, trust_checkpoint: str | None) -> None:
    """Show a model's dimensions, preprocessing and fingerprint.

    \b
    Example:
      search models info builtin
    """
    from search.encoders import load_encoder
    from search.encoders.hub import model_info
    from search.encoders.runtimes import recorded

    load = partial(load_encoder, name) if name != "auto" else _recommended
    encoder = load(
        offline=settings.offline,
        on_download=settings.downloading,
        trust_checkpoint=trust_checkpoint,
    )
    record = recorded(encoder.name)
    _emit(settings, model_info(encoder) | {"exported": _outcome(record) if record else None})


@as_command("download")
@click.argument("name", shell_complete=completed_by("models"))
@trust_option
def download(settings: Settings, *, name: str, trust_checkpoint: str | None) -> None:
    """Fetch a model, so that it works without network from then on.

    \b
    Example:
      search models download ViT-B-32-256/datacomp_s34b_b86k
    """
    from search.encoders import RECOMMENDED
    from search.encoders.hub import download

    wanted = RECOMMENDED if name == "auto" else name
    document = download(
        wanted,
        offline=settings.offline,
        on_download=settings.downloading,
        trust_checkpoint=trust_checkpoint,
    )
    _emit(settings, document)


@as_command("export")
@click.argument("name", shell_complete=completed_by("models"))
@click.option("--int8", is_flag=True, help="In int8, tried on the library's photos; it is used as NAME+int8.")
@click.option("--force", is_flag=True, help="Keep int8 even if it finds other photos.")
@trust_option
def export(settings: Settings, *, name: str, int8: bool, force: bool, trust_checkpoint: str | None) -> int | None:
    """Export a model to OpenVINO, and use that from then on where it is the faster.

    Indexing does this by itself, once, where OpenVINO is installed: pip install 'search[fast]'.

    With --int8 (pip install 'search[int8]') the export is a model of its own, with vectors of its own. It is calibrated
    on photos of the library, then held on others against the model it is made of, and kept if of the ten photos nearest
    to a photo or word nine stay the same. `search index --model NAME+int8 --reencode` uses it.

    \b
    Example:
      search models export ViT-B-32-256/datacomp_s34b_b86k
    """
    from search.encoders import RECOMMENDED
    from search.encoders.hub import Fetcher
    from search.encoders.runtimes import export

    wanted = RECOMMENDED if name == "auto" else name
    if int8:
        return _export_int8(settings, wanted, force=force, trust_checkpoint=trust_checkpoint)
    fetcher = Fetcher(
        wanted, offline=settings.offline, on_download=settings.downloading, trust_checkpoint=trust_checkpoint
    )
    record, folder = export(wanted, fetcher=fetcher, on_export=settings.exporting)
    paths = [str(folder / file) for file in record.exported]
    _emit(settings, {"name": record.card["name"], **_outcome(record), "files": paths})
    return None


def _export_int8(settings: Settings, name: str, *, force: bool, trust_checkpoint: str | None) -> int:
    with settings.open_library(trust_checkpoint=trust_checkpoint) as library:
        outcome = library.quantise(name, force=force)
    _emit(settings, asdict(outcome))
    if not outcome.kept:
        settings.talk("it finds other photos and was not kept; --force keeps it")
    return OK if outcome.kept else FAILED


@as_command("stretch")
@click.argument("name", shell_complete=completed_by("models"))
@click.argument("out", type=click.Path(file_okay=False))
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=20,
    show_default=True,
    help="Tokens whose positions stay as they are.",
)
@click.option(
    "--ratio", type=click.IntRange(2, 64), default=4, show_default=True, help="How far the others move apart."
)
@click.option("--force", is_flag=True, help="Replace a folder that this command made.")
@trust_option
def stretch(
    settings: Settings,
    *,
    name: str,
    out: str,
    keep: int,
    ratio: int,
    force: bool,
    trust_checkpoint: str | None,
) -> None:
    """Make a model read longer texts: 248 tokens where CLIP reads 77.

    The text half's first positions stay, the others are spread and interpolated, as in Long-CLIP; nothing is trained.
    Texts of up to --keep tokens keep their vectors; longer ones are read to their end, if not as well as after training
    on such. OUT is a new folder, which is used as dir:OUT. docs/how-to/long-text.md says when that helps.

    \b
    Example:
      search models stretch builtin ~/models/builtin-248
    """
    from search.encoders import RECOMMENDED
    from search.encoders.hub import Fetcher
    from search.encoders.stretching import stretch

    wanted = RECOMMENDED if name == "auto" else name
    fetcher = Fetcher(
        wanted, offline=settings.offline, on_download=settings.downloading, trust_checkpoint=trust_checkpoint
    )
    made = stretch(wanted, out, fetcher=fetcher, keep=keep, ratio=ratio, force=force)
    if not made.unchanged and keep:
        settings.talk(
            f"warning: {made.source} reads its padding too, which there is more of now: no text keeps its vector"
        )
    document = {"path": str(made.path), "name": made.name, "context_length": made.context_length}
    document |= {"keep": keep, "ratio": ratio, "from": made.source, "unchanged": made.unchanged}
    _emit(settings, document)


def _outcome(record: Record) -> dict[str, Any]:
    return {
        "runtime": record.runtime,
        "reason": record.reason,
        "images_per_second": dict(record.images_per_second),
        "agreement": record.agreement,
    }


command.add_command(list_)
command.add_command(info)
command.add_command(download)
command.add_command(export)
command.add_command(stretch)


def _recommended(**options: Any) -> Encoder:
    from search.encoders import resolve_auto

    return resolve_auto(**options)[0]


def _emit(settings: Settings, document: dict[str, Any]) -> None:
    from search.cli.output import emit_json, emit_table

    if settings.json:
        emit_json(document)
    else:
        emit_table([(key, str(value)) for key, value in document.items() if value is not None])


def _size(size_bytes: int | None) -> str:
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes else ""
