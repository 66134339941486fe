"""What the published models need in memory, computed from their shapes; nothing is allocated.

    python benchmarks/family_memory.py            # all of them, bfloat16
    python benchmarks/family_memory.py wan-1.3b   # one

Weights are counted. Beside them, a call of the denoiser on one clip needs about as much as the
largest sum of intermediate values that live at once (an upper estimate: XLA fuses many of them
away); guidance makes it two clips, unless the scenario's sampler has ``batch: 1`` and the two
follow each other.
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.animatediff.family import AnimateDiff, AnimateDiffConfig
from syncos_jax.models.animatediff.unet import MotionUNetConfig
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig, CogVideoXVAEConfig
from syncos_jax.models.cogvideox.family import CogVideoX
from syncos_jax.models.cogvideox.settings import CogVideoXConfig
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.family import Wan
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.pipeline.cost import peak_live_bytes, tree_bytes

GIB = 2**30


def cogvideox(transformer: CogVideoXTransformerConfig) -> Any:
    """A model of CogVideoX's."""
    schedule = {"prediction": "v", "zero_terminal_snr": True, "spacing": "trailing"}
    return CogVideoX, CogVideoXConfig(
        name="",
        transformer=transformer,
        vae=CogVideoXVAEConfig(),
        text=T5Config.t5_xxl(),
        schedule=schedule,
        solver={"name": "ddim"},
    )


def wan(transformer: WanTransformerConfig, **others: Any) -> Any:
    """A model of Wan's."""
    return Wan, WanConfig(
        name="",
        transformer=transformer,
        vae=WanVAEConfig(),
        text=T5Config.umt5_xxl(),
        schedule={"shift": 3.0},
        solver={"name": "unipc"},
        **others,
    )


def animatediff() -> Any:
    """AnimateDiff with Stable Diffusion 1.5."""
    return AnimateDiff, AnimateDiffConfig(
        name="",
        unet=MotionUNetConfig(),
        vae=VAEConfig(),
        text=CLIPTextConfig(features=768, inner=3072, layers=12, heads=12, activation="quick_gelu"),
        schedule={"betas": "linear"},
        latent_scale=0.18215,
        window=16,
        stride=4,
        fps=8,
        height=512,
        width=512,
        steps=50,
        guidance=7.5,
    )


MODELS = {
    "cogvideox-2b": lambda: cogvideox(CogVideoXTransformerConfig.cogvideox_2b()),
    "cogvideox-5b": lambda: cogvideox(CogVideoXTransformerConfig.cogvideox_5b()),
    "wan-1.3b": lambda: wan(WanTransformerConfig.wan_1_3b()),
    "wan-14b": lambda: wan(WanTransformerConfig.wan_14b()),
    "wan2.2-a14b": lambda: wan(WanTransformerConfig.wan_14b(), boundary=0.875),
    "animatediff": animatediff,
}


def row(name: str) -> str:
    """One line of the table."""
    kind, config = MODELS[name]()
    networks = {n: config.build(n, jnp.bfloat16) for n in config.networks}
    if getattr(config, "boundary", 0) is None:
        del networks["transformer_2"]
    geometry = config.geometry()
    arguments = (config, config.noise_schedule()) if kind is AnimateDiff else (config,)
    model = kind(*arguments, **networks)
    sizes = {n: tree_bytes(nnx.split(network)[1]) for n, network in networks.items()}
    denoiser = sum(size for n, size in sizes.items() if n not in ("vae", "text_encoder"))
    h, w = geometry.latent_size(geometry.height, geometry.width)
    x = jax.ShapeDtypeStruct((1, geometry.window, h, w, geometry.channels), jnp.float32)
    tokens, features = (77, 768) if kind is AnimateDiff else (config.text_tokens, 4096)
    text = jax.ShapeDtypeStruct((1, tokens, features), jnp.bfloat16)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    traced = jax.make_jaxpr(model.denoiser)(model.params, x, t, {"text": text})
    call = peak_live_bytes(traced.jaxpr)
    columns = (denoiser, sizes["text_encoder"], sizes["vae"], sum(sizes.values()), call)
    clip = f"{geometry.frames(geometry.window)} × {geometry.height}×{geometry.width}"
    return f"| {name} | {clip} | " + " | ".join(f"{v / GIB:.1f}" for v in columns) + " |"


if __name__ == "__main__":
    print("| GiB, bfloat16 | clip | denoiser | text encoder | autoencoder | together | a call |")
    print("|---|---|---|---|---|---|---|")
    for chosen in sys.argv[1:] or MODELS:
        print(row(chosen), flush=True)
