"""Measures of long videos: of frames, of features that the caller brings, of the demo world.

NumPy in, numbers out; nothing that is named here needs JAX or a network. The networks whose
features VBench compares are in `syncos_jax.metrics.networks`, VBench's pre-processing in
`syncos_jax.metrics.vbench`, all of it together in `syncos_jax.metrics.measurer`.
"""

from syncos_jax.metrics.features import pixel_features
from syncos_jax.metrics.frames import (
    cuts,
    dynamic_degree,
    frame_difference_flow,
    moves,
    temporal_flicker,
)
from syncos_jax.metrics.report import evaluate, native_frames
from syncos_jax.metrics.similarity import consistency, diversity, drift_curve, similarity_matrix
from syncos_jax.metrics.world.judge import Expected, expected_from_prompt, judge_video

__all__ = [
    "Expected",
    "consistency",
    "cuts",
    "diversity",
    "drift_curve",
    "dynamic_degree",
    "evaluate",
    "expected_from_prompt",
    "frame_difference_flow",
    "judge_video",
    "moves",
    "native_frames",
    "pixel_features",
    "similarity_matrix",
    "temporal_flicker",
]
