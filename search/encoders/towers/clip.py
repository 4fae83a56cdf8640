"""open_clip's own text transformer, in the forms that its architectures have.

    CLIP, MobileCLIP-B      causal; the vector is read off at end-of-text, so nothing behind that token is computed
    SigLIP, CLIPA           every token sees every other, the padding too; the last one is read off
    MobileCLIP2             every token sees every other; end-of-text is read off
    CoCa                    causal; a class token behind the padding is read off, which does not see the padding
    "worldwide" models      causal; the tokenizer's own end-of-text is read off

`shape_of` knows from a configuration which it is, and says of all it does not know that it is not for here.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from search.encoders.towers.arithmetic import (
    Activation,
    Array,
    Attention,
    Block,
    Linear,
    Mask,
    Norm,
    Stored,
    gelu,
    gelu_tanh,
    quick_gelu,
)

if TYPE_CHECKING:
    from search.encoders.mapped import Tensor

_BATCH_TOKENS = 1024  # that pass through the layers at a time; more is no faster and takes more memory
LONG_CLIP_KEPT = 20  # Long-CLIP, arXiv:2403.15378, sec. 3.1: the first positions keep CLIP's embedding
_EPSILON = 1e-5  # torch's, in its layer norms

# What a configuration may say for the tower to be one that is known here; any other key is not.
_MODEL_KEYS = frozenset(
    {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "multimodal_cfg"}
    | {"init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"}
)
_SIZES = {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12}
_CHOICES = {"pool_type": ("argmax", "last", "first", "eos"), "proj_type": ("linear", "none")}
_FREE = frozenset(
    {"mlp_ratio", "pad_id", "eos_id", "no_causal_mask", "proj_bias", "act_kwargs", "norm_kwargs", "embed_cls"}
    | {"output_tokens", "hf_tokenizer_name", "tokenizer_kwargs"}
    | {"hf_model_pretrained", "hf_proj_type", "hf_pooler_type"}
)
_OFF = frozenset(  # what is not known here, unless absent, false or empty
    {"hf_model_name", "tokenizer_mode", "ls_init_value", "final_ln_after_pool"}
    | {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"}
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a configuration asks for."""

    dim: int
    context_length: int
    vocab_size: int
    width: int
    heads: int
    layers: int
    hidden: int
    activation: Activation
    epsilon: float
    causal: bool
    class_token: bool
    pool: str
    end: int  # the token read off where `pool` is "eos"
    pad: int  # the token that a class token does not see
    projection: str  # "plain", "biased" or "none"


