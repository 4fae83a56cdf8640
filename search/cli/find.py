"""search find"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from search.cli.answers import output_options, telling_of
from search.cli.filtering import filter_of, filter_options
from search.cli.options import Number, Settings, as_command, completed_by, k_option, model_option, trust_option

if TYPE_CHECKING:
    from search.query import Query
    from search.types import Answer


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
    metavar="IMAGE",
    help="Look for photos like this image file.",
)
@click.option("--not", "unlike", multiple=True, metavar="TEXT", help="Push away from this.")
@click.option("--queries", type=click.File(encoding="utf-8"), metavar="FILE", help="Answer each line by itself.")
@k_option
@filter_options
@click.option("--min-relevance", type=Number(0, 1), default=0.0, metavar="R", help="Drop hits below, 0 to 1.")
@output_options
@model_option
@trust_option
def command(
    settings: Settings,
    *,
    texts: tuple[str, ...],
    like: tuple[str, ...],
    unlike: tuple[str, ...],
    queries: Any,
    k: int,
    min_relevance: float,
    model: str,
    trust_checkpoint: str | None,
    **options: Any,
) -> None:
    """Find photos by description, by example, or both.

    Several TEXTs make one query. A term may carry a weight in front: "2:red car".

    \b
    Examples:
      search find "a red car in the rain"
      search find "a dog" "2:beach" --not people --after 2023
      search find "a dog" --where "rating >= 4 and not camera:pixel"
      search find --like holiday.jpg --output sheet.html
    """
    telling = telling_of(settings, options)
    if queries is None:
        # A few short texts: threads that wait for each other take longer than one alone, on a busy machine three times
        # as long. Read when numpy is imported.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    asked = _queries(texts, like, unlike, queries)
    wanted = filter_of(**options)
    with settings.open_library(model, trust_checkpoint) as library:
        answers = [library.answer(query, k, filter=wanted, min_relevance=min_relevance) for query in asked]
    _warn_of_cut_text(settings, answers)
    telling.tell(answers, many=queries is not None)


def _queries(texts: tuple[str, ...], like: tuple[str, ...], unlike: tuple[str, ...], file: Any) -> list[Query]:
    from search.query import parse

    if file is None:
        if not texts and not like:
            raise click.UsageError("say what to find: a TEXT, or an image with --like")
        return [parse(texts, like=like, unlike=unlike)]
    if texts or like:
        raise click.UsageError("--queries takes the place of TEXT and --like")
    try:
        lines = [line.strip() for line in file if line.strip()]
    except UnicodeDecodeError:
        raise click.UsageError(f"{file.name} is not UTF-8 text") from None
    return [parse([line], unlike=unlike) for line in lines]


def _warn_of_cut_text(settings: Settings, answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.truncated_tokens:
            settings.talk(
                f"warning: {answer.encoder} reads no further than its limit; the last {answer.truncated_tokens} "
                "tokens of the query were not used"
            )
