"""The UNet's (3, 1, 1) convolution over frames, alone and after a group norm and SiLU."""

from syncos_jax.kernels.temporal_conv.choice import norm_conv
from syncos_jax.kernels.temporal_conv.plain import Weights, temporal_conv

__all__ = ["Weights", "norm_conv", "temporal_conv"]
