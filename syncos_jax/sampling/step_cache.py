"""Passes over the video that reuse what the network predicted before, where little has changed.

How far the network's prediction will move is foretold from how far the noisy latent has: between
two passes that were computed, the noise that the fused prediction implies changed by so much for so
much change of the latent (as in EasyCache, Zhou et al., arXiv 2507.02860, which takes the network's
output; the noise is what a step goes on with). While the foretold change is a small share of the
noise itself, the pass keeps that noise, and the network is not called: a decision within the scan,
the same on every device.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

_TINY = 1e-20


class Reuse(NamedTuple):
    """What is kept from pass to pass."""

    skip: jax.Array
    """Whether the pass at hand is not computed, bool."""
    x: jax.Array
    """The noisy latent of the last pass that was, ``[F, H, W, C]``."""
    rate: jax.Array
    """Change of the implied noise for a change of the latent, at that pass; float32."""
    num_skipped: jax.Array
    """Samples that were not predicted so far, int32."""


def begin_reuse(x: jax.Array) -> Reuse:
    """Before the first pass."""
    return Reuse(
        skip=jnp.zeros((), bool),
        x=jnp.zeros_like(x),
        rate=jnp.zeros((), jnp.float32),
        num_skipped=jnp.zeros((), jnp.int32),
    )


def decide(
    reuse: Reuse, x: jax.Array, eps: jax.Array, threshold: jax.Array, samples: jax.Array
) -> Reuse:
    """Whether a pass of so many `samples` at noisy latent `x` keeps the noise `eps`: where its
    foretold change, as a share of it (means of magnitudes), is below `threshold`; never for a
    threshold of 0."""
    change = reuse.rate * _size(x - reuse.x) / jnp.maximum(_size(eps), _TINY)
    skip = change < threshold
    return reuse._replace(skip=skip, num_skipped=reuse.num_skipped + jnp.where(skip, samples, 0))


def computed(reuse: Reuse, x: jax.Array, eps: jax.Array, before: jax.Array) -> Reuse:
    """After a pass that was computed at `x` and implies the noise `eps`, where `before` was the
    noise at `Reuse.x`."""
    rate = _size(eps - before) / jnp.maximum(_size(x - reuse.x), _TINY)
    return reuse._replace(x=x, rate=rate)


def _size(x: jax.Array) -> jax.Array:
    return jnp.abs(x).mean()
