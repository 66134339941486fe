"""The compiled scan against the plain Python loop, and against VideoCrafter2's own sampler."""

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_loop import sample_plainly
from toy import FRAME, Network, conditioning, parameters

from syncos_jax.sampling import (
    Chained,
    CoDenoising,
    FlowLong,
    FreeNoise,
    RefinementOnly,
    SynCoS,
    sample,
    start,
)
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout

DATA = Path(__file__).parent / "data"
LAYOUT = WindowLayout(frames=11, window=4, stride=3)  # 4 windows, the last one not on the grid
# A mild range: with the usual one, the first step divides by a signal rate of 0.07 and multiplies
# the rounding of a float32 network by 14, which says nothing about the sampler.
# More than the three steps asked for, as VideoCrafter2 takes them; one case has others.
BETAS = {"beta_end": 0.006, "spacing": "every"}
EPSILON = NoiseSchedule.from_betas(**BETAS)
SCALED = NoiseSchedule.from_betas(
    beta_end=0.006,
    signal_scale=np.linspace(1.0, 0.7, 1000),
    final_timestep=0,
    spacing="trailing",
)
# Keys of this kind compile several times faster on a CPU than the default; one case has that.
KEY = jax.random.key(5, impl="rbg")

SYNCOS = {"steps": 4, "guidance": 2.0, "t_min": 400, "iterations": 3, "learning_rate": 0.2}
ALONE = {"steps": 3, "guidance": 2.0, "iterations": 3, "learning_rate": 0.2}

CASES = {
    "co_denoising": (CoDenoising(steps=4, guidance=2.0), {}),
    "co_denoising, last call partial": (CoDenoising(steps=4, guidance=2.0, windows_per_call=3), {}),
    "co_denoising, eta": (CoDenoising(steps=4, guidance=2.0, eta=0.6), {"schedule": SCALED}),
    "co_denoising, default key": (
        CoDenoising(steps=3, eta=1.0, windows_per_call=2),
        {"key": jax.random.key(5), "guided": False},
    ),
    "syncos": (SynCoS(**SYNCOS), {}),
    "syncos, unguided": (SynCoS(**SYNCOS), {"guided": False}),
    "syncos, last call partial": (SynCoS(**SYNCOS, windows_per_call=3), {}),
    "syncos, minibatch": (SynCoS(**SYNCOS, windows_per_step=3, windows_per_call=2), {}),
    "syncos, a share of the windows": (SynCoS(**SYNCOS, windows_per_step=0.4), {}),
    "syncos, one window a step": (SynCoS(**SYNCOS, windows_per_step=1), {}),
    "syncos, guided in the middle": (
        SynCoS(**SYNCOS, guidance_t_min=200, guidance_t_max=600, windows_per_call=3),
        {},
    ),
    "syncos, minibatch guided at low noise": (
        SynCoS(**SYNCOS, windows_per_step=2, guidance_t_max=600),
        {},
    ),
    "syncos, small calls with and without guidance": (
        SynCoS(**SYNCOS, windows_per_step=2, guidance_t_max=600),
        {},
    ),
    "syncos, a few steps refined": (
        SynCoS(**{**SYNCOS, "t_min": None, "refine_steps": 2}),
        {},
    ),
    "syncos, refined by signal-to-noise ratio": (
        SynCoS(**{**SYNCOS, "t_min": None, "refine_snr": 1.0}, windows_per_step=2),
        {},
    ),
    "syncos, guidance rescaled": (
        SynCoS(**SYNCOS, guidance_rescale=0.7, windows_per_step=3, windows_per_call=2),
        {},
    ),
    "syncos, refinement unguided": (SynCoS(**SYNCOS, guided_refinement=False), {}),
    "syncos, eta": (SynCoS(**SYNCOS, eta=0.8), {}),
    "syncos, without t_min": (SynCoS(**{**SYNCOS, "t_min": 0, "weight_decay": 0.1}), {}),
    "syncos, random timesteps": (
        SynCoS(**SYNCOS, grounded_timestep=False, windows_per_step=3),
        {},
    ),
    "syncos, noise not fixed": (SynCoS(**SYNCOS, fixed_noise=False, windows_per_call=3), {}),
    "syncos, scaled signal": (SynCoS(**SYNCOS), {"schedule": SCALED}),
    "syncos, triangle": (
        SynCoS(**SYNCOS, windows_per_step=2),
        {"layout": WindowLayout(11, 4, 3, "triangle")},
    ),
    "syncos, fresh noise": (SynCoS(**SYNCOS, fresh_noise_t_min=600), {}),
    "flowlong": (FlowLong(steps=4, guidance=2.0, fresh_noise_t_min=300), {}),
    "flowlong, eta below": (FlowLong(steps=4, fresh_noise_t_min=600, eta=0.5), {"guided": False}),
    "co_denoising, reuse": (CoDenoising(steps=9, guidance=2.0, reuse=0.1), {}),
    "syncos, reuse": (SynCoS(**{**SYNCOS, "t_min": 800, "steps": 9}, reuse=0.2), {}),
    "flowlong, reuse": (FlowLong(steps=9, fresh_noise_t_min=800, reuse=0.2), {"guided": False}),
    "flow, reuse": (
        CoDenoising(steps=9, reuse=0.02),
        {"schedule": NoiseSchedule.flow(shift=2.0), "guided": False},
    ),
    "freenoise": (FreeNoise(steps=4, guidance=2.0), {}),
    "freenoise in part": (FreeNoise(steps=4, guidance=2.0, shuffled_noise=0.4), {}),
    "syncos, shuffled noise": (SynCoS(**SYNCOS, shuffled_noise=0.7), {}),
    "syncos, shuffled noise shared": (SynCoS(**SYNCOS, shuffled_noise=1, shared_noise=True), {}),
    "freenoise, new noise late": (FreeNoise(steps=4, guidance=2.0, eta=1, eta_t_max=600), {}),
    "chained": (Chained(steps=4, guidance=2.0), {}),
    "chained, flow, eta, rescaled": (
        Chained(steps=4, eta=0.6, guidance_rescale=0.5, guidance=3.0),
        {"schedule": NoiseSchedule.flow(shift=2.0)},
    ),
    "refinement_only": (RefinementOnly(**ALONE), {}),
    "refinement_only, minibatch": (
        RefinementOnly(**ALONE, windows_per_step=3, windows_per_call=2),
        {},
    ),
    "refinement_only, random timesteps, noise not fixed": (
        RefinementOnly(**ALONE, grounded_timestep=False, fixed_noise=False),
        {"schedule": SCALED},
    ),
    "v": (SynCoS(**SYNCOS), {"schedule": NoiseSchedule.from_betas(**BETAS, prediction="v")}),
    "x0": (SynCoS(**SYNCOS), {"schedule": NoiseSchedule.from_betas(**BETAS, prediction="x0")}),
    "flow": (SynCoS(**SYNCOS), {"schedule": NoiseSchedule.flow(shift=2.0)}),
    "flow, eta": (CoDenoising(steps=4, eta=1.0), {"schedule": NoiseSchedule.flow()}),
    "renoise": (CoDenoising(solver="renoise", timesteps=(900, 600, 300)), {"guided": False}),
    "flow, renoise, shared noise": (
        CoDenoising(solver="renoise", timesteps=(1000, 757, 522), shared_noise=True),
        {"schedule": NoiseSchedule.flow(), "guided": False},
    ),
    "syncos, renoise, shared noise": (
        SynCoS(**{**SYNCOS, "steps": 3}, solver="renoise", sigmas=(1, 0.8, 0.3), shared_noise=True),
        {"schedule": NoiseSchedule.flow(), "guided": False},
    ),
    "syncos, lcm": (
        SynCoS(**{**SYNCOS, "t_min": 700}, solver="lcm", spacing="lcm", guidance_t_max=0.0),
        {},
    ),
    "syncos, sigmas": (SynCoS(**{**SYNCOS, "steps": 3}, sigmas=(1.5, 0.8, 0.3)), {}),
    "flow, shift": (CoDenoising(steps=4, shift=5.0), {"schedule": NoiseSchedule.flow(shift=2.0)}),
}


