"""CogVideoX as a family: folders converted, a tiny clip end to end against diffusers' pipeline."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from test_cogvideox_transformer import ROTARY, SMALL, torch_transformer
from test_cogvideox_vae import SETTINGS, torch_vae
from transformers import T5Config as TorchT5Config
from transformers import T5EncoderModel
from wan_folders import tokenizer

from syncos_jax import CoDenoising, SynCoS, sample
from syncos_jax.cli.info import describe
from syncos_jax.errors import InputError
from syncos_jax.models.cogvideox.settings import CogVideoXConfig, CogVideoXGeometry
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling.devices import make_mesh
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.weights_convert.cogvideox import SCHEDULER, schedule
from syncos_jax.weights_convert.convert import convert

PROMPT, NEGATIVE = "a cat in kitchen", "milk"
SIZES = {"text_embed_dim": 12, "num_layers": 1}
KINDS = {
    "2B": {**SMALL, **SIZES},
    "1.5": {**ROTARY, **SIZES, "patch_size_t": 2, "patch_bias": False},
}
VAE = {**SETTINGS["small"], "scaling_factor": 0.7}


def tiny_pipeline(kind="2B"):
    torch.manual_seed(0)
    text = T5EncoderModel(
        TorchT5Config(
            vocab_size=20,
            d_model=12,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    made = CogVideoXPipeline(
        tokenizer=tokenizer(),
        text_encoder=text.eval(),
        vae=torch_vae(VAE),
        transformer=torch_transformer(KINDS[kind]),
        scheduler=CogVideoXDDIMScheduler.from_config(SCHEDULER),
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cogvideox") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    result = convert(folder, out)
    assert result.config.family == "cogvideox" and not result.warnings
    return load_model(out)


def clip_against(pipeline, model, frames):
    """The latents of a clip of ``[frames, 6, 8]``, ours and diffusers'."""
    start = np.random.default_rng(5).normal(size=(frames, 6, 8, 4)).astype(np.float32)
    theirs = pipeline(
        PROMPT,
        negative_prompt=NEGATIVE,
        height=24,
        width=32,
        num_frames=4 * (frames - 1) + 1,
        num_inference_steps=10,
        guidance_scale=4.0,
        max_sequence_length=5,
        latents=torch.from_numpy(start).permute(0, 3, 1, 2)[None],
        output_type="latent",
    ).frames
    ours = sample(
        model.denoise,
        model.encode_prompts([PROMPT]),
        uncond=model.encode_prompts([NEGATIVE]),
        params=model.params,
        layout=WindowLayout(frames=frames, window=frames, stride=frames),
        frame_shape=(6, 8, 4),
        schedule=model.schedule,
        sampler=CoDenoising(steps=10, guidance=4.0),
        key=jax.random.key(0),
        latents=start,
    )
    return np.asarray(ours), theirs[0].permute(0, 2, 3, 1).numpy()


