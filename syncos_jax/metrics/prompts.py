"""What a video should show, as its scenario or its record says."""

from __future__ import annotations

import dataclasses

from syncos_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The prompts of a video, and which frames they are of.

    Attributes:
        overall: the global prompt; empty if there is none.
        events: (first frame, end, local prompt) of each event, which cover all frames in order.
    """

    overall: str
    events: tuple[tuple[int, int, str], ...]

    def check(self, frames: int) -> None:
        """InputError where the events do not cover a video of ``frames`` frames."""
        starts = [start for start, _, _ in self.events]
        stops = [stop for _, stop, _ in self.events]
        fits = starts == [0, *stops[:-1]] and stops[-1:] == [frames]
        if not fits or any(start >= stop for start, stop in zip(starts, stops, strict=True)):
            spans = ", ".join(f"{start}-{stop}" for start, stop, _ in self.events) or "none"
            raise InputError(f"the events' frames ({spans}) do not cover {frames} frames in order")
