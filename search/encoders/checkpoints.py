"""Weights files → state dicts → a model, trusting nothing.

A file is known by its SHA-256 before a byte of it is looked at. This process reads safetensors and nothing else;
other formats are converted to it by `search.encoders.conversion`, in a process of their own. What was read must then
be finite and fit the architecture tensor by tensor: no name missing, left over or of another shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch

from search.encoders import conversion
from search.encoders.hub import first_line
from search.encoders.towers.clip import LONG_CLIP_KEPT
from search.errors import CheckpointError, ModelError
from search.files import sha256, stat_of

State: TypeAlias = dict[str, torch.Tensor]
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

_SAFE = ".safetensors"
_NAMED = 3  # tensors a message names of each kind
_HEAD_WIDTH = 64
_RESNET_GROWTH = 32  # a ResNet's last stage, which attention pools, is so many times as wide as its name says
_COUNTER = ".num_batches_tracked"  # of training steps; old files lack it and inference never looks

# OpenAI's layout: the tensors whose shapes tell the architecture, and the least they can be
_TEXT: _Shapes = {
    "ln_final.weight": (1,),
    "positional_embedding": (1, 1),
    "token_embedding.weight": (1, 1),
    "text_projection": (1, 1),
}
_VIT: _Shapes = {"visual.conv1.weight": (1, 1, 1, 1), "visual.positional_embedding": (2, 1)}  # class token, grid
_RESNET: _Shapes = {
    "visual.layer1.0.conv1.weight": (1, 1, 1, 1),
    "visual.attnpool.positional_embedding": (2, 1),  # mean, grid
}


@dataclass(frozen=True, slots=True)
class Weights:
    """A weights file by place and content.

    sha256: hex, of the file as it was found.   cache: the folder for what it is converted to.   stated: its size and
    time before it was read.
    """

    path: Path
    sha256: str
    cache: Path
    stated: Mapping[str, int] = field(default_factory=dict)

    @property
    def tensors(self) -> Path | None:
        """The safetensors file with the same tensors: itself or its conversion, where that is in the cache."""
        return self.path if self.path.suffix == _SAFE else conversion.cached(self.sha256, self.cache)


def identify(path: Path, *, pins: Sequence[str] = (), cache: Path | None = None) -> Weights:
    """Hash a weights file and compare it with what it must be, before anything reads it.

    pins: SHA-256s in hex or how they begin.   cache: None means `conversion.default_cache()`.
    Raises ModelError if there is no file, CheckpointError if it is not the one that is meant.
    """
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    stated = stat_of(path)
    digest = sha256(path)
    for pin in pins:
        if not digest.startswith(pin.lower()):
            raise CheckpointError(
                f"{path} has the SHA-256 {digest}, not {pin}",
                hint="it is damaged or another file than is meant; delete it to fetch it again, or check the number",
            )
    return Weights(path, digest, cache or conversion.default_cache(), stated)


def read_state_dict(weights: Weights) -> State:
    """Return the tensors of a weights file by name.

    Runs no code of the file's.   Raises CheckpointError if it is damaged, holds anything but dense tensors, or asks
    for more than data.
    """
    if weights.path.suffix == _SAFE:
        return _read(weights.path, weights.path)
    with conversion.converted(weights.path, digest=weights.sha256, cache=weights.cache) as file:
        return _read(file, weights.path)


def plain_tensors(content: object, path: Path) -> State:
    """Return the tensors that a file was found to hold, unwrapped from {"state_dict": …} and "module.".

    Only plain dense tensors pass: anything else is unsafe even to look into.   Raises CheckpointError.
    """
    tensors = _unwrapped(content, path)
    if bad := [name for name, value in tensors.items() if not _dense(value)]:
        raise CheckpointError(f"{path} holds more than dense tensors: {_some(bad)}")
    return dict(tensors)


def load_strict(model: torch.nn.Module, state: State, path: Path) -> None:
    """Fill the model with the state dict, which must fit it exactly.

    Third-party names are translated as open_clip does; position embeddings are never resized.
    Raises CheckpointError naming the first tensors that are missing, unexpected, misshaped or not finite, or
    if the exponential of logit_scale is not finite.
    """
    state = _translated(model, state)
    expected = model.state_dict()
    require_shapes(expected, state, path)
    if bad := [name for name, tensor in state.items() if not _finite(tensor)]:
        raise CheckpointError(f"{path} has values that are not finite in {_some(bad)}")
    scale = state.get("logit_scale")
    if scale is not None and not _finite(scale.float().exp()):
        raise CheckpointError(f"{path} has a logit_scale of {scale.item():g}, whose exponential is infinite")
    # Taken as they are, not copied: fresh memory for all weights costs more than reading them.
    taken = {name: state[name].to(tensor.dtype) if name in state else tensor for name, tensor in expected.items()}
    model.load_state_dict(taken, strict=True, assign=True)


def require_shapes(expected: Mapping[str, torch.Tensor], state: State, path: Path) -> None:
    """Raise CheckpointError unless `state` has exactly the names, shapes and kinds of number expected."""
    shared = [name for name in expected if name in state]
    faults = {
        "missing": [name for name in expected if name not in state and not name.endswith(_COUNTER)],
        "unexpected": [name for name in state if name not in expected],
        "misshaped": [fault for name in shared if (fault := _misfit(name, state[name], expected[name]))],
    }
    text = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in faults.items() if names)
    if text:
        raise CheckpointError(f"{path} does not fit its architecture: {text}")


def openai_config(state: State, path: Path) -> dict[str, Any]:
    """Read the architecture of a model in OpenAI's layout off its tensors' shapes.

    Returns a configuration open_clip.CLIP takes.   Raises CheckpointError if it is another layout.
    """
    vit = "visual.proj" in state
    _require_least({**_TEXT, **(_VIT if vit else _RESNET)}, state, path)
    vision = _vit_config(state) if vit else _resnet_config(state)
    text = _text_config(state)
    attended = vision["width"] * (1 if vit else _RESNET_GROWTH)
    if text["width"] % _HEAD_WIDTH or attended % _HEAD_WIDTH:
        raise CheckpointError(f"{path} is not in OpenAI's layout: widths are not multiples of {_HEAD_WIDTH}")
    if not text["layers"] or not vision["layers"]:
        raise CheckpointError(f"{path} is not in OpenAI's layout: it has a tower without layers")
    embed_dim = state["text_projection"].shape[1]
    return {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text, "quick_gelu": True}


def merge_long_positions(state: State, path: Path) -> State:
    """Turn Long-CLIP's two position tables into the one that CLIP's text tower adds.

    Long-CLIP (arXiv:2403.15378, sec. 3.1) adds one table below position 20 and the other from there on; the
    merged table gives the same sums.   Raises CheckpointError if a table is missing or they differ in shape.
    """
    state = dict(state)
    kept, stretched = state.get("positional_embedding"), state.pop("positional_embedding_res", None)
    if kept is None or stretched is None or kept.shape != stretched.shape or kept.ndim != 2:
        raise CheckpointError(
            f"{path} is not in Long-CLIP's layout: it needs positional_embedding and "
            "positional_embedding_res of one shape",
            hint="OpenAI's layout is clip:FILE.pt",
        )
    state["positional_embedding"] = torch.cat([kept[:LONG_CLIP_KEPT], stretched[LONG_CLIP_KEPT:]])  # (248, W)
    return state


def _read(file: Path, path: Path) -> State:
    """path: what messages name."""
    from safetensors.torch import load_file

    try:
        content = load_file(file)
    except Exception as error:  # damaged bytes surface as almost anything; none of it is ours to tell apart
        hint = "it is damaged or not safetensors; fetch or save it again"
        raise CheckpointError(f"{path} can't be read as weights ({first_line(error)})", hint=hint) from None
    return plain_tensors(content, path)


def _unwrapped(content: object, path: Path) -> Mapping[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds no state dict: {type(content).__name__} without named tensors")
    if all(key.startswith("module.") for key in content):  # what data-parallel training puts in front
        return {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _dense(value: object) -> bool:
    """Say whether something is a plain tensor in memory.

    A shape may not promise more than the storage has: sparse, quantized or stretched tensors could.
    """
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_quantized:
        return False
    if value.device.type != "cpu":
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


# fitting


def _translated(model: torch.nn.Module, state: State) -> State:
    """Rename other projects' tensors as open_clip's load_checkpoint does, less its silent resizing."""
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    state = dict(convert_state_dict(model, state))
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = dict(convert_to_custom_text_state_dict(state))
    for name in ("logit_scale", "logit_bias"):  # a scalar in some files, one element in others
        expected = getattr(model, name, None)
        if expected is not None and name in state and state[name].numel() == 1:
            state[name] = state[name].reshape(expected.shape)
    state.pop("text.transformer.embeddings.position_ids", None)  # transformers stopped saving them
    return state


def _misfit(name: str, tensor: torch.Tensor, expected: torch.Tensor) -> str:
    if tensor.shape != expected.shape:
        return f"{name} is {tuple(tensor.shape)}, not {tuple(expected.shape)}"
    if tensor.is_floating_point() != expected.is_floating_point() or tensor.is_complex():
        return f"{name} is {tensor.dtype}, not {expected.dtype}"
    return ""


def _finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite: where their sum is, they are; only if it is not is each looked at."""
    if not tensor.is_floating_point():
        return True
    total = tensor.sum(dtype=torch.float32)
    return bool(total.isfinite()) or bool(torch.isfinite(tensor.float()).all())


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


