"""What guidance is besides a weighted sum of predictions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from syncos_jax.sampling.prediction import Prediction, decode, encode


def rescaled_guidance(
    prediction: Prediction,
    share: float,
    guided: jax.Array,
    prompted: jax.Array,
    x: jax.Array,
    a: jax.Array,
    b: jax.Array,
) -> jax.Array:
    """Guided predictions with ``x0 (share std(x0_prompted) / std(x0) + 1 - share)`` in place of
    their clean latents ``x0`` (Lin et al., arXiv 2305.08891, equations 15 and 16, there of the
    predictions themselves). Arguments as for `decode`, with an axis of windows in front; `prompted`
    are the predictions without guidance."""
    axes = tuple(range(1, x.ndim))
    (x0, _), (alone, _) = (decode(prediction, value, x, a, b) for value in (guided, prompted))
    now, wanted = (y.std(axis=axes, keepdims=True) for y in (x0, alone))
    ratio = jnp.where(now > 0, wanted / jnp.where(now > 0, now, 1.0), 1.0)
    x0 = x0 * (share * ratio + (1.0 - share))
    return encode(prediction, x0, (x - a * x0) / b, a, b)
