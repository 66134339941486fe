"""Attention as a layer of a transformer: norm, projections and attention, added to what it was
given. Among the frames of each cell, or of every token to the text."""

from syncos_jax.kernels.attention_layer import temporal_pallas_tpu, temporal_triton
from syncos_jax.kernels.attention_layer.choice import temporal_attention, text_attention
from syncos_jax.kernels.attention_layer.plain import TemporalWeights, TextWeights

__all__ = [
    "TemporalWeights",
    "TextWeights",
    "temporal_attention",
    "text_attention",
    "temporal_triton",
    "temporal_pallas_tpu",
]
