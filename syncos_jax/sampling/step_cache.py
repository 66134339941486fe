"""Passes that reuse the previous prediction where it has changed little.

The change of the network's prediction is predicted from the change of the noisy latent: between two
computed passes, the noise that the fused prediction implies changed by so much per change of the
latent (as in EasyCache, Zhou et al., arXiv 2507.02860, which takes the network's output; the noise
is what a step resumes with). While the predicted change is a small fraction of the noise itself,
the pass keeps that noise and skips the network: a decision within the loop, the same on every
device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_TINY = 1e-20


class StepCache(NamedTuple):
    """What is kept from pass to pass."""

    skip: jax.Array
    """Whether the current pass is skipped, bool."""
    x: jax.Array
    """Noisy latent of the last computed pass, ``[F, H, W, C]``."""
    rate: jax.Array
    """Change of the implied noise per change of the latent, at that pass; float32."""
    num_skipped: jax.Array
    """Samples skipped so far, int32."""

    def should_skip(
        self, x: jax.Array, eps: jax.Array, threshold: jax.Array, samples: jax.Array
    ) -> StepCache:
        """Decides on a pass of so many `samples` at noisy latent `x`: it keeps the noise `eps` if
        the predicted relative change (of mean magnitudes) is below `threshold`; never at 0."""
        change = self.rate * _size(x - self.x) / jnp.maximum(_size(eps), _TINY)
        skip = change < threshold
        return self._replace(skip=skip, num_skipped=self.num_skipped + jnp.where(skip, samples, 0))

    def update(self, x: jax.Array, eps: jax.Array, before: jax.Array) -> StepCache:
        """After a pass computed at `x` that implies the noise `eps`, where `before` was the noise
        at `self.x`."""
        rate = _size(eps - before) / jnp.maximum(_size(x - self.x), _TINY)
        return self._replace(x=x, rate=rate)


def empty_cache(x: jax.Array) -> StepCache:
    """The cache before the first pass."""
    return StepCache(
        skip=jnp.zeros((), bool),
        x=jnp.zeros_like(x),
        rate=jnp.zeros((), jnp.float32),
        num_skipped=jnp.zeros((), jnp.int32),
    )


def _size(x: jax.Array) -> jax.Array:
    return jnp.abs(x).mean()
