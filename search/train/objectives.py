"""Contrastive losses as pure functions of features, scale and bias; and what a run minimises, as a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from search.train.components import rebuilt
from search.train.recipe import LongClipRecipe, Recipe

MAX_LOG_SCALE = math.log(100)
"""CLIP, arXiv:2103.00020, sec. 2.5: logits are scaled by no more than 100, or training is unstable."""


@dataclass(frozen=True, slots=True)
class Term:
    """One kind of text against the images of a batch.

    short: the short captions, else the captions.   components: of images that it is compared with; 0: as they are.
    """

    short: bool = False
    weight: float = 1.0
    components: int = 0


@dataclass(frozen=True, slots=True)
class Objective:
    """What a run minimises: a weighted sum of CLIP's or SigLIP's losses, one for each kind of text."""

    terms: tuple[Term, ...] = (Term(),)
    sigmoid: bool = False
    smoothing: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> Objective:
        """Return what a recipe asks for: with Long-CLIP's, primary component matching (arXiv:2403.15378, sec. 3.2).

        Long captions against images, and short ones against images rebuilt from the first principal components of all
        in the batch, which are not normalised again, as published; there the components were each process's own.
        A term without weight is left out, and its captions are not encoded.
        """
        terms: tuple[Term, ...] = (Term(),)
        if isinstance(recipe, LongClipRecipe):
            long = Term(weight=recipe.long_weight)
            terms = long, Term(short=True, weight=recipe.short_weight, components=recipe.components)
        return cls(tuple(term for term in terms if term.weight), recipe.loss == "sigmoid", recipe.label_smoothing)

    def __call__(
        self,
        images: torch.Tensor,
        texts: Sequence[torch.Tensor],
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        positives: Sequence[torch.Tensor | None],
    ) -> torch.Tensor:
        """Return the loss.

        images: (N, D) unit rows.   texts, positives: for each term (N, D) unit rows, and what `softmax_loss` takes.
        """
        losses = []
        for term, rows, fits in zip(self.terms, texts, positives, strict=True):
            seen = rebuilt(images, term.components) if term.components else images
            losses.append(term.weight * self._pairwise(seen, rows, scale, bias, fits))
        return torch.stack(losses).sum()

    def _pairwise(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        positives: torch.Tensor | None,
    ) -> torch.Tensor:
        if self.sigmoid:
            assert bias is not None
            return sigmoid_loss(images, texts, scale, bias, positives=positives)
        return softmax_loss(images, texts, scale, positives=positives, smoothing=self.smoothing)


def softmax_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    *,
    positives: torch.Tensor | None = None,
    smoothing: float = 0.0,
) -> torch.Tensor:
    """Return CLIP's symmetric cross-entropy (arXiv:2103.00020, fig. 3).

    images, texts: (N, D) unit rows, those of a pair in the same row.   scale: inverse temperature, exponentiated.
    positives: (N, N) bool, which texts (columns) fit which images (rows); they share the target evenly, as in UniCL
    (arXiv:2204.03610). None: pairs alone.   smoothing: of labels, 0 to 1.
    """
    logits = scale * images @ texts.T  # (N, N)
    if positives is None:
        own = torch.arange(len(logits), device=logits.device)
        return (_cross(logits, own, smoothing) + _cross(logits.T, own, smoothing)) / 2
    fits = positives.to(logits.dtype)
    of_images, of_texts = fits / fits.sum(dim=1, keepdim=True), fits.T / fits.T.sum(dim=1, keepdim=True)
    return (_cross(logits, of_images, smoothing) + _cross(logits.T, of_texts, smoothing)) / 2


def sigmoid_loss(
    images: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor,
    *,
    positives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return SigLIP's loss (arXiv:2303.15343, alg. 1): each pair of the batch is a question of its own.

    Its sum over pairs is divided by the images.   bias: added to the logits.   The rest as in `softmax_loss`.
    """
    logits = scale * images @ texts.T + bias  # (N, N)
    fits = torch.eye(len(logits), device=logits.device) if positives is None else positives
    signs = 2 * fits.to(logits.dtype) - 1
    return -functional.logsigmoid(signs * logits).sum() / len(logits)


def _cross(logits: torch.Tensor, targets: torch.Tensor, smoothing: float) -> torch.Tensor:
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)
