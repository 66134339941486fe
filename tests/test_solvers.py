"""Solvers: against diffusers' schedulers on a fixed denoiser, and by how fast they converge."""

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from syncos_jax.errors import InputError
from syncos_jax.sampling.prediction import decode, encode
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.sigmas import SigmaSchedule, beta_sigmas, flow_sigmas
from syncos_jax.sampling.solvers import Coefficients, Solver, coefficients

SIZE = 12
MODES = np.random.default_rng(0).normal(size=(3, SIZE)) * 2
START = np.random.default_rng(1).normal(size=(1, SIZE))
DIFFUSERS = {"epsilon": "epsilon", "v": "v_prediction", "flow": "flow_prediction"}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULE = NoiseSchedule.from_betas("scaled_linear", beta_start=0.00085, beta_end=0.012)


def clean(x, a, b):
    """The exact mean of ``x0`` given ``x``: a mixture of normals about `MODES`, spread 0.3."""
    variance = (0.3 * a) ** 2 + b**2
    away = x[:, None, :] - a * MODES[None]
    logits = -(away**2).sum(-1) / (2 * variance)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return (weights[..., None] * (MODES[None] + a * 0.3**2 / variance * away)).sum(1)


def play(table: Coefficients, sigmas: SigmaSchedule, x=START, noise=None):
    """What the scan does with a table: the plain loop."""
    past: list[np.ndarray] = []
    for i in range(len(sigmas.t)):
        past = [clean(x, sigmas.a[i], sigmas.b[i]), *past][: 1 + table.history]
        weights = table.x0[i]
        assert not weights[len(past) :].any(), "reads a step that was never made"
        x = table.x[i] * x + sum(w * m for w, m in zip(weights, past, strict=False))
        if noise is not None:
            x = x + table.noise[i] * noise[i]
    return x


def reference(scheduler, prediction):
    """diffusers' scheduler in float64, and the rates that it keeps."""
    scheduler.sigmas = scheduler.sigmas.double()
    flow = prediction == "flow"
    sigma = scheduler.sigmas.numpy()
    a = 1 - sigma if flow else 1 / np.sqrt(sigma**2 + 1)
    sigmas = SigmaSchedule(scheduler.timesteps.double().numpy(), a, sigma if flow else sigma * a)
    x = torch.from_numpy(START)
    for i, t in enumerate(scheduler.timesteps):
        a, b = sigmas.a[i], sigmas.b[i]
        x0 = clean(x.numpy(), a, b)
        value = np.asarray(encode(prediction, x0, (x.numpy() - a * x0) / b, a, b))
        x = scheduler.step(torch.from_numpy(value), t, x, return_dict=False)[0].double()
    return x.numpy(), sigmas


def close(ours, theirs, tolerance):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


KINDS = {
    "2M": (Solver("dpm++"), {}),
    "2M heun": (Solver("dpm++", variant="heun"), {"solver_type": "heun"}),
    "3M": (Solver("dpm++", 3), {"solver_order": 3}),
    "1S": (Solver("dpm++", 1), {"solver_order": 1}),
    "2M, euler at final": (Solver("dpm++", euler_at_final=True), {"euler_at_final": True}),
    "2M, order kept": (Solver("dpm++", lower_order_final=False), {"lower_order_final": False}),
    "UniPC": (Solver("unipc"), {}),
    # At an end without noise diffusers' bh1 is NaN (infinity times nothing).
    "UniPC bh1": (
        Solver("unipc", variant="bh1"),
        {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    ),
    "UniPC-1": (Solver("unipc", 1), {"solver_order": 1}),
    "UniPC-3": (Solver("unipc", 3), {"solver_order": 3}),
    "UniPC, late correction": (
        Solver("unipc", uncorrected=(0, 1, 2)),
        {"disable_corrector": [0, 1, 2]},
    ),
}


@pytest.mark.parametrize("steps", [7, 20, 50])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "flow"])
@pytest.mark.parametrize("name", KINDS)
def test_multistep_solvers_equal_diffusers(name, prediction, steps):
    solver, settings = KINDS[name]
    made = UniPCMultistepScheduler if solver.name == "unipc" else DPMSolverMultistepScheduler
    flow = {"use_flow_sigmas": True, "flow_shift": 3.0} if prediction == "flow" else BETAS
    scheduler = made(prediction_type=DIFFUSERS[prediction], **flow, **settings)
    scheduler.set_timesteps(steps)
    expected, sigmas = reference(scheduler, prediction)
    # DPMSolverMultistep casts its latents to float32.
    close(play(coefficients(solver, sigmas.a, sigmas.b), sigmas), expected, 2e-6)
    rule = "unipc" if solver.name == "unipc" else "dpm++"
    end = settings.get("final_sigmas_type") != "sigma_min"
    ours = (
        flow_sigmas(steps, rule=rule, shift=3.0, end_clean=end)
        if prediction == "flow"
        else beta_sigmas(SCHEDULE.signal, SCHEDULE.noise, steps, end_clean=end)
    )
    np.testing.assert_array_equal(ours.t, sigmas.t)
    np.testing.assert_allclose(ours.b, sigmas.b, rtol=2e-5, atol=0)  # betas in float32
    close(play(coefficients(solver, ours.a, ours.b), ours), expected, 1e-5)


