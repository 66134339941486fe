"""The captioned world that the demo model learns: coloured shapes that move and grow.

Scenes are sampled (`sample_scene`), drawn (`render`), described (`caption`) and read back from
pixels without a network (`syncos_jax.metrics.world.tracker`).
"""

from demo_model.world.captions import caption, captions_corpus, prompt
from demo_model.world.render import coverage, render, render_clips
from demo_model.world.scene import (
    DRAWN_OBJECTS,
    LARGE_SUBJECTS,
    SMALL_SUBJECTS,
    Scene,
    Subjects,
    sample_scene,
)

__all__ = [
    "DRAWN_OBJECTS",
    "LARGE_SUBJECTS",
    "SMALL_SUBJECTS",
    "Scene",
    "Subjects",
    "caption",
    "captions_corpus",
    "coverage",
    "prompt",
    "render",
    "render_clips",
    "sample_scene",
]
