"""search import clip-retrieval"""

from __future__ import annotations

from typing import Any

import click

from search.cli.import_.adopting import adopt, adopting, source_argument
from search.cli.options import Settings, as_command, completed_by


@as_command("clip-retrieval")
@source_argument()
@click.option(
    "--pictures",
    metavar="FOLDER",
    shell_complete=completed_by("folders"),
    help="Where unpacked tar files are, if SOURCE was made of such: it has their keys, no paths.",
)
@adopting
def command(settings: Settings, *, source: str, pictures: str | None, **options: Any) -> int:
    """Take over a folder of embeddings and metadata of clip-retrieval's.

    SOURCE holds img_emb and metadata; it does not say which model made them, so --model must.

    \b
    Example:
      search import clip-retrieval embeddings --model ViT-B-32/openai
    """
    from search.interop.clip_retrieval import EmbeddingFolder

    return adopt(settings, EmbeddingFolder(source, pictures=pictures), **options)
