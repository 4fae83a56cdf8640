"""Weights files → state dicts → a model, trusting nothing.

Only three readers exist: safetensors; `torch.load` with weights_only=True and no fallback; and for
TorchScript archives one of our own, which takes the tensors and never the program. What was read must then be
dense and finite and fit the architecture tensor by tensor: no name missing, left over or of another shape.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle  # only for the restricted Unpickler below and its error
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch

from search.encoders.hub import first_line
from search.errors import CheckpointError, ModelError

State: TypeAlias = dict[str, torch.Tensor]
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]

LONG_CLIP_KEPT = 20  # Long-CLIP, arXiv:2403.15378, sec. 3.1: the first positions keep CLIP's embedding
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

_ARCHIVE_EXTRAS = frozenset({"input_resolution", "context_length", "vocab_size"})


def read_state_dict(path: Path) -> State:
    """Return the tensors of a weights file by name, unwrapped from {"state_dict": …} and "module.".

    Runs no code of the file's.   Raises ModelError if there is no file, CheckpointError if it is damaged,
    holds anything but dense tensors, or asks for more than data.
    """
    if not path.is_file():
        raise ModelError(f"there is no weights file {path}")
    try:
        content = _read(path)
    except CheckpointError:
        raise
    except Exception as error:  # damaged bytes surface as almost anything; none of it is ours to tell apart
        hint = "it is damaged, not a checkpoint, or holds more than tensors; fetch or save it again"
        raise CheckpointError(f"{path} can't be read as weights ({first_line(error)})", hint=hint) from None
    return _checked(_unwrapped(content, path), path)


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
    counters = {name: expected[name] for name in expected.keys() - state.keys()}
    model.load_state_dict({**state, **counters}, strict=True)


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


def sha256(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# reading


def _read(path: Path) -> object:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_bombs(archive, path)
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):  # what TorchScript adds
                return _read_torchscript(archive)
    return _read_torch(path)


def _read_torch(path: Path) -> object:
    """Keep torch's words to ourselves, its warnings too: they advise to load the file without the safeguard."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError):
        raise pickle.UnpicklingError("torch finds no plain tensors in it") from None


def _refuse_bombs(archive: zipfile.ZipFile, path: Path) -> None:
    """torch stores its tensors uncompressed, so no honest entry is larger than the file it came in."""
    limit = path.stat().st_size
    if any(entry.file_size > limit for entry in archive.infolist()):
        raise CheckpointError(f"{path} has an entry that unpacks to more than the whole file: not a checkpoint")


def _unwrapped(content: object, path: Path) -> Mapping[str, Any]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds no state dict: {type(content).__name__} without named tensors")
    if all(key.startswith("module.") for key in content):  # what data-parallel training puts in front
        return {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _checked(content: Mapping[str, Any], path: Path) -> State:
    """Let only plain dense tensors through; anything else is unsafe even to look into."""
    bad = [name for name, value in content.items() if not _dense(value)]
    if bad:
        raise CheckpointError(f"{path} holds more than dense tensors: {_some(bad)}")
    return dict(content)


def _dense(value: object) -> bool:
    """A shape may not promise more than the storage has: sparse, quantized or stretched tensors could."""
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
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.float()).all())


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


# TorchScript archives, read as data


class _Module:
    """Stands for every class of the archive's own; it can hold attributes and do nothing."""

    def __init__(self, *_: object) -> None:
        self.attributes: Mapping[str, object] = {}

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, Mapping) else {}


class _TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors and inert modules; any other name in the pickle is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self._archive = archive
        self._root = root
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Module
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        raise pickle.UnpicklingError(f"the archive asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> torch.Tensor:
        _, dtype, key, *_ = pid  # "storage", dtype, entry, where it was, elements
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
        return self._storages[key]


def _rebuild_tensor(storage: torch.Tensor, offset: int, size: Any, stride: Any, *_: object) -> torch.Tensor:
    return storage.as_strided(size, stride, offset)  # torch refuses a view beyond the storage


def _keep(value: object, *_: object) -> object:
    return value


_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LISTS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist", "restore_type_tag")
_BUILDERS: dict[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch.jit._pickle", name): _keep for name in _LISTS},
}


def _read_torchscript(archive: zipfile.ZipFile) -> State:
    """Return the tensors of an archive by the path of attributes that leads to them.

    Buffers that a module computes for itself, which only TorchScript keeps, are left out.
    """
    root = next(name for name in archive.namelist() if name.endswith("/data.pkl")).removesuffix("data.pkl")
    module = _TensorUnpickler(archive, root).load()
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError(f"the archive holds a {type(module).__name__}, not a module")
    return {
        name: tensor
        for name, tensor in _tensors(module, "", set())
        if name not in _ARCHIVE_EXTRAS and name.rpartition(".")[2] != "attn_mask"
    }


def _tensors(module: _Module, prefix: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if id(module) in seen:  # a pickle may tie knots; a module belongs to one place
        return
    seen.add(id(module))
    for name, value in module.attributes.items():
        if isinstance(value, torch.Tensor):
            yield prefix + name, value
        elif isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", seen)