def arguments(sampler, *, layout=LAYOUT, schedule=EPSILON, guided=True, key=KEY):
    return {
        "cond": conditioning(layout.count),
        "uncond": conditioning(layout.count, seed=1) if guided else None,
        "layout": layout,
        "frame_shape": FRAME,
        "schedule": schedule,
        "sampler": sampler,
        "key": key,
    }


def run(sampler, network=None, **changes):
    given = arguments(sampler, **changes)
    return sample(network or Network(), given.pop("cond"), params=parameters(), **given)


@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_loop(case):
    sampler, changes = CASES[case]
    network, params = jax.jit(Network()), parameters()
    given = arguments(sampler, **changes)
    expected = sample_plainly(lambda x, t, c: network(params, x, t, c), given.pop("cond"), **given)
    result = run(sampler, **changes)
    assert result.dtype == jnp.float32 and result.shape == (11, *FRAME)
    assert np.std(expected) > 0.05
    close = 1e-5 * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(result, expected, rtol=0, atol=close)


@pytest.mark.parametrize("case", [case for case in CASES if "reuse" in case])
def test_some_clips_are_spared_and_some_are_not(case):
    """So that the cases above say something; nothing is num_skipped at a threshold of 0."""
    sampler, changes = CASES[case]
    given = arguments(sampler, **changes)
    ran = start(Network(), given.pop("cond"), params=parameters(), **given)
    ran.advance()
    assert 0 < ran.num_skipped < ran.call_schedule.describe().samples / 2
    never, always = (run(sampler.replace(reuse=value), **changes) for value in (0.0, None))
    np.testing.assert_allclose(never, always, rtol=0, atol=1e-6)


