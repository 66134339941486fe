"""Wan as a family: a clip of a tiny model, end to end against diffusers' pipeline."""

import json
import shutil
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from wan_folders import FLOW, TRANSFORMER, VAE_CONFIG, save, tiny_pipeline

from syncos_jax import CoDenoising, sample
from syncos_jax.errors import InputError
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.prediction import decode
from syncos_jax.sampling.sigmas import flow_sigmas
from syncos_jax.sampling.solvers import Solver, coefficients
from syncos_jax.scenario import Scenario
from syncos_jax.weights_convert import scheduler_config
from syncos_jax.weights_convert.convert import convert

PROMPTS = ["a cat in  kitchen", "rain"]
NEGATIVE = "milk drinks"
GUIDANCE, STEPS = 4.0, 10
SIZE = {"height": 16, "width": 16, "num_frames": 5}  # latents of 3 frames, 8 x 8 cells
SCHEDULERS = {
    "unipc": lambda: UniPCMultistepScheduler(**FLOW),
    "dpm++": lambda: DPMSolverMultistepScheduler(**FLOW),
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
}


@pytest.fixture(scope="module")
def pipeline():
    made = tiny_pipeline()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    return save(tmp_path_factory.mktemp("wan") / "tiny", pipeline)


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    result = convert(folder, out)
    assert result.config.family == "wan" and not result.warnings
    return load_model(out)


def start():
    generator = torch.Generator().manual_seed(7)
    return torch.randn(1, VAE_CONFIG.latent_channels, 3, 8, 8, generator=generator)


def play(model, levels, solver, guidance):
    """A clip with the tables of the model's solver, in a plain loop."""
    cond = model.encode_prompts([PROMPTS[0], NEGATIVE])
    table = coefficients(solver, levels.a, levels.b)
    x = np.moveaxis(start().numpy(), 1, -1)
    past: list[np.ndarray] = []
    for i, t in enumerate(levels.t):
        both = np.repeat(x, 2, axis=0)
        value = np.asarray(
            denoise(
                model.denoiser, model.params, jnp.asarray(both), jnp.full(2, t, jnp.float32), cond
            ),
            np.float64,
        )
        guided = value[1:] + guidance * (value[:1] - value[1:])
        x0, _ = decode("flow", guided, x, levels.a[i], levels.b[i])
        past = [x0, *past][: 1 + table.history]
        x = table.x[i] * x + sum(w * m for w, m in zip(table.x0[i], past, strict=False))
        x = np.asarray(x, np.float32)
    return x


@partial(jax.jit, static_argnums=0)
def denoise(denoiser, params, x, t, cond):
    return denoiser(params, x, t, cond)


def expected_latents(pipeline, scheduler):
    pipeline.scheduler = scheduler
    return pipeline(
        PROMPTS[0],
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        latents=start(),
        output_type="latent",
        **SIZE,
    ).frames


def relative(ours, theirs):
    theirs = np.moveaxis(theirs.numpy(), 1, -1)
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
    "name",
    ["unipc", *(pytest.param(n, marks=pytest.mark.slow) for n in SCHEDULERS if n != "unipc")],
)
def test_a_clip_equals_the_pipelines(name, pipeline, model):
    scheduler = SCHEDULERS[name]()
    expected = expected_latents(pipeline, scheduler)
    said = {"_class_name": type(scheduler).__name__, **scheduler.config}
    levels = flow_sigmas(STEPS, **scheduler_config.flow_settings(said))
    found = play(model, levels, scheduler_config.solver(said), GUIDANCE)
    assert relative(found, expected) < 1e-4


@pytest.mark.parametrize("name", ["unipc", "euler"])
def test_four_steps_without_guidance(name, pipeline, model):
    """As distilled weights are sampled: shift 5, guidance 1."""
    scheduler = {
        "unipc": lambda: UniPCMultistepScheduler(**{**FLOW, "flow_shift": 5.0}),
        "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=5.0),
    }[name]()
    pipeline.scheduler = scheduler
    how = {"num_inference_steps": 4, "guidance_scale": 1.0, "latents": start()}
    expected = pipeline(PROMPTS[0], output_type="latent", **how, **SIZE).frames
    said = {"_class_name": type(scheduler).__name__, **scheduler.config}
    levels = flow_sigmas(4, **scheduler_config.flow_settings(said))
    found = play(model, levels, scheduler_config.solver(said), 1.0)
    assert relative(found, expected) < 1e-4


