"""Gradients of a large batch with the memory of a small one: GradCache, arXiv:2101.06983.

A contrastive loss needs all features of a batch at once, but how features depend on weights can be gone through piece
by piece: features first without a graph, then the loss and its gradient at the features, then each piece again with a
graph, into which that gradient flows. Exact, but for rounding, where a picture's features don't depend on the others
in its piece: batch normalisation that is trained sees pieces, as it does in any accumulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Encode = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Part:
    """Inputs (N, …) and what turns them into features (N, D).

    trained: whether gradients are wanted; a locked tower is run once.
    """

    encode: Encode
    inputs: torch.Tensor
    trained: bool = True


def backward(
    model: nn.Module, parts: Sequence[Part], loss: Callable[..., torch.Tensor], *, chunk: int
) -> torch.Tensor:
    """Add the gradients of a loss over a whole batch to the parameters; return the loss.

    loss: takes the features of each part, in order.   chunk: how many inputs are encoded with a graph at a time.
    Random numbers that a tower draws are the same in both passes.
    """
    if all(len(part.inputs) <= chunk for part in parts):
        value = loss(*(_whole(part) for part in parts))
        value.backward()  # type: ignore[no-untyped-call]
        return value.detach()
    cached = [_Cached.of(model, part, chunk) for part in parts]
    value = loss(*(one.features for one in cached))
    value.backward()  # type: ignore[no-untyped-call]
    for one in cached:
        one.backward()
    return value.detach()


def _whole(part: Part) -> torch.Tensor:
    if part.trained:
        return part.encode(part.inputs)
    with torch.no_grad():
        return part.encode(part.inputs)


@dataclass(frozen=True, slots=True)
class _Cached:
    """The features of a part, a leaf of the graph, and the state of random numbers before each piece of it."""

    part: Part
    pieces: tuple[torch.Tensor, ...]
    states: tuple[tuple[torch.Tensor, ...], ...]
    features: torch.Tensor

    @classmethod
    def of(cls, model: nn.Module, part: Part, chunk: int) -> _Cached:
        pieces = torch.split(part.inputs, chunk)
        states, features = [], []
        with torch.no_grad(), _counting_nothing(model):
            for piece in pieces:
                states.append(_random_state(piece.device))
                features.append(part.encode(piece))
        return cls(part, pieces, tuple(states), torch.cat(features).requires_grad_(part.trained))

    def backward(self) -> None:
        """Let the gradient at the features flow into the parameters."""
        if not self.part.trained or self.features.grad is None:
            return
        gradients = torch.split(self.features.grad, [len(piece) for piece in self.pieces])
        for piece, state, gradient in zip(self.pieces, self.states, gradients, strict=True):
            with _replayed(state, piece.device):
                features = self.part.encode(piece)
            torch.autograd.backward([features], [gradient])


@contextmanager
def _counting_nothing(model: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from taking the same piece into its running means twice."""
    modules: list[Any] = [module for module in model.modules() if getattr(module, "track_running_stats", False)]
    for module in modules:
        if module.training:
            module.track_running_stats = False
    try:
        yield
    finally:
        for module in modules:
            module.track_running_stats = True


def _random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    here = torch.get_rng_state()
    return (here, torch.cuda.get_rng_state(device)) if device.type == "cuda" else (here,)


@contextmanager
def _replayed(state: tuple[torch.Tensor, ...], device: torch.device) -> Iterator[None]:
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_rng_state(state[0])
        if device.type == "cuda":
            torch.cuda.set_rng_state(state[1], device)
        yield
