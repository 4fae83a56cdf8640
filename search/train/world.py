"""Several processes as one: features are gathered, gradients summed.

Each process encodes its own pairs and computes the loss of them all; the gradient at features that are not its own is
dropped. Summed over processes, gradients are those of one large batch: nothing is averaged twice, and nothing needs a
wrapper around the model, which GradCache's two passes would not get along with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True, slots=True)
class World:
    """rank: this process among `size`."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Return the world that was set up before, or this process alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def gathered(self, features: torch.Tensor) -> torch.Tensor:
        """Return the rows (N, …) of all processes, in order; gradients flow to one's own."""
        if self.size == 1:
            return features
        counts = self._counts(features)
        most = max(counts)
        padded = features.new_zeros(most, *features.shape[1:])
        padded[: len(features)] = features.detach()
        found = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(found, padded)
        rows = [one[:count] for one, count in zip(found, counts, strict=True)]
        rows[self.rank] = features
        return torch.cat(rows)

    def sum_gradients(
        self, parameters: Iterable[torch.nn.Parameter], shared: Iterable[torch.nn.Parameter]
    ) -> None:
        """Sum gradients over processes.   shared: of these each process has the whole one already."""
        if self.size == 1:
            return
        whole = {id(one) for one in shared}
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            if id(parameter) in whole:
                parameter.grad /= self.size

    def any(self, flag: bool, device: torch.device) -> bool:
        """Say whether it is so in any process."""
        if self.size == 1:
            return flag
        return bool(self.gathered(torch.tensor([flag], dtype=torch.int64, device=device)).any())

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def _counts(self, features: torch.Tensor) -> list[int]:
        own = torch.tensor([len(features)], device=features.device)
        found = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(found, own)
        return [int(one) for one in found]


@contextmanager
def joined(local_rank: int) -> Iterator[str | None]:
    """Join the processes that torchrun began; yield the device of this one, None for the processor.

    local_rank: this process's number on its machine.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank)
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield f"cuda:{local_rank}" if cuda else "cpu"
    finally:
        distributed.destroy_process_group()
