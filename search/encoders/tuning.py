"""A loaded open_clip model made fast for inference: its precision, and cheaper forms of its towers that say the same.

Whole towers are cast, never run under autocast: that takes `nn.MultiheadAttention` off its fused path, and with
bfloat16 it was slower than float32.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from search.encoders.blueprints import open_clip
from search.errors import ModelError

TextTower: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # x86's, and what ARM's is called
_CPU_FLAGS = Path("/proc/cpuinfo")


def choose_precision(device: torch.device, wanted: str | None = None) -> torch.dtype:
    """Return the type of weights and arithmetic on a device: what it multiplies fastest, unless `wanted` says.

    Raises ModelError for a name that is not in PRECISIONS.
    """
    if wanted is not None:
        if wanted not in PRECISIONS:
            raise ModelError(f"there is no precision {wanted!r}", hint=f"there are {', '.join(PRECISIONS)}")
        return PRECISIONS[wanted]
    if device.type == "cpu":
        return torch.bfloat16 if multiplies_bfloat16() else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.float16 if device.type == "mps" else torch.float32


def multiplies_bfloat16() -> bool:
    """Say whether this processor has instructions that multiply bfloat16; without them it is slower than float32."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    flags = {name for name, has in capabilities.items() if has is True}
    with contextlib.suppress(OSError):
        flags |= set(_CPU_FLAGS.read_text(encoding="utf-8", errors="replace").split())
    return bool(flags & _BFLOAT16_FLAGS)


def tuned(model: Any, *, device: torch.device, precision: torch.dtype) -> Any:
    """Return the model ready to run: towers in their cheaper forms, cast, on the device.

    Takes the model apart: it is not to be used any more.
    """
    model.visual = image_tower(model.visual)
    return model.to(device, precision).eval()


def image_tower(visual: Any) -> Any:
    """Return an image tower of the same function that computes less.

    Branches that training needed are fused (MobileCLIP, FastViT), convolutions read channels last, and of a
    transformer's last block no more is computed than the one token that is looked at.
    """
    visual = visual.eval()
    if isinstance(visual, open_clip.timm_model.TimmModel):
        visual.trunk = _fused(visual.trunk)
    elif _reads_class_token(visual):
        blocks = visual.transformer.resblocks
        blocks[-1] = _LastBlock(blocks[-1])
    return visual.to(memory_format=torch.channels_last)


def causal_text_tower(model: Any) -> TextTower | None:
    """Return what turns tokens (N, L), ending with the last end-of-text, into (N, dim); None for other towers.

    The mask is causal and the vector is read off at end-of-text: what stands behind it makes no difference.
    """
    tower = getattr(model, "text", model)
    if not isinstance(tower, open_clip.CLIP | open_clip.transformer.TextTransformer):
        return None
    pooled = getattr(tower, "text_pool_type", getattr(tower, "pool_type", ""))
    if (
        pooled != "argmax"
        or getattr(tower, "attn_mask", None) is None
        or getattr(tower, "cls_emb", None) is not None
    ):
        return None

    def encode(tokens: torch.Tensor) -> torch.Tensor:
        length = tokens.shape[1]
        x = tower.token_embedding(tokens) + tower.positional_embedding[:length]  # (N, L, W)
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        ends = tokens.argmax(dim=-1)
        x = tower.ln_final(x[torch.arange(len(x), device=x.device), ends])  # (N, L, W) -> (N, W)
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            return projection(x)  # type: ignore[no-any-return]
        return x if projection is None else x @ projection  # type: ignore[no-any-return]

    return encode


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` off its fused path inside the block, for those who read or count operators."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _fused(trunk: nn.Module) -> nn.Module:
    from timm.utils.model import reparameterize_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reparameterize_model(trunk)


def _reads_class_token(visual: Any) -> bool:
    """Say whether a tower is a transformer of usual blocks of whose last one only the class token is read."""
    if not isinstance(visual, open_clip.transformer.VisionTransformer):
        return False
    usual = type(visual.transformer.resblocks[-1]) is open_clip.transformer.ResidualAttentionBlock
    return usual and visual.attn_pool is None and visual.pool_type == "tok" and not visual.output_tokens


class _LastBlock(nn.Module):
    """A residual attention block that computes the first token alone: (N, L, W) -> (N, 1, W)."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        attention = block.attn
        width = attention.embed_dim
        self.heads = attention.num_heads
        self.norm_1, self.norm_2 = block.ln_1, block.ln_2
        self.scale_1, self.scale_2 = block.ls_1, block.ls_2
        self.query = _linear(attention, slice(0, width))
        self.key = _linear(attention, slice(width, 2 * width))
        self.value = _linear(attention, slice(2 * width, 3 * width))
        self.out = attention.out_proj
        self.mlp = block.mlp

    def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
        """x: (N, L, W)"""
        y = self.norm_1(x)
        query, key, value = (self._split(part) for part in (self.query(y[:, :1]), self.key(y), self.value(y)))
        mixed = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (N, 1, W)
        x = x[:, :1] + self.scale_1(self.out(mixed))
        return x + self.scale_2(self.mlp(self.norm_2(x)))  # type: ignore[no-any-return]

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(N, L, W) -> (N, H, L, W / H)"""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _linear(attention: Any, rows: slice) -> nn.Linear:
    weight, bias = attention.in_proj_weight[rows], attention.in_proj_bias[rows]
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = (nn.Parameter(deepcopy(part.detach())) for part in (weight, bias))
    return linear
