"""From a scenario to a video: request, plan, latents, frames, files.

What needs JAX is imported when it is first used, so that writing a video does not wait for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncos_jax.media.video import Video
    from syncos_jax.pipeline.pipeline import Pipeline

__all__ = ["Pipeline", "Video"]

_HOME = {"Pipeline": "syncos_jax.pipeline.pipeline", "Video": "syncos_jax.media.video"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
