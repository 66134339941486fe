"""The transformers' feed-forward: norm, gated unit, dense layer, added to what it was given."""

from syncos_jax.kernels.feed_forward.choice import feed_forward
from syncos_jax.kernels.feed_forward.plain import Weights, geglu, gelu

__all__ = ["Weights", "feed_forward", "geglu", "gelu"]
