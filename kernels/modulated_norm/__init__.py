"""Layer normalisation whose scale and shift depend on the clip, in one pass."""

from syncos_jax.kernels.modulated_norm.choice import modulated_norm
from syncos_jax.kernels.modulated_norm.plain import over_tokens

__all__ = ["modulated_norm", "over_tokens"]
