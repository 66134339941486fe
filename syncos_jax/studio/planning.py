"""The cost of a video, computed fast enough to update while a form is filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from syncos_jax.pipeline.cost import memory_bytes, timing_key
from syncos_jax.pipeline.timings import recall

if TYPE_CHECKING:
    from syncos_jax.studio.video_request import VideoRequest


def plan(asked: VideoRequest) -> dict[str, Any]:
    """The response of ``POST /v1/plan``; nothing is compiled or run."""
    request, takes = asked.request, len(asked.seeds)
    speed = recall(timing_key(request))
    seconds = None
    if speed is not None:
        once = speed.load + speed.compile
        each = speed.total(request.summary.calls, request.frames) - once
        seconds = round(speed.compile + takes * each, 1)
    return {
        "frames": request.frames,
        "seconds": request.frames / request.fps,
        "windows": request.layout.count,
        "calls": request.summary.calls * takes,
        "memory_bytes": memory_bytes(request),
        "estimated_seconds": seconds,
        "events": [
            {
                "prompt": row["prompt"],
                "seconds": row["stop_seconds"] - row["start_seconds"],
                "frames": row["stop"] - row["start"],
                "cut": lost,
            }
            for row, lost in zip(request.events, asked.lost, strict=True)
        ],
        "scenario": asked.scenario.to_dict(),
    }
