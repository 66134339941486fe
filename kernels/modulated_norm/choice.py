"""Which implementation computes the norm: by the platform that the program is lowered for."""

from functools import partial
from typing import Literal

import jax

from syncos_jax.kernels.choice import Kernel, compute, with_gradient
from syncos_jax.kernels.modulated_norm import fused, plain

Implementation = Literal["plain", "fused"]


def modulated_norm(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    *,
    eps: float,
    first: int = 0,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Normalises tokens over their features, then scales and shifts them (adaLN; Peebles and Xie,
    arXiv 2212.09748). All in float32.

    Args:
        x: ``[b, T, C]``.
        scale, shift: ``[b, 1, C]`` of all tokens of a clip; ``[b, T, C]`` of each; or, where
            `first` is given, ``[b, 2, C]``. The scale includes the 1 that is added to a modulation.
        eps: added to the variance.
        first: so many of the first tokens have scale and shift of their own, as text has.
        implementation: "plain" or "fused" (TPU); None for the platform's.

    Returns:
        ``[b, T, C]`` in the dtype of `x`.

    Raises:
        InputError: the one named is unknown or cannot compute these arrays.
    """
    reason = fused.unsupported_reason(x)
    if scale.shape[1] != 1 + (first > 0) or scale.shape[0] != x.shape[0]:
        reason = reason or "every token has a scale of its own"
    kernel = Kernel("tpu", with_gradient(fused.norm, plain.norm, eps=eps, first=first), reason)

    reference = partial(plain.norm, eps=eps, first=first)
    kernels = {"fused": kernel}
    with jax.named_scope("norm"):
        return compute("modulated norm", reference, kernels, implementation, x, scale, shift)