def test_a_clip_that_is_spared_is_not_computed():
    calls = []

    def denoise(params, x, t, cond):
        jax.debug.callback(lambda t: calls.append(float(t[0])), t)
        return Network()(params, x, t, cond)

    sampler = CoDenoising(steps=8, reuse=1e9, windows_per_call=2)
    given = arguments(sampler, guided=False)
    ran = start(denoise, given.pop("cond"), params=parameters(), **given)
    ran.advance()
    ran.wait()
    jax.effects_barrier()
    # Two calls a pass: the first two steps and the last are computed, five of eight are not.
    assert len(calls) == 2 * 3 and ran.num_skipped == 5 * LAYOUT.count
    assert sorted(set(calls), reverse=True) == [float(t) for t in EPSILON.steps(8).t[[0, 1, 7]]]


def test_all_that_may_be_spared_is_one_long_step():
    """DDIM that keeps its noise goes where one step of that length goes."""
    steps = EPSILON.steps(6)
    result = run(CoDenoising(steps=6, reuse=1e9), guided=False)
    given = arguments(CoDenoising(steps=6), guided=False)
    network, params = jax.jit(Network()), parameters()
    given["schedule"] = Shortened(steps, [0, 1, len(steps.t) - 1])
    cond = given.pop("cond")
    expected = sample_plainly(lambda x, t, c: network(params, x, t, c), cond, **given)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


class Shortened:
    """A schedule of some of another's steps, each as long as it takes to the next."""

    prediction = "epsilon"

    def __init__(self, steps, kept):
        self._steps, self._kept = steps, kept

    def steps(self, count, eta):
        taken = {f: np.asarray(getattr(self._steps, f))[self._kept] for f in ("t", "a", "b")}
        taken["sigma"] = np.zeros(len(self._kept))
        for name in ("a", "b"):
            last = getattr(self._steps, f"{name}_next")[-1:]
            taken[f"{name}_next"] = np.append(taken[name][1:], last)
        return SimpleNamespace(**taken)


@pytest.mark.parametrize(
    "sampler", [CoDenoising(steps=5), SynCoS(**SYNCOS, windows_per_step=8)], ids=lambda s: s.name
)
def test_the_clips_of_a_call_do_not_change_the_result(sampler):
    layout = WindowLayout(frames=40, window=4, stride=3)  # 13 windows
    four, seven = (run(sampler.replace(windows_per_call=b), layout=layout) for b in (4, 7))
    np.testing.assert_allclose(four, seven, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("eta", [0, 1])
def test_one_window_is_the_ddim_of_videocrafter2(eta):
    """50 steps, guidance 12, of the original sampler with a closed-form noise prediction."""
    data = np.load(DATA / "vc2_ddim_traj_lin.npz")
    about = json.loads((DATA / "vc2_ddim_traj_lin.json").read_text())
    scale = np.concatenate([np.linspace(1, 0.7, 400), np.full(1000, 0.7)])
    schedule = NoiseSchedule.from_betas(signal_scale=scale, final_timestep=0)
    layout = WindowLayout(4, 4, 4)

    def denoise(x, t, cond):
        shift = 0.1 * cond["text"].mean(axis=(1, 2)) + 0.001 * cond["fps"]
        per_window = (-1, 1, 1, 1, 1)
        return (0.9 - 0.5 * t / 1000.0).reshape(per_window) * x + shift.reshape(per_window)

    def channels_last(x):  # [C, T, H, W] -> [T, H, W, C], any axes in front
        return np.moveaxis(x, -4, -1)

    for video in range(2):
        fps = data["fps"][video : video + 1].astype(np.float32)
        result = sample(
            denoise,
            {"text": data["context"][video : video + 1], "fps": fps},
            uncond={"text": data["uncond"][video : video + 1], "fps": fps},
            layout=layout,
            frame_shape=(4, 6, 4),
            schedule=schedule,
            sampler=CoDenoising(steps=about["S"], guidance=about["cfg"], eta=eta),
            key=KEY,
            latents=channels_last(data["x_T"][video]),
            step_noise=channels_last(data["noise"][:, video]),
        )
        expected = channels_last(data[f"out_eta{eta}"][video])
        # The trajectory passes values of some hundreds; the original itself is 1.3e-5 from float64.
        np.testing.assert_allclose(result, expected, atol=5e-5)


def test_played_in_parts_it_is_the_same_bit_for_bit():
    network = Network()
    given = arguments(SynCoS(**SYNCOS, windows_per_call=3, windows_per_step=4))
    given |= {"params": parameters()}
    cond = given.pop("cond")
    whole = start(network, cond, **given)
    whole.advance()
    parts = start(network, cond, **given)
    assert not parts.call_schedule.calls.first[[3, 9]].any()  # in the middle of updates
    while parts.next_call < parts.num_calls:
        parts.advance(3)
        carry = jax.tree.map(np.asarray, parts.carry)  # through the host
        parts.restore(parts.samples_done, carry)
    np.testing.assert_array_equal(parts.latents(), whole.latents())
