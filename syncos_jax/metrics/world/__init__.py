"""The demo model's world: what its clips can show, and what is read off their pixels.

`syncos_jax.metrics.world.tracker` reads videos without a network; `judge_video` compares what it
reads with the prompts. Scenes are drawn and described in ``examples/demo_model/world``.
"""

from syncos_jax.metrics.world.attributes import (
    ATTRIBUTES,
    BACKGROUNDS,
    CLIP_FRAMES,
    COLOURS,
    FPS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    SIZE,
)
from syncos_jax.metrics.world.words import global_prompt, local_prompt

__all__ = [
    "ATTRIBUTES",
    "BACKGROUNDS",
    "CLIP_FRAMES",
    "COLOURS",
    "FPS",
    "MOTIONS",
    "OPPOSITE",
    "SHAPES",
    "SIZE",
    "global_prompt",
    "local_prompt",
]
