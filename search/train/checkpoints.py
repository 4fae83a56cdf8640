"""A run that was cut short goes on where it was: everything that its next step depends on, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from search import failpoints
from search.errors import CheckpointError, StorageError
from search.files import discard, publish, temporary_name

FILE = "checkpoint.safetensors"
_STATE = "state"  # the key of all that is no tensor
_MODEL, _OPTIMISER, _AVERAGE, _RANDOM = "model.", "optimiser.", "average.", "random."


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """tensors: by name, on the CPU.   state: JSON values: where the run is and what it is a run of."""

    tensors: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]

    @property
    def average(self) -> Mapping[str, torch.Tensor]:
        """The moving average of the weights, by name; empty where a run keeps none."""
        return _below(_AVERAGE, self.tensors)

    def restore(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer, device: torch.device) -> None:
        """Put weights, moments and generators back as they were."""
        model.load_state_dict(_below(_MODEL, self.tensors))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in _below(_OPTIMISER, self.tensors).items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        torch.set_rng_state(self.tensors[f"{_RANDOM}cpu"])
        if device.type == "cuda" and f"{_RANDOM}cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors[f"{_RANDOM}cuda"], device)


def save(
    folder: Path,
    model: torch.nn.Module,
    optimiser: torch.optim.Optimizer,
    *,
    average: Mapping[str, torch.Tensor],
    device: torch.device,
    state: Mapping[str, Any],
) -> None:
    """Replace the folder's checkpoint: after a crash the old one is there, or the new.   Raises StorageError."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in model.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"{_OPTIMISER}{number}.{key}": moment for key, moment in moments.items()}
    tensors |= {f"{_AVERAGE}{name}": tensor for name, tensor in average.items()}
    tensors[f"{_RANDOM}cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors[f"{_RANDOM}cuda"] = torch.cuda.get_rng_state(device)
    write_tensors(folder / FILE, tensors, {_STATE: json.dumps(state)})


def load(folder: Path) -> Checkpoint | None:
    """Return the folder's checkpoint, None without one.   Raises CheckpointError if it is damaged."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as opened:
            state = json.loads((opened.metadata() or {})[_STATE])
            return Checkpoint({name: opened.get_tensor(name) for name in opened.keys()}, state)  # noqa: SIM118
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{path} can't be read: {error}", hint="begin anew with --force") from None


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Put a safetensors file in the place of `path`, durably: whole or not there.   Raises StorageError."""
    temporary = temporary_name(path)
    whole = {
        name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()
    }  # shares nothing
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file(whole, temporary, dict(metadata))
        temporary.chmod(mode)  # safetensors' own is for this user alone
        failpoints.reach("train.saving")
        publish(temporary, path)
    except (OSError, SafetensorError) as error:
        discard(temporary)
        raise StorageError(f"can't write {path}: {error}", hint="what was saved before is as it was") from None
    except BaseException:
        discard(temporary)
        raise


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