def test_a_clip_equals_the_pipelines(pipeline, model):
    ours, theirs = clip_against(pipeline, model, 3)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    placement = Placement(make_mesh(devices=1))
    parts = list(model.decode_stream(ours, placement))
    with torch.no_grad():
        latents = torch.from_numpy(theirs).permute(0, 3, 1, 2)[None]
        video = pipeline.decode_latents(latents)[0]
    wanted = ((video / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 3, 0).numpy()
    assert [len(part) for part in parts] == [9] and wanted.shape == (9, 24, 32, 3)
    assert np.abs(np.concatenate(parts) - wanted).max() < 0.6
    assert [len(p) for p in model.decode_stream(np.repeat(ours, 2, axis=0), placement)] == [8] * 3


@pytest.mark.parametrize("name", ["unipc", "dpm++", "euler"])
def test_a_clip_with_another_scheduler_of_the_folder(name, pipeline, folder, tmp_path, monkeypatch):
    kinds = {
        "unipc": UniPCMultistepScheduler,
        "dpm++": DPMSolverMultistepScheduler,
        "euler": EulerDiscreteScheduler,
    }
    scheduler = kinds[name](
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=name != "euler",  # whose latents would be thousands large
    )
    shutil.copytree(folder, tmp_path / "source")
    scheduler.save_pretrained(tmp_path / "source" / "scheduler")
    model = load_model(tmp_path / "source")
    assert model.schedule.solver.name == name
    monkeypatch.setattr(pipeline, "scheduler", scheduler)
    ours, theirs = clip_against(pipeline, model, 3)
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


def test_tokens_of_two_frames(tmp_path):
    """As CogVideoX 1.5: clips of an even number of latent frames, the first not decoded."""
    pipeline = tiny_pipeline("1.5")
    pipeline.save_pretrained(tmp_path / "source")
    model = load_model(tmp_path / "source")
    assert model.geometry.window == 4 and model.geometry.dropped == 1 and model.geometry.fps == 16
    assert model.geometry.frames(4) == 9 and model.geometry.latents(9) == 4
    ours, theirs = clip_against(pipeline, model, 4)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()
    parts = model.decode_stream(ours, Placement(make_mesh(devices=1)))
    assert sum(len(part) for part in parts) == 9


def test_a_long_video(model):
    """Events in seconds; a refined step; as many frames as asked for."""
    story = Scenario.from_dict(
        {
            "global": "a cat",
            "events": [{"prompt": "sleeps", "seconds": 1}, {"prompt": "wakes up", "seconds": 1}],
            "stride": 2,
            "sampler": {"name": "syncos", "steps": 3, "iterations": 1, "refine_steps": 1},
        }
    )
    pipe = Pipeline(model)
    request = pipe.prepare(story)
    assert request.layout.frames == 4 and request.layout.starts.tolist() == [0, 1]
    assert request.sampler == SynCoS(steps=3, guidance=6.0, iterations=1, refine_steps=1)
    video = pipe(story)
    assert video.frames.shape == (16, 24, 32, 3) and video.events == (
        (0, "sleeps"),
        (8, "wakes up"),
    )


def test_what_a_model_is(model):
    assert model.geometry.window == 3 and model.geometry.stride == 1
    assert (model.steps, model.guidance, model.geometry.fps) == (50, 6.0, 8)
    said = dict(describe(model))
    assert said["clip"] == "9 frames (3 latent frames), 1.125 s at 8 frames per second"
    assert said["latent"] == "8×6, 4 channels, scale 0.7"
    assert said["schedule: snr shift"] == "3.0"


def test_one_network_alone(folder, model, tmp_path):
    for only in CogVideoXConfig.networks:
        for source in (folder, folder / only):
            out = tmp_path / f"{source.name}-{only}"
            assert list(convert(source, out, only=only).parameters) == [only]
        part = load_model(out)
        assert hasattr(part, only) and only in dict(describe(part))
        other = "vae" if only == "transformer" else "transformer"
        with pytest.raises(InputError, match=f"converted with only its {only}"):
            getattr(part, other)


def test_sharded_bfloat16_of_a_variant(model, tmp_path):
    half = tiny_pipeline().to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half", max_shard_size="10KB", variant="bf16")
    assert len(list((tmp_path / "half/transformer").glob("*bf16*.safetensors"))) > 2
    convert(tmp_path / "half", tmp_path / "out")
    found = load_model(tmp_path / "out", jnp.float32).transformer
    weight, wanted = (
        network.transformer_blocks[0].attn1.to_q.kernel[...]
        for network in (found, model.transformer)
    )
    np.testing.assert_array_equal(weight, wanted.astype(jnp.bfloat16).astype(jnp.float32))


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("text_encoder", {"d_model": 10}, "takes 12 text features, the text encoder has 10"),
        ("vae", {"latent_channels": 5}, "predicts 4, the autoencoder has 5"),
        ("transformer", {"in_channels": 6}, "takes 6 latent channels and predicts 4"),
        ("transformer", {"activation_fn": "geglu"}, "activation_fn is 'geglu'"),
        ("transformer", {"num_layers": 2}, "missing transformer_blocks.1.norm1.linear.weight"),
        ("vae", {"use_quant_conv": True}, "use_quant_conv is True"),
        ("vae", {"up_block_types": ["CogVideoXUpBlock3D"]}, "up_block_types"),
        ("scheduler", {"_class_name": "LCMScheduler"}, "LCMScheduler cannot be sampled"),
    ],
)
def test_folders_that_do_not_fit(part, change, message, folder, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    name = "scheduler_config.json" if part == "scheduler" else "config.json"
    path = broken / part / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        convert(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_schedule():
    theirs = CogVideoXDDIMScheduler.from_config(SCHEDULER)
    ours = NoiseSchedule.from_betas(**schedule(SCHEDULER))
    np.testing.assert_allclose(ours.signal**2, theirs.alphas_cumprod.numpy(), rtol=0, atol=1e-12)
    assert ours.signal[-1] == 0 and ours.prediction == "v"
    theirs.set_timesteps(50)
    steps = ours.steps(50)
    assert steps.t.tolist() == theirs.timesteps.tolist() and (steps.a_next[-1]) == 1
    plain = schedule({**SCHEDULER, "_class_name": "DDIMScheduler", "clip_sample": False})
    assert plain["snr_shift"] == 1 and plain["prediction"] == "v"
    with pytest.raises(InputError, match="snr_shift must be > 0"):
        NoiseSchedule.from_betas(snr_shift=0.0)


def test_geometry():
    geometry = CogVideoXGeometry(
        window=13, stride=4, channels=16, cell=8, height=480, width=720, fps=8, temporal=4
    )
    assert [geometry.frames(f) for f in (1, 2, 12, 13)] == [1, 8, 48, 49]
    assert [geometry.latents(n) for n in (0, 1, 2, 48, 49, 50, 57)] == [0, 1, 2, 12, 13, 14, 15]
    for frames in range(1, 200):
        fewest = next(f for f in range(1, 99) if geometry.frames(f) >= frames)
        assert geometry.latents(frames) == fewest
    late = dataclasses.replace(geometry, dropped=1)
    assert (late.frames(22), late.latents(81)) == (81, 22)
    assert late.first_frame(np.arange(3)).tolist() == [0, 0, 4]
