"""What importing vectors from any software shares: options, the run, and how it is told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from search.cli.options import SKIPPED, STORAGE, Number, Settings, completed_by, trust_option
from search.plurals import count_of

if TYPE_CHECKING:
    from search.adoption import Source
    from search.types import AdoptReport, Passport

F = TypeVar("F", bound=Callable[..., Any])


_OPTIONS = (
    click.option(
        "--model",
        metavar="NAME",
        default="auto",
        shell_complete=completed_by("models"),
        help="The model that made the vectors. [default: the one that the source names]",
    ),
    trust_option,
    click.option(
        "--moved",
        nargs=2,
        multiple=True,
        metavar="OLD NEW",
        help="A folder as the source names it, and where it is now; may be given often.",
    ),
    click.option(
        "--agreement",
        type=Number(0.9, 1),
        default=0.99,
        show_default=True,
        help="Least cosine of a stored vector with a new one.",
    ),
    click.option(
        "--tolerate",
        type=click.IntRange(0, 16),
        help="Photos compared that may fall below. [default: 1 in 16, if not below 0.9]",
    ),
    click.option("--reencode", is_flag=True, help="Take the photos alone and encode them here."),
    click.option("--no-encode", is_flag=True, help="Leave photos without a usable vector to the next `index`."),
    click.option("--dry-run", is_flag=True, help="Compare and tell; write nothing."),
    click.option("--wait", is_flag=True, help="Wait while another process writes to the library."),
    click.option("--strict", is_flag=True, help="Exit with 3 if anything was skipped."),
)


def adopting(function: F) -> F:
    """Add the options that `adopt` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


source_argument = functools.partial(
    click.argument, "source", metavar="SOURCE", shell_complete=completed_by("files")
)


def adopt(
    settings: Settings,
    source: Source,
    *,
    model: str,
    trust_checkpoint: str | None,
    moved: tuple[tuple[str, str], ...],
    agreement: float,
    tolerate: int | None,
    reencode: bool,
    no_encode: bool,
    dry_run: bool,
    wait: bool,
    strict: bool,
) -> int:
    """Take over a source's photos and vectors, and tell how it went; return the exit code."""
    from search.adoption import AdoptOptions
    from search.cli.output import emit_json
    from search.cli.progress import progress_bar, stopping

    if dry_run and reencode:
        raise click.UsageError("--dry-run compares vectors, which --reencode does not take")
    options = AdoptOptions(moved, agreement, tolerate, reencode, encode=not no_encode)
    with (
        settings.open_library(_model(source, model, reencode=reencode), trust_checkpoint) as library,
        stopping(settings) as (stop, signals),
        progress_bar(settings) as progress,
    ):
        if dry_run:
            passport = library.compare(source, options=options, progress=progress)
            _emit_passport(settings, passport)
            return 0
        report = library.adopt(source, options=options, progress=progress, stop=stop, wait=wait)
    if settings.json:
        emit_json(_document(report, library.catalog.shown))
    else:
        _tell(report, library.catalog.shown)
    if report.index.not_published:
        settings.talk(report.index.not_published)
    if signals:
        return 128 + signals[0]
    if report.index.not_published:
        return STORAGE
    return SKIPPED if strict and report.index.skipped else 0


def _model(source: Source, asked: str, *, reencode: bool) -> str:
    """Return the model that is to have made the vectors. Raises click.UsageError where nobody says."""
    if asked != "auto" or reencode:
        return asked
    if source.model is None:
        raise click.UsageError(
            f"{source.kind} does not say which model made its vectors: name it with --model, "
            "or take the photos alone with --reencode"
        )
    return source.model


# ---- telling


def _emit_passport(settings: Settings, passport: Passport) -> None:
    from search.cli.output import emit_json
    from search.documents import passport_document

    if settings.json:
        emit_json({"passport": passport_document(passport)})
    else:
        _tell_passport(passport)


def _document(report: AdoptReport, library: str) -> dict[str, Any]:
    from search.documents import passport_document, report_document

    return {
        "passport": passport_document(report.passport) if report.passport else None,
        "named": report.named,
        "adopted": report.adopted,
        "left": dict(report.left),
        "not_adopted": dict(report.not_adopted),
        "not_encoded": report.not_encoded,
        **report_document(report.index, library),
    }


_TOLD = {
    "applied": "photos were turned upright, as here",
    "ignored": "photos that lie on their side were not turned; they are encoded here",
    "mixed": "photos that lie on their side agree neither way; they are encoded here",
    "untold": "no photo compared lies on its side; any that do are encoded here",
}
_REASONS = {
    "changed": "changed since, or not to be read",
    "turned": "lying on their side",
    "unsound": "stored vector is none",
    "deviating": "vector deviates",
}


def _tell_passport(passport: Passport) -> None:
    click.echo(
        f"{passport.agreeing} of {len(passport.spots)} vectors compared are those of {passport.model}: cosine "
        f"{passport.lowest:.4f} at least, {passport.median:.4f} in the middle"
    )
    click.echo(f"  {_TOLD[passport.orientation]}")


def _tell(report: AdoptReport, library: str) -> None:
    from search.cli.output import emit_skipped, printable

    if report.passport:
        _tell_passport(report.passport)
    index = report.index
    ending = "Interrupted: so far" if index.interrupted else "Done:"
    click.echo(f"{ending} {count_of(index.photos, 'photo')} in {printable(library)}, by {index.encoder}")
    click.echo(
        f"  taken over {report.adopted} of {report.named} · encoded {index.encoded} · unchanged {index.unchanged}"
        f" · waiting {report.not_encoded} · skipped {len(index.skipped)}"
    )
    for reason, count in report.not_adopted.items():
        click.echo(f"  {count_of(count, 'vector')} not taken over: {_REASONS[reason]}")
    for reason, count in report.left.items():
        click.echo(f"  {count_of(count, 'row')} of no use: {reason}")
    emit_skipped(index.skipped)
