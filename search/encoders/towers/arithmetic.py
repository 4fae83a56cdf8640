"""What text transformers are made of, in float32: norms, linear maps, attention, activations.

B texts, L tokens each, W wide, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[np.float32]
Stored: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16]
Mask: TypeAlias = npt.NDArray[np.bool_]
"""Which keys a query sees, to be broadcast to (B, H, queries, keys)."""
Activation: TypeAlias = Callable[[Array], Array]

_CHUNK = 2**14  # numbers an activation works on at a time: its steps then stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Norm:
    weight: Array
    bias: Array
    epsilon: float = 1e-5  # torch's

    def __call__(self, x: Array) -> Array:
        y: Array = x - x.mean(axis=-1, keepdims=True)
        y /= np.sqrt(np.square(y).mean(axis=-1, keepdims=True) + np.float32(self.epsilon))
        y *= self.weight
        y += self.bias
        return y


@dataclass(frozen=True, slots=True)
class Linear:
    weight: Array  # (out, in), as torch keeps it
    bias: Array

    def __call__(self, x: Array) -> Array:
        flat = x.reshape(-1, x.shape[-1])  # (B, L, in) -> (B L, in): one matrix product, not one for each text
        y = flat @ self.weight.T
        y += self.bias  # in place: of large batches, fresh memory costs more than the sum
        return y.reshape(*x.shape[:-1], -1)

    def part(self, rows: slice) -> Linear:
        return Linear(self.weight[rows], self.bias[rows])


@dataclass(frozen=True, slots=True)
class Attention:
    """Scaled dot-product attention; `inner` gives queries, keys and values, one below the other."""

    heads: int
    inner: Linear
    outer: Linear

    def __call__(self, x: Array, asking: Array, mask: Mask | None) -> Array:
        """Return (B, A, W): what the queries of `asking` (B, A, W) find in x (B, L, W)."""
        batch, asked, width = asking.shape
        queries = self.inner.part(slice(0, width))(asking)
        queries *= np.float32(1 / math.sqrt(width // self.heads))
        keys, values = np.split(self.inner.part(slice(width, None))(x), 2, axis=-1)
        scores = self._split(queries) @ self._split(keys).swapaxes(-1, -2)  # (B, H, A, L)
        shares = softmax(scores if mask is None else np.where(mask, scores, np.float32(-np.inf)))
        mixed = (shares @ self._split(values)).swapaxes(1, 2)  # (B, H, A, W / H) -> (B, A, H, W / H)
        return self.outer(mixed.reshape(batch, asked, width))

    def _split(self, x: Array) -> Array:
        """(B, L, W) -> (B, H, L, W / H)"""
        return x.reshape(*x.shape[:2], self.heads, -1).swapaxes(1, 2)


@dataclass(frozen=True, slots=True)
class Block:
    """A layer in pre-norm form: attention, then two linear maps with the activation between them."""

    norm_1: Norm
    attention: Attention
    norm_2: Norm
    mlp_in: Linear
    activation: Activation
    mlp_out: Linear

    def __call__(self, x: Array, mask: Mask | None) -> Array:
        """Return (B, L, W) of x (B, L, W)."""
        normed = self.norm_1(x)
        return self._rest(x + self.attention(normed, normed, mask))

    def at(self, x: Array, places: npt.NDArray[np.int64], mask: Mask | None) -> Array:
        """Return (B, W): the layer's results at one place of each text only."""
        normed, rows = self.norm_1(x), np.arange(len(x))
        asking = normed[rows, places][:, None]
        return self._rest(x[rows, places][:, None] + self.attention(normed, asking, mask))[:, 0]

    def _rest(self, x: Array) -> Array:
        x += self.mlp_out(self.activation(self.mlp_in(self.norm_2(x))))
        return x


def softmax(scores: Array) -> Array:
    """Return shares over the last axis, in the place of the scores."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def gelu(x: Array) -> Array:
    """Return x times the normal distribution's share below x, in the place of x.

    numpy has no erf, so the share is Abramowitz and Stegun's formula 26.2.17, at most 7.5e-8 off: about
    the distance of float32 numbers from each other just below 1.
    """
    return _by_chunks(_gelu, x)


def gelu_tanh(x: Array) -> Array:
    """Return GELU's approximation by a hyperbolic tangent, in the place of x."""
    return _by_chunks(_gelu_tanh, x)


def quick_gelu(x: Array) -> Array:
    """Return x · sigmoid(1.702 x), with which OpenAI trained, in the place of x."""
    return _by_chunks(_quick_gelu, x)


def _by_chunks(function: Callable[[Array], None], x: Array) -> Array:
    flat = np.ascontiguousarray(x).reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        function(flat[start : start + _CHUNK])
    return flat.reshape(x.shape)


def _gelu(x: Array) -> None:
    size = np.abs(x)
    t = size * np.float32(0.2316419)
    t += np.float32(1)
    np.reciprocal(t, out=t)
    tail = t * np.float32(1.330274429)
    for coefficient in (-1.821255978, 1.781477937, -0.356563782, 0.319381530):
        tail += np.float32(coefficient)
        tail *= t
    np.square(size, out=t)
    t *= np.float32(-0.5)
    np.exp(t, out=t)
    tail *= t
    tail *= np.float32(1 / math.sqrt(2 * math.pi))
    tail *= size
    np.maximum(x, np.float32(0), out=x)
    x -= tail


def _gelu_tanh(x: Array) -> None:
    inner = np.square(x)
    inner *= np.float32(0.044715 * math.sqrt(2 / math.pi))
    inner += np.float32(math.sqrt(2 / math.pi))
    inner *= x
    np.tanh(inner, out=inner)
    inner += np.float32(1)
    inner *= np.float32(0.5)
    x *= inner


def _quick_gelu(x: Array) -> None:
    with np.errstate(over="ignore"):  # the exponential of what the sigmoid makes zero
        power = np.exp(x * np.float32(-1.702))
    power += np.float32(1)
    x /= power
