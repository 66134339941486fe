"""Wan's transformer against diffusers' at random weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.wan.config import WanTransformerConfig
from syncos_jax.models.wan.transformer import WanTransformer
from syncos_jax.weights_convert import wan_tables
from syncos_jax.weights_convert.table import fill, leaves, match

CONFIG = WanTransformerConfig(
    in_channels=4,
    out_channels=4,
    layers=2,
    heads=2,
    head_size=16,
    inner=48,
    text_features=20,
    time_features=32,
)
OTHER = dataclasses.replace(
    CONFIG,
    in_channels=5,
    out_channels=3,
    patch=(2, 1, 2),
    heads=3,
    head_size=10,
    cross_attn_norm=False,
    eps=1e-4,
    layers=1,
)
NAMES = {
    "in_channels": "in_channels",
    "out_channels": "out_channels",
    "patch": "patch_size",
    "layers": "num_layers",
    "heads": "num_attention_heads",
    "head_size": "attention_head_dim",
    "inner": "ffn_dim",
    "text_features": "text_dim",
    "time_features": "freq_dim",
    "cross_attn_norm": "cross_attn_norm",
    "eps": "eps",
    "positions": "rope_max_seq_len",
    "image_features": "image_dim",
    "image_positions": "pos_embed_seq_len",
}


def torch_transformer(config: WanTransformerConfig) -> WanTransformer3DModel:
    """diffusers' network with random weights, none of them zero or one."""
    values = dataclasses.asdict(config)
    settings = {theirs: values[ours] for ours, theirs in NAMES.items()}
    if config.image_features is not None:
        settings["added_kv_proj_dim"] = config.width
    model = WanTransformer3DModel(**settings)
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        p.data = centre + scale * torch.randn(p.shape, generator=generator)
    return model.eval()


def build(config: WanTransformerConfig, dtype=jnp.float32) -> WanTransformer:
    return nnx.eval_shape(lambda: WanTransformer(config, dtype=dtype, rngs=AbstractRngs()))


def port(reference, config, dtype=jnp.float32):
    state = {k: v.float().numpy() for k, v in reference.state_dict().items()}
    return fill(
        build(config, dtype), wan_tables.TRANSFORMER, state, state.__getitem__, what="reference"
    )


def inputs(config, f=3, h=4, w=6, b=2):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(b, f, h, w, config.in_channels)).astype(np.float32)
    text = rng.normal(size=(b, 7, config.text_features)).astype(np.float32)
    return x, np.array([999.0, 37.5], np.float32)[:b], text


def run_torch(model, x, t, text, dtype=torch.float32, image=None):
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(dtype)
    image = None if image is None else torch.from_numpy(image)
    with torch.no_grad():
        given = channels_first, torch.from_numpy(t), torch.from_numpy(text).to(dtype), image
        out = model(*given).sample
    return np.moveaxis(out.float().numpy(), 1, -1)


def run(model, *arguments):
    return np.asarray(nnx.jit(WanTransformer.__call__)(model, *map(jnp.asarray, arguments)))


def relative(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize(
    ("config", "size"), [(CONFIG, (3, 4, 6)), (CONFIG, (1, 2, 2)), (OTHER, (4, 3, 4))]
)
def test_equals_diffusers(config, size):
    reference = torch_transformer(config)
    x, t, text = inputs(config, *size)
    expected = run_torch(reference, x, t, text)
    assert relative(run(port(reference, config), x, t, text), expected) < 1e-5


@pytest.mark.parametrize("positions", [None, 12])
def test_features_of_an_image(positions):
    """Wan 2.1 I2V and, with learned positions, FLF2V; more input channels than output."""
    config = dataclasses.replace(
        CONFIG, in_channels=11, layers=1, heads=3, image_features=14, image_positions=positions
    )
    reference = torch_transformer(config)
    x, t, _ = inputs(config, 2, 4, 6)
    rng = np.random.default_rng(2)
    text = rng.normal(size=(2, 512, config.text_features)).astype(np.float32)
    image = rng.normal(size=(2, 12, 14)).astype(np.float32)
    theirs = image if positions is None else image.reshape(4, 6, 14)  # two images for each clip
    expected = run_torch(reference, x, t, text, image=theirs)
    ours = port(reference, config)
    assert relative(run(ours, x, t, text, image), expected) < 1e-5
    with pytest.raises(InputError, match="image must be"):
        run(ours, x, t, text)


def test_bfloat16_is_close():
    reference = torch_transformer(CONFIG)
    x, t, text = inputs(CONFIG)
    expected = run_torch(reference, x, t, text)
    found = run(port(reference, CONFIG, jnp.bfloat16), x, t, text)
    assert 1e-4 < relative(found, expected) < 2e-2
    half = torch_transformer(CONFIG).to(torch.bfloat16)
    assert relative(found, run_torch(half, x, t, text, torch.bfloat16)) < 2e-2


def test_time_of_each_frame():
    """diffusers takes a time for each token; ours are for each latent frame."""
    config = dataclasses.replace(CONFIG, layers=1)
    reference = torch_transformer(config)
    x, _, text = inputs(config)
    t = np.array([[10.0, 500.0, 999.0], [3.0, 3.0, 700.0]], np.float32)
    expected = run_torch(reference, x, np.repeat(t, 2 * 3, axis=1), text)
    assert relative(run(port(reference, config), x, t, text), expected) < 1e-5


def test_the_rotary_split_is_that_of_the_head_size():
    assert WanTransformerConfig().rotary == (44, 42, 42)
    assert OTHER.rotary == (6, 2, 2)


def test_parameters_at_full_size():
    counts = {
        config: sum(np.prod(leaf.shape) for leaf in leaves(build(config)).values())
        for config in (WanTransformerConfig.wan_1_3b(), WanTransformerConfig.wan_14b())
    }
    assert list(counts.values()) == [1_418_996_800, 14_288_491_584]


def test_float32_parts_stay_float32():
    dtypes = {path: leaf.dtype for path, leaf in leaves(build(CONFIG, jnp.bfloat16)).items()}
    kept = {path for path, dtype in dtypes.items() if dtype == jnp.float32}
    assert all(
        "time_embedder" in path or "scale_shift_table" in path or ".norm2." in path for path in kept
    )
    assert "blocks.0.scale_shift_table" in kept and dtypes["proj_out.kernel"] == jnp.bfloat16


@pytest.mark.parametrize(
    ("size", "message"),
    [((1, 3, 2), "cannot be divided into patches of 1 x 2 x 2"), ((1, 2, 2050), "more than 1024")],
)
def test_sizes_that_do_not_fit(size, message):
    x, t, text = inputs(CONFIG, *size)
    with pytest.raises(InputError, match=message):
        jax.eval_shape(build(CONFIG), x, t, text)


def test_a_table_names_every_misfit():
    reference = torch_transformer(CONFIG).state_dict()
    tensors = {k: v.numpy() for k, v in reference.items()}
    tensors["blocks.0.attn1.to_q.extra"] = tensors.pop("blocks.1.scale_shift_table")
    tensors["patch_embedding.weight"] = np.zeros((3, 4, 5), np.float32)
    _, problems = match(leaves(build(CONFIG)), wan_tables.TRANSFORMER, tensors)
    assert [problem.split(":")[0] for problem in problems] == [
        "misshaped patch_embedding.weight",
        "unknown blocks.0.attn1.to_q.extra",
        "missing blocks.1.scale_shift_table",
    ]
