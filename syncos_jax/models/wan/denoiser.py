"""Wan's denoiser as a function: of one transformer, or of two that share the timesteps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


@dataclass(frozen=True)
class WanDenoiser:
    """``denoise(params, x, t, cond) -> like x``. Two of the same architecture are equal: traced
    once.

    Attributes:
        graphdef: the transformer's structure.
        low_graphdef: of the transformer for little noise, or None where there is but one.
            `params` are then ``{"high": ..., "low": ...}``.
        boundary: timestep from which the first one is used (Wan2.2-T2V-A14B: 875).
    """

    graphdef: Any
    low_graphdef: Any = None
    boundary: float | None = None

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        text, image = cond["text"], cond.get("image")
        given = x
        if "channels" in cond:  # what is known of the window's frames
            given = jnp.concatenate([x, cond["channels"].astype(x.dtype)], axis=-1)
        if self.low_graphdef is None:
            return nnx.merge(self.graphdef, params)(given, t, text, image)
        assert self.boundary is not None
        # A clip whose frames have times of their own goes by the noisiest.
        noisiest = t if t.ndim == 1 else t.max(axis=1)
        high = noisiest >= self.boundary

        def of(graphdef: Any, weights: Any, wanted: jax.Array) -> jax.Array:
            # Each network stands in the program once and runs where any clip needs it.
            return lax.cond(
                wanted.any(),
                lambda: nnx.merge(graphdef, weights)(given, t, text, image),
                lambda: jnp.zeros_like(x),
            )

        return jnp.where(
            high[:, None, None, None, None],
            of(self.graphdef, params["high"], high),
            of(self.low_graphdef, params["low"], ~high),
        )
