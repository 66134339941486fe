"""CogVideoX's transformer against diffusers' at random weights."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid
from flax import nnx
from networks import quickly

from syncos_jax.errors import InputError
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
from syncos_jax.models.cogvideox.transformer import CogVideoXTransformer
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.cogvideox_config import transformer_config
from syncos_jax.weights_convert.cogvideox_tables import transformer_table
from syncos_jax.weights_convert.table import fill, match

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 12,
    "text_embed_dim": 10,
    "num_layers": 1,
    "sample_width": 8,
    "sample_height": 6,
    "sample_frames": 9,
    "max_text_seq_length": 5,
}
ROTARY = {**SMALL, "use_rotary_positional_embeddings": True}
SETTINGS = {
    "2B": {**SMALL, "num_layers": 2},
    "2B, other sizes": {
        **SMALL,
        "num_attention_heads": 3,
        "out_channels": 3,
        "norm_elementwise_affine": False,
        "attention_bias": False,
        "patch_bias": False,
        "patch_size": 1,
        "norm_eps": 1e-3,
        "activation_fn": "gelu",
        "spatial_interpolation_scale": 1.3,
        "temporal_interpolation_scale": 2.0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "temporal_compression_ratio": 8,
    },
    "5B": ROTARY,
    "1.5": {**ROTARY, "patch_size_t": 2, "patch_bias": False, "ofs_embed_dim": 12},
    "5B-I2V": {
        **ROTARY,
        "in_channels": 8,
        "use_learned_positional_embeddings": True,
    },
}
# Latent frames, rows, columns: the model's own, and others of several shapes.
CASES = [
    ("2B", (3, 6, 8)),
    ("2B", (4, 4, 10)),
    ("2B, other sizes", (2, 5, 3)),
    ("5B", (3, 6, 8)),
    ("5B", (2, 10, 4)),
    ("5B", (5, 4, 14)),
    ("1.5", (4, 6, 8)),
    ("5B-I2V", (3, 6, 8)),
]


def torch_transformer(settings, seed=0):
    """diffusers' network with random weights, none of them zero or one."""
    model = CogVideoXTransformer3DModel(**settings)
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if "norm" in name and name.endswith("weight") and p.ndim == 1 else 0.0
        p.data = centre + scale * torch.randn(p.shape, generator=generator)
    for buffer in model.buffers():
        if model.config.use_learned_positional_embeddings:
            buffer.data = torch.randn(buffer.shape, generator=generator).to(buffer.dtype)
    return model.eval()


def build(config, dtype=jnp.float32):
    return nnx.eval_shape(lambda: CogVideoXTransformer(config, dtype=dtype, rngs=AbstractRngs()))


def port(model, dtype=jnp.float32):
    config = transformer_config(dict(model.config))
    state = {k: v.float().numpy() for k, v in model.state_dict().items()}
    table = transformer_table(config)
    return fill(build(config, dtype), table, state, state.__getitem__, what="reference")


def angles(settings, grid):
    """As CogVideoXPipeline makes them."""
    if not settings.get("use_rotary_positional_embeddings"):
        return None
    patch_t, patch = settings.get("patch_size_t"), settings.get("patch_size", 2)
    f, h, w = grid[0], grid[1] // patch, grid[2] // patch
    width, height = settings["sample_width"] // patch, settings["sample_height"] // patch
    size = settings["attention_head_dim"]
    if patch_t is None:
        crop = get_resize_crop_region_for_grid((h, w), width, height)
        return get_3d_rotary_pos_embed(size, crop, (h, w), f)
    f = (f + patch_t - 1) // patch_t
    return get_3d_rotary_pos_embed(
        size, None, (h, w), f, grid_type="slice", max_size=(height, width)
    )


def inputs(settings, grid):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, *grid, settings["in_channels"])).astype(np.float32)
    text = rng.normal(size=(2, settings["max_text_seq_length"], settings["text_embed_dim"]))
    return x, np.array([999.0, 37.0], np.float32), text.astype(np.float32)


def expected(model, settings, grid):
    x, t, text = (torch.from_numpy(y) for y in inputs(settings, grid))
    offset = torch.full((2,), 2.0) if settings.get("ofs_embed_dim") else None
    with torch.no_grad():
        y = model(
            x.permute(0, 1, 4, 2, 3),
            text,
            t,
            ofs=offset,
            image_rotary_emb=angles(settings, grid),
        ).sample
    return y.permute(0, 1, 3, 4, 2).numpy()


