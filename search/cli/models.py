"""search models list|info|download"""

from __future__ import annotations

from typing import Any

import click

from search.cli.options import Settings, as_command


@click.group("models")
def command() -> None:
    """List, inspect and download models.

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
@click.argument("name")
def info(settings: Settings, *, name: str) -> None:
    """Show a model's dimensions, preprocessing and fingerprint.

    \b
    Example:
      search models info builtin
    """
    from search.encoders import load_encoder, resolve_auto
    from search.encoders.hub import model_info

    if name == "auto":
        encoder, _ = resolve_auto(offline=settings.offline, on_download=settings.downloading)
    else:
        encoder = load_encoder(name, offline=settings.offline, on_download=settings.downloading)
    _emit(settings, model_info(encoder))


@as_command("download")
@click.argument("name")
def download(settings: Settings, *, name: str) -> None:
    """Fetch a model, so that it works without network from then on.

    \b
    Example:
      search models download ViT-B-32-256/datacomp_s34b_b86k
    """
    from search.encoders import RECOMMENDED
    from search.encoders.hub import download

    wanted = RECOMMENDED if name == "auto" else name
    _emit(settings, download(wanted, offline=settings.offline, on_download=settings.downloading))


command.add_command(list_)
command.add_command(info)
command.add_command(download)


def _emit(settings: Settings, document: dict[str, Any]) -> None:
    from search.cli.output import emit_json, emit_table

    if settings.json:
        emit_json(document)
    else:
        emit_table([(key, str(value)) for key, value in document.items() if value is not None])


def _size(size_bytes: int | None) -> str:
    return f"{size_bytes / 1e6:.0f} MB" if size_bytes else ""
