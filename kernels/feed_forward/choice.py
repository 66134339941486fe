"""Which implementation computes a feed-forward: by the platform that the program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels.choice import Kernel, compute, with_gradient
from syncos_jax.kernels.feed_forward import fused, plain
from syncos_jax.kernels.feed_forward.plain import Weights

Implementation = Literal["plain", "fused"]

_fused = with_gradient(fused.add, plain.add)


@partial(jax.jit, static_argnames="implementation")  # traced once for equal shapes
def feed_forward(
    x: jax.Array, weights: Weights, *, implementation: Implementation | None = None
) -> jax.Array:
    """``x + geglu(norm(x)) @ kernel_out + bias_out``.

    Args:
        x: ``[..., C]``.
        weights: in the dtype of `x`.
        implementation: "plain" or "fused"; None for "fused" where the program is lowered for a TPU
            and it can compute these shapes, else "plain".

    Returns:
        Like `x`; statistics and the gate in float32.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    kernels = {"fused": Kernel("tpu", _fused, fused.unsupported_reason(x, weights))}
    return compute("feed-forward", plain.add, kernels, implementation, x, weights)
