"""Texts → unit vectors without torch: the text half of a CLIP, in numpy, on memory-mapped weights.

A search needs no more of a model than this, and opening it takes a fraction of the time that importing torch
does. It covers open_clip's own text transformer in its usual form with weights in one safetensors file of
float32 or float16; `open_text_encoder` says of all else that it is not for here.

The mask is causal and the vector is read off at end-of-text, so nothing behind that token is computed.
"""

from __future__ import annotations

import json
import math
import mmap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from search.encoders.tokens import END, VOCABULARY, ClipTokenizer

if TYPE_CHECKING:
    from search.types import Vectors

Array: TypeAlias = npt.NDArray[np.float32]
Stored: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16]

_BATCH_TOKENS = 1024  # that pass through the layers at a time; more is no faster and takes more memory
_EPSILON = 1e-5  # torch's, in its layer norms
_NORM_EPSILON = 1e-12  # torch's, in normalize
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}

# What a configuration may say for the tower to be the usual one; a key that is in neither is not known here.
_MODEL_KEYS = frozenset(
    {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text"}
    | {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
)
_SIZES = {"context_length": 77, "vocab_size": VOCABULARY, "width": 512, "heads": 8, "layers": 12}
_DEFAULTS = {"pool_type": "argmax", "proj_type": "linear", "block_type": "default"}
_IGNORED = frozenset({"mlp_ratio", "pad_id", "eos_id", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"})
_SWITCHES = frozenset(  # what leaves the tower as it is while absent, false or empty
    {"hf_model_name", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs", "ls_init_value", "embed_cls"}
    | {"no_causal_mask", "final_ln_after_pool", "proj_bias", "output_tokens", "act_kwargs", "norm_kwargs"}
    | {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
)


class TextEncoder:
    """Turns texts into float32 unit rows of width `dim`, as the whole model would.

    context_length: tokens a text may have, start and end included; the rest is cut off.
    """

    def __init__(self, tower: Tower) -> None:
        self.dim = tower.projection.shape[1]
        self.context_length = len(tower.positions)
        self._tower = tower
        self._tokenizer = ClipTokenizer(self.context_length)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Return (N, dim) float32 unit rows, one for each text, in order; N = 0 gives (0, dim)."""
        rows = np.empty((len(texts), self.dim), dtype=np.float32)
        for places, tokens in _batches([_until_end(self._tokenizer(text)) for text in texts]):
            rows[places] = self._tower(tokens)
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(_NORM_EPSILON))
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text needs, start and end included, were there room for all."""
        return [self._tokenizer.count(text) for text in texts]


def open_text_encoder(config: Mapping[str, Any], weights: Path) -> TextEncoder | None:
    """Open the text half of a model, or return None where that takes open_clip and torch.

    config: open_clip's model_cfg.   weights: one safetensors file, which stays mapped into memory.
    None also stands for weights that do not fit the configuration or can't be read: the whole model's loader has
    the words for what is wrong. Values are taken as they are: only that loader looks whether all are finite.
    """
    sizes = _usual_sizes(config)
    if sizes is None or weights.suffix != ".safetensors":
        return None
    try:
        tensors = _read_safetensors(weights)
        return TextEncoder(_tower(tensors, sizes, quick_gelu=bool(config.get("quick_gelu"))))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None  # the file is input: whatever it breaks with is a no


# what a configuration asks for


@dataclass(frozen=True, slots=True)
class _Sizes:
    dim: int
    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    hidden: int


def _usual_sizes(config: Mapping[str, Any]) -> _Sizes | None:
    """Return the sizes of the text tower, or None if it is not the usual one."""
    text = config.get("text_cfg")
    if not isinstance(text, Mapping) or config.keys() - _MODEL_KEYS or not _is_usual(text):
        return None
    sizes = {key: text.get(key, default) for key, default in _SIZES.items()} | {"dim": config.get("embed_dim")}
    ratio = text.get("mlp_ratio", 4.0)
    if not all(type(size) is int and size > 0 for size in sizes.values()) or not isinstance(ratio, int | float):
        return None  # a wrong kind of value is for the whole model's loader to complain about
    if sizes["vocab_size"] < VOCABULARY or sizes["width"] % sizes["heads"] or sizes["context_length"] < 2:
        return None
    hidden = int(sizes["width"] * ratio) if 0 < ratio < math.inf else 0
    return _Sizes(**sizes, hidden=hidden) if hidden else None


def _is_usual(text: Mapping[str, Any]) -> bool:
    known = _SIZES.keys() | _DEFAULTS.keys() | _IGNORED | _SWITCHES
    chosen = all(text.get(key) in (None, usual) for key, usual in _DEFAULTS.items())
    return chosen and text.keys() <= known and not any(text.get(key) for key in _SWITCHES)


# the weights


def _read_safetensors(path: Path) -> dict[str, Stored]:
    """Return the float32 and float16 tensors of a file by name, as views of the mapped file.

    The format is eight bytes of the header's length, a header in JSON, and the tensors' bytes:
    https://huggingface.co/docs/safetensors. Its own numpy reader copies each tensor.
    Raises ValueError, KeyError or TypeError if the file is not as the format says.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(mapped[:8], "little")
    if size > min(_MAX_HEADER_BYTES, len(mapped) - 8):
        raise ValueError("the header is longer than the file")
    entries = json.loads(mapped[8 : 8 + size])
    if not isinstance(entries, dict):
        raise ValueError("the header is no object")
    return {
        name: _view(mapped, 8 + size, entry)
        for name, entry in entries.items()
        if name != "__metadata__" and entry["dtype"] in _DTYPES and 0 not in entry["shape"]
    }


def _view(mapped: mmap.mmap, data: int, entry: Mapping[str, Any]) -> Stored:
    start, end = entry["data_offsets"]
    dtype, count = _DTYPES[entry["dtype"]], math.prod(entry["shape"])
    if not 0 <= start <= end <= len(mapped) - data or end - start != count * dtype.itemsize:
        raise ValueError("a tensor is not where the header says")
    values: Stored = np.frombuffer(mapped, dtype, count, data + start).reshape(entry["shape"])
    return values


def _tower(tensors: Mapping[str, Stored], sizes: _Sizes, *, quick_gelu: bool) -> Tower:
    """Gather a text tower's weights; CustomTextCLIP has them under "text.", CLIP at the top.

    Raises KeyError for a tensor that is not there, ValueError for one of another shape or a layer too many.
    """
    prefix = "text." if "text.token_embedding.weight" in tensors else ""

    def stored(name: str, *shape: int) -> Stored:
        tensor = tensors[prefix + name]
        if tensor.shape != shape:
            raise ValueError(f"{name} is {tensor.shape}, not {shape}")
        return tensor

    def take(name: str, *shape: int) -> Array:
        return stored(name, *shape).astype(np.float32, copy=False)  # float32 stays where it is: in the file

    if f"{prefix}transformer.resblocks.{sizes.layers}.ln_1.weight" in tensors:
        raise ValueError("there are more layers than the configuration has")
    width = sizes.width
    return Tower(
        embedding=stored("token_embedding.weight", sizes.vocab_size, width),
        positions=take("positional_embedding", sizes.context_length, width),
        blocks=tuple(_block(take, layer, sizes, quick_gelu=quick_gelu) for layer in range(sizes.layers)),
        norm=_Norm(take("ln_final.weight", width), take("ln_final.bias", width)),
        projection=take("text_projection", width, sizes.dim),
    )


def _block(take: Callable[..., Array], layer: int, sizes: _Sizes, *, quick_gelu: bool) -> _Block:
    def part(name: str, *shape: int) -> Array:
        return take(f"transformer.resblocks.{layer}.{name}", *shape)

    def norm(name: str) -> _Norm:
        return _Norm(part(f"{name}.weight", width), part(f"{name}.bias", width))

    def linear(name: str, inner: int, outer: int) -> _Linear:
        return _Linear(part(f"{name}weight", outer, inner), part(f"{name}bias", outer))

    width, hidden = sizes.width, sizes.hidden
    return _Block(
        heads=sizes.heads,
        norm_1=norm("ln_1"),
        attention_in=linear("attn.in_proj_", width, 3 * width),
        attention_out=linear("attn.out_proj.", width, width),
        norm_2=norm("ln_2"),
        mlp_in=linear("mlp.c_fc.", width, hidden),
        activation=_quick_gelu if quick_gelu else _gelu,
        mlp_out=linear("mlp.c_proj.", hidden, width),
    )


# the arithmetic; B texts, L tokens each, W wide


@dataclass(frozen=True, slots=True)
class Tower:
    """CLIP's text transformer (Radford et al., arXiv:2103.00020, sec. 2.4), up to the vector's length."""

    embedding: Stored  # (V, W), as stored: only the rows that a text uses are read and converted
    positions: Array  # (C, W)
    blocks: tuple[_Block, ...]
    norm: _Norm
    projection: Array  # (W, D)

    def __call__(self, tokens: npt.NDArray[np.int64]) -> Array:
        """Return (B, D) for tokens (B, L), each row ending with its end-of-text; not unit rows yet."""
        x = self.embedding[tokens].astype(np.float32) + self.positions[: tokens.shape[1]]  # (B, L, W)
        for block in self.blocks[:-1]:
            x = block(x, asked=tokens.shape[1])
        x = self.blocks[-1](x, asked=1)  # (B, 1, W); of the last layer only end-of-text is looked at
        return self.norm(x[:, 0]) @ self.projection


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        y: Array = x - x.mean(axis=-1, keepdims=True)
        y /= np.sqrt(np.square(y).mean(axis=-1, keepdims=True) + np.float32(_EPSILON))
        y *= self.weight
        y += self.bias
        return y


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Array  # (out, in), as torch keeps it
    bias: Array

    def __call__(self, x: Array) -> Array:
        flat = x.reshape(-1, x.shape[-1])  # (B, L, in) -> (B L, in): one matrix product, not one for each text
        y = flat @ self.weight.T
        y += self.bias  # in place: of large batches, fresh memory costs more than the sum
        return y.reshape(*x.shape[:-1], -1)

    def part(self, rows: slice) -> _Linear:
        return _Linear(self.weight[rows], self.bias[rows])


@dataclass(frozen=True, slots=True)
class _Block:
    """A layer in pre-norm form: attention, then two linear maps with the activation between them."""

    heads: int
    norm_1: _Norm
    attention_in: _Linear
    attention_out: _Linear
    norm_2: _Norm
    mlp_in: _Linear
    activation: Callable[[Array], Array]
    mlp_out: _Linear

    def __call__(self, x: Array, *, asked: int) -> Array:
        """Return (B, asked, W) of x (B, L, W): the results for the last `asked` tokens."""
        y = x[:, -asked:] + self._attend(self.norm_1(x), asked)
        return y + self.mlp_out(self.activation(self.mlp_in(self.norm_2(y))))

    def _attend(self, x: Array, asked: int) -> Array:
        batch, length, width = x.shape
        queries = self._split(self.attention_in.part(slice(0, width))(x[:, -asked:]))  # (B, H, asked, W / H)
        keys, values = np.split(self.attention_in.part(slice(width, None))(x), 2, axis=-1)
        scores = queries @ self._split(keys).swapaxes(-1, -2) / np.float32(math.sqrt(width // self.heads))
        scores = np.where(np.tri(asked, length, length - asked, dtype=bool), scores, np.float32(-np.inf))
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        mixed = (shares @ self._split(values)).swapaxes(1, 2)  # (B, H, asked, W / H) -> (B, asked, H, W / H)
        return self.attention_out(mixed.reshape(batch, asked, width))

    def _split(self, x: Array) -> Array:
        """(B, L, W) -> (B, H, L, W / H)"""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)


def _gelu(x: Array) -> Array:
    """Return x times the normal distribution's share below x.

    numpy has no erf, so the share is Abramowitz and Stegun's formula 26.2.17, at most 7.5e-8 off: about
    the distance of float32 numbers from each other just below 1.
    """
    size = np.abs(x)
    t: Array = np.float32(1) / (np.float32(1) + np.float32(0.2316419) * size)
    tail: Array = np.full_like(t, 1.330274429)
    for coefficient in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        tail *= t
        tail += np.float32(coefficient)
    tail *= t * np.exp(np.square(size) * np.float32(-0.5)) * np.float32(1 / math.sqrt(2 * math.pi))
    gelu: Array = np.maximum(x, np.float32(0)) - size * tail
    return gelu


def _quick_gelu(x: Array) -> Array:
    """Return x · sigmoid(1.702 x), with which OpenAI trained."""
    with np.errstate(over="ignore"):  # the exponential of what the sigmoid makes zero
        quick: Array = x / (1 + np.exp(np.float32(-1.702) * x))
    return quick


# texts of equal length together, so that none needs padding


def _until_end(tokens: list[int]) -> list[int]:
    """Cut behind the first end-of-text, where the vector is read off: a text may spell that token out."""
    return tokens[: tokens.index(END) + 1]


def _batches(texts: list[list[int]]) -> Iterator[tuple[list[int], npt.NDArray[np.int64]]]:
    """Yield batches of equally long texts: their places and their tokens (B, L)."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for place, tokens in enumerate(texts):
        by_length[len(tokens)].append(place)
    for length, places in by_length.items():
        step = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(places), step):
            batch = places[start : start + step]
            yield batch, np.array([texts[place] for place in batch], dtype=np.int64)