@pytest.mark.parametrize("made", [UniPCMultistepScheduler, DPMSolverMultistepScheduler])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_runs_that_end_at_the_least_noise(made, spacing):
    unipc = made is UniPCMultistepScheduler
    scheduler = made(
        timestep_spacing=spacing, steps_offset=1, final_sigmas_type="sigma_min", **BETAS
    )
    scheduler.set_timesteps(13)
    expected, sigmas = reference(scheduler, "epsilon")
    ours = beta_sigmas(
        SCHEDULE.signal, SCHEDULE.noise, 13, spacing=spacing, offset=1, end_clean=False
    )
    np.testing.assert_array_equal(ours.t, sigmas.t)
    solver = Solver("unipc" if unipc else "dpm++")
    close(play(coefficients(solver, ours.a, ours.b), ours), expected, 1e-5)


@pytest.mark.parametrize("made", [UniPCMultistepScheduler, DPMSolverMultistepScheduler])
def test_no_signal_at_the_first_level(made):
    scheduler = made(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        **BETAS,
    )
    scheduler.set_timesteps(20)
    expected, _ = reference(scheduler, "v")
    schedule = NoiseSchedule.from_betas(
        "scaled_linear", beta_start=0.00085, beta_end=0.012, zero_terminal_snr=True, prediction="v"
    )
    ours = beta_sigmas(schedule.signal, schedule.noise, 20, spacing="trailing")
    solver = Solver("unipc" if made is UniPCMultistepScheduler else "dpm++")
    close(play(coefficients(solver, ours.a, ours.b), ours), expected, 1e-4)
    # With truly no signal the second step cannot look back; what comes out is close all the same.
    a = np.where(np.arange(21) == 0, 0.0, ours.a)
    true = ours._replace(a=a, b=np.where(np.arange(21) == 0, 1.0, ours.b))
    table = coefficients(solver, true.a, true.b)
    assert np.isfinite(table.x0).all() and not table.x0[1, 1:].any()
    close(play(table, true), expected, 0.05)


