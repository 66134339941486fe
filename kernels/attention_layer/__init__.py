"""Attention as a layer of a transformer: norm, projections and attention, added to what it was
given. Among the frames of each cell, or of every token to the text."""

from syncos_jax.kernels.attention_layer import by_cells, over_frames
from syncos_jax.kernels.attention_layer.choice import attend_over_frames, attend_to_text
from syncos_jax.kernels.attention_layer.plain import OverFrames, ToText

__all__ = [
    "OverFrames",
    "ToText",
    "attend_over_frames",
    "attend_to_text",
    "by_cells",
    "over_frames",
]
