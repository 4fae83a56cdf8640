"""search train contrastive"""

from __future__ import annotations

from typing import Any

from search.cli.options import Settings, as_command
from search.cli.train import running
from search.train.recipe import Recipe


@as_command("contrastive")
@running.options(Recipe)
def command(settings: Settings, **given: Any) -> int | None:
    """Train a model to find photos by their captions.

    CONFIG is a TOML file with any of these options, written with underscores; options come before it. The same command
    again goes on with a run that was cut short. Several GPUs: torchrun --nproc-per-node N -m search train contrastive.

    \b
    Example:
      search train contrastive --captions captions.tsv --model builtin --epochs 5 --out ~/models/mine
      search index ~/Pictures --model dir:$HOME/models/mine --reencode
    """
    return running.run(settings, Recipe, **given)
