"""Schedulers of UNet folders: one window sampled here and by diffusers with the same closed-form
network, and a tiny folder of each kind against diffusers' whole pipeline."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch
from checkpoints import convert
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    TextToVideoSDPipeline,
    UniPCMultistepScheduler,
)
from test_convert_diffusers import networks, shared_parts
from test_schedule_diffusers import FRAMES, SHAPE, denoise, network
from transformers import CLIPTokenizer

from syncos_jax.errors import InputError
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import FIFO, CoDenoising, SynCoS, sample
from syncos_jax.sampling.noise import ddim_draw, frame_noise
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.weights_convert.diffusers_config import schedule_settings, solver_settings

KINDS = {
    "dpm++": DPMSolverMultistepScheduler,
    "unipc": UniPCMultistepScheduler,
    "euler": EulerDiscreteScheduler,
}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CHANGES = [
    {},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"use_karras_sigmas": True},
    {"use_karras_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1},
    {"prediction_type": "v_prediction"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    },
    {"final_sigmas_type": "sigma_min", "timestep_spacing": "leading", "steps_offset": 1},
]
ORDERS = [
    ("dpm++", {"solver_order": 3}),
    ("dpm++", {"solver_type": "heun", "use_karras_sigmas": True}),
    ("dpm++", {"euler_at_final": True, "final_sigmas_type": "sigma_min"}),
    ("dpm++", {"algorithm_type": "sde-dpmsolver++"}),
    ("dpm++", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("unipc", {"solver_order": 3, "disable_corrector": [0, 1]}),
    ("unipc", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}),
]
CASES = [*((name, change) for name in KINDS for change in CHANGES), *ORDERS]
CASES += [("euler", {"use_exponential_sigmas": True})]


def said(name, change):
    """The scheduler as its folder's file has it."""
    scheduler = KINDS[name](**{**BETAS, **change})
    values = {"_class_name": type(scheduler).__name__, **scheduler.config}
    return scheduler, json.loads(json.dumps(values))


def schedule_of(config):
    settings, notes = schedule_settings(config)
    assert notes == []
    own = solver_settings(config, settings)
    return dataclasses.replace(
        NoiseSchedule.from_betas(**settings),
        solver=from_mapping(Solver, own["solver"], "solver"),
        beta_settings=own["levels"],
    )