def test_the_folders_own_scheduler(model):
    assert model.config.default_solver() == Solver("unipc", variant="bh2")
    assert model.config.schedule["shift"] == 3.0 and model.schedule.flow_shift == 3.0
    scheduler = SCHEDULERS["unipc"]()
    scheduler.set_timesteps(7)
    steps = model.schedule.solver_steps(model.schedule.solver, 7)
    assert steps.t.tolist() == scheduler.timesteps.tolist()


def test_prompts(pipeline, model):
    """Masked, cut, and zero-padded."""
    expected, _ = pipeline.encode_prompt(
        PROMPTS, do_classifier_free_guidance=False, max_sequence_length=512
    )
    found = np.asarray(model.encode_prompts(PROMPTS)["text"])
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=1e-5)
    assert found.shape == (2, 512, 20) and not found[1, 2:].any() and found[1, :2].all()


def test_frames(pipeline, model):
    latents = start()
    mean, std = (
        torch.tensor(v).view(1, -1, 1, 1, 1)
        for v in (VAE_CONFIG.latents_mean, VAE_CONFIG.latents_std)
    )
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents * std + mean).sample
    expected = np.moveaxis(((decoded[0] + 1) / 2).clamp(0, 1).numpy(), 0, -1) * 255
    placement = Placement(make_mesh(devices=1))
    for batch in (None, 4):
        pieces = list(model.decode_stream(np.moveaxis(latents[0].numpy(), 0, -1), placement, batch))
        assert [len(piece) for piece in pieces] == ([1, 2, 2] if batch is None else [1, 4])
        frames = np.concatenate(pieces)
        assert frames.dtype == np.uint8 and frames.shape == expected.shape
        assert np.abs(frames - expected).max() <= 0.51


def test_what_a_clip_is(model):
    geometry = model.geometry
    assert (geometry.window, geometry.temporal, geometry.causal) == (21, 2, True)
    assert geometry.frames(21) == 41 and geometry.latents(41) == 21
    assert (geometry.cell, geometry.multiple, geometry.channels) == (2, 2, 4)
    assert (model.guidance, model.steps, geometry.fps) == (5.0, 50, 16)


def test_a_diffusers_folder_loads_as_it_is(folder, model):
    direct = load_model(folder)
    assert direct.config.transformer == TRANSFORMER and direct.config.vae == VAE_CONFIG
    assert direct.weights_sha256 == model.weights_sha256
    assert direct.denoiser == model.denoiser  # so they share compiled programs


@pytest.mark.parametrize("only", ["transformer", "vae", "text_encoder"])
def test_one_network_alone(only, folder, tmp_path):
    for source in (folder, folder / only):
        out = tmp_path / f"{source.name}-{only}"
        result = convert(source, out, only=only)
        assert list(result.parameters) == [only]
        part = load_model(out)
        assert hasattr(part, only) and not hasattr(part, "transformer_2")
        with pytest.raises(InputError, match=f"converted with only its {only}"):
            _ = part.vae if only == "transformer" else part.transformer


def test_sharded_bfloat16(pipeline, model, tmp_path):
    """Weights in several files, in bfloat16, with a variant's names."""
    half = tiny_pipeline().to(torch.bfloat16)
    source = save(tmp_path / "half", half, max_shard_size="20KB", variant="bf16")
    assert len(list((source / "transformer").glob("*.safetensors"))) > 2
    convert(source, tmp_path / "out")
    converted = load_model(tmp_path / "out", jnp.float32)
    weight = converted.transformer.blocks[0].attn1.to_q.kernel[...]
    expected = model.transformer.blocks[0].attn1.to_q.kernel[...].astype(jnp.bfloat16)
    np.testing.assert_array_equal(weight, expected.astype(jnp.float32))


