"""Which implementation computes a layer: by the platform that the program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels.attention_layer import (
    plain,
    temporal_pallas_tpu,
    temporal_triton,
    text_pallas_tpu,
)
from syncos_jax.kernels.attention_layer.plain import TemporalWeights, TextWeights
from syncos_jax.kernels.choice import Kernel, compute

Implementation = Literal["plain", "fused", "triton"]


@partial(jax.jit, static_argnames=("heads", "implementation"))  # traced once for equal shapes
def temporal_attention(
    x: jax.Array,
    weights: TemporalWeights,
    *,
    heads: int,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Norm and attention among the frames of each cell, added to `x`.

    Args:
        x: ``[B, F, L, C]``, of B clips F frames of L cells.
        weights: in the dtype of `x`.
        heads: of the attention.
        implementation: "plain", "fused" (TPU) or "triton" (NVIDIA); None for that of the platform
            that the program is lowered for, where it can compute these shapes, else "plain".

    Returns:
        Like `x`; statistics in float32.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    plainly = partial(plain.temporal, heads=heads)
    given = (x, weights, heads)
    kernels = {
        "fused": Kernel(
            "tpu",
            partial(temporal_pallas_tpu.add, heads=heads),
            temporal_pallas_tpu.unsupported_reason(*given),
        ),
        "triton": Kernel(
            "cuda",
            partial(temporal_triton.add, heads=heads),
            temporal_triton.unsupported_reason(*given),
        ),
    }
    return compute("attention over frames", plainly, kernels, implementation, x, weights)


@partial(jax.jit, static_argnames=("heads", "implementation"))
def text_attention(
    x: jax.Array,
    k: jax.Array,
    v: jax.Array,
    weights: TextWeights,
    *,
    heads: int,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Norm and attention to the words of a text, added to `x`.

    Args:
        x: ``[B, T, C]``.
        k, v: the text's keys and values ``[B, S, N D]``.
        weights, heads: as of `temporal_attention`.
        implementation: "plain" or "fused" (TPU); None as there.

    Returns:
        Like `x`; statistics in float32.

    Raises:
        InputError, NotImplementedError: as of `temporal_attention`.
    """
    plainly = partial(plain.text, heads=heads)
    reason = text_pallas_tpu.unsupported_reason(x, k.shape[1], weights, heads)
    kernels = {"fused": Kernel("tpu", partial(text_pallas_tpu.add, heads=heads), reason)}
    return compute("attention to a text", plainly, kernels, implementation, x, k, v, weights)
