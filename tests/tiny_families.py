"""Folders of tiny models of the transformer families, with random weights, made without torch."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np

from syncos_jax.models import saved
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig, CogVideoXVAEConfig
from syncos_jax.models.cogvideox.settings import CogVideoXConfig
from syncos_jax.models.gemma3 import Gemma3Config
from syncos_jax.models.image_processing import ImageProcessing
from syncos_jax.models.ltx.config import LTXConnectorConfig, LTXTransformerConfig, LTXVAEConfig
from syncos_jax.models.ltx.settings import LTXConfig
from syncos_jax.models.open_sora_plan.config import OpenSoraPlanTransformerConfig, WFVAEConfig
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.vit import ViTConfig
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.models.weights import leaves

WORDS = ("a", "cat", "in", "kitchen", "sleeps", "wakes", "up", "drinks", "milk", "rain")
TEXT = T5Config(vocabulary=16, features=8, inner=16, layers=1, heads=2, head_size=8)

WAN = WanConfig(
    name="tiny-wan",
    transformer=WanTransformerConfig(
        in_channels=4,
        out_channels=4,
        layers=1,
        heads=2,
        head_size=8,
        inner=16,
        text_features=8,
        time_features=16,
    ),
    vae=WanVAEConfig(
        base=4,
        latent_channels=4,
        multipliers=(1, 2),
        blocks=1,
        time_halved=(True,),
        latents_mean=(0.3, -0.2, 0.1, 0.0),
        latents_std=(1.5, 0.8, 1.2, 2.0),
    ),
    text=T5Config(**{**vars(TEXT), "bias_per_layer": True}),
    schedule={"rule": "unipc", "shift": 3.0},
    solver={"name": "unipc", "variant": "bh2"},
    text_tokens=12,
    window=3,
    stride=2,
    fps=4,
    height=8,
    width=8,
    steps=4,
)
COGVIDEOX = CogVideoXConfig(
    name="tiny-cogvideox",
    transformer=CogVideoXTransformerConfig(
        in_channels=4,
        out_channels=4,
        layers=1,
        heads=2,
        head_size=8,
        text_features=8,
        text_tokens=12,
        time_features=16,
        sample_frames=3,
        sample_height=4,
        sample_width=4,
    ),
    vae=CogVideoXVAEConfig(
        latent_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        norm_groups=2,
        time_factor=2,
        latent_scale=0.7,
    ),
    text=TEXT,
    schedule={
        "betas": "scaled_linear",
        "prediction": "v",
        "spacing": "trailing",
        "zero_terminal_snr": True,
        "snr_shift": 3.0,
    },
    solver={"name": "ddim"},
    window=3,
    stride=2,
    fps=4,
    height=8,
    width=8,
    steps=4,
)
LTX = LTXConfig(
    name="tiny-ltx",
    transformer=LTXTransformerConfig(
        in_channels=4,
        out_channels=4,
        layers=2,
        heads=2,
        head_size=8,
        text_features=16,
        time_features=16,
        cell=(2, 4, 4),
    ),
    connectors=LTXConnectorConfig(
        features=8, states=3, out=16, layers=1, heads=2, head_size=8, registers=4
    ),
    vae=LTXVAEConfig(
        latent_channels=4,
        encoder_widths=(8,),
        encoder_blocks=(1, 1),
        down=("spatiotemporal",),
        decoder_widths=(8,),
        decoder_blocks=(1, 1),
        up=("spatiotemporal",),
        up_factors=(1,),
        up_residual=(False,),
        patch=2,
        latents_mean=(0.3, -0.2, 0.1, 0.0),
        latents_std=(1.5, 0.8, 1.2, 2.0),
    ),
    text=Gemma3Config(
        vocabulary=16,
        features=8,
        inner=16,
        full=(False, True),
        heads=2,
        key_heads=1,
        head_size=8,
        query_scale=8.0,
    ),
    perturbed_block=1,
    text_tokens=12,
    window=3,
    stride=2,
    fps=4,
    height=8,
    width=8,
    steps=4,
)
OPEN_SORA_PLAN = OpenSoraPlanConfig(
    name="tiny-open-sora-plan",
    transformer=OpenSoraPlanTransformerConfig(
        in_channels=4,
        out_channels=4,
        layers=3,
        heads=2,
        head_size=12,
        text_features=8,
        time_features=16,
        sparse_from=1,
    ),
    vae=WFVAEConfig(
        latent_channels=4,
        base=4,
        encoder_blocks=1,
        decoder_blocks=1,
        encoder_flow=4,
        decoder_flow=4,
        scale=(0.5, 0.4, 0.7, 1.1),
        shift=(0.1, -0.2, 0.0, 0.3),
    ),
    text=TEXT,
    text_tokens=12,
    window=2,
    stride=1,
    fps=4,
    height=16,
    width=16,
    steps=4,
)
WAN_I2V = dataclasses.replace(
    WAN,
    name="tiny-wan-i2v",
    transformer=dataclasses.replace(WAN.transformer, in_channels=10, image_features=6),
    image=ViTConfig(
        image=8,
        patch=4,
        features=6,
        inner=8,
        layers=1,
        heads=2,
        patch_bias=False,
        pre_norm=True,
        final_norm=False,
    ),
    image_processing=ImageProcessing(shorter=8, crop=(8, 8)),
)
WAN_TI2V = dataclasses.replace(WAN, name="tiny-wan-ti2v", clean_frames=True)
COGVIDEOX_I2V = dataclasses.replace(
    COGVIDEOX,
    name="tiny-cogvideox-i2v",
    transformer=dataclasses.replace(
        COGVIDEOX.transformer, in_channels=8, head_size=16, positions="rotary"
    ),
)
CONFIGS = {
    "wan_i2v": WAN_I2V,
    "wan_ti2v": WAN_TI2V,
    "cogvideox_i2v": COGVIDEOX_I2V,
    "wan": WAN,
    "cogvideox": COGVIDEOX,
    "ltx": LTX,
    "open_sora_plan": OPEN_SORA_PLAN,
}

SAMPLERS = {
    "syncos": {"name": "syncos", "refine_steps": 2, "iterations": 2, "windows_per_step": 2},
    "co_denoising": {"name": "co_denoising"},
    "fifo": {"name": "fifo", "steps": 4},
    "flowlong": {"name": "flowlong"},
}
"""Of scenario files; steps and guidance are the model's own."""