@pytest.mark.parametrize("steps", [1, 10, 50])
@pytest.mark.parametrize(
    "settings",
    [
        {"shift": 3.0},
        {"shift": 5.0, "shift_terminal": 0.1},
        {"use_dynamic_shifting": True},
        {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    ],
    ids=["shift", "terminal", "dynamic", "linear"],
)
def test_euler_equals_diffusers(settings, steps):
    if "shift_terminal" in settings:
        steps = max(steps, 2)  # one level cannot be stretched
    scheduler = FlowMatchEulerDiscreteScheduler(**settings)
    dynamic = 0.9 if "use_dynamic_shifting" in settings else None
    scheduler.set_timesteps(steps, **({} if dynamic is None else {"mu": dynamic}))
    expected, sigmas = reference(scheduler, "flow")
    ours = flow_sigmas(
        steps,
        rule="euler",
        shift=settings.get("shift", 1.0),
        dynamic=dynamic,
        dynamic_kind=settings.get("time_shift_type", "exponential"),
        terminal=settings.get("shift_terminal"),
    )
    np.testing.assert_allclose(ours.t, sigmas.t, rtol=1e-6)
    close(play(coefficients(Solver("euler"), ours.a, ours.b), ours), expected, 1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_ddim_equals_diffusers(prediction):
    scheduler = DDIMScheduler(
        prediction_type=DIFFUSERS[prediction],
        timestep_spacing="trailing",
        clip_sample=False,
        **BETAS,
    )
    scheduler.set_timesteps(20)
    steps = NoiseSchedule.from_betas(spacing="trailing").steps(20)
    sigmas = SigmaSchedule(steps.t, np.append(steps.a, steps.a_next[-1]), np.append(steps.b, 0.0))
    x = torch.from_numpy(START)
    for i, t in enumerate(scheduler.timesteps):
        a, b = sigmas.a[i], sigmas.b[i]
        x0 = clean(x.numpy(), a, b)
        value = encode(prediction, x0, (x.numpy() - a * x0) / b, a, b)
        x = scheduler.step(torch.from_numpy(value), t, x).prev_sample
    close(play(coefficients(Solver("ddim"), sigmas.a, sigmas.b), sigmas), x.numpy(), 1e-5)


def test_the_stochastic_solver_equals_cogvideox(monkeypatch):
    scheduler = CogVideoXDPMScheduler(
        prediction_type="v_prediction", snr_shift_scale=1.0, timestep_spacing="trailing"
    )
    scheduler.set_timesteps(10)
    fresh = np.random.default_rng(3).normal(size=(10, 2, *START.shape))  # two draws a step
    product = scheduler.alphas_cumprod.numpy()
    t = scheduler.timesteps.numpy()
    sigmas = SigmaSchedule(
        t, np.append(product[t], 1.0) ** 0.5, np.append(1 - product[t], 0.0) ** 0.5
    )
    x, old, drawn, used = torch.from_numpy(START), None, [], []
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_dpm_cogvideox.randn_tensor",
        lambda *_, **__: torch.from_numpy(drawn.pop(0)),
    )
    for i in range(10):
        drawn = list(fresh[i])
        a, b = sigmas.a[i], sigmas.b[i]
        x0 = clean(x.numpy(), a, b)
        value = torch.from_numpy(encode("v", x0, (x.numpy() - a * x0) / b, a, b))
        back = int(t[i - 1]) if i else None
        x, old = scheduler.step(value, old, int(t[i]), back, x)
        used.append(fresh[i][1 - len(drawn)])
    table = coefficients(Solver("sde-dpm++"), sigmas.a, sigmas.b)
    assert table.noise[0] > 0 and table.noise[-1] == 0
    close(play(table, sigmas, noise=used), x.numpy(), 1e-5)


def test_restarting_is_starting_anew():
    """After a restart the rest of a run is that of a run which begins there."""
    sigmas = flow_sigmas(12, shift=3.0)
    for solver in (Solver("unipc"), Solver("dpm++", 3)):
        table = coefficients(solver, sigmas.a, sigmas.b, restart=np.arange(12) == 5)
        rest = coefficients(solver, sigmas.a[5:], sigmas.b[5:])
        for whole, part in zip(table, rest, strict=True):
            np.testing.assert_array_equal(whole[5:], part)


@pytest.mark.parametrize("flow", [True, False], ids=["flow", "epsilon"])
def test_multistep_solvers_in_20_steps_are_closer_than_ddim(flow):
    starts = np.random.default_rng(5).normal(size=(64, SIZE))

    def result(solver, n):
        sigmas = (
            flow_sigmas(n, shift=3.0) if flow else beta_sigmas(SCHEDULE.signal, SCHEDULE.noise, n)
        )
        return play(coefficients(solver, sigmas.a, sigmas.b), sigmas, starts)

    exact = result(Solver("ddim"), 200)
    distance = {
        solver: np.sqrt(((result(solver, 20) - exact) ** 2).mean())
        for solver in (Solver("ddim"), Solver("dpm++"), Solver("unipc"))
    }
    print({solver.name: round(value, 4) for solver, value in distance.items()})
    ddim, multistep, unipc = distance.values()
    assert max(multistep, unipc) < 0.7 * ddim


def test_a_step_keeps_the_noise_and_the_signal():
    """Each row maps ``a x0 + b eps`` to ``a' x0 + b' eps`` where all clean latents agree."""
    sigmas = flow_sigmas(20, shift=5.0)
    for solver, _ in KINDS.values():
        table = coefficients(solver, sigmas.a, sigmas.b)
        np.testing.assert_allclose(table.x * sigmas.b[:-1], sigmas.b[1:], rtol=1e-12)
        kept = table.x * sigmas.a[:-1] + table.x0.sum(axis=1)
        np.testing.assert_allclose(kept, sigmas.a[1:], rtol=1e-9)
        assert table.history == solver.history


def test_decode_and_encode_agree_with_the_denoiser():
    x0 = clean(START, 0.3, 0.7)
    for prediction in ("epsilon", "v", "flow"):
        value = encode(prediction, x0, (START - 0.3 * x0) / 0.7, 0.3, 0.7)
        np.testing.assert_allclose(decode(prediction, value, START, 0.3, 0.7)[0], x0, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Solver("heun"), "unknown name 'heun'"),
        (lambda: Solver("unipc", 4), "orders 1 to 3, not 4"),
        (lambda: Solver("ddim", variant="bh2"), "no variant 'bh2'"),
        (lambda: coefficients(Solver(), [1.0], [1.0]), "same length"),
        (lambda: coefficients(Solver(), [0.1, 0.0], [0.9, 0.0]), "only the first signal"),
        (
            lambda: coefficients(Solver("unipc", lower_order_final=False), *flow_sigmas(5)[1:3]),
            "lower_order_final",
        ),
        (lambda: flow_sigmas(0), "0 steps"),
        (lambda: flow_sigmas(5, shift=0.0), "shift must be"),
        (lambda: beta_sigmas([1.0], [1.0], 5), "5 steps"),
    ],
)
def test_errors(call, message):
    with pytest.raises(InputError, match=message):
        call()