def test_two_transformers(tmp_path):
    """As Wan2.2-A14B: one for much noise, one for little, with the boundary at 875."""
    two = tiny_pipeline(two=True)
    two.set_progress_bar_config(disable=True)
    convert(save(tmp_path / "two", two), tmp_path / "out")
    model = load_model(tmp_path / "out")
    assert model.config.boundary == 0.875 and set(model.params) == {"high", "low"}
    expected = expected_latents(two, UniPCMultistepScheduler(**FLOW))
    levels = flow_sigmas(STEPS, **model.config.schedule)
    assert (levels.t > 875).any() and (levels.t < 875).any()
    assert relative(play(model, levels, model.config.default_solver(), GUIDANCE), expected) < 1e-4
    # Clips on both sides of it in one call.
    x = jnp.asarray(np.repeat(np.moveaxis(start().numpy(), 1, -1), 2, axis=0))
    cond = model.encode_prompts(PROMPTS)
    mixed = denoise(model.denoiser, model.params, x, jnp.asarray([900.0, 300.0], jnp.float32), cond)
    for i, t in enumerate((900.0, 300.0)):
        alone = denoise(model.denoiser, model.params, x, jnp.full(2, t, jnp.float32), cond)
        np.testing.assert_allclose(mixed[i], alone[i], rtol=0, atol=1e-5)


def two_experts(tmp_path):
    two = tiny_pipeline(two=True)
    two.set_progress_bar_config(disable=True)
    return two, load_model(save(tmp_path / "two", two))


def test_a_guidance_for_each_of_two_transformers(tmp_path):
    """Guidance 4 for much noise and 3 for little, another shift and another boundary."""
    two, model = two_experts(tmp_path)
    two.register_to_config(boundary_ratio=0.8)
    scheduler = UniPCMultistepScheduler(**{**FLOW, "flow_shift": 7.0})
    two.scheduler = scheduler
    expected = two(
        PROMPTS[0],
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=4.0,
        guidance_scale_2=3.0,
        latents=start(),
        output_type="latent",
        **SIZE,
    ).frames
    given = {"steps": STEPS, "guidance": 4.0, "guidance_2": 3.0, "boundary": 0.8, "shift": 7.0}
    request = Pipeline(model).prepare(
        Scenario.from_dict(
            {
                "global": PROMPTS[0],
                "events": [{"prompt": "sleeps", "frames": 5}],
                "window": 5,
                "size": [16, 16],
                "sampler": {"name": "co_denoising", **given},
            }
        )
    )
    assert request.sampler == CoDenoising(**given)
    ours = sample(
        model.denoiser_at(request.sampler.boundary),
        model.encode_prompts(PROMPTS[:1]),
        uncond=model.encode_prompts([NEGATIVE]),
        params=model.params,
        layout=request.layout,
        frame_shape=(8, 8, 4),
        schedule=request.schedule,
        sampler=request.sampler,
        key=jax.random.key(0),
        latents=np.moveaxis(start()[0].numpy(), 0, -1),
    )
    assert relative(np.asarray(ours)[None], expected) < 1e-4
    plain = model.denoiser_at(None)
    assert plain == model.denoiser and plain.boundary == 875.0


def test_whose_guidance_counts(tmp_path):
    _, model = two_experts(tmp_path)
    pipe = Pipeline(model)
    base = {"global": "a cat", "events": [{"prompt": "sleeps", "frames": 5}], "window": 5}

    def settings(**sampler):
        story = {**base, "sampler": {"name": "co_denoising", "steps": 2, **sampler}}
        return pipe.prepare(Scenario.from_dict(story)).sampler

    own = settings()
    assert (own.guidance, own.guidance_2, own.boundary) == (4.0, 3.0, 0.875)
    assert own.sample_weights(875.0)[0] == 4.0 and own.sample_weights(874.0)[0] == 3.0
    assert settings(guidance=6.0).sample_weights(10.0)[0] == 6.0  # for both, as it is passed
    assert settings(guidance_2=2.0).sample_weights(10.0)[0] == 2.0
    queue = pipe.prepare(Scenario.from_dict({**base, "sampler": {"name": "fifo", "steps": 4}}))
    assert {float(w) for w in queue.call_schedule.calls.weights.ravel()} == {4.0, -3.0, 3.0, -2.0}
    with pytest.raises(InputError, match="boundary must be"):
        settings(boundary=2.0)


def test_only_two_networks_have_a_boundary(model):
    base = {"global": "a cat", "events": [{"prompt": "sleeps", "frames": 41}]}
    for name in ("guidance_2", "boundary"):
        story = {**base, "sampler": {"name": "syncos", name: 0.5}}
        with pytest.raises(InputError, match="has but one denoising network"):
            Pipeline(model).prepare(Scenario.from_dict(story))


def test_networks_that_do_not_fit(folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    path = broken / "text_encoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "d_model": 24}))
    with pytest.raises(InputError, match="takes 20 text features, the text encoder has 24"):
        convert(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