FROM_PICTURES = ("wan_i2v", "wan_ti2v", "cogvideox_i2v")
"""Those whose videos begin with a picture here."""


def story_of(family: str, sampler: str, folder: Path) -> dict:
    """A scenario of a family, with a picture in `folder` if it is of `FROM_PICTURES`."""
    made = story(sampler)
    if family in FROM_PICTURES:
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "picture.png")
        made["image"] = str(folder / "picture.png")
    return made


def story(sampler: str) -> dict:
    """A scenario of two events, four windows."""
    events = [{"prompt": "sleeps", "seconds": 2}, {"prompt": "drinks milk", "seconds": 2}]
    return {
        "global": "a cat in kitchen",
        "negative": "rain",
        "events": events,
        "sampler": SAMPLERS[sampler],
    }


def write(folder: Path, family: str) -> Path:
    """The model's folder, as ``syncos convert`` writes one."""
    import jax.numpy as jnp

    config, rng = CONFIGS[family], np.random.default_rng(0)
    absent = (
        {"transformer_2"} if getattr(config, "image", None) else {"transformer_2", "image_encoder"}
    )
    names = [name for name in config.networks if name not in absent]
    folder.mkdir(parents=True)
    saved.write_config(folder, config, names)
    for name in names:
        weights = {}
        for path, leaf in leaves(config.build(name, np.float32)).items():
            fan_in = math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100
            value = 0.7 * rng.standard_normal(leaf.shape) / fan_in**0.5
            value += path.endswith(".scale")
            weights[path] = jnp.asarray(value, jnp.float32)
        saved.write_network(folder / name, weights)
    _write_tokenizer(folder / saved.TOKENIZER)
    saved.seal(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -10.0)]
    vocabulary += [(f"▁{word}", -2.0) for word in WORDS]
    made = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
