"""Runs on simulated CPU devices, for `test_parallel.py`: a program of its own, since JAX counts its
devices once. Prints one JSON object; every difference is the largest one between latents."""

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
from syncos_jax.errors import InputError
from syncos_jax.sampling import FIFO, KnownFrames, sample, sample_batch, start, start_batch
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.failures import NonFiniteError
from syncos_jax.sampling.hosts import is_main_process
from syncos_jax.sampling.placement import Rules
from syncos_jax.sampling.run import run_to_end

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

LAYOUT = WindowLayout(frames=15, window=4, stride=2)  # 7 windows: 8 devices leave one idle
# Minibatches, guidance, partial calls.
SAMPLER = SynCoS(
    steps=3,
    iterations=2,
    t_min=400,
    windows_per_step=6,
    windows_per_call=5,
    guidance=2.0,
    learning_rate=0.2,
)


class Counting(Network):
    """Notes how many samples a device's traced calls have."""

    samples: set[int] = set()

    def __call__(self, params, x, t, cond):
        self.samples.add(x.shape[0])
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
            NETWORK.samples.clear()
            result = run(mesh=mesh, parallel=parallel)
            call_schedule = start(NETWORK, **single(mesh=mesh, parallel=parallel)).call_schedule
            found["runs"][f"{devices} {parallel}"] = {
                "difference": difference(result, plain),
                "samples": sorted(NETWORK.samples),
                "of_call": call_schedule.samples_per_call,
                "devices": len(result.sharding.device_set),
                "replicated": result.is_fully_replicated,
            }
    return found


def partly_guided():
    """Guidance at some timesteps only."""
    sampler = SAMPLER.replace(guidance_t_max=600)
    plain = np.asarray(run(sampler=sampler))
    found = {"apart": difference(plain, run())}
    for parallel in ("shard_map", "pmap"):
        result = run(sampler=sampler, mesh=make_mesh(4), parallel=parallel)
        found[parallel] = difference(result, plain)
    return found


def few_steps():
    """Fixed lists, re-noising and consistency steps: on several devices, and in a batch."""
    found = {}
    for name, changes in {
        "renoise": {"solver": "renoise", "timesteps": (999, 600, 200), "shared_noise": True},
        "lcm": {"solver": "lcm", "spacing": "lcm"},
    }.items():
        sampler = SAMPLER.replace(**changes, steps=3)
        plain = np.asarray(run(sampler=sampler))
        found[name] = {
            str(devices): difference(run(sampler=sampler, mesh=make_mesh(devices)), plain)
            for devices in (2, 8)
        }
        both = sample_batch(
            NETWORK,
            [conditioning(LAYOUT.count, s) for s in (0, 1)],
            unconds=[conditioning(LAYOUT.count, s + 10) for s in (0, 1)],
            keys=[key(0), key(1)],
            mesh=make_mesh(8, data=2),
            **shared() | {"sampler": sampler},
        )
        found[name]["batch"] = difference(both[0], plain)
        found[name]["apart"] = difference(plain, run())
    return found


def reused():
    """Passes left out: the same ones on all devices, and after a state was taken over."""
    sampler = SAMPLER.replace(steps=8, t_min=850, reuse=0.3)
    plain = start(NETWORK, **single(sampler=sampler))
    plain.advance()
    found = {"of_all": plain.call_schedule.describe().samples, "num_skipped": [plain.num_skipped]}
    for parallel in ("shard_map", "pmap"):
        shared = start(NETWORK, **single(sampler=sampler, mesh=make_mesh(4), parallel=parallel))
        shared.advance()
        found[parallel] = difference(shared.latents(), plain.latents())
        found["num_skipped"].append(shared.num_skipped)
    parts = start(NETWORK, **single(sampler=sampler, mesh=make_mesh(3)))
    parts.advance(parts.num_calls - 8)
    other = start(NETWORK, **single(sampler=sampler, mesh=make_mesh(2)))
    other.restore(parts.samples_done, jax.tree.map(np.asarray, parts.carry))
    other.advance()
    found["taken_over"] = difference(other.latents(), plain.latents())
    found["num_skipped"].append(other.num_skipped)
    return found