@pytest.mark.parametrize(("name", "grid"), CASES)
def test_parity(name, grid):
    settings = SETTINGS[name]
    model = torch_transformer(settings)
    wanted = expected(model, settings, grid)
    found = quickly(CogVideoXTransformer.__call__)(
        port(model), *map(jnp.asarray, inputs(settings, grid))
    )
    largest = np.abs(wanted).max()
    assert found.shape == wanted.shape and largest > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * largest)


@pytest.mark.parametrize("name", ["2B, other sizes", "5B"])
def test_bfloat16_is_close(name):
    settings, grid = SETTINGS[name], (2, 6, 8)
    model = torch_transformer(settings)
    wanted = expected(model, settings, grid)
    found = quickly(CogVideoXTransformer.__call__)(
        port(model, jnp.bfloat16), *map(jnp.asarray, inputs(settings, grid))
    )
    assert found.dtype == jnp.float32
    assert np.linalg.norm(found - wanted) < 2e-2 * np.linalg.norm(wanted)


def test_times_of_frames():
    settings, grid = SETTINGS["1.5"], (4, 6, 8)
    model = port(torch_transformer(settings))
    x, t, text = map(jnp.asarray, inputs(settings, grid))
    run = quickly(CogVideoXTransformer.__call__)
    same = run(model, x, jnp.repeat(t[:, None], 4, axis=1), text)
    np.testing.assert_allclose(same, run(model, x, t, text), rtol=0, atol=1e-5)
    other = run(model, x, jnp.asarray([[999.0, 999, 500, 500], [37, 37, 37, 37]]), text)
    assert float(jnp.abs(other[0] - same[0]).max()) > 1e-2
    np.testing.assert_allclose(other[1], same[1], rtol=0, atol=1e-5)


def test_sizes_that_do_not_fit():
    text, t = jnp.zeros((1, 5, 10)), jnp.zeros(1)
    patches, learned = (
        CogVideoXTransformer(transformer_config(SETTINGS[name]), rngs=AbstractRngs())
        for name in ("1.5", "5B-I2V")
    )
    with pytest.raises(InputError, match="3 frames, 6 x 8 cells cannot be divided"):
        patches(jnp.zeros((1, 3, 6, 8, 4)), t, text)
    for size in ((4, 6, 8), (2, 6, 6), (3, 8, 6)):
        with pytest.raises(InputError, match="learned positions of 41 tokens"):
            learned(jnp.zeros((1, *size, 8)), t, text)


def test_learned_positions_of_a_shorter_clip_are_the_first_frames():
    model = port(torch_transformer(SETTINGS["5B-I2V"]))
    embed, rng = model.patch_embed, np.random.default_rng(0)
    x = rng.normal(size=(1, 3, 6, 8, 8)).astype(np.float32)
    text = rng.normal(size=(1, 5, 10)).astype(np.float32)
    whole = np.asarray(embed(jnp.asarray(x), jnp.asarray(text), (3, 3, 4)))
    short = np.asarray(embed(jnp.asarray(x[:, :2]), jnp.asarray(text), (2, 3, 4)))
    np.testing.assert_allclose(short, whole[:, : 5 + 24], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_frames": 2}, "several frames"),
        ({"heads": 1, "head_size": 8}, "divisible by 16"),
        ({"positions": "rotary", "head_size": 24}, "head_size"),
        ({"positions": "none"}, "unknown positions"),
        ({"activation": "relu"}, "unknown activation"),
        ({"offset_features": 3}, "time_features"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CogVideoXTransformerConfig(), **change)


def test_full_size_and_missing_tensors():
    counts = {"cogvideox_2b": 1_693_783_872, "cogvideox_5b": 5_570_283_072}
    for preset, count in counts.items():
        config = getattr(CogVideoXTransformerConfig, preset)()
        expected = leaves(build(config))
        assert sum(leaf.size for leaf in expected.values()) == count
        _, problems = match(expected, transformer_table(config), {"patch_embed.x": jnp.zeros(2)})
        assert problems[0] == "unknown patch_embed.x"
        assert "missing transformer_blocks.0.norm1.norm.weight" in problems
        assert "missing transformer_blocks.29.ff.net.0.proj.bias" in problems
        assert "missing norm_final.weight" in problems
        assert len(problems) == 1 + len(expected)
