"""Few steps against today's ``make demo``: ``python benchmarks/few_steps.py --help``.

Makes videos of a scenario in turns: with its own sampler, and with methods of
``benchmarks/few_steps.yaml``, from the same seeds in one process, all compiled before. Tells the
time of sampling, the number of predictions, and how much consistency differs, pair by pair.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).parent))
from experiment.intervals import difference, estimate
from experiment.methods import read_methods
from syncos_jax.metrics.world.judge import majority_share
from syncos_jax.metrics.world.tracker import track
from syncos_jax.pipeline import Pipeline
from syncos_jax.runs.cache import keep_programs
from syncos_jax.scenario import Scenario

HERE = Path(__file__).parent


def consistency(frames: np.ndarray) -> float:
    """Share of frames on the most frequent colour, shape and background, mean of the three."""
    seen = track(frames)
    values = (seen.colour, seen.shape, seen.background)
    return float(np.mean([majority_share(v) for v in values]))


def make(pipeline: Pipeline, scenario: Scenario, sampler: Any, seed: int) -> dict[str, float]:
    """Samples one video: seconds, processor seconds, predictions, consistency."""
    request = pipeline.prepare(scenario, sampler, seed)
    run = pipeline.start(request)
    jax.block_until_ready(run.carry)
    begin, busy = time.perf_counter(), time.process_time()
    run.advance()
    run.wait()
    seconds, processor = time.perf_counter() - begin, time.process_time() - busy
    frames = pipeline.decode(run.latents())
    return {
        "seconds": seconds,
        "processor": processor,
        "samples": request.summary.samples,
        "consistency": consistency(frames),
    }


def main(
    methods: Annotated[str, typer.Option(help="Of the settings' file.")] = "freenoise_4,two_4",
    settings: Annotated[Path, typer.Option(help="Methods.")] = HERE / "few_steps.yaml",
    scenario: Annotated[Path, typer.Option(help="With today's sampler.")] = (
        HERE.parent / "examples" / "any_colour.yaml"
    ),
    model: Annotated[str, typer.Option(help="demo, or a folder.")] = "demo",
    seeds: Annotated[int, typer.Option(help="Videos of each method.")] = 20,
    out: Annotated[Path | None, typer.Option(help="Write all figures as JSON.")] = None,
) -> None:
    """Compare, and print a table."""
    keep_programs()
    pipeline, story = Pipeline.from_pretrained(model), Scenario.from_file(scenario)
    known = read_methods(settings)
    samplers: dict[str, Any] = {"today": None} | {
        name: known[name].settings for name in methods.split(",")
    }
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in samplers}
    for sampler in samplers.values():  # compiles
        make(pipeline, story, sampler, 0)
    for seed in range(seeds):
        for name, sampler in samplers.items():
            found[name][seed] = make(pipeline, story, sampler, seed)
            print(f"seed {seed}, {name}: {found[name][seed]}", flush=True)
        if out is not None:
            out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("| method | samples | time, of today's | consistency | difference from today's |")
    print("|---|---|---|---|---|")
    column = {
        name: {seed: row["consistency"] for seed, row in rows.items()}
        for name, rows in found.items()
    }
    for name, rows in found.items():
        own = estimate(list(column[name].values()))
        apart = difference(column[name], column["today"])
        time_of = {n: np.median([r["processor"] for r in found[n].values()]) for n in found}
        assert own is not None and apart is not None
        low, high = apart.low or 0.0, apart.high or 0.0
        print(
            f"| {name} | {rows[0]['samples']:.0f} | {time_of[name] / time_of['today']:.3f} | "
            f"{own.mean:.3f} | {apart.mean:+.3f} [{low:+.3f}, {high:+.3f}] |"
        )


if __name__ == "__main__":
    typer.run(main)
