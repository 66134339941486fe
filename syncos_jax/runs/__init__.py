"""Around a run: jobs, records, batches, compiled programs, progress, signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syncos_jax.runs.generator import VideoGenerator

__all__ = ["VideoGenerator"]


def __getattr__(name: str) -> Any:
    """`VideoGenerator`, which brings the pipeline with it, when it is asked for."""
    if name == "VideoGenerator":
        from syncos_jax.runs.generator import VideoGenerator

        return VideoGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
