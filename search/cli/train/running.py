"""What commands that train by a recipe have in common: their options, the run, and what is told of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from search.cli.options import Settings, completed_by, not_empty
from search.train.recipe import CHOICES, Recipe, read_values

if TYPE_CHECKING:
    from search.train.contrastive import Measured, Moment, Report

F = TypeVar("F", bound=Callable[..., Any])

_PATHS = ("captions", "held_out", "architecture")
_RUN = (
    click.argument("config", required=False, type=click.Path(exists=True, dir_okay=False)),
    click.option(
        "--out", required=True, metavar="DIR", callback=not_empty, help="The folder that becomes the model."
    ),
    click.option("--force", is_flag=True, help="Train anew, in place of another run in DIR."),
    click.option("--device", metavar="NAME", help="cpu, cuda, mps. [default: the best there is]"),
)
_KINDS = {"str": str, "int": int, "float": float}


def _option(one: Field[Any]) -> Callable[[F], F]:
    """The option of a recipe's field: without a default, so that a file's value stays where it is not given."""
    name, told = one.name.replace("_", "-"), one.metadata["help"]
    if one.default is not MISSING and one.default not in ("", 0) and "[default" not in told:
        told = f"{told} [default: {_short(one.default)}]"
    if str(one.type) == "bool":
        return click.option(f"--{name}/--no-{name}", one.name, default=None, help=told)
    if one.name == "sizes":
        return click.option("--size", "sizes", multiple=True, metavar="NAME=N", callback=_sizes, help=told)
    if one.name in CHOICES:
        return click.option(f"--{name}", one.name, type=click.Choice(CHOICES[one.name]), help=told)
    complete = completed_by("models") if one.name == "model" else None
    return click.option(f"--{name}", one.name, type=_KINDS[str(one.type)], help=told, shell_complete=complete)


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sizes(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, Any] | None:
    sizes = {}
    for text in value:
        name, separator, number = text.partition("=")
        try:
            sizes[name] = json.loads(number)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise click.BadParameter(f"{text} is no NAME=VALUE, such as vision_cfg.layers=4", context, parameter)
    return sizes or None


def options(kind: type[Recipe]) -> Callable[[F], F]:
    """Add CONFIG, --out, --force, --device and an option for each field of a recipe: the parameters of `run`."""

    def add(function: F) -> F:
        for one in reversed((*_RUN, *map(_option, fields(kind)))):
            function = one(function)
        return function

    return add


def run(
    settings: Settings,
    kind: type[Recipe],
    *,
    config: str | None,
    out: str,
    force: bool,
    device: str | None,
    **given: Any,
) -> int | None:
    """Train by a recipe of this kind, and tell what came out; return the exit status where a signal ended it."""
    from search.cli.output import emit_json
    from search.cli.progress import stopping

    recipe = _recipe(kind, config, {name: value for name, value in given.items() if value is not None})
    # Read by cuBLAS when it starts: without it, sums come out differently from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    from search.train.contrastive import train

    with _world(device) as (place, first), _shown(settings, first) as show, stopping(settings) as (stop, received):
        report = train(
            recipe,
            Path(out).expanduser(),
            anew=force,
            device=place,
            offline=settings.offline,
            on_download=settings.downloading,
            progress=show,
            stop=stop.is_set,
        )
    if first and settings.json:
        emit_json(_document(report))
    elif first:
        _tell(settings, report, forced=force)
    return 128 + received[0] if received and not report.finished else None


def _recipe(kind: type[Recipe], config: str | None, given: dict[str, Any]) -> Recipe:
    values = read_values(Path(config)) if config else {}
    for one, other in (("model", "architecture"), ("architecture", "model")):
        if given.get(one):
            values.pop(other, None)
    paths = {name: str(Path(given[name]).expanduser().absolute()) for name in _PATHS if _is_path(name, given)}
    return kind.of({**values, **given, **paths})


def _is_path(name: str, given: dict[str, Any]) -> bool:
    return bool(given.get(name)) and (name != "architecture" or given[name].endswith(".json"))


@contextmanager
def _world(device: str | None) -> Iterator[tuple[str | None, bool]]:
    """Join the other processes where torchrun began several; yield this one's device and whether it is the first."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device, True
        return
    from search.train.world import joined

    with joined(int(os.environ["LOCAL_RANK"])) as own:
        yield device or own, os.environ["RANK"] == "0"


@contextmanager
def _shown(settings: Settings, first: bool) -> Iterator[Callable[[Moment], None]]:
    """Yield what draws a bar with loss and speed where someone is looking, and tells each measurement."""
    import sys

    looking = first and not settings.quiet and (settings.verbose or sys.stderr.isatty())
    if not looking:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(desc="training", unit="step", file=sys.stderr, dynamic_ncols=True) as bar:

        def show(moment: Moment) -> None:
            bar.total = moment.steps
            bar.update(moment.step - bar.n)
            bar.set_postfix_str(f"loss {moment.loss:.3f}, {moment.images_per_second:.0f} images/s")
            if moment.measured and moment.measured.figures:
                bar.write(f"step {moment.step}: {_recalls(moment.measured)}", file=sys.stderr)

        yield show


def _recalls(measured: Measured) -> str:
    figures = measured.figures
    kinds = [kind for kind in ("", "short_") if f"{kind}image_retrieval_recall@1" in figures]
    told = [
        ", ".join(f"{figures[f'{kind}image_retrieval_recall@{k}']:.1%} @{k}" for k in (1, 5, 10)) for kind in kinds
    ]
    return f"captions find their photo {'; short ones '.join(told)}"


def _document(report: Report) -> dict[str, Any]:
    from search.documents import path_fields, skip_document

    return {
        **path_fields(report.path),
        "name": f"dir:{report.path}",
        "finished": report.finished,
        "steps": report.steps,
        "planned_steps": report.planned,
        "photos": report.photos,
        "captions": report.captions,
        "held_out": report.held_out,
        "loss": report.loss if math.isfinite(report.loss) else None,
        "measured": [{"step": one.step, **one.figures} for one in report.measured],
        "data": report.data,
        "skipped": [skip_document(skip) for skip in report.skipped],
        "seconds": report.seconds,
        "images_per_second": report.images_per_second,
    }


def _tell(settings: Settings, report: Report, *, forced: bool) -> None:
    from search.cli.output import printable

    for skip in report.skipped[:5]:
        settings.talk(f"skipped {skip.path}: {skip.detail}")
    if len(report.skipped) > 5:
        settings.talk(f"skipped {len(report.skipped) - 5} more; --json lists them")
    for one in (report.measured[0], report.measured[-1]):
        if one.figures:
            click.echo(f"step {one.step}, {report.held_out} photos held out: {_recalls(one)}")
    same = "the same command without --force" if forced else "the same command"
    rest = "" if report.finished else f" of {report.planned}; {same} goes on"
    click.echo(f"{report.steps} steps{rest}, loss {report.loss:.3f}, {report.images_per_second:.0f} images/s")
    if report.finished:
        click.echo(printable(f"dir:{report.path}"))