def in_parts():
    """Played in parts on 3 devices, its state brought over to 4 and to one, in mid-update."""
    plain = np.asarray(run())
    parts = start(NETWORK, **(given := single(mesh=make_mesh(3))))
    parts.advance(2)
    parts.advance(1)
    while parts.call_schedule.calls.first[parts.next_call]:
        parts.advance(1)
    parts.check()
    kept = parts.samples_done, jax.tree.map(np.asarray, parts.carry)
    found = {"in_round": not bool(parts.call_schedule.calls.first[parts.next_call])}
    for name, mesh in (("4", make_mesh(4)), ("plain", None)):
        other = start(NETWORK, **(given | {"mesh": mesh}))
        other.restore(*kept)
        run_to_end(other)
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
    run_of_two.advance()
    try:
        run_of_two.check()
    except NonFiniteError as error:
        named = {"video": error.video, "call": error.call, "windows": error.windows}
    traces = NETWORK.traces - traces
    return {
        "named": named,
        "shape": result.shape,
        "traces": traces,
        "differences": [difference(result[s], run(s)) for s in seeds],
        "apart": difference(result[0], result[1]),
    }


def fifo():
    """FIFOMethod denoising on several devices, in parts, restored in the clip and in the queue."""
    sampler = FIFO(steps=4, guidance=2.0)
    given = single(sampler=sampler) | {
        "cond": conditioning(LAYOUT.frames),
        "uncond": conditioning(LAYOUT.frames, 10),
    }
    plain = np.asarray(sample(NETWORK, **given))
    found = {"size": float(np.abs(plain).max()), "runs": {}, "restored": {}}
    for devices in (1, 2, 8):
        for parallel in ("shard_map", "pmap"):
            traces = NETWORK.traces
            how = {"mesh": make_mesh(devices), "parallel": parallel}
            parts = start(NETWORK, **given, **how)
            for calls in (1, 3, 2):
                parts.advance(calls)
            run_to_end(parts, progress=lambda done, total: None)
            found["runs"][f"{devices} {parallel}"] = {
                "difference": difference(parts.latents(), plain),
                "traces": NETWORK.traces - traces,
            }
    for name, calls in (("clip", 2), ("queue", 9)):
        parts = start(NETWORK, **given, mesh=make_mesh(2))
        parts.advance(calls)
        iteration = int(
            parts.call_schedule.updates.iteration[parts.call_schedule.calls.update[parts.next_call]]
        )
        kept = parts.samples_done, jax.tree.map(np.asarray, parts.carry)
        other = start(NETWORK, **given, mesh=make_mesh(8))
        other.restore(*kept)
        other.advance()
        found["restored"][name] = [iteration, difference(other.latents(), plain)]
    both = sample_batch(
        NETWORK,
        [given["cond"], conditioning(LAYOUT.frames, 1)],
        unconds=[given["uncond"]] * 2,
        keys=[key(0), key(1)],
        mesh=make_mesh(8, data=2),
        **shared() | {"sampler": sampler},
    )
    found["batch"] = difference(both[0], plain)
    found["apart"] = difference(both[0], both[1])
    return found


def by_channels(params, x, t, cond):
    return NETWORK(params, x, t, {"text": cond["text"]}) + np.float32(0.1) * cond["channels"]


