"""Features rebuilt from their first principal components, with a gradient that is right wherever there is one.

The gradient of a decomposition divides by the differences of all singular values: it is not finite where two are equal,
as they are in small batches and with equal rows. What is rebuilt depends on the space that the components span alone,
and so its gradient is written here: it divides by the gaps between what is kept and what is not, and by no others.
"""

from __future__ import annotations

import torch


def rebuilt(features: torch.Tensor, components: int) -> torch.Tensor:
    """Return features (N, D) rebuilt from their mean and so many first principal components, not unit any more.

    Features of no higher rank than that come back as they are, and so does their gradient, which is that of every
    change that leaves the rank as low. So do features that are not finite: the loss will tell. Where the last component
    kept and the first one left out are equally long, which is which is a matter of chance: nothing flows through that
    choice.
    """
    exact = features.double() if features.device.type != "mps" else features.cpu().double()
    mean = exact.mean(dim=0, keepdim=True)
    centred = exact - mean  # (N, D)
    wide = centred.shape[0] <= centred.shape[1]
    squares = centred @ centred.T if wide else centred.T @ centred  # the smaller one; either has the same values
    projector = _projector(squares, components, max(centred.shape), torch.finfo(features.dtype).eps)
    if projector is None:
        return features
    kept = projector @ centred if wide else centred @ projector
    return (mean + kept).to(features)


def _projector(squares: torch.Tensor, components: int, size: int, precision: float) -> torch.Tensor | None:
    """Return the projector (M, M) on the first eigenvectors of a symmetric matrix; None where they leave nothing out.

    To the first order a change dS turns the space by V₁ᵀ dS V₂ / (λ₁ - λ₂), for each vector kept and each left out. As
    V₁ᵀ S V₂ is zero, S itself stands here for its change: the value is the projector's, and so is the gradient.
    precision: of the features, whose rounding tells neither smaller values from zero nor closer ones from one another.
    """
    if not torch.isfinite(squares).all():
        return None
    values, vectors = torch.linalg.eigh(squares.detach())  # ascending
    floor = 64 * size * torch.finfo(values.dtype).eps
    if int((values > values[-1] * max((size * precision) ** 2, floor)).sum()) <= components:
        return None
    left_out, kept = vectors[:, :-components], vectors[:, -components:]
    gaps = values[-components:, None] - values[None, :-components]  # (k, M - k)
    told = gaps > values[-1] * max(precision, floor)
    inverse = torch.where(told, 1 / torch.where(told, gaps, 1.0), 0.0)
    turn = kept @ ((kept.T @ squares @ left_out) * inverse) @ left_out.T
    projector: torch.Tensor = kept @ kept.T + turn + turn.T
    return projector
