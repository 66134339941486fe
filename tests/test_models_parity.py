"""The networks against diffusers and transformers: random weights, float32."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL as TorchVAE
from diffusers import UNet3DConditionModel
from flax import nnx
from networks import random_network
from transformers import CLIPTextConfig as TorchTextConfig
from transformers import CLIPTextModel

from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.weights_convert import diffusers_tables as tables
from syncos_jax.weights_convert.table import Table, fill

TOLERANCE = 1e-5


def randomise(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every tensor random: zero-initialised ones would hide whole branches."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if p.ndim == 1 and float(p.detach().mean()) == 1.0 else 0.0
        p.data = centre + scale * torch.randn(p.shape, generator=generator)
    return module.eval()


def port(reference: torch.nn.Module, table: Table, build) -> nnx.Module:
    state = {k: v.numpy() for k, v in reference.state_dict().items()}
    return fill(nnx.eval_shape(build), table, state, state.__getitem__, what="reference")


def channels_last(x: torch.Tensor) -> jnp.ndarray:
    return jnp.asarray(np.moveaxis(x.numpy(), 1, -1))


UNETS = {
    "two levels": UNet3DConfig(
        block_out_channels=(32, 64),
        attention=(True, False),
        layers_per_block=1,
        head_size=8,
        text_features=24,
        norm_groups=8,
    ),
    "three levels, two layers": UNet3DConfig(
        in_channels=8,
        out_channels=8,
        block_out_channels=(16, 32, 32),
        attention=(False, True, True),
        layers_per_block=2,
        head_size=16,
        text_features=20,
        norm_groups=4,
        norm_eps=1e-4,
    ),
}


def torch_unet(config: UNet3DConfig) -> UNet3DConditionModel:
    down = ["CrossAttnDownBlock3D" if a else "DownBlock3D" for a in config.attention]
    up = ["CrossAttnUpBlock3D" if a else "UpBlock3D" for a in reversed(config.attention)]
    return UNet3DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.block_out_channels,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_groups,
        norm_eps=config.norm_eps,
        cross_attention_dim=config.text_features,
        attention_head_dim=config.head_size,
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("two levels", (8, 8)),
        # Odd at every level: the size of the skip has to be forwarded.
        pytest.param("three levels, two layers", (5, 7), marks=pytest.mark.slow),
    ],
)
def test_unet(name, size):
    config = UNETS[name]
    reference = randomise(torch_unet(config))
    ours = port(reference, tables.UNET, lambda: UNet3D(config, rngs=nnx.Rngs(0)))
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, config.in_channels, 5, *size, generator=generator)
    text = torch.randn(2, 7, config.text_features, generator=generator)
    t = torch.tensor([3, 981])
    with torch.no_grad():
        expected = reference(x, t, text).sample
    actual = nnx.jit(UNet3D.__call__)(
        ours, channels_last(x), jnp.asarray(t.numpy()), jnp.asarray(text.numpy())
    )
    assert float(jnp.abs(actual).max()) > 0.1
    np.testing.assert_allclose(actual, channels_last(expected), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_unet_time_per_frame_equals_time_per_clip():
    config = UNETS["two levels"]
    model = random_network(lambda: UNet3D(config, rngs=nnx.Rngs(0)))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 4)), jnp.float32)
    text = jnp.ones((2, 5, config.text_features), jnp.float32)
    t = jnp.asarray([10, 500])
    run = nnx.jit(UNet3D.__call__)
    per_frame = run(model, x, jnp.repeat(t[:, None], 3, axis=1), text)
    np.testing.assert_allclose(run(model, x, t, text), per_frame, rtol=0, atol=1e-6)
    varied = run(model, x, jnp.asarray([[10, 10, 900], [500, 500, 500]]), text)
    assert float(jnp.abs(varied[0, 2] - per_frame[0, 2]).max()) > 1e-3


def test_vae():
    config = VAEConfig(block_out_channels=(16, 32, 32), layers_per_block=1, norm_groups=8)
    reference = randomise(
        TorchVAE(
            block_out_channels=config.block_out_channels,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            norm_num_groups=8,
            latent_channels=config.latent_channels,
        )
    )
    ours = port(reference, tables.VAE, lambda: AutoencoderKL(config, rngs=nnx.Rngs(0)))
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, 3, 16, 24, generator=generator)
    latents = torch.randn(2, 4, 4, 6, generator=generator)
    with torch.no_grad():
        posterior = reference.encode(images).latent_dist
        decoded = reference.decode(latents).sample
    mean, logvar = nnx.jit(AutoencoderKL.encode)(ours, channels_last(images))
    np.testing.assert_allclose(mean, channels_last(posterior.mean), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(logvar, channels_last(posterior.logvar), rtol=0, atol=TOLERANCE)
    actual = nnx.jit(AutoencoderKL.decode)(ours, channels_last(latents))
    np.testing.assert_allclose(actual, channels_last(decoded), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_text_encoder(activation):
    config = CLIPTextConfig(
        vocabulary=100,
        tokens=12,
        features=32,
        inner=64,
        layers=2,
        heads=4,
        activation=activation,
    )
    reference = randomise(
        CLIPTextModel(
            TorchTextConfig(
                vocab_size=100,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                max_position_embeddings=12,
                hidden_act=activation,
                bos_token_id=98,
                eos_token_id=99,
                pad_token_id=0,
            )
        )
    )
    ours = port(reference, tables.CLIP_TEXT, lambda: CLIPTextEncoder(config, rngs=nnx.Rngs(0)))
    ids = torch.randint(0, 100, (3, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(ids).last_hidden_state
    actual = nnx.jit(CLIPTextEncoder.__call__)(ours, jnp.asarray(ids.numpy(), jnp.int32))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=TOLERANCE)
