"""What known frames cost: a run with a start image against the same run without, in turns.

    python benchmarks/known_frames.py                    # the demo model, 6 turns
    python benchmarks/known_frames.py --before FOLDER    # also: the text-only program of another
                                                         # checkout, in operations and bytes

Each turn samples the same video with and without a picture, after both programs are compiled; the
ratio is of the medians, in processor time, which other programs of the machine disturb less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = """
import json, jax, jax.numpy as jnp, numpy as np
from syncos_jax import NoiseSchedule, SynCoS, WindowLayout
from syncos_jax.sampling import start

def network(params, x, t, cond):
    bias = (cond["text"].mean(axis=1) + t[:, None] / 1000.0)[:, None, None, None, :]
    y = jnp.tanh(x @ params["in"] + bias)
    return (y + 0.5 * jnp.roll(y, 1, axis=1)) @ params["out"]

rng = np.random.default_rng(0)
array = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
layout = WindowLayout(frames=40, window=16, stride=6)
found = {}
for name, schedule in (("betas", NoiseSchedule.from_betas()), ("flow", NoiseSchedule.flow())):
    run = start(
        network, {"text": array(layout.count, 4, 32)}, uncond={"text": array(layout.count, 4, 32)},
        params={"in": array(4, 32), "out": array(32, 4)}, layout=layout, frame_shape=(16, 16, 4),
        schedule=schedule, sampler=SynCoS(steps=10, iterations=4), key=jax.random.key(0))
    cost = run.lower().compile().cost_analysis()
    cost = cost[0] if isinstance(cost, list) else cost
    found[name] = {key: cost[key] for key in ("flops", "bytes accessed")}
print(json.dumps(found))
"""


def text_only(folder: Path) -> dict[str, dict[str, float]]:
    """Operations and bytes of the text-only programs of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=tempfile.gettempdir(),
    )
    if done.returncode:
        sys.exit(f"{folder}: {done.stderr[-2000:]}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def in_turns(turns: int) -> dict[str, float]:
    """Median processor seconds of runs without and with a start image, and their ratio."""
    from PIL import Image

    from syncos_jax import Pipeline, Scenario, SynCoS

    pipe = Pipeline.from_pretrained("demo")
    story = {
        "global": "a red ball on a green meadow",
        "events": [
            {"prompt": "the ball rolls to the left", "seconds": 2},
            {"prompt": "the ball grows", "seconds": 2},
        ],
    }
    sampler = SynCoS(steps=6, t_min=700, iterations=2)
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "start.png"
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(picture)
        stories = {"without": story, "with": {**story, "image": str(picture)}}
        requests = {k: pipe.prepare(Scenario.from_dict(v), sampler, 0) for k, v in stories.items()}
        seconds: dict[str, list[float]] = {name: [] for name in requests}
        for turn in range(turns + 1):
            for name, request in requests.items():
                run = pipe.start(request)
                run.advance(1)
                run.wait()  # encoded, compiled
                begin = time.process_time()
                run.advance()
                run.wait()
                if turn:
                    seconds[name].append(time.process_time() - begin)
    without, with_picture = (statistics.median(v) for v in seconds.values())
    return {"without": without, "with": with_picture, "ratio": with_picture / without}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--before", type=Path, help="a checkout without known frames")
    options = parser.parse_args()
    if options.before is not None:
        here, there = text_only(Path(__file__).parent.parent), text_only(options.before)
        for name, cost in here.items():
            for key, value in cost.items():
                print(f"{name}: {key}: {there[name][key]:.0f} before, {value:.0f} now")
    if options.turns:
        found = in_turns(options.turns)
        print(
            f"{found['without']:.2f} s without, {found['with']:.2f} s with a picture: "
            f"{found['ratio']:.3f}"
        )


if __name__ == "__main__":
    main()