@pytest.mark.parametrize(("name", "change"), CASES, ids=str)
def test_one_window_equals_diffusers(name, change, monkeypatch, steps=13):
    scheduler, config = said(name, change)
    scheduler.set_timesteps(steps)
    key = jax.random.key(0)
    start = np.random.default_rng(0).normal(size=(FRAMES, *SHAPE)).astype(np.float32)
    drawn = iter(
        [
            np.asarray(frame_noise(key, np.uint32(ddim_draw(i)), frames=FRAMES, frame_shape=SHAPE))
            for i in range(steps)
        ]
    )
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_dpmsolver_multistep.randn_tensor",
        lambda *_, **__: torch.from_numpy(next(drawn)),
    )
    x = torch.from_numpy(start) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        value = network(scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(value, t, x, return_dict=False)[0]
    schedule = schedule_of(config)
    found = sample(
        denoise,
        cond=None,
        layout=WindowLayout(frames=FRAMES, window=FRAMES, stride=FRAMES),
        frame_shape=SHAPE,
        schedule=schedule,
        sampler=CoDenoising(steps=steps),
        key=key,
        latents=start,
    )
    steps_here = schedule.solver_steps(schedule.solver, steps)
    np.testing.assert_allclose(steps_here.t, scheduler.timesteps.numpy(), rtol=1e-5, atol=2e-3)
    np.testing.assert_allclose(found, x.numpy(), rtol=0, atol=2e-4 * float(x.abs().max()))


@pytest.mark.parametrize("name", KINDS)
def test_other_samplers_of_such_a_model(name):
    """By name, DDIM and what has a walk of its own are as without the solver."""
    schedule = schedule_of(said(name, {})[1])
    plain = dataclasses.replace(schedule, solver=Solver("ddim"))
    start = np.random.default_rng(0).normal(size=(8, *SHAPE)).astype(np.float32)

    def each(x, t, _cond):  # of windows, or of the queue's frames
        return network(x, t.reshape(*t.shape, *(1,) * (x.ndim - t.ndim)))

    def made(schedule, sampler, latents=start):
        layout = WindowLayout(frames=8, window=FRAMES, stride=2)
        key = jax.random.key(0)
        given = {"layout": layout, "frame_shape": SHAPE, "key": key, "latents": latents}
        return np.asarray(sample(each, None, schedule=schedule, sampler=sampler, **given))

    named = made(schedule, CoDenoising(steps=8, solver="ddim"))
    np.testing.assert_array_equal(named, made(plain, CoDenoising(steps=8)))
    queue = made(schedule, FIFO(steps=8), start[:FRAMES])
    np.testing.assert_array_equal(queue, made(plain, FIFO(steps=8), start[:FRAMES]))
    refined = made(schedule, SynCoS(steps=8, refine_steps=3, iterations=2))
    assert np.isfinite(refined).all() and np.abs(refined - named).max() > 1e-3


REFUSED = [
    ("dpm++", {"algorithm_type": "dpmsolver"}, "algorithm_type"),
    ("dpm++", {"use_lu_lambdas": True}, "use_lu_lambdas"),
    ("dpm++", {"use_beta_sigmas": True}, "use_beta_sigmas"),
    ("unipc", {"use_exponential_sigmas": True}, "use_exponential_sigmas"),
    ("dpm++", {"lambda_min_clipped": 0.0}, "lambda_min_clipped"),
    ("dpm++", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, "final_sigmas_type"),
    ("dpm++", {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}, "beta_schedule"),
    ("dpm++", {"use_flow_sigmas": True}, "flow"),
    ("dpm++", {"solver_type": "heun", "algorithm_type": "sde-dpmsolver++"}, "no variant"),
    ("unipc", {"predict_x0": False}, "predict_x0"),
    ("unipc", {"solver_order": 4}, "orders 1 to 3"),
    ("euler", {"interpolation_type": "log_linear"}, "interpolation_type"),
    ("euler", {"timestep_type": "continuous"}, "timestep_type"),
    ("euler", {"sigma_max": 80.0}, "sigma_max"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_what_is_not_done_is_refused(name, change, message):
    config = {**said(name, {})[1], **change}
    with pytest.raises(InputError, match=message):
        schedule_of(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder") / "plain"
    for name, model in networks().items():
        model.save_pretrained(folder / name)
    shared_parts(folder)
    return folder


PIPELINES = [("dpm++", {"use_karras_sigmas": True})]
PIPELINES += [pytest.param(name, {}, marks=pytest.mark.slow) for name in ("unipc", "euler")]


@pytest.mark.parametrize(("name", "change"), PIPELINES, ids=str)
def test_a_clip_equals_the_pipelines(name, change, folder, tmp_path):
    """The whole of it: the folder's scheduler is recorded, and is what a clip is sampled with."""
    source = tmp_path / "source"
    shutil.copytree(folder, source)
    scheduler, _ = said(name, change)
    scheduler.save_pretrained(source / "scheduler")
    convert(source, tmp_path / "model")
    model = load_model(tmp_path / "model")
    assert model.schedule.solver.name == name
    made = networks()
    pipeline = TextToVideoSDPipeline(
        vae=made["vae"],
        text_encoder=made["text_encoder"],
        tokenizer=CLIPTokenizer.from_pretrained(source / "tokenizer"),
        unet=made["unet"],
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    texts = np.random.default_rng(1).normal(size=(2, 1, 7, made["unet"].config.cross_attention_dim))
    texts = texts.astype(np.float32)
    start = np.random.default_rng(5).normal(size=(4, 8, 8, 4)).astype(np.float32)
    theirs = pipeline(
        prompt_embeds=torch.from_numpy(texts[0]),
        negative_prompt_embeds=torch.from_numpy(texts[1]),
        height=16,
        width=16,
        num_frames=4,
        num_inference_steps=10,
        guidance_scale=4.0,
        latents=torch.from_numpy(start).permute(3, 0, 1, 2)[None],
        output_type="latent",
    ).frames
    theirs = theirs[0].permute(1, 2, 3, 0).numpy()
    ours = sample(
        model.denoiser,
        {"text": texts[0]},
        uncond={"text": texts[1]},
        params=model.params,
        layout=WindowLayout(frames=4, window=4, stride=4),
        frame_shape=(8, 8, 4),
        schedule=model.schedule,
        sampler=CoDenoising(steps=10, guidance=4.0),
        key=jax.random.key(0),
        latents=start,
    )
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()
