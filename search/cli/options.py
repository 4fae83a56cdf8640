"""What every command shares: the options that stand everywhere, and errors as messages and exit codes."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from search import errors

if TYPE_CHECKING:
    from search.library import Library

F = TypeVar("F", bound=Callable[..., Any])

OK, FAILED, SKIPPED, STORAGE, NEWER, BUSY = 0, 1, 3, 4, 5, 75
EXIT_CODES = {
    OK: "done; what was skipped is in the report",
    FAILED: "an error: one line on stderr says what happened and what to do next, with `--json` also `error` with "
    "`type`, `message` and `hint`; `check` found problems that remain",
    2: "wrong usage",
    SKIPPED: "done, but something was skipped, with `--strict`",
    STORAGE: "the storage is full or not writable; everything committed stays searchable",
    NEWER: "the library was made by a newer version",
    BUSY: "another process is writing, and is named",
    130: "interrupted (Ctrl-C); the work so far is kept",
    143: "ended by SIGTERM, likewise",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The shared options of one call, whether they stood before or after the command's name."""

    library: str | None = None
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    offline: bool = False

    @classmethod
    def merged(cls, outer: Settings | None, given: Mapping[str, Any]) -> Settings:
        """Return the settings of a command: what is given to it, else to the group."""
        base = outer or cls()
        return cls(
            library=given["library"] or base.library,
            json=given["as_json"] or base.json,
            quiet=given["quiet"] or base.quiet,
            verbose=given["verbose"] or base.verbose,
            offline=given["offline"] or base.offline,
        )

    def talk(self, message: str) -> None:
        """Tell the user something that is not the answer."""
        from search.cli.output import printable

        if not self.quiet:
            click.echo(printable(message), err=True)

    def downloading(self, name: str) -> None:
        """Tell that a model is being fetched."""
        self.talk(f"downloading {name}; this happens once")

    def exporting(self, name: str) -> None:
        """Tell that a model is being exported."""
        self.talk(f"exporting {name} to a faster runtime; this happens once")

    def open_library(self, model: str = "auto", trust_checkpoint: str | None = None) -> Library:
        """Open the library that is meant."""
        from search import Library

        return Library.open(
            self.library,
            model=model,
            offline=self.offline,
            notify=self.talk,
            trust_checkpoint=trust_checkpoint,
            index_token=os.environ.get("SEARCH_INDEX_TOKEN"),
        )


def completed_by(name: str) -> Callable[..., Any]:
    """Return what completes a value in the shell: a function of search.cli.completion, imported when it is asked."""

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> Any:
        from search.cli import completion

        return getattr(completion, name)(context, parameter, incomplete)

    return complete


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_SHARED = (
    click.option(
        "-L",
        "--library",
        metavar="PATH",
        envvar="SEARCH_LIBRARY",
        shell_complete=completed_by("folders"),
        help="The library: a folder, or a URL such as postgresql://user@host/database. [default: yours]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Show progress even where stderr is no terminal."),
    click.option("--offline", is_flag=True, envvar="SEARCH_OFFLINE", help="Never use the network."),
)
_SHARED_NAMES = ("library", "as_json", "quiet", "verbose", "offline")

model_option = click.option(
    "--model",
    metavar="NAME",
    default="auto",
    shell_complete=completed_by("models"),
    help="The model; see `search models list`. [default: the library's]",
)
trust_option = click.option(
    "--trust-checkpoint",
    metavar="SHA256",
    callback=lambda *given: _sha256(given[2]),
    help="Refuse weights of any other SHA-256.",
)
k_option = click.option(
    "-k", "k", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many photos."
)


def not_empty(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Refuse a value, or one of several, that is empty: a variable that was not set would stand for anything."""
    if any(not text.strip() for text in ((value,) if isinstance(value, str) else value or ())):
        raise click.BadParameter("is empty; leave it out to ask for nothing of the kind", context, parameter)
    return value


def _sha256(text: str | None) -> str | None:
    if text is not None and not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise click.BadParameter("a SHA-256 is 64 hexadecimal digits")
    return text


class Number(click.FloatRange):
    """A float within bounds; unlike FloatRange it takes no NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if number != number or number in (float("inf"), float("-inf")):
            self.fail(f"{value!r} is no number to work with", param, ctx)
        return number


_RELEVANCE = (
    click.option(
        "--min-relevance",
        type=Number(0, 1),
        metavar="R",
        help="Drop hits below, 0 to 1. [default: what nothing that fits falls below; 0 for images]",
    ),
    click.option("--diverse", is_flag=True, help="Photos unlike each other rather than the best."),
)


def relevance_options(function: F) -> F:
    """Add `min_relevance` and `diverse`."""
    for option in reversed(_RELEVANCE):
        function = option(function)
    return function


def shared_options(function: F) -> F:
    """Add the options that stand everywhere."""
    for option in reversed(_SHARED):
        function = option(function)
    return function


def gathered(function: F, into: str, values: type[Any], options: Sequence[Callable[[F], F]]) -> F:
    """Add options that travel together: the function gets them as one value, the parameter `into`.

    values: a dataclass with a field for each of the options.
    """

    @functools.wraps(function)
    def gathering(*args: Any, **given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(values)}
        return function(*args, **given, **{into: values(**own)})

    added: Any = gathering
    for option in reversed(options):
        added = option(added)
    return cast(F, added)


def as_command(
    name: str, cls: type[click.Command] = click.Command
) -> Callable[[Callable[..., int | None]], click.Command]:
    """Make a function `(settings, **options) -> exit code` a command whose SearchErrors become messages."""

    def decorate(function: Callable[..., int | None]) -> click.Command:
        @functools.wraps(function)
        @click.pass_context
        def run(context: click.Context, /, **options: Any) -> None:
            given = {name: options.pop(name) for name in _SHARED_NAMES}
            settings = Settings.merged(context.obj, given)
            try:
                code = function(settings, **options)
            except errors.SearchError as error:
                _report(error, settings)
                code = _exit_code(error)
            except BrokenPipeError:
                raise
            except OSError as error:  # the folder one stands in was deleted, a drive went away
                _report(errors.SearchError(str(error)), settings)
                code = FAILED
            context.exit(code or OK)

        made = click.command(name, cls=cls, context_settings=CONTEXT)(shared_options(run))
        made.params.sort(key=lambda parameter: parameter.name in _SHARED_NAMES)  # its own come first in help
        return made

    return decorate


def _report(error: errors.SearchError, settings: Settings) -> None:
    from search.cli.output import printable

    click.echo(f"search: {printable(str(error))}", err=True)
    if settings.json:
        import json

        click.echo(json.dumps({"error": error_document(error)}))


def error_document(error: errors.SearchError) -> dict[str, str]:
    """Return an error for JSON."""
    return {"type": type(error).__name__, "message": error.message, "hint": error.hint}


def _exit_code(error: errors.SearchError) -> int:
    if isinstance(error, errors.StorageError):
        return STORAGE
    if isinstance(error, errors.NewerLibrary):
        return NEWER
    return BUSY if isinstance(error, errors.LibraryBusy | errors.TrainingBusy) else FAILED