def shape_of(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape of the text tower of open_clip's model_cfg, or None if it is none of these.

    A wrong kind of value is for the whole model's loader to complain about.
    """
    text = config.get("text_cfg")
    if not isinstance(text, Mapping) or config.keys() - _MODEL_KEYS or not _is_known(text):
        return None
    sizes = {key: text.get(key, default) for key, default in _SIZES.items()} | {"dim": config.get("embed_dim")}
    ids = {"end": text.get("eos_id", 2), "pad": text.get("pad_id", 0)}
    if not _are_sound(sizes) or not all(type(i) is int for i in ids.values()):
        return None
    hidden = _hidden(sizes["width"], text.get("mlp_ratio", 4.0))
    activation, epsilon = _activation(config, text), _epsilon(text.get("norm_kwargs") or {})
    projection = _projection(text)
    if not (hidden and activation and epsilon) or not _class_token_fits(config, text):
        return None
    if projection == "none" and sizes["dim"] != sizes["width"]:
        return None
    return Shape(
        **sizes,
        **ids,
        hidden=hidden,
        activation=activation,
        epsilon=epsilon,
        causal=not text.get("no_causal_mask"),
        class_token=bool(text.get("embed_cls")),
        pool=text.get("pool_type") or "argmax",
        projection=projection,
    )


def _are_sound(sizes: Mapping[str, Any]) -> bool:
    if not all(type(size) is int and size > 0 for size in sizes.values()):
        return False
    return not sizes["width"] % sizes["heads"] and bool(sizes["context_length"] >= 2)


def _is_known(text: Mapping[str, Any]) -> bool:
    known = _SIZES.keys() | _CHOICES.keys() | _FREE | _OFF | {"block_type"}
    chosen = all(text.get(key, known[0]) in known for key, known in _CHOICES.items())
    plain = text.get("block_type") in (None, "default")
    return chosen and plain and text.keys() <= known and not any(text.get(key) for key in _OFF)


def _hidden(width: Any, ratio: Any) -> int:
    """Return the width between the two maps of a layer; 0 if there is no sense in it."""
    sound = type(width) is int and isinstance(ratio, int | float) and 0 < ratio < math.inf
    return int(width * ratio) if sound else 0


def _activation(config: Mapping[str, Any], text: Mapping[str, Any]) -> Activation | None:
    options = text.get("act_kwargs")
    if config.get("quick_gelu"):
        return quick_gelu if options is None or options == {} else None
    if options is None or options in ({}, {"approximate": "none"}):
        return gelu
    return gelu_tanh if options == {"approximate": "tanh"} else None


def _epsilon(options: Any) -> float:
    """Return what keeps norms from dividing by zero; 0 for options that are not known."""
    if not options:
        return _EPSILON
    epsilon = options.get("eps") if isinstance(options, Mapping) and options.keys() == {"eps"} else None
    return epsilon if isinstance(epsilon, float) and 0 < epsilon < 1 else 0


def _projection(text: Mapping[str, Any]) -> str:
    if text.get("proj_type") == "none":
        return "none"
    return "biased" if text.get("proj_bias") else "plain"


def _class_token_fits(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """CoCa has one, causal and with the tokens put out beside the vector; in other models either is broken."""
    coca = isinstance(config.get("multimodal_cfg"), Mapping)
    if coca != ("multimodal_cfg" in config) or coca != bool(text.get("output_tokens")):
        return False
    return coca == bool(text.get("embed_cls")) and (not coca or bool(config.get("custom_text")))


# the weights


def gather(tensors: Mapping[str, Tensor], shape: Shape, pad: int) -> Tower:
    """Gather a text tower's weights; CustomTextCLIP has them under "text.", CLIP at the top.

    pad: the token that fills a text up.
    Raises KeyError for a tensor that is not there, ValueError for one of another shape or a layer too many.
    """
    prefix = "text." if "text.token_embedding.weight" in tensors else ""

    def tensor(name: str, *sizes: int) -> Tensor:
        found = tensors[prefix + name]
        if found.values.shape != sizes:
            raise ValueError(f"{name} is {found.values.shape}, not {sizes}")
        return found

    def take(name: str, *sizes: int) -> Array:
        return tensor(name, *sizes).float32()

    def norm(name: str) -> Norm:
        return Norm(take(f"{name}.weight", width), take(f"{name}.bias", width), shape.epsilon)

    width = shape.width
    if f"{prefix}transformer.resblocks.{shape.layers}.ln_1.weight" in tensors:
        raise ValueError("there are more layers than the configuration has")
    return Tower(
        shape=shape,
        pad=pad,
        embedding=tensor("token_embedding.weight", shape.vocab_size, width).stored(),
        positions=_positions(take, shape, long=f"{prefix}positional_embedding_res" in tensors),
        class_token=take("cls_emb", width) if shape.class_token else None,
        blocks=tuple(_block(take, norm, f"transformer.resblocks.{layer}", shape) for layer in range(shape.layers)),
        norm=norm("ln_final"),
        projection=_project(take, shape),
    )


def _positions(take: Callable[..., Array], shape: Shape, *, long: bool) -> Array:
    """Long-CLIP has two tables, one below position 20 and the other from there on; one table gives the same sums."""
    size = (shape.context_length + shape.class_token, shape.width)
    kept = take("positional_embedding", *size)
    if not long:
        return kept
    return np.concatenate([kept[:LONG_CLIP_KEPT], take("positional_embedding_res", *size)[LONG_CLIP_KEPT:]])


def _project(take: Callable[..., Array], shape: Shape) -> Linear | None:
    if shape.projection == "none":
        return None
    if shape.projection == "biased":
        return Linear(
            take("text_projection.weight", shape.dim, shape.width), take("text_projection.bias", shape.dim)
        )
    return Linear(take("text_projection", shape.width, shape.dim).T, np.zeros(shape.dim, np.float32))


def _block(take: Callable[..., Array], norm: Callable[[str], Norm], place: str, shape: Shape) -> Block:
    def linear(name: str, inner: int, outer: int) -> Linear:
        return Linear(take(f"{place}.{name}weight", outer, inner), take(f"{place}.{name}bias", outer))

    width, hidden = shape.width, shape.hidden
    return Block(
        norm_1=norm(f"{place}.ln_1"),
        attention=Attention(
            shape.heads, linear("attn.in_proj_", width, 3 * width), linear("attn.out_proj.", width, width)
        ),
        norm_2=norm(f"{place}.ln_2"),
        mlp_in=linear("mlp.c_fc.", width, hidden),
        activation=shape.activation,
        mlp_out=linear("mlp.c_proj.", hidden, width),
    )


# the tower; B texts, L tokens each, W wide


@dataclass(frozen=True, slots=True)
class Tower:
    """A text transformer in pre-norm form (Radford et al., arXiv:2103.00020, sec. 2.4), up to the vector's length."""

    shape: Shape
    pad: int
    embedding: Stored  # (V, W), as stored: only the rows that a text uses are read and converted
    positions: Array  # (C, W), one more with a class token
    class_token: Array | None  # (W,)
    blocks: tuple[Block, ...]
    norm: Norm
    projection: Linear | None

    def __call__(self, texts: Sequence[list[int]]) -> Array:
        """Return (N, D) for the tokens of N texts, none longer than the context; not unit rows yet."""
        rows = np.empty((len(texts), self.shape.dim), dtype=np.float32)
        seen, places = [], []
        for tokens in texts:
            place = self._place(tokens)
            seen.append(self._seen(tokens, place))
            places.append(place)
        for batch in _batches(seen):
            ids = np.array([seen[number] for number in batch], dtype=np.int64)
            rows[batch] = self._encode(ids, np.array([places[number] for number in batch]))
        return rows

    def _place(self, tokens: list[int]) -> int:
        """Where the vector is read off, as open_clip's text_global_pool finds it in the padded row."""
        match self.shape.pool if self.class_token is None else "last":
            case "first":
                return 0
            case "last":
                return self.shape.context_length - (self.class_token is None)
            case "eos":
                return tokens.index(self.shape.end) if self.shape.end in tokens else self._padded_end(tokens)
            case _:
                return max(range(len(tokens)), key=tokens.__getitem__)  # pads are lower or at the end

    def _padded_end(self, tokens: list[int]) -> int:
        return len(tokens) if self.pad == self.shape.end and len(tokens) < self.shape.context_length else 0

    def _seen(self, tokens: list[int], place: int) -> list[int]:
        """The tokens that decide what is read off at a place."""
        if self.shape.causal and place < len(tokens):
            return tokens[: place + 1]
        return tokens + [self.pad] * (self.shape.context_length - len(tokens))

    def _encode(self, tokens: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> Array:
        """Return (B, D) for tokens (B, L), read off at one place of each."""
        x = self.embedding[tokens].astype(np.float32)  # (B, L, W)
        if self.class_token is not None:
            x = np.concatenate([x, np.broadcast_to(self.class_token, (len(x), 1, x.shape[-1]))], axis=1)
        x += self.positions[: x.shape[1]]
        mask = self._mask(tokens, x.shape[1])
        for block in self.blocks[:-1]:
            x = block(x, mask)
        last = None if mask is None else np.take_along_axis(mask, places.reshape(-1, 1, 1, 1), axis=2)
        y = self.norm(self.blocks[-1].at(x, places, last))  # of the last layer only this place is looked at
        return y if self.projection is None else self.projection(y)

    def _mask(self, tokens: npt.NDArray[np.int64], length: int) -> Mask | None:
        """Return (B or 1, 1, L, L), or None where every token sees every other."""
        if not self.shape.causal:
            return None
        mask = np.tri(length, dtype=bool)[None, None]
        if self.class_token is None:
            return np.broadcast_to(mask, (len(tokens), 1, length, length))
        seen = np.ones((len(tokens), 1, 1, length), dtype=bool)
        seen[:, 0, 0, 1:] = tokens != self.shape.pad  # one off, as in the models that were trained so
        return mask & seen


def _batches(texts: Sequence[list[int]]) -> Iterator[list[int]]:
    """Yield the numbers of equally long texts together, so that none needs padding."""
    by_length: defaultdict[int, list[int]] = defaultdict(list)
    for number, tokens in enumerate(texts):
        by_length[len(tokens)].append(number)
    for length, numbers in by_length.items():
        step = max(1, _BATCH_TOKENS // length)
        for start in range(0, len(numbers), step):
            yield numbers[start : start + step]
