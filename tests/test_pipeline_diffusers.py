"""A clip here and by diffusers' TextToVideoSDPipeline itself: same prompts, latents, guidance and
networks, under many settings of DDIM; each is equal, or refused."""

import itertools
import json
import shutil

import jax
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, TextToVideoSDPipeline
from test_convert_diffusers import networks, shared_parts
from transformers import CLIPTokenizer

from syncos_jax.errors import InputError
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import CoDenoising, sample
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.weights_convert.diffusers_config import schedule_settings
from syncos_jax.weights_convert.diffusers_folder import read_config

FRAMES, PROMPT, NEGATIVE = 4, "a red cat, it sleeps", "dark, blurred"
BETAS = {
    "scaled_linear": {"beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_start": 0.0001, "beta_end": 0.02},
    "squaredcos_cap_v2": {},
}
USUAL = {"beta_schedule": "scaled_linear", **BETAS["scaled_linear"], "clip_sample": False}
ZERO = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
ZERO |= {"timestep_spacing": "trailing"}
EQUAL = [
    *(
        ({"steps_offset": offset, "set_alpha_to_one": one}, steps)
        for offset, one, steps in itertools.product((0, 1, 2), (True, False), (7, 12, 77))
    ),
    *(
        ({"prediction_type": kind, "beta_schedule": betas, **BETAS[betas]}, 12)
        for kind, betas in itertools.product(("epsilon", "v_prediction", "sample"), BETAS)
    ),
    *(({"timestep_spacing": "trailing", "set_alpha_to_one": one}, 25) for one in (True, False)),
    *((ZERO | {"beta_schedule": betas, **BETAS[betas]}, 25) for betas in BETAS),
    ({"num_train_timesteps": 500}, 25),
    ({"num_train_timesteps": 500, "timestep_spacing": "trailing"}, 25),
    ({"steps_offset": 1}, 33),
    ({"steps_offset": 1}, 50),
]
FEW = [(EQUAL[1][0], 12)]
OTHERWISE = [
    *(({"timestep_spacing": "linspace"}, steps) for steps in (7, 30, 77)),
    *(({"timestep_spacing": "trailing"}, steps) for steps in (7, 30, 77)),
]
"""Where diffusers leaves its own list of timesteps."""
REFUSED = [
    {"clip_sample": True},
    {"thresholding": True},
    {"trained_betas": [0.1, 0.2]},
    {"beta_schedule": "sigmoid"},
    {"rescale_betas_zero_snr": True},
    {"prediction_type": "flow_prediction"},
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Our model, and diffusers' pipeline, of the same folder."""
    folder = tmp_path_factory.mktemp("folder")
    made = networks()
    for name, network in made.items():
        network.save_pretrained(folder / name)
    shared_parts(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77)
    theirs = TextToVideoSDPipeline(**made, tokenizer=tokenizer, scheduler=DDIMScheduler())
    theirs.set_progress_bar_config(disable=True)
    return load_model(folder), theirs, folder


def start():
    return np.random.default_rng(5).normal(size=(FRAMES, 8, 8, 4)).astype(np.float32)


def by_diffusers(pipeline, config, steps):
    pipeline.scheduler = DDIMScheduler(**config)
    found = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=16,
        width=16,
        num_frames=FRAMES,
        num_inference_steps=steps,
        guidance_scale=4.0,
        latents=torch.from_numpy(start()).permute(3, 0, 1, 2)[None],
        output_type="latent",
    ).frames
    return found[0].permute(1, 2, 3, 0).numpy()


def here(model, config, steps):
    settings, _ = schedule_settings({"_class_name": "DDIMScheduler", **config})
    texts = model.encode_prompts([PROMPT, NEGATIVE])
    cond, uncond = (jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], texts) for i in (0, 1))
    return sample(
        model.denoiser,
        cond,
        uncond=uncond,
        params=model.params,
        layout=WindowLayout(frames=FRAMES, window=FRAMES, stride=FRAMES),
        frame_shape=(8, 8, 4),
        schedule=NoiseSchedule.from_betas(**settings),
        sampler=CoDenoising(steps=steps, guidance=4.0),
        key=jax.random.key(0),
        latents=start(),
    )


def apart(both, change, steps):
    config = {**USUAL, **change}
    model, pipeline, _ = both
    theirs = by_diffusers(pipeline, config, steps)
    return np.abs(np.asarray(here(model, config, steps)) - theirs).max() / np.abs(theirs).max()


def test_there_are_enough():
    assert len(EQUAL) >= 30 and {steps for _, steps in EQUAL} >= {7, 77}


@pytest.mark.parametrize(("change", "steps"), FEW, ids=str)
def test_some_clips_equal_the_pipelines(both, change, steps):
    assert apart(both, change, steps) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("change", "steps"), EQUAL, ids=str)
def test_a_clip_equals_the_pipelines(both, change, steps):
    assert apart(both, change, steps) < 1e-3


@pytest.mark.parametrize(("change", "steps"), OTHERWISE, ids=str)
def test_where_the_pipeline_leaves_its_own_list_it_is_said(change, steps):
    config = {**USUAL, **change}
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    gone_to = scheduler.timesteps.numpy() - scheduler.config.num_train_timesteps // steps
    assert (gone_to[:-1] != scheduler.timesteps.numpy()[1:]).any()
    _, notes = schedule_settings({"_class_name": "DDIMScheduler", **config})
    assert any("next timestep of the list" in note for note in notes)


@pytest.mark.parametrize("change", REFUSED, ids=str)
def test_what_is_not_done_is_refused_before_anything_is_written(both, tmp_path, change):
    source = tmp_path / "source"
    shutil.copytree(both[2], source)
    path = source / "scheduler" / "scheduler_config.json"
    config = DDIMScheduler(**USUAL)
    config.save_pretrained(path.parent)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match="scheduler_config"):
        read_config(source)
