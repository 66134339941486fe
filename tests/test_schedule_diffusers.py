"""One window, sampled here and by diffusers' own scheduler, with the same closed-form network."""

import itertools

import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from syncos_jax.errors import InputError
from syncos_jax.sampling import sample
from syncos_jax.sampling.samplers import CoDenoising
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.weights_convert.diffusers_config import schedule_settings

FRAMES, SHAPE = 4, (3, 2, 2)
BETAS = ({"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},)
BETAS += ({"beta_schedule": "linear"}, {"beta_schedule": "squaredcos_cap_v2"})
DEFAULT = {"clip_sample": False, **BETAS[0], "steps_offset": 1, "set_alpha_to_one": False}


def network(x, t):
    """Depends on all it is given, smooth, and about as large as noise."""
    return 0.6 * x + 0.1 * x * x / (1.0 + x * x) - 0.0002 * t


def denoise(x, t, _cond):
    return network(x, t[:, None, None, None, None])


def ours(config, steps, noise):
    settings, _ = schedule_settings({"_class_name": "DDIMScheduler", **config})
    found = sample(
        denoise,
        cond=None,
        layout=WindowLayout(frames=FRAMES, window=FRAMES, stride=FRAMES),
        frame_shape=SHAPE,
        schedule=NoiseSchedule.from_betas(**settings),
        sampler=CoDenoising(steps=steps, eta=0.0),
        key=jax.random.key(0),
        latents=noise,
    )
    return np.asarray(found)


def theirs(config, steps, noise):
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(np.array(noise, np.float64))
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, float(t)), int(t), x, eta=0.0).prev_sample
    return x.numpy()


CASES = [
    *(({"timestep_spacing": "leading"}, n) for n in (7, 15, 30, 33, 45, 50, 60, 77)),
    *(({"steps_offset": o, "set_alpha_to_one": s}, 30) for o in (0, 2) for s in (True, False)),
    *(
        ({"prediction_type": p, **b}, n)
        for p, b, n in itertools.product(("v_prediction", "sample", "epsilon"), BETAS, (12, 40))
    ),
    *(({"timestep_spacing": "trailing"}, n) for n in (10, 25, 50)),
    *(
        (
            {
                "timestep_spacing": "trailing",
                "rescale_betas_zero_snr": True,
                "prediction_type": "v_prediction",
            },
            n,
        )
        for n in (20, 50)
    ),
]


def test_there_are_enough():
    assert len(CASES) >= 30


@pytest.mark.parametrize(("change", "steps"), CASES)
def test_one_window_equals_diffusers(change, steps):
    config = {**DEFAULT, **change}
    noise = np.random.default_rng(0).normal(size=(FRAMES, *SHAPE)).astype(np.float32)
    expected = theirs(config, steps, noise)
    error = np.abs(ours(config, steps, noise) - expected).max() / np.abs(expected).max()
    assert error < 1e-3


@pytest.mark.parametrize("steps", [7, 30, 77])
@pytest.mark.parametrize("spacing", ["linspace", "trailing"])
def test_where_diffusers_goes_to_another_timestep_than_the_next_it_is_said(spacing, steps):
    """There the rates of ``t - 1000 // steps`` are used, which is not the next timestep."""
    config = {**DEFAULT, "timestep_spacing": spacing}
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    t = scheduler.timesteps.numpy()
    assert (np.diff(t) != -(1000 // steps)).any()
    settings, said = schedule_settings({"_class_name": "DDIMScheduler", **config})
    assert "next timestep of the list" in said[0]
    own = NoiseSchedule.from_betas(**settings).steps(steps)
    np.testing.assert_array_equal(own.t, t)
    np.testing.assert_allclose(own.a_next[:-1], own.a[1:])


OTHERS = [{"clip_sample": True}, {"thresholding": True}, {"trained_betas": [0.1]}]
OTHERS += [{"beta_schedule": "sigmoid"}, {"rescale_betas_zero_snr": True}]


@pytest.mark.parametrize("change", OTHERS)
def test_what_is_not_done_is_refused(change):
    with pytest.raises(InputError):
        schedule_settings({"_class_name": "DDIMScheduler", **DEFAULT, **change})
