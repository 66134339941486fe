"""AnimateDiff from the files that people have: Stable Diffusion 1.5 as one file, and a motion
module; AnimateDiff-Lightning with its own sampling."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from checkpoints import DATA
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    EulerDiscreteScheduler,
    MotionAdapter,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import save_file
from test_animatediff import FRAMES, forward, random, randomised
from test_convert_diffusers import TEXT
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from syncos_jax import load_model
from syncos_jax.sampling import CoDenoising, sample
from syncos_jax.sampling.windows import WindowLayout
from syncos_jax.weights_convert.convert import convert

LEVELS = (32, 64)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_OUTER = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_unet(state, layers=1):
    """Names of Stable Diffusion's own files."""
    out = {}
    for key, value in state.items():
        layer, _, tensor = key.rpartition(".")
        found = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", layer)
        if layer in _OUTER:
            name = _OUTER[layer]
        elif found:
            side, level, kind, index, rest = found.groups()
            number = int(level) * (layers + 1) + int(index)
            if kind == "resnets":
                rest = f"0.{_RESNET[rest]}"
            elif kind == "attentions":
                rest = f"1.{rest}"
            else:
                number += layers
                attention = f"up_blocks.{level}.attentions.0.norm.weight" in state
                rest = "0.op" if side == "down" else f"{2 if attention else 1}.conv"
            blocks = "input_blocks" if side == "down" else "output_blocks"
            name = f"{blocks}.{number + (side == 'down')}.{rest}"
        else:
            _, kind, index, rest = layer.split(".", 3)
            number = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[f"{kind}.{index}"]
            name = f"middle_block.{number}.{_RESNET.get(rest, rest)}"
        out[f"model.diffusion_model.{name}.{tensor}"] = value.clone()
    return out


def original_vae(state):
    """Names of Stable Diffusion's own files; attention as convolutions."""
    attention = {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    }
    out = {}
    for key, value in state.items():
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", key)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        up = lambda m: f"up.{len(LEVELS) - 1 - int(m[1])}."  # noqa: E731
        name = re.sub(r"up_blocks\.(\d)\.", up, name)
        name = name.replace(".resnets.", ".block.").replace("upsamplers.0", "upsample")
        name = re.sub(r"mid_block\.block\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        if ".attentions.0." in name:
            side, _, rest = name.partition(".mid_block.attentions.0.")
            layer, _, tensor = rest.rpartition(".")
            name = f"{side}.mid.attn_1.{attention[layer]}.{tensor}"
            value = value[..., None, None] if value.ndim == 2 else value
        out[f"first_stage_model.{name}"] = value.clone()
    return out


def original_motion(state):
    """Names of AnimateDiff's own files."""
    out = {}
    for key, value in state.items():
        for ours, theirs in (("attn1", "attention_blocks.0"), ("attn2", "attention_blocks.1")):
            key = key.replace(f".{ours}.", f".{theirs}.")
        for ours, theirs in (("norm1", "norms.0"), ("norm2", "norms.1"), ("norm3", "ff_norm")):
            key = key.replace(f".{ours}.", f".{theirs}.")
        key = key.replace("pos_embed.pe", "attention_blocks.0.pos_encoder.pe")
        key = re.sub(r"(motion_modules\.\d)\.", r"\1.temporal_transformer.", key)
        out[f"module.{key}"] = value.clone()
    return out


@pytest.fixture(scope="module")
def parts():
    unet = UNet2DConditionModel(
        block_out_channels=LEVELS,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    vae = AutoencoderKL(
        block_out_channels=LEVELS,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
    )
    text = CLIPTextConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=1,
        hidden_act="quick_gelu",
        **TEXT,
    )
    motion = MotionAdapter(
        block_out_channels=LEVELS,
        motion_layers_per_block=1,
        motion_max_seq_length=32,
        use_motion_mid_block=False,
    )
    networks = {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text), "motion": motion}
    return {name: randomised(network) for name, network in networks.items()}


@pytest.fixture(scope="module")
def model(parts, tmp_path_factory):
    """From Stable Diffusion as one file and AnimateDiff-Lightning for four steps."""
    folder = tmp_path_factory.mktemp("files")
    text, prefix = parts["text_encoder"].state_dict(), "cond_stage_model.transformer.text_model."
    tensors = {
        **original_unet(parts["unet"].state_dict()),
        **original_vae(parts["vae"].state_dict()),
        **{f"{prefix}{k.removeprefix('text_model.')}": v.clone() for k, v in text.items()},
    }
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "dreamshaper.safetensors")
    motion = folder / "animatediff_lightning_4step_comfyui.safetensors"
    save_file(original_motion(parts["motion"].state_dict()), motion)
    source, tokenizer = folder / "dreamshaper.safetensors", str(DATA / "openclip_vocabulary")
    convert(source, folder / "m", motion=str(motion), tokenizer=tokenizer)
    return load_model(folder / "m")


def test_the_networks_are_those_of_the_file(parts, model):
    x, t, text = random(1, FRAMES, 8, 8, 4), np.float32([500]), random(1, 5, 64)
    reference = UNetMotionModel.from_unet2d(parts["unet"], parts["motion"]).eval()
    of_frames = torch.from_numpy(text).repeat_interleave(FRAMES, dim=0)
    latents = torch.from_numpy(random(1, 4, 8, 8))
    with torch.no_grad():
        x_torch = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
        want = reference(x_torch, torch.from_numpy(t), of_frames).sample.numpy()
        picture = parts["vae"].decode(latents).sample.permute(0, 2, 3, 1).numpy()
    found = np.moveaxis(forward(model, x, t, text), -1, 1)
    assert np.abs(found - want).max() < 1e-5 * np.abs(want).max()
    found = model.vae.decode(jnp.asarray(latents.permute(0, 2, 3, 1).numpy()))
    assert np.abs(np.asarray(found) - picture).max() < 1e-5 * np.abs(picture).max()


def test_lightning_is_sampled_as_recommended(parts, model):
    """Four steps of Euler over trailing timesteps without guidance, by default."""
    euler = EulerDiscreteScheduler(
        beta_schedule="linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="trailing"
    )
    assert (model.steps, model.guidance) == (4, 1.0)
    vocabulary = DATA / "openclip_vocabulary"
    pipeline = AnimateDiffPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=CLIPTokenizer.from_pretrained(vocabulary, model_max_length=77),
        unet=parts["unet"],
        motion_adapter=parts["motion"],
        scheduler=euler,
    )
    pipeline.set_progress_bar_config(disable=True)
    start = random(FRAMES, 8, 8, 4)
    theirs = pipeline(
        "a cat",
        num_frames=FRAMES,
        height=16,
        width=16,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=torch.from_numpy(start).permute(3, 0, 1, 2)[None],
        output_type="latent",
    ).frames[0]
    assert euler.timesteps.tolist() == [999, 749, 499, 249]
    cond = model.encode_prompts(["a cat"])
    ours = sample(
        model.denoise,
        cond,
        uncond=cond,
        params=model.params,
        layout=WindowLayout(frames=FRAMES, window=FRAMES, stride=FRAMES),
        frame_shape=(8, 8, 4),
        schedule=model.schedule,
        sampler=CoDenoising(steps=model.steps, guidance=model.guidance),
        key=jax.random.key(0),
        latents=start,
    )
    theirs = theirs.permute(1, 2, 3, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-3 * np.abs(theirs).max()
