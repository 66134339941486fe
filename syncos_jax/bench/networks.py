"""Models to measure: real ones, and ones with random weights of any size."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.models import Model, saved
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.layers import DType
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.model import UNetClip
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.pipeline.load import default_dtype, load_model, quantization
from syncos_jax.weights_convert.table import assign, leaves

RANDOM = ("tiny", "modelscope", "videocrafter2")
"""Sizes that exist without weights: for these, the weights are drawn."""

_DRAWN = 2**20


def tiny_config() -> ModelConfig:
    """A network of every kind of layer that compiles in seconds on a CPU."""
    return ModelConfig(
        name="tiny",
        unet=UNet3DConfig(
            block_out_channels=(16, 32),
            attention=(False, True),
            layers_per_block=1,
            head_size=8,
            text_features=16,
            norm_groups=4,
        ),
        vae=VAEConfig(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_groups=4),
        text=CLIPTextConfig(
            vocabulary=64, tokens=8, features=16, inner=32, layers=1, heads=2, activation="gelu"
        ),
        schedule={
            "betas": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "train_steps": 1000,
            "prediction": "epsilon",
            "signal_scale": None,
            "spacing": "leading",
            "offset": 1,
            "final_timestep": None,
            "zero_terminal_snr": False,
        },
        latent_scale=1.0,
        window=4,
        stride=2,
        fps=8,
        height=64,
        width=64,
        steps=50,
        guidance=3.0,
        source="random weights, for measuring only",
    )


class RandomTokens:
    """Stands for the tokenizer of a model with random weights: ids that depend on the text."""

    def __init__(self, config: CLIPTextConfig) -> None:
        self.config = config

    def __call__(self, prompts: list[str]) -> np.ndarray:
        """``[n, S]`` int32."""
        rows = [
            np.random.default_rng(list(prompt.encode())).integers(
                self.config.vocabulary, size=self.config.tokens
            )
            for prompt in prompts
        ]
        return np.asarray(rows, np.int32)


def random_network(name: str, config: ModelConfig, dtype: DType, seed: int = 0) -> Any:
    """A network with random weights: about one for scales, small for all else.

    A million numbers are drawn and repeated: a billion would take longer than the measurement, and
    an initialiser is compiled again for every shape.

    Args:
        name: "unet", "vae" or "text_encoder".
        config: the model's.
        dtype: of weights and computation.
        seed: of the weights.
    """
    abstract = saved.build(name, config, dtype)
    drawn = np.random.default_rng(seed).standard_normal(_DRAWN, np.float32)
    values = {}
    for index, (path, leaf) in enumerate(leaves(abstract).items()):
        spread = 1.0 / math.sqrt(math.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 100)
        value = np.resize(np.roll(drawn, 7919 * index), leaf.shape) * np.float32(spread)
        values[path] = jnp.asarray(value + np.float32(path.endswith(".scale")), leaf.dtype)
    return assign(abstract, values)


def random_model(config: ModelConfig, dtype: DType, seed: int = 0) -> UNetClip:
    """A whole model with random weights; its latents and pictures mean nothing."""
    parts = {name: random_network(name, config, dtype, seed) for name in ModelConfig.networks}
    tokens: Any = RandomTokens(config.text)
    return UNetClip(config, config.noise_schedule(), **parts, tokenizer=tokens)


def bench_model(name: str, dtype: DType | None = None) -> Model:
    """The model to measure.

    Args:
        name: "tiny", "modelscope" or "videocrafter2" (random weights), "demo", or the folder of a
            model; ``@int8`` behind it as for `load_model`.
        dtype: default bfloat16 on accelerators, float32 on CPU.

    Raises:
        InputError: no such model.
    """
    name, how = quantization(name)
    model = _bench_model(name, default_dtype() if dtype is None else jnp.dtype(dtype))
    if how is not None:
        model.quantize(how)
    return model


def _bench_model(name: str, dtype: DType) -> Model:
    if name == "tiny":
        return random_model(tiny_config(), dtype)
    if name in RANDOM:
        from syncos_jax.weights_convert.lvdm_config import read

        config = read([], name, tiny_config().source).model
        if name == "modelscope":  # the same networks without the frame rate
            config = dataclasses.replace(
                config, unet=UNet3DConfig.modelscope(), schedule=tiny_config().schedule
            )
        return random_model(config, dtype)
    return load_model(name, dtype)


def parameters(weights: Any) -> int:
    """Number of weights in a pytree."""
    return sum(leaf.size for leaf in jax.tree.leaves(weights))
