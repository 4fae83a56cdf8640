"""The weights of a run averaged over its steps, which are often better than the last ones (Polyak's averaging)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Average:
    """An exponential moving average of what is trained; buffers are taken as they are.

    decay: how much of it stays at a step; 0: there is none, and all here does nothing. In the first steps less stays,
    (1 + step) / (10 + step), so that the weights a run begins with do not linger.
    """

    def __init__(self, parameters: Mapping[str, torch.nn.Parameter], decay: float) -> None:
        self._parameters, self._decay = (parameters if decay else {}), decay
        self._kept = {name: one.detach().clone() for name, one in self._parameters.items()}

    @property
    def weights(self) -> Mapping[str, torch.Tensor]:
        """The averages by name: what a checkpoint keeps of it."""
        return self._kept

    def restore(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put averages back as a checkpoint had them."""
        for name, kept in self._kept.items():
            kept.copy_(weights[name])

    def follow(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        decay = min(self._decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, kept in self._kept.items():
                kept.lerp_(self._parameters[name], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the model use the averages for as long as this lasts."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, parameter in self._parameters.items():
            parameter.data, self._kept[name] = self._kept[name], parameter.data
