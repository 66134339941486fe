"""Solvers in the scan: on one window they are diffusers' schedulers, on many the step is fused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
from toy import mixture_denoiser

from syncos_jax.errors import InputError
from syncos_jax.sampling import (
    CoDenoising,
    FlowLong,
    NoiseSchedule,
    SynCoS,
    WindowLayout,
    sample,
)
from syncos_jax.sampling.prediction import decode, encode
from syncos_jax.sampling.solvers import Solver
from syncos_jax.sampling.syncos_calls import make_call_schedule

FRAME = (2, 2, 3)
MODES = np.random.default_rng(0).normal(size=(3, 12)) * 2
SCHEDULES = {
    "epsilon": NoiseSchedule.from_betas("scaled_linear", spacing="trailing"),
    "flow": NoiseSchedule.flow(shift=3.0),
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BETAS |= {"timestep_spacing": "trailing"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def denoiser(prediction):
    """The exact denoiser of a mixture, at any rates of the schedule."""
    if prediction == "epsilon":
        return mixture_denoiser(MODES, 0.3, SCHEDULES["epsilon"])
    modes = jnp.asarray(MODES, jnp.float32)

    def denoise(x, t, cond):
        b = (t / 1000.0)[:, None, None]
        a = 1.0 - b
        flat = x.reshape(*x.shape[:2], -1)
        variance = (a * 0.3) ** 2 + b**2
        away = flat[:, :, None, :] - a[..., None] * modes[None, None]
        logits = -jnp.sum(away**2, axis=(1, 3)) / (2.0 * variance[:, :, 0])
        means = modes[None, None] + (a * 0.3**2 / variance)[..., None] * away
        x0 = jnp.einsum("nk,nfkd->nfd", jax.nn.softmax(logits, axis=-1), means)
        return ((flat - a * x0) / b - x0).reshape(x.shape)

    return denoise


DENOISE = {name: denoiser(name) for name in SCHEDULES}
ONE = WindowLayout(frames=4, window=4, stride=4)
START = np.random.default_rng(1).normal(size=(4, *FRAME)).astype(np.float32)


def made(prediction, sampler, layout=ONE, latents=START, schedule=None):
    return np.asarray(
        sample(
            DENOISE[prediction],
            None,
            layout=layout,
            frame_shape=FRAME,
            schedule=schedule or SCHEDULES[prediction],
            sampler=sampler,
            key=jax.random.key(0),
            latents=latents,
        )
    )


@pytest.mark.parametrize("prediction", SCHEDULES)
@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_one_window_equals_diffusers(name, prediction):
    kind = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
    scheduler = kind(**(FLOW if prediction == "flow" else BETAS))
    scheduler.set_timesteps(12)
    x = torch.from_numpy(START[None])
    run = jax.jit(DENOISE[prediction])
    for t in scheduler.timesteps:
        value = run(jnp.asarray(x.numpy()), jnp.full(1, float(t), jnp.float32), None)
        x = scheduler.step(torch.from_numpy(np.array(value)), t, x, return_dict=False)[0]
    own = dataclasses.replace(SCHEDULES[prediction], solver=Solver(name))
    found = made(prediction, CoDenoising(steps=12), schedule=own)
    np.testing.assert_allclose(found, x[0].numpy(), rtol=0, atol=1e-4 * np.abs(found).max())


@pytest.mark.parametrize("prediction", SCHEDULES)
def test_20_steps_are_closer_to_200_than_ddims(prediction):
    layout = WindowLayout(frames=128, window=4, stride=4)  # 32 samples of their own
    latents = np.random.default_rng(2).normal(size=(128, *FRAME)).astype(np.float32)

    def result(solver, steps):
        return made(prediction, CoDenoising(steps=steps, solver=solver), layout, latents)

    # All of them at the timesteps of DDIM.
    exact = result("ddim", 200)
    distance = {
        solver: float(np.sqrt(((result(solver, 20) - exact) ** 2).mean()))
        for solver in ("ddim", "dpm++", "unipc")
    }
    print(distance)
    assert max(distance["dpm++"], distance["unipc"]) < 0.9 * distance["ddim"]


def test_a_step_after_a_refined_one_looks_back_at_none():
    settings = SynCoS(steps=12, solver="unipc", refine_steps=4, iterations=2)
    updates = make_call_schedule(ONE, SCHEDULES["flow"], settings).updates
    back = np.abs(updates.x0_coefs[:, 1:]).sum(axis=1) > 0
    for step, looks in zip(updates.step, back, strict=True):
        assert looks == (4 < step < 11)  # the first free step is 4; the last goes to x0 itself
    assert not updates.sigma.any()
    assert np.isfinite(made("flow", settings)).all()


def test_the_models_own_solver_is_the_default():
    own = dataclasses.replace(SCHEDULES["flow"], solver=Solver("unipc"))
    by_default = made("flow", CoDenoising(steps=8), schedule=own)
    named = made("flow", CoDenoising(steps=8, solver="unipc"), schedule=own)
    np.testing.assert_array_equal(by_default, named)
    ddim = made("flow", CoDenoising(steps=8, solver="ddim"), schedule=own)
    np.testing.assert_array_equal(ddim, made("flow", CoDenoising(steps=8)))
    assert np.abs(by_default - ddim).max() > 1e-3


def test_errors():
    with pytest.raises(InputError, match="solver must be one of ddim"):
        CoDenoising(solver="heun")
    with pytest.raises(InputError, match="eta must be 0 with solver unipc"):
        SynCoS(eta=1.0, solver="unipc")


def test_the_toy_flow_predicts_a_flow():
    """The denoiser above is the flow of the clean latent that it stands for."""
    x = START[None]
    value = DENOISE["flow"](jnp.asarray(x), jnp.asarray([700.0]), None)
    x0, eps = decode("flow", value, x, np.float32(0.3), np.float32(0.7))
    again = encode("flow", x0, eps, np.float32(0.3), np.float32(0.7))
    np.testing.assert_allclose(again, value, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", ["dpm++", "unipc"])
def test_fresh_noise_takes_the_place_of_the_solver(solver):
    """With fresh noise at no step it is the solver's run; at all steps no solver is left."""
    long = WindowLayout(frames=10, window=4, stride=3)
    run = lambda sampler: made("flow", sampler, long, latents=None)  # noqa: E731
    never = run(FlowLong(steps=8, solver=solver, fresh_noise_t_min=2000))
    np.testing.assert_allclose(never, run(CoDenoising(steps=8, solver=solver)), atol=1e-6)
    always = run(FlowLong(steps=8, solver=solver, fresh_noise_t_min=0))
    assert np.abs(always - never).max() > 0.1
    call_schedule = make_call_schedule(
        long, SCHEDULES["flow"], FlowLong(steps=8, solver=solver, fresh_noise_t_min=900)
    )
    early = np.asarray(call_schedule.updates.t) > 900
    assert 0 < early.sum() < len(early)
    np.testing.assert_array_equal(call_schedule.updates.renoise, early)
    np.testing.assert_array_equal(call_schedule.updates.eps_coef[early], 0)
    # The first step by the solver after them looks back at none before.
    first, looks_back = int(early.sum()), np.abs(call_schedule.updates.x0_coefs[:, 1:]).max(axis=1)
    assert looks_back[first] == 0 < looks_back[first + 1]
