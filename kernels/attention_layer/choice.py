"""Which implementation computes a layer: by the platform that the program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels.attention_layer import by_cells, over_frames, plain, to_text
from syncos_jax.kernels.attention_layer.plain import OverFrames, ToText
from syncos_jax.kernels.choice import Kernel, compute

Implementation = Literal["plain", "fused", "triton"]


@partial(jax.jit, static_argnames=("heads", "implementation"))  # traced once for equal shapes
def attend_over_frames(
    x: jax.Array, weights: OverFrames, *, heads: int, implementation: Implementation | None = None
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
    plainly = partial(plain.over_frames, heads=heads)
    given = (x, weights, heads)
    kernels = {
        "fused": Kernel("tpu", partial(over_frames.add, heads=heads), over_frames.why_not(*given)),
        "triton": Kernel("cuda", partial(by_cells.add, heads=heads), by_cells.why_not(*given)),
    }
    return compute("attention over frames", plainly, kernels, implementation, x, weights)


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
        weights, heads: as of `attend_over_frames`.
        implementation: "plain" or "fused" (TPU); None as there.

    Returns:
        Like `x`; statistics in float32.

    Raises:
        InputError, NotImplementedError: as of `attend_over_frames`.
    """
    plainly = partial(plain.to_text, heads=heads)
    reason = to_text.why_not(x, k.shape[1], weights, heads)
    kernels = {"fused": Kernel("tpu", partial(to_text.add, heads=heads), reason)}
    return compute("attention to a text", plainly, kernels, implementation, x, k, v, weights)
