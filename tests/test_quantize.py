"""Denoisers of 8-bit integers: against integer arithmetic, against the network, and as a model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_families import COGVIDEOX, story, write
from typer.testing import CliRunner

from syncos_jax.cli import app
from syncos_jax.errors import InputError
from syncos_jax.kernels.quantized import quantize, quantized_conv, quantized_product
from syncos_jax.models import saved
from syncos_jax.models.layers import Conv, Linear, TemporalConv
from syncos_jax.models.quantize import quantized
from syncos_jax.pipeline.hardware.abstract import abstract_model
from syncos_jax.pipeline.load import load_model

RNGS = nnx.Rngs(0)


def integers(x, axes):
    """int8 values and scales, by numpy."""
    scale = np.maximum(np.abs(x).max(axis=axes, keepdims=True), 1e-30) / 127
    return np.rint(x / scale).astype(np.int64), scale


def error(found, wanted):
    return np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_product_is_the_one_of_integers(dtype):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 5, 48)) * rng.uniform(0.1, 9, (2, 5, 1)), dtype)
    kernel = rng.normal(size=(48, 7)).astype(np.float32)
    values, scale = quantize(jnp.asarray(kernel), 0)
    a, of_rows = integers(np.asarray(x, np.float32), -1)
    b, of_columns = integers(kernel, 0)
    np.testing.assert_array_equal(values, b)
    found = quantized_product(x, values, scale[0])
    assert found.dtype == dtype
    near = {"float32": 1e-5, "bfloat16": 1e-2}[dtype]
    np.testing.assert_allclose(
        np.asarray(found, np.float32), (a @ b) * of_rows * of_columns, rtol=near, atol=near
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_what_is_quantized_is_half_a_step_away_at_most(seed, size):
    x = np.random.default_rng(seed).normal(size=(3, 17)).astype(np.float32) * np.float32(size)
    values, scale = quantize(jnp.asarray(x), -1)
    assert np.abs(np.asarray(values, np.int32)).max(axis=-1).tolist() == [127] * 3
    assert (np.abs(np.asarray(values) * np.asarray(scale) - x) <= 0.501 * np.asarray(scale)).all()


def test_zeros_stay_zeros():
    values, scale = quantize(jnp.zeros((2, 4)), -1)
    assert not values.any() and np.isfinite(scale).all()
    found = quantized_product(jnp.zeros((2, 4)), jnp.ones((4, 3), jnp.int8), jnp.ones(3))
    assert not found.any()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_the_one_of_integers(stride):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)
    values, scale = quantize(jnp.asarray(kernel), (0, 1, 2))
    found = quantized_conv(
        jnp.asarray(x), values, scale.reshape(-1), (stride, stride), ((1, 1), (1, 1))
    )
    a, of_images = integers(x, (1, 2, 3))
    b, of_channels = integers(kernel, (0, 1, 2))
    padded = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros(found.shape)
    for i in range(found.shape[1]):
        for j in range(found.shape[2]):
            patch = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            wanted[:, i, j] = np.einsum("nhwc,hwco->no", patch, b)
    np.testing.assert_allclose(found, wanted * of_images * of_channels, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(24, 16, dtype=jnp.float32, rngs=RNGS), (3, 5, 24)),
        (Linear(24, 16, bias=False, dtype=jnp.float32, rngs=RNGS), (3, 5, 24)),
        (Conv(8, 12, dtype=jnp.float32, rngs=RNGS), (2, 6, 7, 8)),
        (
            Conv(8, 12, stride=2, padding=((0, 1), (0, 1)), dtype=jnp.float32, rngs=RNGS),
            (2, 6, 8, 8),
        ),
        (TemporalConv(8, 12, dtype=jnp.float32, rngs=RNGS), (2, 4, 3, 5, 8)),
    ],
)
def test_a_layer_is_near_to_the_one_it_stands_for(layer, shape):
    class Holder(nnx.Module):
        def __init__(self):
            self.one, self.some = layer, nnx.List([layer])

    x = jax.random.normal(jax.random.key(0), shape)
    wanted = layer(x)
    holder = quantized(Holder())
    for other in (holder.one, holder.some[0]):
        assert type(other) is not type(layer) and other.values[...].dtype == jnp.int8
        assert error(other(x), wanted) < 0.015
        assert (other.bias is None) == (getattr(layer, "bias", None) is None)


def call(model, clips=2):
    """The denoiser's prediction for random latents."""
    g = model.geometry
    shape = (clips, g.window, *g.latent_size(g.height, g.width), g.channels)
    x = jax.random.normal(jax.random.key(1), shape)
    t = jnp.linspace(900.0, 100.0, clips)
    cond = model.encode_prompts(["a cat in a kitchen, it sleeps"] * clips)
    return np.asarray(jax.jit(model.denoiser)(model.params, x, t, cond))


