"""Around a run: jobs, metadata files, batches, compiled programs, progress, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncos_jax.runs.generator import VideoGenerator

__all__ = ["VideoGenerator"]


def __getattr__(name: str) -> Any:
    """Imports `VideoGenerator`, and with it the pipeline, on first use."""
    if name == "VideoGenerator":
        from syncos_jax.runs.generator import VideoGenerator

        return VideoGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
