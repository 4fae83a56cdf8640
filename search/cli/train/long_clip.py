"""search train long-clip"""

from __future__ import annotations

from typing import Any

from search.cli.options import Settings, as_command
from search.cli.train import running
from search.train.recipe import LongClipRecipe


@as_command("long-clip")
@running.options(LongClipRecipe)
def command(settings: Settings, **given: Any) -> int | None:
    """Train a model to find photos by long captions, and still by short ones.

    A table with columns image, caption and short, or without `short`: then it is each caption's first sentence. Long
    captions match photos, short ones what photos of a batch have in common: Long-CLIP's training. The model should
    read long texts: see `search models stretch`. CONFIG and the rest as of `search train contrastive`.

    \b
    Example:
      search models stretch builtin ~/models/long
      search train long-clip --captions captions.tsv --model dir:$HOME/models/long --out ~/models/trained
    """
    return running.run(settings, LongClipRecipe, **given)
