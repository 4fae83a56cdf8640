"""The command line: a thin door to the library. Only here is anything printed and does anything exit."""

from __future__ import annotations

import gc
import os
import sys

import click

from search import __version__
from search.cli.groups import Commands
from search.cli.options import CONTEXT, Settings, shared_options

_COMMANDS = (
    "check",
    "completion",
    "duplicates",
    "evaluate",
    "export",
    "find",
    "import",
    "index",
    "label",
    "migrate",
    "models",
    "rebuild",
    "remove",
    "root",
    "serve",
    "show",
    "similar",
    "skipped",
    "status",
    "tags",
    "train",
    "upgrade",
)


# Start-up makes a hundred thousand objects and no garbage; to look for some time and again is a waste. Work that
# lasts makes more than that, and is looked through.
_GARBAGE_THRESHOLD = 100_000


@click.group(
    cls=Commands,
    package=__name__,
    names=_COMMANDS,
    context_settings=CONTEXT,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
)
@click.version_option(__version__, prog_name="search")
@shared_options
@click.pass_context
def cli(context: click.Context, /, **shared: object) -> None:
    """Find your photos by describing them.

    \b
    search index ~/Pictures
    search find "a dog on the beach"
    """
    context.obj = settings = Settings.merged(None, shared)
    if context.invoked_subcommand is None:
        from search.cli.start import start

        start(settings)


def main() -> None:
    """Run the command line; what a command raises on purpose is mapped to messages and exit codes by it."""
    # Threads of torch and FAISS that wait for work in a loop starve on a busy machine: slower there, and no faster on
    # a quiet one (bench/contention.py). Read when the first of them is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    gc.set_threshold(_GARBAGE_THRESHOLD)
    try:
        if asked := os.environ.get("_SEARCH_COMPLETE"):
            from search.cli.completion import answer

            sys.exit(answer(asked))
        with cli.make_context("search", sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader went away (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    finally:
        # Everything is closed. Without this the interpreter would look through all modules for garbage as it ends,
        # which takes a tenth of a query.
        gc.freeze()
