"""Which implementation computes a norm and a convolution over frames: by the platform that the
program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels.choice import Kernel, compute
from syncos_jax.kernels.temporal_conv import fused, plain
from syncos_jax.kernels.temporal_conv.plain import Weights

Implementation = Literal["plain", "fused"]


@partial(jax.jit, static_argnames=("groups", "eps", "implementation"))  # traced once for a shape
def norm_conv(
    x: jax.Array,
    weights: Weights,
    *,
    groups: int,
    eps: float,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Group norm over all frames of a clip, SiLU, and a convolution over frames.

    Args:
        x: ``[B, F, H, W, C]``.
        weights: in the dtype of `x`.
        groups: of the norm.
        eps: of the norm.
        implementation: "plain" or "fused"; None for "fused" where the program is lowered for a TPU
            and it can compute these shapes, else "plain".

    Returns:
        ``[B, F, H, W, O]`` in the dtype of `x`; statistics in float32.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    fast = partial(fused.norm_conv, groups=groups, eps=eps)
    plainly = partial(plain.norm_conv, groups=groups, eps=eps)
    kernels = {"fused": Kernel("tpu", fast, fused.unsupported_reason(x, weights))}
    return compute("norm and convolution", plainly, kernels, implementation, x, weights)
