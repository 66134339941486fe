"""What the overlap of windows does to the shape of a subject: co-denoising with strides 2, 4 and 8.

    python benchmarks/overlap.py               # 3 minutes of a core
    python benchmarks/overlap.py --seeds 1     # a first look

The same ten scenarios as in results/paper, without guidance, the demo model. A stride of 8 leaves
its clips of 8 frames no overlap, so nothing is averaged. Writes benchmarks/results/overlap.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from syncos_jax.experiments.bench import report
from syncos_jax.experiments.statistics import Estimate, difference, estimate
from syncos_jax.experiments.suite import load_suite
from syncos_jax.files import replacing
from syncos_jax.metrics.report import evaluate
from syncos_jax.pipeline import Pipeline
from syncos_jax.sampling import CoDenoising
from syncos_jax.scenario import Scenario

RESULTS = Path(__file__).parent / "results"
SCENARIOS = [f"{kind}-0{number}" for number in range(5) for kind in ("bare", "open")]
STRIDES = (2, 4, 8)
LOOKS = ("shape", "background")


def fidelity(pipeline: Pipeline, name: str, seed: int, stride: int) -> dict[str, float | None]:
    """How well a video's events show shape and background, each the mean over what is told."""
    case = load_suite()[name]
    scenario = Scenario.from_dict({**case.scenario.to_dict(), "stride": stride})
    request = pipeline.prepare(scenario, CoDenoising(steps=25, guidance=1.0), seed)
    run = pipeline.start(request)
    run.advance()
    video = pipeline.video(request, pipeline.decode(run.latents()))
    world = evaluate(video.frames, video.fps, case.expected, matrix=False)["world"]
    told = {look: [e["fidelity"].get(look) for e in world["events"]] for look in LOOKS}
    known = {look: [v for v in values if v is not None] for look, values in told.items()}
    return {look: float(np.mean(values)) if values else None for look, values in known.items()}


def main(given: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2, help="of each scenario")
    options = parser.parse_args(given)
    if options.seeds < 1:
        parser.error("--seeds: at least 1")
    pipeline = Pipeline.from_pretrained("demo")
    videos = [(name, seed) for seed in range(options.seeds) for name in SCENARIOS]
    found: dict[int, dict[str, dict[tuple[str, int], float | None]]] = {}
    for stride in STRIDES:
        found[stride] = {look: {} for look in LOOKS}
        for name, seed in videos:
            print(f"stride {stride}, {name}, seed {seed}", file=sys.stderr, flush=True)
            for look, value in fidelity(pipeline, name, seed, stride).items():
                found[stride][look][name, seed] = value
    rows = []
    for stride, of in found.items():
        cells = [str(stride)]
        for look in LOOKS:
            cells.append(_cell(estimate([v for v in of[look].values() if v is not None])))
            apart = difference(of[look], found[STRIDES[0]][look])
            cells.append("" if stride == STRIDES[0] else _cell(apart, "+"))
        rows.append(tuple(cells))
    header = ("stride", *(t for look in LOOKS for t in (look, f"more than at {STRIDES[0]}")))
    text = (
        "# What the overlap of windows does to a subject's shape\n\n"
        f"`python benchmarks/overlap.py --seeds {options.seeds}`; co-denoising of the demo model, "
        f"25 steps, no guidance, {len(videos)} videos for each stride. Fidelity of what is told, "
        "means with 95 % bootstrap intervals, and over pairs the difference.\n\n"
    )
    with replacing(RESULTS / "overlap.md") as part:
        part.write_text(text + report.markdown(header, rows), encoding="utf-8")
    print(text + report.markdown(header, rows))
    return 0


def _cell(of: Estimate | None, sign: str = "") -> str:
    if of is None:
        return ""
    if of.low is None:
        return f"{of.mean:{sign}.3f}"
    return f"{of.mean:{sign}.3f} [{of.low:{sign}.3f}, {of.high:{sign}.3f}]"


if __name__ == "__main__":
    sys.exit(main())
