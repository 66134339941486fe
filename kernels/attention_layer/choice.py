"""Which implementation computes a layer: by the platform that the program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention_layer import over_frames, plain, to_text
from syncos_jax.kernels.attention_layer.plain import OverFrames, ToText

Implementation = Literal["plain", "fused"]


@partial(jax.jit, static_argnames=("heads", "implementation"))  # traced once for equal shapes
def attend_over_frames(
    x: jax.Array, weights: OverFrames, *, heads: int, implementation: Implementation | None = None
) -> jax.Array:
    """Norm and attention among the frames of each cell, added to `x`.

    Args:
        x: ``[B, F, L, C]``, of B clips F frames of L cells.
        weights: in the dtype of `x`.
        heads: of the attention.
        implementation: "plain" or "fused"; None for "fused" where the program is lowered for a TPU
            and it can compute these shapes, else "plain".

    Returns:
        Like `x`; statistics in float32.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    ways = {
        "plain": partial(plain.over_frames, heads=heads),
        "fused": partial(over_frames.add, heads=heads),
    }
    reason = over_frames.why_not(x, weights, heads)
    return tpu.choose("attention over frames", ways, implementation, reason, x, weights)


@partial(jax.jit, static_argnames=("heads", "implementation"))
def attend_to_text(
    x: jax.Array,
    k: jax.Array,
    v: jax.Array,
    weights: ToText,
    *,
    heads: int,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Norm and attention to the words of a text, added to `x`.

    Args:
        x: ``[B, T, C]``.
        k, v: the text's keys and values ``[B, S, N D]``.
        weights, heads, implementation: as of `attend_over_frames`.

    Returns:
        Like `x`; statistics in float32.

    Raises:
        InputError, NotImplementedError: as of `attend_over_frames`.
    """
    ways = {
        "plain": partial(plain.to_text, heads=heads),
        "fused": partial(to_text.add, heads=heads),
    }
    reason = to_text.why_not(x, k.shape[1], weights, heads)
    return tpu.choose("attention to a text", ways, implementation, reason, x, k, v, weights)
