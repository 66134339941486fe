"""The share of its time that the sampler of a batch is at work, over many short videos.

    python benchmarks/batch_busy.py [--videos 20] [--model demo] [--frames 16] [--steps 8]

The same batch twice, each in a process of its own: one thing after another, as it was before
decoding, writing and encoding prompts went beside the sampler; and with them beside it. Compilation
is excluded from both (`syncos_jax.runs.throughput.SamplerUtilisation`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console


def make(args: argparse.Namespace, overlap: bool) -> dict[str, Any]:
    """Makes the batch; returns the figures of its session."""
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.runs.batch import Batch
    from syncos_jax.runs.items import read_items
    from syncos_jax.runs.outputs import Outputs
    from syncos_jax.runs.progress import Phases
    from syncos_jax.runs.worker_config import WorkerConfig

    story = {
        "global": "a red ball on a green meadow",
        "events": [{"prompt": "the ball rolls to the left", "frames": args.frames}],
        "sampler": {"name": "syncos", "steps": args.steps, "iterations": 5},
    }
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "stories.jsonl"
        lines.write_text(
            "".join(json.dumps({**story, "seed": n}) + "\n" for n in range(args.videos))
        )
        outputs = Outputs(Path(folder) / "videos")
        phases = Phases(Console(quiet=True))
        pipeline = Pipeline.from_pretrained(args.model)
        batch = Batch(
            pipeline,
            WorkerConfig(outputs.place, args.model, contact_sheet=True),
            outputs,
            phases,
        )
        batch.overlap = overlap
        batch.add(read_items(lines))
        batch.open()
        batch.make_all()
        assert not batch.summary() and batch.left == 0
        share = batch.session.sampler
        assert share.begun is not None
        seconds = time.monotonic() - share.begun
        return {
            "busy": share.value,
            "sampling": share.busy / args.videos,
            "per_hour": 3600 * args.videos / seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=20)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{args.model}, {args.videos} videos of {args.frames} frames, {cores} cores")
    for name, overlap in (("one after another", False), ("beside the sampler", True)):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(make, (args, overlap))
        print(
            f"{name:<20} sampler busy {100 * found['busy']:5.1f} %, {found['sampling']:6.2f} s of "
            f"sampling a video, {found['per_hour']:6.0f} videos an hour"
        )


if __name__ == "__main__":
    main()
