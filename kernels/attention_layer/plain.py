"""The references."""

from typing import NamedTuple

import jax

from syncos_jax.kernels.attention import attention
from syncos_jax.kernels.layer_norm import layer_norm


class TemporalWeights(NamedTuple):
    """Weights of an attention over frames, with N heads of D features.

    Attributes:
        scale, shift: of the norm, ``[C]``.
        to_q, to_k, to_v: ``[C, N D]``.
        to_out: ``[N D, C]``.
        bias_out: ``[C]``.
    """

    scale: jax.Array
    shift: jax.Array
    to_q: jax.Array
    to_k: jax.Array
    to_v: jax.Array
    to_out: jax.Array
    bias_out: jax.Array


class TextWeights(NamedTuple):
    """Weights of an attention to a text, with N heads of D features.

    Attributes:
        scale, shift: of the norm, ``[C]``.
        to_q: ``[C, N D]``.
        to_out: ``[N D, C]``.
        bias_out: ``[C]``.
    """

    scale: jax.Array
    shift: jax.Array
    to_q: jax.Array
    to_out: jax.Array
    bias_out: jax.Array


def temporal(x: jax.Array, weights: TemporalWeights, heads: int) -> jax.Array:
    """``x [B, F, L, C]`` and what the frames of each of its L cells attend to among themselves."""
    B, F, L, C = x.shape
    y = layer_norm(x, weights.scale, weights.shift).swapaxes(1, 2).reshape(B * L, F, C)
    q, k, v = (
        (y @ kernel).reshape(B * L, F, heads, -1)
        for kernel in (weights.to_q, weights.to_k, weights.to_v)
    )
    y = attention(q, k, v).reshape(B * L, F, -1) @ weights.to_out
    y = y + weights.bias_out.reshape(1, 1, -1)
    return x + y.reshape(B, L, F, C).swapaxes(1, 2)


def text(x: jax.Array, k: jax.Array, v: jax.Array, weights: TextWeights, heads: int) -> jax.Array:
    """``x [B, T, C]`` and what its tokens attend to among ``k`` and ``v`` ``[B, S, N D]``."""
    y = layer_norm(x, weights.scale, weights.shift) @ weights.to_q
    q, k, v = (a.reshape(*a.shape[:2], heads, -1) for a in (y, k, v))
    y = attention(q, k, v).reshape(*x.shape[:2], -1) @ weights.to_out
    return x + (y + weights.bias_out.reshape(1, 1, -1))
