"""search find"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli.answers import output_options, telling_of
from search.cli.filtering import filter_of, filter_options
from search.cli.options import (
    Settings,
    as_command,
    completed_by,
    k_option,
    model_option,
    relevance_options,
    trust_option,
)

if TYPE_CHECKING:
    from search import Library
    from search.query import Query
    from search.types import Filter


class _Describing(click.Command):
    """Takes a description that begins with one dash (`-dark sky`) as text; options are written as they are listed."""

    _SHORT_OPTION = re.compile(r"-(h|o|[qv]+|k\d*|L.*)", re.DOTALL)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = {
            name: option for option in self.params if isinstance(option, click.Option) for name in option.opts
        }
        rest, texts, remaining = [], [], iter(args)
        for arg in remaining:
            if arg == "--":
                texts += [*remaining]
            elif arg.startswith("--") or self._SHORT_OPTION.fullmatch(arg):
                rest.append(arg)
                if arg in options and not options[arg].is_flag:
                    rest += [value for value in [next(remaining, None)] if value is not None]
            else:
                texts.append(arg)
        return super().parse_args(ctx, [*rest, "--", *texts])


@as_command("find", _Describing)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option(
    "--like",
    multiple=True,
    shell_complete=completed_by("files"),
    metavar="IMAGE|ID",
    help="Look for photos like this one.",
)
@click.option(
    "--unlike",
    multiple=True,
    shell_complete=completed_by("files"),
    metavar="IMAGE|ID",
    help="Push away from this photo.",
)
@click.option("--not", "avoid", multiple=True, metavar="TEXT", help="Push away from this.")
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help='Put texts into this at {}, as "a photo of {}"; several are averaged.',
)
@click.option("--queries", type=click.File(encoding="utf-8"), metavar="FILE", help="Answer each line by itself.")
@k_option
@filter_options
@relevance_options
@output_options
@model_option
@trust_option
def command(
    settings: Settings,
    *,
    texts: tuple[str, ...],
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    avoid: tuple[str, ...],
    templates: tuple[str, ...],
    queries: Any,
    k: int,
    min_relevance: float | None,
    diverse: bool,
    model: str,
    trust_checkpoint: str | None,
    **options: Any,
) -> None:
    """Find photos by description, by example, or both.

    Several TEXTs make one query, and so do --like, --unlike and --not with them. Each may carry a weight in front:
    "2:red car". Photos of the library that are given as examples are left out. A line of --queries is a whole query:
    red car + 2:beach - people + like:12.

    \b
    Examples:
      search find "a red car in the rain"
      search find "a dog" "2:beach" --not people --after 2023
      search find "a dog" --where "rating >= 4 and not camera:pixel"
      search find --like holiday.jpg --unlike 12 --output sheet.html
    """
    telling = telling_of(settings, options)
    if queries is None:
        # A few short texts: threads that wait for each other take longer than one alone, on a busy machine three times
        # as long. Read when numpy is imported.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    wanted = filter_of(**options)
    if queries is None and not texts and not like:
        raise click.UsageError(_what_to_say(wanted))
    asked = _queries(queries, texts, like, {"avoid": avoid, "unlike": unlike})
    with settings.open_library(model, trust_checkpoint) as library:
        answers = [
            library.answer(
                query, k, filter=wanted, min_relevance=min_relevance, diverse=diverse, templates=templates
            )
            for query in asked
        ]
        if not any(answer.candidates for answer in answers):
            _tell_why_none(settings, library, wanted.labels)
    telling.tell(answers, many=queries is not None)


def _what_to_say(wanted: Filter) -> str:
    """Say what is missing where neither a text nor a photo is given, and where a filter alone leads to its photos."""
    missing = "say what to find: a TEXT, or a photo with --like"
    if wanted.labels:
        return (
            f"{missing}; `search tags list --photos {shlex.quote(wanted.labels[0])}` lists the photos of a label"
        )
    if wanted:
        return (
            f"{missing}; `search find photo --min-relevance 0 -k 1000` with these conditions lists what meets them"
        )
    return missing


def _tell_why_none(settings: Settings, library: Library, labels: Sequence[str]) -> None:
    """Say why there was no photo to look at, where it is no matter of the photos."""
    if not library.catalog.count():
        settings.talk("the library holds no photos yet; 'search index DIR' brings some in")
        return
    from search.types import Filter

    for label in labels:
        having = library.catalog.select(Filter(labels=(label,)))
        if having is not None and not len(having):
            settings.talk(f"no photo has the label {label!r}; 'search tags list' shows the labels there are")


def _queries(
    file: Any, texts: Sequence[str], like: Sequence[str], away: Mapping[str, Sequence[str]]
) -> list[Query]:
    """Return what was asked; away: what `search.query.parse` takes to push away."""
    from search.query import parse

    if file is None:
        return [parse(texts, like=like, **away)]
    if texts or like:
        raise click.UsageError("--queries takes the place of TEXT and --like")
    try:
        lines = [(number, line.strip()) for number, line in enumerate(file, start=1) if line.strip()]
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not UTF-8 text") from None
    return [_line(text, number, away) for number, text in lines]


def _line(text: str, number: int, away: Mapping[str, Sequence[str]]) -> Query:
    from search.errors import QueryError
    from search.grammar import parse_query

    try:
        return parse_query(text, **away)
    except QueryError as error:
        raise QueryError(f"line {number}: {error.message}", hint=error.hint, column=error.column) from None
