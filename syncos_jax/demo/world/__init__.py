"""The captioned world that the demo model learns: coloured shapes that move and grow.

Scenes are sampled (:func:`sample_scene`), drawn (:func:`render`), described (:func:`caption`)
and read back from pixels without any network (:mod:`syncos_jax.demo.world.tracker`).
"""

from syncos_jax.demo.world.captions import caption, captions_corpus, global_prompt, local_prompt
from syncos_jax.demo.world.render import backgrounds, coverage, render, render_clips
from syncos_jax.demo.world.scene import (
    BACKGROUNDS,
    CLIP_FRAMES,
    COLOURS,
    FPS,
    LARGE_SUBJECTS,
    MOTIONS,
    OPPOSITE,
    SHAPES,
    SIZE,
    SMALL_SUBJECTS,
    Scene,
    Subjects,
    sample_scene,
)

__all__ = [
    "BACKGROUNDS",
    "CLIP_FRAMES",
    "COLOURS",
    "FPS",
    "LARGE_SUBJECTS",
    "MOTIONS",
    "OPPOSITE",
    "SHAPES",
    "SIZE",
    "SMALL_SUBJECTS",
    "Scene",
    "Subjects",
    "backgrounds",
    "caption",
    "captions_corpus",
    "coverage",
    "global_prompt",
    "local_prompt",
    "render",
    "render_clips",
    "sample_scene",
]
