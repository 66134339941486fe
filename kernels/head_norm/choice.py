"""Which implementation computes the norms: by the platform that the program is lowered for."""

from typing import Any, Literal

import jax

from syncos_jax.kernels.choice import Kernel, compute, with_gradient
from syncos_jax.kernels.head_norm import fused, plain

Implementation = Literal["plain", "fused"]
Turn = tuple[jax.Array, jax.Array]
"""Cosines of the features' angles and their sines, negative for the first of each pair, float32
``[T, D]``."""


def rms_norm(
    x: jax.Array,
    scale: jax.Array,
    turn: Turn | None = None,
    *,
    heads: int,
    eps: float,
    implementation: Implementation | None = None,
) -> jax.Array:
    """``x / rms(x) * scale`` over all heads, then rotary positions (Su et al., arXiv 2104.09864).

    Args:
        x: queries or keys ``[b, T, N D]``.
        scale: ``[N D]``.
        turn: by which the pairs ``(0, 1), (2, 3), ...`` of a head's features turn; None for not.
        heads: ``N``.
        eps: added to the mean square.
        implementation: "plain" or "fused" (TPU); None for the platform's.

    Returns:
        Like `x`; statistics and rotation in float32.

    Raises:
        InputError: the one named is unknown or cannot compute these arrays.
    """
    return _norm(x, scale, None, turn, heads, eps, implementation)


def head_norm(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array,
    turn: Turn | None = None,
    *,
    heads: int,
    eps: float,
    implementation: Implementation | None = None,
) -> jax.Array:
    """Layer norm of each head ``[D]`` on its own, with ``scale, shift [D]``; else as `rms_norm`."""
    return _norm(x, scale, shift, turn, heads, eps, implementation)


def _norm(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array | None,
    turn: Turn | None,
    heads: int,
    eps: float,
    implementation: str | None,
) -> jax.Array:
    cos, sin = (None, None) if turn is None else turn
    static: dict[str, Any] = {"heads": heads, "eps": eps}
    reason = fused.unsupported_reason(x, heads)
    kernel = Kernel("tpu", with_gradient(fused.norm, plain.norm, **static), reason)

    def reference(*arrays: Any) -> jax.Array:
        return plain.norm(*arrays, **static)

    with jax.named_scope("norm"):
        return compute(
            "head norm", reference, {"fused": kernel}, implementation, x, scale, shift, cos, sin
        )
