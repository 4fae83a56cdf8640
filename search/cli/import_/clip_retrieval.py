"""search import clip-retrieval"""

from __future__ import annotations

from typing import Any

from search.cli.import_.adopting import adopt, adopting, source_argument
from search.cli.options import Settings, as_command


@as_command("clip-retrieval")
@source_argument()
@adopting
def command(settings: Settings, *, source: str, **options: Any) -> int:
    """Take over a folder of embeddings and metadata of clip-retrieval's.

    SOURCE holds img_emb and metadata; it does not say which model made them, so --model must.

    \b
    Example:
      search import clip-retrieval embeddings --model ViT-B-32/openai
    """
    from search.interop.clip_retrieval import EmbeddingFolder

    return adopt(settings, EmbeddingFolder(source), **options)
