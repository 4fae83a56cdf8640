"""search evaluate index|probe|prompts|relevance|retrieval|robustness|zero-shot"""

from __future__ import annotations

import click

from search.cli.groups import Commands

_COMMANDS = ("index", "probe", "prompts", "relevance", "retrieval", "robustness", "zero-shot")


@click.group("evaluate", cls=Commands, package=__name__, names=_COMMANDS)
def command() -> None:
    """Measure how good the library's answers are, and a model on photos whose content is known.

    \b
    Example:
      search evaluate index
      search evaluate zero-shot ~/labelled
    """
