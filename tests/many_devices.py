"""Runs on simulated CPU devices, for `test_parallel.py`: a program of its own, since JAX counts its
devices once. Prints one JSON object; every difference is the largest one between latents."""

import dataclasses
import json
import os
import sys

if __name__ == "__main__":  # not where a test or the other program takes its functions
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={sys.argv[1]}"
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
from toy import FRAME, Network, conditioning, parameters

from syncos_jax import NoiseSchedule, SynCoS, WindowLayout
from syncos_jax.sampling import sample, sample_batch, start, start_batch
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.hosts import is_main_process
from syncos_jax.sampling.placement import Rules
from syncos_jax.sampling.run import NonFiniteError, play_through

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

LAYOUT = WindowLayout(frames=15, window=4, stride=2)  # 7 windows: 8 devices leave one idle
# Minibatches, guidance, partial last calls (7 = 5 + 2, 6 = 5 + 1), which are calls on 2.
SAMPLER = SynCoS(
    steps=3, iterations=2, t_min=400, windows_per_step=6, batch=5, guidance=2.0, learning_rate=0.2
)


class Counting(Network):
    """Notes how many places a device's traced calls have: twice its windows, with guidance."""

    places: set[int] = set()

    def __call__(self, params, x, t, cond):
        self.places.add(x.shape[0])
        return super().__call__(params, x, t, cond)


NETWORK = Counting()


def key(seed):
    return jax.random.key(seed, impl="rbg")


def shared():
    return {
        "params": parameters(),
        "layout": LAYOUT,
        "frame_shape": FRAME,
        "schedule": NoiseSchedule.from_betas(beta_end=0.006),
        "sampler": SAMPLER,
    }


def single(seed=0, **how):
    cond, uncond = conditioning(LAYOUT.count, seed), conditioning(LAYOUT.count, seed + 10)
    return {"cond": cond, "uncond": uncond, "key": key(seed)} | shared() | how


def run(seed=0, **how):
    given = single(seed, **how)
    return sample(NETWORK, given.pop("cond"), **given)


def difference(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def one_video():
    plain = np.asarray(run())
    found = {"size": float(np.abs(plain).max()), "runs": {}}
    for devices in (1, 2, 3, 4, 8):
        mesh = make_mesh(devices)
        for parallel in ("shard_map", "pmap"):
            NETWORK.places.clear()
            result = run(mesh=mesh, parallel=parallel)
            found["runs"][f"{devices} {parallel}"] = {
                "difference": difference(result, plain),
                "places": sorted(NETWORK.places),
                "devices": len(result.sharding.device_set),
                "replicated": result.is_fully_replicated,
            }
    return found


def partly_guided():
    """Guidance at some timesteps only: calls of 10 clips and of 5, both shared out."""
    sampler = dataclasses.replace(SAMPLER, guidance_t_max=600)
    plain = np.asarray(run(sampler=sampler))
    found = {"apart": difference(plain, run())}
    for parallel in ("shard_map", "pmap"):
        result = run(sampler=sampler, mesh=make_mesh(4), parallel=parallel)
        found[parallel] = difference(result, plain)
    return found


def in_parts():
    """Played in parts on 3 devices, its state brought over to 4 and to one, in mid-round."""
    plain = np.asarray(run())
    parts = start(NETWORK, **(given := single(mesh=make_mesh(3))))
    parts.advance(2)
    parts.advance(3)
    parts.check()
    kept = parts.row, jax.tree.map(np.asarray, parts.carry)
    found = {"row": parts.row}
    for name, mesh in (("4", make_mesh(4)), ("plain", None)):
        other = start(NETWORK, **(given | {"mesh": mesh}))
        other.restore(*kept)
        play_through(other)
        found[name] = difference(other.latents(), plain)
    return found


def several_videos():
    """Five videos on data=2 × segment=4: three groups, the last of them half empty."""
    traces = NETWORK.traces
    seeds = range(5)
    result = sample_batch(
        NETWORK,
        [conditioning(LAYOUT.count, s) for s in seeds],
        unconds=[conditioning(LAYOUT.count, s + 10) for s in seeds],
        keys=[key(s) for s in seeds],
        mesh=make_mesh(8, data=2),
        **shared(),
    )
    wrong = [conditioning(LAYOUT.count, s) for s in (0, 1)]
    wrong[1]["text"] = wrong[1]["text"].at[3].set(np.nan)
    run_of_two = start_batch(
        NETWORK,
        wrong,
        unconds=[conditioning(LAYOUT.count, s + 10) for s in (0, 1)],
        keys=[key(0), key(1)],
        mesh=make_mesh(8, data=2),
        **shared(),
    )
    run_of_two.play()
    try:
        run_of_two.check()
    except NonFiniteError as error:
        named = {"video": error.video, "row": error.row, "windows": error.windows}
    traces = NETWORK.traces - traces
    return {
        "named": named,
        "shape": result.shape,
        "traces": traces,
        "differences": [difference(result[s], run(s)) for s in seeds],
        "apart": difference(result[0], result[1]),
    }


def weights_split():
    """The network's weights over a `model` axis of 2, the windows over 3."""
    mesh = make_mesh(6, model=2)
    given = single(params=wide(), cond=wide_conditioning(0), uncond=wide_conditioning(1))
    plain = sample(NETWORK, **given)
    run = start(NETWORK, **given, mesh=mesh, rules=Rules(feature="model"))
    run.play()
    shares = {name: v.sharding.shard_shape(v.shape) for name, v in run.inputs.params.items()}
    return {"shares": shares, "difference": difference(plain, run.latents())}


def wide():
    rng = np.random.default_rng(3)
    sizes = {"in": (3, 6), "out": (6, 3)}
    return {k: (rng.normal(size=s) / 2).astype(np.float32) for k, s in sizes.items()}


def wide_conditioning(seed):
    rng = np.random.default_rng(seed)
    return {"text": rng.normal(size=(LAYOUT.count, 4, 6)).astype(np.float32)}


def demo():
    """The demo model on 3 devices."""
    from syncos_jax import Pipeline, Scenario

    story = Scenario.from_dict(
        {
            "global": "a red ball on a green meadow",
            "events": [{"prompt": "the ball rolls to the left", "frames": 20}],
            "sampler": {"name": "syncos", "steps": 2, "iterations": 1, "t_min": 600},
        }
    )
    plain = Pipeline.from_pretrained("demo").latents(story)
    pipeline = Pipeline.from_pretrained("demo", mesh=make_mesh(3))
    spread = pipeline.latents(story)
    frames = pipeline.decode(spread)
    return {
        "difference": difference(plain, spread),
        "devices": len(spread.sharding.device_set),
        "frames": frames.shape,
    }


if __name__ == "__main__":
    checks = {
        f.__name__: f
        for f in (one_video, partly_guided, in_parts, several_videos, weights_split, demo)
    }
    found = {name: checks[name]() for name in sys.argv[2:]}
    if is_main_process():
        print(json.dumps(found))
