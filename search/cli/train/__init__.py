"""search train contrastive|long-clip"""

from __future__ import annotations

import click

from search.cli.groups import Commands

_COMMANDS = ("contrastive", "long-clip", "probe")


@click.group("train", cls=Commands, package=__name__, names=_COMMANDS)
def command() -> None:
    """Train a model on photos with captions, or labels on photos in class folders.

    \b
    Examples:
      search train contrastive recipe.toml --out ~/models/mine
      search train probe ~/flowers
    """
