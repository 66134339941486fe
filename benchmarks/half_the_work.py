"""What saves work, and what it costs: 8-bit integers, reused passes, guidance in an interval.

    python benchmarks/half_the_work.py                 # 12 videos of each: 20 minutes of a core
    python benchmarks/half_the_work.py --scenarios 1   # a first look

Each way makes the same videos from the same noise by co-denoising with the demo model: how far
their latents are from the undisturbed ones, what the tracker finds in them, and how many clips the
network predicted. Writes benchmarks/results/half_the_work.md and .json. Seconds are not told: a CPU
multiplies these integers as floating-point numbers.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiment.intervals import Estimate, difference, estimate
from experiment.suite import load_suite
from syncos_jax.bench import report
from syncos_jax.files import replacing
from syncos_jax.metrics.catalogue import METRICS, metric_values
from syncos_jax.metrics.report import evaluate
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import CoDenoising
from syncos_jax.sampling.sampler_config import SamplerConfig

RESULTS = Path(__file__).parent / "results"
COMMON: dict[str, Any] = {"steps": 25, "guidance": 3.0}
PLAIN = "all of it"
WAYS: dict[str, tuple[str, SamplerConfig]] = {
    PLAIN: ("demo", CoDenoising(**COMMON)),
    "int8": ("demo@int8", CoDenoising(**COMMON)),
    "reuse 0.02": ("demo", CoDenoising(**COMMON, reuse=0.02)),
    "reuse 0.05": ("demo", CoDenoising(**COMMON, reuse=0.05)),
    "reuse 0.1": ("demo", CoDenoising(**COMMON, reuse=0.1)),
    "13 steps": ("demo", CoDenoising(**{**COMMON, "steps": 13})),
    "guidance above 200": ("demo", CoDenoising(**COMMON, guidance_t_min=200)),
}
"""Name -> model and sampler."""
SHOWN = ("fidelity", "motion_right", "subject_consistency", "background_consistency")
HEADER = ("", "clips", "latents differ by", *(METRICS[name].title for name in SHOWN))
KINDS = ("motion", "background", "colour")


def made(pipeline: Pipeline, case: Any, seed: int, sampler: SamplerConfig) -> dict[str, Any]:
    """A video's latents, its measures, and the clips it took."""
    request = pipeline.prepare(case.scenario, sampler, seed)
    run = pipeline.start(request)
    run.advance()
    latents = run.latents()
    video = pipeline.video(request, pipeline.decode(latents))
    values = metric_values(evaluate(video.frames, video.fps, case.expected, matrix=False))
    clips = request.summary.samples - run.num_skipped
    return {"latents": np.asarray(latents), "measures": values, "clips": clips}


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference over that of `b`."""
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def interval(of: Estimate | None) -> str:
    """A mean with the ends of its interval."""
    if of is None:
        return ""
    ends = "" if of.low is None else f" [{of.low:+.3f}, {of.high:+.3f}]"
    return f"{of.mean:+.3f}{ends}"


def row(name: str, videos: dict[Any, dict], plain: dict[Any, dict]) -> tuple[str, ...]:
    """A line of the table: of the undisturbed videos their measures, of others the differences."""
    clips = sum(v["clips"] for v in videos.values()) / sum(v["clips"] for v in plain.values())
    far = float(np.mean([apart(videos[key]["latents"], plain[key]["latents"]) for key in videos]))
    cells = []
    for measured in SHOWN:
        own, theirs = (
            {k: v["measures"][measured] for k, v in of.items()} for of in (videos, plain)
        )
        if name == PLAIN:
            found = estimate([v for v in own.values() if v is not None])
            cells.append("" if found is None else f"{found.mean:.3f}")
        else:
            cells.append(interval(difference(own, theirs)))
    return (name, f"{clips:.2f}", "" if name == PLAIN else f"{100 * far:.1f} %", *cells)


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenarios", type=int, default=2, help="of each of three kinds")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args(given)
    pipelines = {name: Pipeline.from_pretrained(name) for name, _ in WAYS.values()}
    suite = load_suite()
    cases = [suite[f"{kind}-{n:02d}"] for n in range(options.scenarios) for kind in KINDS]
    found: dict[str, dict[Any, dict]] = {name: {} for name in WAYS}
    for seed in range(options.seeds):
        for case in cases:
            for name, (model, sampler) in WAYS.items():
                found[name][case.id, seed] = made(pipelines[model], case, seed, sampler)
                print(case.id, seed, name, found[name][case.id, seed]["clips"], file=sys.stderr)
    rows = [row(name, videos, found[PLAIN]) for name, videos in found.items()]
    text = "# What saves work, and what it costs\n\n"
    text += f"`{report.command()}`; jax {jax.__version__}, {jax.devices()[0].device_kind}. "
    text += f"{len(cases) * options.seeds} videos of the demo model in each row, co-denoising, "
    text += "25 steps, guidance 3, from the same noise. The first row has the measures, the others "
    text += "the differences from it over pairs of videos, with 95 % bootstrap intervals.\n\n"
    text += report.markdown(HEADER, rows)
    RESULTS.mkdir(exist_ok=True)
    with replacing(RESULTS / "half_the_work.md") as part:
        part.write_text(text, encoding="utf-8")
    plain = {
        name: {f"{case} {seed}": video["measures"] for (case, seed), video in videos.items()}
        for name, videos in found.items()
    }
    report.write_json(RESULTS / "half_the_work.json", plain)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