@pytest.fixture(
    scope="module", params=[pytest.param("demo", marks=pytest.mark.slow), "wan", "cogvideox"]
)
def pair(request, tmp_path_factory):
    """A model of each family, as it is and quantized."""
    name = request.param
    if name != "demo":
        name = str(write(tmp_path_factory.mktemp("models") / name, name))
    return load_model(name), load_model(f"{name}@int8")


def test_every_layer_is_reached_and_the_prediction_near(pair):
    plain, small = pair
    wide = (nnx.Linear, nnx.Conv, TemporalConv)
    network = getattr(small, small.denoisers[0])
    assert not [m for _, m in nnx.iter_modules(network) if isinstance(m, wide)]
    kernels = {leaf.dtype for leaf in jax.tree.leaves(small.params) if leaf.ndim > 1}
    kernels -= {jnp.dtype(jnp.float32)} if not hasattr(small, "unet") else set()  # tables
    assert kernels == {jnp.dtype(jnp.int8)}
    assert small.dtype == plain.dtype and small.name == f"{plain.name}@int8"
    assert small.weights_sha256 != plain.weights_sha256
    assert 0 < error(call(small), call(plain)) < 0.06


def test_the_text_encoder_and_autoencoder_stay(pair):
    plain, small = pair
    for name in plain.weights:
        if name not in small.denoisers:
            for a, b in zip(*(jax.tree.leaves(m.weights[name]) for m in pair), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_program_for_accelerators_multiplies_integers_alone():
    """But for the attentions' own products."""
    model = abstract_model("demo@int8", jnp.bfloat16)
    g = model.geometry
    x = jax.ShapeDtypeStruct((2, g.window, *g.latent_size(g.height, g.width), g.channels), "f4")
    t = jax.ShapeDtypeStruct((2,), "f4")
    traced = jax.jit(model.denoiser).trace(model.params, x, t, model.conditioning_shapes(2))
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert not [
        line for line in text.splitlines() if "stablehlo.convolution" in line and "i8>" not in line
    ]
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    of_integers = [line for line in products if "xi8>" in line]
    others = [line for line in products if line not in of_integers]
    network = model.unet
    layers = [m for _, m in nnx.iter_modules(network) if type(m).__name__ == "QuantizedLinear"]
    assert len(of_integers) >= len(layers) and all("batching_dims" in line for line in others)


def test_a_video_of_a_quantized_model(tmp_path):
    """Made, recorded, and made again from its record."""
    model = f"{write(tmp_path / 'tiny', 'wan')}@int8"
    (tmp_path / "story.json").write_text(json.dumps(story("co_denoising")))
    out = tmp_path / "a.mp4"
    given = ["generate", str(tmp_path / "story.json"), "--model", model, "--out", str(out)]
    made = CliRunner().invoke(app, given)
    assert made.exit_code == 0, made.output
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["model"]["id"] == model and record["model"]["name"] == "tiny-wan@int8"
    again = ["generate", "--from", str(out.with_suffix(".json")), "--out", str(tmp_path / "b.mp4")]
    assert CliRunner().invoke(app, again).exit_code == 0
    of = json.loads((tmp_path / "b.json").read_text())
    assert of["latents"]["sha256"] == record["latents"]["sha256"]
    info = CliRunner().invoke(app, ["info", model])
    assert info.exit_code == 0 and "tiny-wan@int8" in info.output


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["generate", "--global", "a cat", "--prompt", "sleeps", "--model", "demo@int4"], "int4"),
        (["info", "demo@fp8"], "expected one of int8"),
        (["info", "nowhere@int8"], "no such model"),
        (["info", "demo@int8@int8"], "names two quantizations"),
    ],
)
def test_what_cannot_be_quantized_is_refused(command, word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke(app, command)
    assert run.exit_code == 2 and word in run.output and not list(tmp_path.iterdir())


def test_a_folder_may_have_the_mark_in_its_name(tmp_path):
    folder = write(tmp_path / "mine@int8", "wan")
    assert load_model(folder).name == "tiny-wan"
    assert load_model(f"{folder}@int8").name == "tiny-wan@int8"


def test_a_family_without_networks_cannot_be_quantized():
    from syncos_jax.models.family import Model

    class Toy(Model):
        family = "toy"

    with pytest.raises(InputError, match="the family 'toy' cannot be quantized"):
        Toy().quantize("int8")


def test_abstract_networks_stay_abstract():
    network = saved.build("transformer", COGVIDEOX, jnp.bfloat16)
    leaves = jax.tree.leaves(nnx.state(quantized(network)))
    assert leaves and all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