def known():
    """Known frames on several devices; in a batch next to a video without any."""
    mask = np.zeros(LAYOUT.frames, bool)
    mask[[0, 8]] = True
    latents = np.random.default_rng(2).normal(size=(LAYOUT.frames, *FRAME)).astype(np.float32)
    frames = KnownFrames(latents, mask, "reference")  # windows 1 and 6 have one
    plain, without = np.asarray(run(known=frames)), np.asarray(run(1))
    found = {"one": {}, "exact": bool((plain[mask] == latents[mask]).all())}
    for devices in (1, 2, 8):
        for parallel in ("shard_map", "pmap"):
            result = run(known=frames, mesh=make_mesh(devices), parallel=parallel)
            found["one"][f"{devices} {parallel}"] = difference(result, plain)
    frames = KnownFrames(latents, mask)
    both = sample_batch(
        NETWORK,
        [conditioning(LAYOUT.count, s) for s in (0, 1)],
        unconds=[conditioning(LAYOUT.count, s + 10) for s in (0, 1)],
        keys=[key(0), key(1)],
        each={"known": [frames, None]},
        mesh=make_mesh(8, data=2),
        **shared(),
    )
    alone = run(known=frames)
    found["batch"] = [difference(both[0], alone), difference(both[1], without)]
    found["apart"] = difference(plain, run())
    shape = (LAYOUT.count, LAYOUT.window, *FRAME)
    channels = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    given = single(window_cond={"channels": channels})
    cond = given.pop("cond")
    one, eight = (sample(by_channels, cond, **given, mesh=make_mesh(n)) for n in (1, 8))
    found["by_window"] = difference(one, eight)
    return found


DIFFERENT = {
    "fixed_noise": SAMPLER.replace(fixed_noise=False),
    "grounded_timestep": SAMPLER.replace(grounded_timestep=False),
    "learning_rate": SAMPLER.replace(learning_rate=0.3),
    "weight_decay": SAMPLER.replace(weight_decay=0.1),
    "guidance": SAMPLER.replace(guidance=3.0),
    "t_min": SAMPLER.replace(t_min=500.0),
    "refine_steps": SAMPLER.replace(refine_steps=1),
}
REFUSED = {
    "steps": SAMPLER.replace(steps=4),
    "eta": SAMPLER.replace(eta=0.5),
    "iterations": SAMPLER.replace(iterations=3),
    "t_min": SAMPLER.replace(t_min=0.0),
    "windows_per_step": SAMPLER.replace(windows_per_step=5),
    "guided_refinement": SAMPLER.replace(guided_refinement=False),
    "guidance": SAMPLER.replace(guidance=1.0),
    "guidance_t_max": SAMPLER.replace(guidance_t_max=600.0),
    "batch": SAMPLER.replace(windows_per_call=2),
}


def beside(sampler):
    """The default and another sampler side by side: the run."""
    return start_batch(
        NETWORK,
        [conditioning(LAYOUT.count, s) for s in (0, 1)],
        unconds=[conditioning(LAYOUT.count, s + 10) for s in (0, 1)],
        keys=[key(0), key(1)],
        mesh=make_mesh(2, data=2),
        **shared() | {"sampler": [SAMPLER, sampler]},
    )


def different_settings():
    """Two videos with settings of their own at once, each compared with its own run."""
    traces = NETWORK.traces
    found = {"accepted": {}, "refused": {}}
    default, plain = run(0), run(1)
    for name, sampler in DIFFERENT.items():
        both = beside(sampler)
        both.advance()
        both = both.latents()
        alone = run(1, sampler=sampler)
        found["accepted"][name] = {
            "first": difference(both[0], default),
            "second": difference(both[1], alone),
            "apart": difference(alone, plain),
        }
    found["traces"] = NETWORK.traces - traces
    for name, sampler in REFUSED.items():
        try:
            beside(sampler)
            found["refused"][name] = None
        except InputError as error:
            found["refused"][name] = str(error)
    return found


def weights_split():
    """The network's weights over a `model` axis of 2, the windows over 3."""
    mesh = make_mesh(6, model=2)
    given = single(params=wide(), cond=wide_conditioning(0), uncond=wide_conditioning(1))
    plain = sample(NETWORK, **given)
    run = start(NETWORK, **given, mesh=mesh, rules=Rules(feature="model"))
    run.advance()
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
        for f in (
            one_video,
            partly_guided,
            few_steps,
            reused,
            in_parts,
            several_videos,
            fifo,
            different_settings,
            weights_split,
            known,
            demo,
        )
    }
    found = {name: checks[name]() for name in sys.argv[2:]}
    if is_main_process():
        print(json.dumps(found))
