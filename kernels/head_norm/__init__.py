"""Norms of queries or keys and rotary positions, in one pass over heads that lie side by side."""

from syncos_jax.kernels.head_norm.choice import Turn, head_norm, rms_norm

__all__ = ["Turn", "head_norm", "rms_norm"]
