"""What checkpoints cost a run: the same run with and without them, in turn.

    python benchmarks/checkpoints.py [--model demo] [--frames 48] [--steps 12] [--repeat 3]

Both runs are played row by row; one saves its state every few rows, far more often than the every
30 seconds of the default. What a state costs is then set against 30 seconds. Wall-clock times of a
shared machine vary by more than that; the CPU time of the process, over all its threads, does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax

from syncos_jax import Pipeline, Scenario
from syncos_jax.pipeline.checkpoint import Checkpoint, SaveInterval
from syncos_jax.pipeline.request import Request

EVERY = 30.0


def once(pipeline: Pipeline, request: Request, rows: int) -> tuple[float, float, int, float]:
    """Wall-clock and CPU seconds of a run, its saves, and the seconds that it waited for them."""
    run = pipeline.start(request)
    with tempfile.TemporaryDirectory() as folder:
        with Checkpoint(
            Path(folder) / "run", request.fingerprint, every=SaveInterval(calls=rows)
        ) as kept:
            wall, cpu = time.perf_counter(), time.process_time()
            kept.play(run)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            return *spent, kept.saved, kept.waited


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    pipeline = Pipeline.from_pretrained(args.model)
    scenario = Scenario.from_dict(
        {
            "global": "a red ball on a green meadow",
            "events": [{"prompt": "the ball grows", "frames": args.frames}],
            "sampler": {"name": "syncos", "steps": args.steps, "iterations": 10},
        }
    )
    request = pipeline.prepare(scenario)
    run = pipeline.start(request)
    state = sum(leaf.nbytes for leaf in jax.tree.leaves(run.carry))
    rows = run.num_calls
    print(f"{args.model}, {args.frames} frames, {rows} rows, {os.cpu_count()} cores")
    print(f"a state: {state / 1e6:.2f} MB")
    once(pipeline, request, 2 * rows)  # compiles
    without, with_them = [], []
    for _ in range(args.repeat):
        without.append(once(pipeline, request, 2 * rows))
        with_them.append(once(pipeline, request, max(1, rows // 8)))
    saves = with_them[0][2]
    assert all(one[2] == 0 for one in without) and saves > 0

    def median(runs: list, index: int) -> float:
        return statistics.median(one[index] for one in runs)

    waited = median(with_them, 3) / saves
    cpu = (median(with_them, 1) - median(without, 1)) / saves
    wall = (median(with_them, 0) - median(without, 0)) / saves
    print(f"medians of {args.repeat} runs each, {saves} states saved in one")
    for name, runs in (("without", without), ("with", with_them)):
        print(f"{name:8} {median(runs, 0):8.2f} s wall-clock {median(runs, 1):8.2f} s CPU")
    print(f"a state: the run stands still {1e3 * waited:.0f} ms; {1e3 * cpu:.0f} ms CPU in all;")
    print(f"         {1e3 * wall:.0f} ms longer by the clock")
    print(
        f"one every {EVERY:g} s: standing still {100 * waited / EVERY:.2f} % of the time, "
        f"CPU {100 * cpu / EVERY / (os.cpu_count() or 1):.2f} % of the machine's (goal: 2 %)"
    )


if __name__ == "__main__":
    main()
