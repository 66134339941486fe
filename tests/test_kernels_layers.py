"""The layers that a TPU's kernel computes whole: each against the plain one, which is what all
parity with PyTorch's networks rests on."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from syncos_jax.errors import InputError
from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention_layer import over_frames, to_text
from syncos_jax.kernels.layers import LAYERS, layers
from syncos_jax.models.attention import SpatialTransformer, TemporalTransformer
from syncos_jax.models.quantize import quantized
from syncos_jax.pipeline.flops import flops

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
SIDES = {
    "cells that fill no block": ((2, 5, 11, 13, 64), 2),
    "several blocks": ((1, 16, 10, 16, 128), 2),
    "one frame": ((2, 1, 5, 7, 64), 1),
    "heads that fill no lanes": ((1, 3, 4, 8, 96), 3),
    "most frames": ((1, 32, 3, 3, 128), 1),
}
SMALL = [
    pytest.param(layer, id=f"{layer.name}, {name}, {dtype}")
    for name, (sides, heads) in SIDES.items()
    for dtype in TOLERANCE
    for layer in layers(name, sides, heads, words=9, dtype=dtype)
]


def drawn(layer):
    """Arrays as a network has them: products keep the variance."""
    leaves, tree = jax.tree.flatten(layer.arrays)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    first, *weights = (
        jax.random.normal(key, leaf.shape, jnp.float32)
        / (leaf.shape[-2] if leaf.ndim > 1 else 1) ** 0.5
        for key, leaf in zip(keys, leaves, strict=True)
    )
    first = first * leaves[0].shape[-2] ** 0.5
    return tree.unflatten(
        value.astype(leaf.dtype) for value, leaf in zip((first, *weights), leaves, strict=True)
    )


@pytest.fixture
def interpreted(monkeypatch):
    """Pallas kernels run as plain JAX, and programs are those for TPUs."""

    def for_tpu(*arrays, **ways):
        return ways.get("tpu", ways.get("default"))(*arrays)

    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(call, interpret=True))
    monkeypatch.setattr(jax.lax, "platform_dependent", for_tpu)
    jax.clear_caches()
    yield
    jax.clear_caches()


def close(found, expected, dtype):
    found, expected = (np.asarray(a, np.float64) for a in (found, expected))
    limit = TOLERANCE[dtype] * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("layer", SMALL)
def test_a_kernel_is_the_layer(layer, interpreted):
    arrays = drawn(layer)
    found = layer.function(*arrays, implementation="fused")
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), arrays)
    expected = layer.function(*wide, implementation="plain")
    assert found.dtype == arrays[0].dtype and found.shape == expected.shape
    close(found, expected, str(found.dtype))


@pytest.mark.parametrize("layer", layers("", (1, 3, 5, 5, 64), 2, words=9, dtype="float32"))
def test_a_gradient_is_that_of_the_layer(layer, interpreted):
    def loss(implementation):
        return lambda *arrays: jnp.sin(layer.function(*arrays, implementation=implementation)).sum()

    arrays = drawn(layer)
    every = tuple(range(len(arrays)))
    found, expected = (
        jax.grad(loss(implementation), argnums=every)(*arrays)
        for implementation in ("fused", "plain")
    )
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert bool(jnp.isfinite(one).all())
        close(one, other, "float32")


@pytest.mark.parametrize("layer", layers("", (2, 3, 5, 5, 64), 2, words=9, dtype="float32"))
def test_videos_side_by_side_are_each_their_own(layer, interpreted):
    x, *rest = drawn(layer)
    both = jnp.stack([x, 2 * x])
    fused = functools.partial(layer.function, implementation="fused")
    found = jax.vmap(lambda x: fused(x, *rest))(both)
    for one, x in zip(found, both, strict=True):
        close(one, fused(x, *rest), "float32")


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}, {layer.where}")
def test_programs_for_tpus_have_the_kernel_and_others_do_not(layer):
    traced = jax.jit(layer.function).trace(*layer.arrays)
    for platform in ("tpu", "cpu", "cuda"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        held = tpu.bytes_of(layer.arrays[-1]) <= tpu.WEIGHTS
        assert ("tpu_custom_call" in text) == (platform == "tpu" and held)


@pytest.mark.parametrize("layer", LAYERS[:4], ids=lambda layer: layer.name)
def test_a_kernel_counts_the_operations_of_the_layer(layer):
    """What it masks is no work."""
    plain, fused = (
        flops(functools.partial(layer.function, implementation=name), *layer.arrays)
        for name in ("plain", "fused")
    )
    assert fused == plain


@pytest.mark.parametrize("layer", layers("", (2, 16, 8, 8, 128), 2))
def test_a_mesh_that_the_compiler_divides_has_the_plain_layer(layer):
    mesh = AbstractMesh((2,), ("model",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec())
    arrays = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), layer.arrays
    )
    with jax.sharding.use_abstract_mesh(mesh):
        text = jax.jit(layer.function).trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    names = re.findall(r'kernel_name = "(\w+)"', text)
    # Plain attention has a kernel of its own, which is divided by hand.
    assert [name for name in names if "flash" not in name] == []


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
@pytest.mark.parametrize("integers", [False, True], ids=["floats", "int8"])
def test_a_transformer_for_tpus_is_the_one_for_others(kind, integers, interpreted, monkeypatch):
    kw = {"groups": 8, "dtype": jnp.float32, "rngs": nnx.Rngs(0)}
    if kind == "spatial":
        module, given = SpatialTransformer(64, 2, 32, context=16, **kw), ((2, 5, 16),)
    else:
        module, given = TemporalTransformer(64, 2, 32, **kw), ()
    if integers:
        module = quantized(module)
    arrays = [
        jax.random.normal(jax.random.key(i), s) for i, s in enumerate(((2, 3, 4, 5, 64), *given))
    ]
    found = jax.jit(lambda *a: module(*a))(*arrays)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, **ways: ways["default"](*a))
    jax.clear_caches()
    close(found, jax.jit(lambda *a: module(*a))(*arrays), "float32")


def test_what_no_kernel_can_compute_is_an_error_or_plain():
    (unit, frames, text, conv) = layers("", (1, 40, 4, 4, 64), 2, words=600, dtype="float32")
    x, weights = drawn(frames)
    assert "40 frames is longer than 32" in over_frames.why_not(x, weights, 2)
    with pytest.raises(InputError, match="attention over frames: fused cannot be used: a clip of"):
        frames.function(x, weights, implementation="fused")
    assert frames.function(x, weights).shape == x.shape
    arrays = drawn(text)
    assert "600 tokens is longer" in to_text.why_not(arrays[0], 600, arrays[-1], 2)
    with pytest.raises(InputError, match="attention to a text: fused cannot be used"):
        text.function(*arrays, implementation="fused")
    with pytest.raises(InputError, match="no implementation 'fast'; known: plain, fused"):
        conv.function(*drawn(conv), implementation="fast")
    x, weights = drawn(unit)
    narrow = weights._replace(
        kernel_in=weights.kernel_in[:, :100],
        bias_in=weights.bias_in[:100],
        kernel_out=weights.kernel_out[:50],
    )
    with pytest.raises(InputError, match="no multiple of 128"):
        unit.function(x, narrow, implementation="fused")
    half = jax.tree.map(lambda a: a.astype(jnp.float16), (x, weights))
    with pytest.raises(InputError, match="bfloat16 and float32, not in float16"):
        unit.function(*half, implementation="fused")
    with pytest.raises(InputError, match="heads of 48 features do not fill up 128"):
        wide = layers("", (1, 2, 2, 2, 96), 2, dtype="float32")[1]
        wide.function(*drawn(wide), implementation="fused")


def test_a_named_kernel_elsewhere_is_an_error():
    layer = layers("", (1, 2, 4, 4, 64), 2, dtype="float32")[0]
    with pytest.raises(Exception, match="(?i)platform"):
        jax.block_until_ready(layer.function(*drawn(layer), implementation="fused"))
