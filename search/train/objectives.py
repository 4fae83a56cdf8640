"""Contrastive losses as pure functions of features, scale and bias."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

MAX_LOG_SCALE = math.log(100)
"""CLIP, arXiv:2103.00020, sec. 2.5: logits are scaled by no more than 100, or training is unstable."""


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