# OpenAI's layout


def _require_least(least: _Shapes, state: State, path: Path) -> None:
    """Raise CheckpointError unless each tensor is there, has as many dimensions and is no smaller in any."""
    for name, sizes in least.items():
        if name not in state:
            raise CheckpointError(
                f"{path} is not in OpenAI's layout (looked for {name!r})",
                hint="name its architecture instead: ARCH/FILE, ViT-B-32/weights.pt",
            )
        shape = tuple(state[name].shape)
        if len(shape) != len(sizes) or any(size < limit for size, limit in zip(shape, sizes, strict=True)):
            raise CheckpointError(f"{path} is not in OpenAI's layout: {name} is {shape}")


def _text_config(state: State) -> dict[str, Any]:
    width = state["ln_final.weight"].shape[0]
    return {
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "width": width,
        "heads": width // _HEAD_WIDTH,
        "layers": _count(state, "transformer.resblocks."),
    }


def _vit_config(state: State) -> dict[str, Any]:
    width, _, _, patch = state["visual.conv1.weight"].shape
    grid = math.isqrt(state["visual.positional_embedding"].shape[0] - 1)  # one position is the class token's
    layers = _count(state, "visual.transformer.resblocks.")
    return {"layers": layers, "width": width, "patch_size": patch, "image_size": patch * grid}


def _resnet_config(state: State) -> dict[str, Any]:
    layers = [_count(state, f"visual.layer{stage}.") for stage in (1, 2, 3, 4)]
    width = state["visual.layer1.0.conv1.weight"].shape[0]
    grid = math.isqrt(state["visual.attnpool.positional_embedding"].shape[0] - 1)
    return {"layers": layers, "width": width, "patch_size": None, "image_size": 32 * grid}


def _count(state: State, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)})
