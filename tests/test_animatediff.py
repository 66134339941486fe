"""AnimateDiff: Stable Diffusion with a motion adapter, tiny and random, against diffusers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import DATA
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from flax import nnx
from safetensors.torch import save_file
from test_convert_diffusers import TEXT, without_zeros
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from syncos_jax import Pipeline
from syncos_jax.errors import InputError
from syncos_jax.models.animatediff.unet import MotionUNetConfig
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import CoDenoising, sample
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.scenario import Scenario
from syncos_jax.weights_convert.animatediff import SCHEDULER, unet_config
from syncos_jax.weights_convert.convert import convert

SIZES = {
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "sample_size": 8,
}
MOTION = {
    "block_out_channels": (16, 32),
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 4,
    "motion_norm_num_groups": 8,
    "motion_max_seq_length": 6,
}
FRAMES = 4


def randomised(model):
    torch.manual_seed(1)
    for p in model.parameters():
        fan_in = p[0].numel() if p.ndim > 1 else 25
        p.data = torch.randn(p.shape) * 0.9 / fan_in**0.5 + (p.ndim == 1 and bool(p.mean() > 0.5))
    return model.eval()


@pytest.fixture(scope="module")
def parts():
    """Stable Diffusion's networks, and an adapter."""
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    )
    text = CLIPTextConfig(
        hidden_size=12,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        hidden_act="quick_gelu",
        **TEXT,
    )
    return {
        "unet": randomised(UNet2DConditionModel(**SIZES)),
        "vae": without_zeros(vae).eval(),
        "text_encoder": without_zeros(CLIPTextModel(text)).eval(),
        "motion": randomised(MotionAdapter(**MOTION)),
    }


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("animatediff") / "sd"
    for name, model in parts.items():
        model.save_pretrained(folder.parent / "adapter" if name == "motion" else folder / name)
    DDIMScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    shutil.copytree(DATA / "openclip_vocabulary", folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return folder


@pytest.fixture(scope="module")
def reference(parts):
    return UNetMotionModel.from_unet2d(parts["unet"], parts["motion"]).eval()


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("converted") / "model"
    result = convert(folder, out, motion=str(folder.parent / "adapter"))
    assert result.config.family == "animatediff"
    assert [w for w in result.warnings if "linear betas" in w]
    return load_model(out)


def random(*shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def forward(model, x, t, text):
    graph, weights = nnx.split(model.unet)
    run = jax.jit(lambda weights, *given: nnx.merge(graph, weights)(*given))
    return np.asarray(run(weights, *map(jnp.asarray, (x, t, text))))


def test_the_unet_equals_diffusers(model, reference):
    x, t, text = random(2, FRAMES, 6, 10, 4), np.float32([3, 801]), random(2, 5, 12)
    of_frames = torch.from_numpy(text).repeat_interleave(FRAMES, dim=0)  # as the pipeline has it
    with torch.no_grad():
        expected = reference(
            torch.from_numpy(x).permute(0, 4, 1, 2, 3), torch.from_numpy(t), of_frames
        ).sample.permute(0, 2, 3, 4, 1)
    found = forward(model, x, t, text)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    # A time of each frame: alike where they are equal.
    each = np.repeat(t[:, None], FRAMES, axis=1)
    np.testing.assert_allclose(forward(model, x, each, text), found, rtol=0, atol=1e-5)
    swapped = forward(model, x[:, ::-1].copy(), t, text)[:, ::-1]
    assert np.abs(swapped - found).max() > 1e-3  # frames know their place
    with pytest.raises(InputError, match="the motion modules know 6"):
        model.unet(jnp.zeros((1, 7, 4, 4, 4)), jnp.zeros(1), jnp.zeros((1, 2, 12)))


def test_a_clip_equals_the_pipelines(parts, folder, model):
    pipeline = AnimateDiffPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", model_max_length=77),
        unet=parts["unet"],
        motion_adapter=parts["motion"],
        scheduler=DDIMScheduler(**{k: v for k, v in SCHEDULER.items() if k != "_class_name"}),
    )
    pipeline.set_progress_bar_config(disable=True)
    start = random(FRAMES, 8, 8, 4)
    theirs = pipeline(
        "a cat",
        negative_prompt="rain",
        num_frames=FRAMES,
        height=16,
        width=16,
        num_inference_steps=10,
        guidance_scale=5.0,
        latents=torch.from_numpy(start).permute(3, 0, 1, 2)[None],
        output_type="latent",
    ).frames[0]
    ours = sample(
        model.denoise,
        model.encode_prompts(["a cat"]),
        uncond=model.encode_prompts(["rain"]),
        params=model.params,
        layout=WindowLayout(frames=FRAMES, window=FRAMES, stride=FRAMES),
        frame_shape=(8, 8, 4),
        schedule=model.schedule,
        sampler=CoDenoising(steps=10, guidance=5.0),
        key=jax.random.key(0),
        latents=start,
    )
    theirs = theirs.permute(1, 2, 3, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()


@pytest.mark.slow
def test_a_long_video(model):
    story = {
        "global": "a cat",
        "events": [{"prompt": "sleeps", "frames": 5}, {"prompt": "drinks", "frames": 5}],
        "window": 6,
        "sampler": {"name": "syncos", "steps": 2, "iterations": 1, "refine_steps": 1},
    }
    video = Pipeline(model)(Scenario.from_dict(story))
    assert video.frames.shape == (10, 16, 16, 3)


@pytest.mark.slow
def test_other_sources(parts, folder, reference, model, tmp_path):
    """A pipeline that diffusers saved, and an adapter in AnimateDiff's own layout."""
    whole = tmp_path / "whole"
    shutil.copytree(folder, whole)
    shutil.rmtree(whole / "unet")
    reference.save_pretrained(whole / "unet")
    EulerDiscreteScheduler(beta_schedule="linear").save_pretrained(whole / "scheduler")
    direct = load_model(whole)
    assert direct.family == "animatediff" and direct.schedule.solver.name == "euler"
    assert direct.weights_sha256 == model.weights_sha256

    def original(key):
        names = [("attn1", "attention_blocks.0"), ("attn2", "attention_blocks.1")]
        names += [("norm1", "norms.0"), ("norm2", "norms.1"), ("norm3", "ff_norm")]
        for ours, theirs in names:
            key = key.replace(f".{ours}.", f".{theirs}.")
        key = key.replace("pos_embed.pe", "attention_blocks.0.pos_encoder.pe")
        head, _, tail = key.partition(".motion_modules.")
        number, _, rest = tail.partition(".")
        return f"module.{head}.motion_modules.{number}.temporal_transformer.{rest}"

    tensors = {original(k): v for k, v in parts["motion"].state_dict().items()}
    save_file(tensors, tmp_path / "mm.safetensors")
    # Such a file says nothing of heads: 8 as published, which these widths have not all.
    convert(folder, tmp_path / "own", motion=str(tmp_path / "mm.safetensors"))
    own = load_model(tmp_path / "own")
    assert own.config.unet.motion_heads == (8, 8) and own.config.unet.positions == 6
    assert own.weights_sha256 == model.weights_sha256


def test_published_sizes():
    sizes = unet_config({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}, {})
    assert sizes == MotionUNetConfig() and sizes.heads == (8, 8, 8, 8)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("unet/config.json", {"transformer_layers_per_block": 2}, "transformer_layers_per_block"),
        ("unet/config.json", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("unet/config.json", {"layers_per_block": 2}, "1 layers a level, the UNet 2"),
        ("../adapter/config.json", {"conv_in_channels": 9}, "conv_in_channels"),
        ("../adapter/config.json", {"_class_name": "T2IAdapter"}, "_class_name"),
    ],
)
def test_what_does_not_fit(file, change, message, folder, tmp_path):
    shutil.copytree(folder.parent, tmp_path / "all")
    path = tmp_path / "all" / "sd" / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "all/sd", tmp_path / "out", motion=str(tmp_path / "all/adapter"))
    assert not (tmp_path / "out").exists()


def test_an_adapter_is_asked_for(folder, tmp_path):
    with pytest.raises(InputError, match="UNet2DConditionModel"):
        convert(folder, tmp_path / "out")
