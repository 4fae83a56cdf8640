"""Texts → unit vectors without torch: the text half of a model, in numpy, on memory-mapped weights.

A search needs no more of a model than this, and opening it takes a fraction of the time that importing torch
does. What there is of towers is in `search.encoders.towers`; `open_text_encoder` says of all else that it is not
for here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from search.encoders import mapped
from search.encoders.tokens import ClipTokenizer
from search.encoders.towers import clip

if TYPE_CHECKING:
    from search.types import Vectors

_NORM_EPSILON = 1e-12  # torch's, in normalize
_WORTH_BYTES = 2**24  # of 16-bit numbers, which take about 10 ms to convert at every start; below, no copy is kept
_VISUAL = ("visual.", "text_decoder.")  # tensors that no text's vector depends on


class Tokenizer(Protocol):
    """Cuts texts into tokens.

    vocabulary: above all ids it gives.   pad: the id that fills a text up to the context's length.
    """

    vocabulary: int
    pad: int

    def __call__(self, text: str) -> list[int]:
        """Return the ids that are looked at, from start to end, without padding."""

    def count(self, text: str) -> int:
        """Return how many tokens a text needs, start and end included, were there room for all."""


class TextEncoder:
    """Turns texts into float32 unit rows of width `dim`, as the whole model would.

    tower: rows of ids, of any lengths → (N, dim), not unit rows yet.   context_length: tokens a text may have, start
    and end included; the rest is cut off.
    """

    def __init__(
        self,
        tower: Callable[[Sequence[list[int]]], Vectors],
        tokenizer: Tokenizer,
        *,
        dim: int,
        context_length: int,
    ) -> None:
        self.dim = dim
        self.context_length = context_length
        self.english_only = isinstance(tokenizer, ClipTokenizer)
        self._tower = tower
        self._tokenizer = tokenizer

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order; N = 0 gives (0, dim)."""
        rows = self._tower([self._tokenizer(text) for text in texts])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(_NORM_EPSILON))
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included, were there room for all."""
        return [self._tokenizer.count(text) for text in texts]


def open_text_encoder(
    config: Mapping[str, Any], weights: Path, *, tokenizer: Tokenizer | None = None, folder: Path | None = None
) -> TextEncoder | None:
    """Open the text half of a model, or return None where that takes open_clip and torch.

    config: open_clip's model_cfg.   weights: one safetensors file, which stays mapped into memory.
    tokenizer: where the configuration names one that is not CLIP's.   folder: where CLIP's keeps its table.
    None also stands for weights that do not fit the configuration or can't be read: the whole model's loader has
    the words for what is wrong. Values are taken as they are: only that loader looks whether all are finite.
    """
    shape = clip.shape_of(config)
    if shape is None or weights.suffix != ".safetensors":
        return None
    cutting = _tokenizer(config["text_cfg"], shape, tokenizer, folder)
    if cutting is None or cutting.vocabulary > shape.vocab_size:
        return None
    try:
        tower = clip.gather(mapped.read(weights), shape, cutting.pad)
        return TextEncoder(tower, cutting, dim=shape.dim, context_length=shape.context_length)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # the file is input: whatever it breaks with is a no


def _tokenizer(
    text: Mapping[str, Any], shape: clip.Shape, given: Tokenizer | None, folder: Path | None
) -> Tokenizer | None:
    """Return the tokenizer of a configuration; None if it is one that is neither CLIP's usual one nor given."""
    if text.get("hf_tokenizer_name"):
        return given if shape.pool != "argmax" else None  # the highest id is the end of the text in CLIP's only
    return None if text.get("tokenizer_kwargs") else ClipTokenizer(shape.context_length, folder=folder)


def export(config: Mapping[str, Any], weights: Path, target: Path) -> bool:
    """Write the tensors of a text half that numpy can run so that they can be mapped; False if there is no need.

    Raises OSError; ValueError, KeyError or TypeError if they can't be read.
    """
    if clip.shape_of(config) is None or weights.suffix != ".safetensors":
        return False
    tensors = {name: tensor for name, tensor in mapped.read(weights).items() if not name.startswith(_VISUAL)}
    if (
        sum(tensor.values.nbytes for name, tensor in tensors.items() if not mapped.is_usable(name, tensor))
        < _WORTH_BYTES
    ):
        return False
    mapped.write(target, tensors)
    return True
