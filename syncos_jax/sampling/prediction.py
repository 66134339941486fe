"""What a network predicts, and the clean latent and noise that follow from it."""

from __future__ import annotations

from typing import Literal

import jax

Prediction = Literal["epsilon", "v", "x0", "flow"]


def encode(
    prediction: Prediction, x0: jax.Array, eps: jax.Array, a: jax.Array, b: jax.Array
) -> jax.Array:
    """The prediction that stands for ``(x0, eps)`` at rates `a`, `b`; inverse of `decode`."""
    if prediction == "epsilon":
        return eps
    if prediction == "x0":
        return x0
    if prediction == "v":
        return a * eps - b * x0
    return eps - x0


def decode(
    prediction: Prediction, value: jax.Array, x: jax.Array, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Turns a prediction at ``x = a x0 + b eps`` into ``(x0, eps)``, for any rates.

    Args:
      prediction: its type.
      value: the network's output.
      x: the network's input, shaped like `value`.
      a: signal rate, scalar or broadcastable.
      b: noise rate, scalar or broadcastable.
    """
    if prediction == "epsilon":
        return (x - b * value) / a, value
    if prediction == "x0":
        return value, (x - a * value) / b
    if prediction == "v":  # solve x = a x0 + b eps, v = a eps - b x0
        scale = a * a + b * b
        return (a * x - b * value) / scale, (b * x + a * value) / scale
    scale = a + b  # solve x = a x0 + b eps, v = eps - x0
    return (x - b * value) / scale, (x + a * value) / scale
