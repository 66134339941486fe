"""Networks of sizes that no published model has, saved by diffusers and transformers, converted and
compared: everything has to come from the folder's configuration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXTransformer3DModel,
    WanTransformer3DModel,
)
from flax import nnx
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from syncos_jax.pipeline.load import load_model
from syncos_jax.weights_convert.convert import convert

RNG = np.random.default_rng(3)


def levels(widths):
    ways = {"down_block_types": "Down", "up_block_types": "Up"}
    kinds = {k: (f"CogVideoX{way}Block3D",) * len(widths) for k, way in ways.items()}
    return {"block_out_channels": widths, **kinds}


COGVIDEOX = [
    ({"num_attention_heads": 3, "attention_head_dim": 16, "text_embed_dim": 10}, (2, 6, 4), 5),
    (
        {
            "num_attention_heads": 1,
            "attention_head_dim": 32,
            "in_channels": 6,
            "out_channels": 6,
            "patch_size": 1,
            "attention_bias": False,
            "patch_bias": False,
            "text_embed_dim": 7,
            "time_embed_dim": 24,
            "norm_eps": 1e-3,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "sample_height": 5,
            "sample_width": 3,
            "sample_frames": 5,
            "spatial_interpolation_scale": 1.3,
            "temporal_interpolation_scale": 0.7,
            "norm_elementwise_affine": False,
        },
        (3, 5, 3),
        2,
    ),
    (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "in_channels": 3,
            "out_channels": 5,
            "patch_size": 2,
            "activation_fn": "gelu",
            "sample_height": 8,
            "sample_width": 6,
            "sample_frames": 17,
            "temporal_compression_ratio": 8,
            "text_embed_dim": 9,
        },
        (3, 8, 6),
        4,
    ),
]
WAN = [
    ({"num_attention_heads": 3, "attention_head_dim": 10, "ffn_dim": 17, "text_dim": 5}, (3, 4, 6)),
    (
        {
            "num_attention_heads": 1,
            "attention_head_dim": 24,
            "patch_size": (3, 1, 2),
            "in_channels": 5,
            "out_channels": 7,
            "ffn_dim": 20,
            "text_dim": 11,
            "freq_dim": 14,
            "cross_attn_norm": False,
            "qk_norm": None,
            "eps": 1e-3,
            "rope_max_seq_len": 9,
        },
        (6, 3, 8),
    ),
    (
        {
            "num_attention_heads": 2,
            "attention_head_dim": 14,
            "patch_size": (1, 3, 1),
            "in_channels": 4,
            "out_channels": None,
            "ffn_dim": 30,
            "text_dim": 6,
        },
        (1, 6, 5),
    ),
]
WAN_VAE = [
    ({"base_dim": 6, "z_dim": 3, "dim_mult": [1, 2, 3], "temperal_downsample": [True, False]}, 3),
    (
        {
            "base_dim": 8,
            "decoder_base_dim": 12,
            "z_dim": 5,
            "dim_mult": [1, 1],
            "num_res_blocks": 1,
            "temperal_downsample": [True],
        },
        5,  # 9 frames: diffusers encodes the first and fours, whatever the rate
    ),
    (
        {
            "base_dim": 8,
            "z_dim": 6,
            "dim_mult": [1, 2, 2, 4, 4],
            "num_res_blocks": 1,
            "temperal_downsample": [False, False, True, True],
        },
        2,
    ),
]
COGVIDEOX_VAE = [
    ({**levels((8, 12)), "norm_num_groups": 4, "latent_channels": 3, "layers_per_block": 1}, 3),
    (
        {
            **levels((6, 6, 12)),
            "norm_num_groups": 3,
            "latent_channels": 5,
            "layers_per_block": 2,
            "temporal_compression_ratio": 2,
            "norm_eps": 1e-4,
            "scaling_factor": 0.9,
        },
        4,
    ),
    (
        {
            **levels((4, 8, 8, 8)),
            "norm_num_groups": 2,
            "latent_channels": 2,
            "layers_per_block": 1,
            "temporal_compression_ratio": 8,
        },
        5,
    ),
]
TEXT = [
    (T5Config, T5EncoderModel, {"feed_forward_proj": "gated-gelu", "num_heads": 3, "d_kv": 5}),
    (T5Config, T5EncoderModel, {"feed_forward_proj": "relu", "num_heads": 1, "d_kv": 8}),
    (
        UMT5Config,
        UMT5EncoderModel,
        {
            "feed_forward_proj": "gated-silu",
            "num_heads": 2,
            "d_kv": 7,
            "relative_attention_num_buckets": 10,
            "relative_attention_max_distance": 21,
            "layer_norm_epsilon": 1e-3,
        },
    ),
]


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def of(cases, quick=1):
    """The numbers of the cases; all but the first few are slow."""
    return [
        number if number < quick else pytest.param(number, marks=pytest.mark.slow)
        for number in range(len(cases))
    ]


def randomised(model):
    torch.manual_seed(1)
    for p in model.parameters():
        fan_in = p[0].numel() if p.ndim > 1 else 25
        p.data = torch.randn(p.shape) * 0.9 / fan_in**0.5 + (p.ndim == 1 and bool(p.mean() > 0.5))
    return model.eval()


def converted(model, only, folder, dtype=None):
    """The network alone, converted from its folder, as a function of a method and its arguments."""
    model.save_pretrained(folder / "source" / only)
    convert(folder / "source", folder / "model", only=only)
    graph, weights = nnx.split(getattr(load_model(folder / "model", dtype), only))

    def call(*arguments, method="__call__"):
        def run(weights, *arguments):
            return getattr(nnx.merge(graph, weights), method)(*arguments)

        return jax.jit(run)(weights, *map(jnp.asarray, arguments))

    return call


def compare(ours, theirs, tolerance=1e-5):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape and theirs.std() > 1e-3
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def last(video):
    """Channels to the end of ``[n, C, f, h, w]``."""
    return video.permute(0, 2, 3, 4, 1)


@pytest.mark.parametrize("case", of(COGVIDEOX))
def test_cogvideox_transformers(case, tmp_path):
    sizes, grid, tokens = COGVIDEOX[case]
    sizes = {"num_layers": 2, "time_embed_dim": 20, "in_channels": 4, "out_channels": 4, **sizes}
    model = randomised(CogVideoXTransformer3DModel(**{"max_text_seq_length": tokens, **sizes}))
    x, t = random(2, *grid, sizes["in_channels"]), np.float32([3, 801])
    text = random(2, tokens, sizes["text_embed_dim"])
    given = torch.from_numpy(x).permute(0, 1, 4, 2, 3), torch.from_numpy(text), torch.from_numpy(t)
    expected = model(*given).sample.permute(0, 1, 3, 4, 2)
    compare(converted(model, "transformer", tmp_path)(x, t, text), expected)


@pytest.mark.parametrize("case", of(WAN))
def test_wan_transformers(case, tmp_path):
    sizes, grid = WAN[case]
    sizes = {"num_layers": 2, "in_channels": 4, "out_channels": 4, "freq_dim": 8, **sizes}
    model = randomised(WanTransformer3DModel(**sizes))
    x, t, text = random(2, *grid, sizes["in_channels"]), np.float32([3, 801]), random(2, 4, 16)
    text = text[..., : sizes["text_dim"]]
    first = torch.from_numpy(x).permute(0, 4, 1, 2, 3)
    expected = model(first, torch.from_numpy(t), torch.from_numpy(text)).sample
    compare(converted(model, "transformer", tmp_path)(x, t, text), last(expected))


@pytest.mark.parametrize("case", of(WAN_VAE, quick=0))
def test_wan_autoencoders(case, tmp_path):
    sizes, latents = WAN_VAE[case]
    check_autoencoder(randomised(AutoencoderKLWan(**sizes)), sizes["z_dim"], latents, tmp_path)


@pytest.mark.parametrize("case", of(COGVIDEOX_VAE, quick=0))
def test_cogvideox_autoencoders(case, tmp_path):
    sizes, latents = COGVIDEOX_VAE[case]
    model = randomised(AutoencoderKLCogVideoX(**sizes))
    check_autoencoder(model, sizes["latent_channels"], latents, tmp_path)


def check_autoencoder(model, channels, latents, folder):
    z = random(1, latents, 2, 3, channels)
    with torch.no_grad():
        frames = model.decode(torch.from_numpy(z).permute(0, 4, 1, 2, 3)).sample
        mean, logvar = model._encode(frames).chunk(2, dim=1)
    ours = converted(model, "vae", folder)
    compare(ours(z, method="decode"), last(frames))
    found = ours(last(frames).numpy(), method="encode")
    for one, expected in zip(found, (mean, logvar), strict=True):
        compare(one, last(expected))


@pytest.mark.parametrize("case", of(TEXT, quick=0))
def test_text_encoders(case, tmp_path):
    config, kind, sizes = TEXT[case]
    model = kind(config(vocab_size=31, d_model=12, d_ff=18, num_layers=2, **sizes))
    model = randomised(model)
    ids = RNG.integers(0, 31, (2, 9)).astype(np.int32)
    mask = (np.arange(9)[None] < np.array([[9], [4]])).astype(np.int32)
    expected = model(torch.from_numpy(ids).long(), torch.from_numpy(mask)).last_hidden_state
    compare(converted(model, "text_encoder", tmp_path)(ids, mask), expected)
