"""Tokenizers of Hugging Face's kind (SigLIP's, CLIPA's) without transformers, by the `tokenizers` package alone.

What open_clip.HFTokenizer does around them is done here: cleaning, the cut that keeps the end, and separators made
zeros. A description and the tokenizer's own JSON are made from a loaded one, once, and compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.encoders.tokens import canonicalized, lowered, spaced

if TYPE_CHECKING:
    import tokenizers

_CLEAN: dict[str, Callable[[str], str]] = {"canonicalize": canonicalized, "lower": lowered, "whitespace": spaced}
_PROBES = (
    "",
    "a photo of a dog",
    " Two  spaces, snake_case & UPPER! don't ",
    "Émile’s café 日本語 собака 🎉 &amp; <b>",
    "<end_of_text> </s> <s> <eos> <bos> <pad> <unk> [SEP] [CLS]",
    "a long story about many words " * 60,
)


class ForeignTokenizer:
    """Cuts texts into the tokens of a tokenizer.json.

    clean: how open_clip cleans texts for it.   pad: what fills a text up.   zeroed: an id that is made 0, or None.
    vocabulary: above all its ids.
    """

    def __init__(
        self,
        inner: tokenizers.Tokenizer,
        context_length: int,
        *,
        clean: str,
        pad: int,
        zeroed: int | None,
        vocabulary: int,
    ) -> None:
        inner.no_truncation()
        inner.no_padding()
        self.context_length = context_length
        self.vocabulary = vocabulary
        self.pad = 0 if pad == zeroed else pad
        self._inner = inner
        self._clean = _CLEAN[clean]
        self._zeroed = zeroed

    def __call__(self, text: str) -> list[int]:
        """Return the ids with what is put around them, at most `context_length`."""
        encoding = self._inner.encode(self._clean(text), add_special_tokens=False)
        encoding.truncate(max(0, self.context_length - self._inner.num_special_tokens_to_add(False)))
        ids = self._inner.post_process(encoding).ids
        return [0 if token == self._zeroed else token for token in ids]

    def count(self, text: str) -> int:
        """Return how many tokens a text needs, were there room for all."""
        return len(self._inner.encode(self._clean(text)).ids)

    def to_json(self) -> str:
        """Return what a tokenizer.json holds, with neither padding nor a cut."""
        return self._inner.to_str()


def load(path: Path, context_length: int, facts: Mapping[str, Any]) -> ForeignTokenizer | None:
    """Open a tokenizer by its file and what `describe` said of it; None if it can't be."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return _open(content, context_length, facts)


def describe(tokenizer: Any, clean: str) -> tuple[str, dict[str, Any]] | None:
    """Return the JSON of an open_clip.HFTokenizer, and what else its ids depend on.

    None if it is of a kind that is not known here, or gave other ids.
    """
    inner: Any = getattr(tokenizer, "tokenizer", None)
    backend = getattr(inner, "backend_tokenizer", None)
    sides = {getattr(inner, side, None) for side in ("padding_side", "truncation_side")}
    if backend is None or sides != {"right"} or tokenizer.tokenizer_mode or clean not in _CLEAN:
        return None
    facts = {
        "clean": clean,
        "pad": inner.pad_token_id,
        "zeroed": inner.sep_token_id if tokenizer.strip_sep_token else None,
        "vocabulary": max(inner.get_vocab().values()) + 1,
    }
    ours = _open(backend.to_str(), tokenizer.context_length, facts)
    return (ours.to_json(), facts) if ours is not None and _agree(ours, tokenizer) else None


def _open(content: str, context_length: int, facts: Mapping[str, Any]) -> ForeignTokenizer | None:
    try:
        import tokenizers

        known = {key: facts[key] for key in ("clean", "pad", "zeroed", "vocabulary")}
        return ForeignTokenizer(tokenizers.Tokenizer.from_str(content), context_length, **known)
    except Exception:  # its errors have no class of their own; whatever it can't read is for the whole model
        return None


def _agree(ours: ForeignTokenizer, theirs: Any) -> bool:
    rows: list[list[int]] = theirs(list(_PROBES)).tolist()
    found = [ours(probe) for probe in _PROBES]
    return rows == [ids + [ours.pad] * (ours.context_length - len(ids)) for ids in found]
