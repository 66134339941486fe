"""The layers that a TPU's kernel computes whole: each against the plain one, which is what all
parity with PyTorch's networks rests on."""

import functools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import pallas
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from syncos_jax.errors import InputError
from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention_layer import temporal_pallas_tpu, temporal_triton, text_pallas_tpu
from syncos_jax.kernels.bench_shapes import LAYERS, layers
from syncos_jax.models.attention import SpatialTransformer, TemporalTransformer
from syncos_jax.models.quantize import quantized
from syncos_jax.pipeline.flops import flops

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
SIDES = {
    "cells that fill no block": ((2, 5, 11, 13, 64), 2),
    "several blocks": ((1, 16, 10, 16, 128), 2),
    "frames of which there are many": ((1, 64, 2, 2, 64), 1),
    "one frame": ((2, 1, 5, 7, 64), 1),
    "heads that fill no lanes": ((1, 3, 4, 8, 96), 3),
    "most frames": ((1, 32, 3, 3, 128), 1),
}


def able(layer, kernel):
    try:
        jax.eval_shape(functools.partial(layer.function, implementation=kernel), *layer.arrays)
    except InputError:
        return False
    return True


def listed(sides):
    return [
        pytest.param(layer, kernel, id=f"{layer.name}, {kernel}, {name}, {dtype}")
        for name, (sides, heads) in sides.items()
        for dtype in TOLERANCE
        for layer in layers(name, sides, heads, words=9, dtype=dtype)
        for kernel in layer.kernels
        if able(layer, kernel)
    ]


def quick_and_slow(cases):
    """The first case of each layer, kernel and dtype is quick, the others are slow."""
    seen = set()
    for case in cases:
        layer, kernel = case.values
        kind = (layer.name, kernel, layer.arrays[0].dtype)
        marks = [pytest.mark.slow] if kind in seen else []
        seen.add(kind)
        yield pytest.param(*case.values, id=case.id, marks=marks)


SMALL = list(quick_and_slow(listed(SIDES)))
LITTLE = [
    case
    for case in listed({"little": ((1, 16, 4, 4, 64), 2)})
    if ("float32" in case.id) == ("fused" in case.id)
]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


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
def lowered_for(monkeypatch):
    """Programs are those for a platform, of which kernels run as plain JAX."""
    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(call, interpret=True))

    def lower_for(platform):
        def chosen(*arrays, default=None, **ways):
            return (ways.get(platform) or default)(*arrays)

        jax.clear_caches()
        monkeypatch.setattr(jax.lax, "platform_dependent", chosen)

    yield lower_for
    jax.clear_caches()


def close(found, expected, dtype):
    found, expected = (np.asarray(a, np.float64) for a in (found, expected))
    limit = TOLERANCE[dtype] * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


@pytest.mark.parametrize(("layer", "kernel"), SMALL)
def test_a_kernel_is_the_layer(layer, kernel, lowered_for):
    lowered_for(layer.kernels[kernel])
    arrays = drawn(layer)
    found = layer.function(*arrays, implementation=kernel)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), arrays)
    expected = layer.function(*wide, implementation="plain")
    assert found.dtype == arrays[0].dtype and found.shape == expected.shape
    close(found, expected, str(found.dtype))


@pytest.mark.parametrize(("layer", "kernel"), LITTLE)
def test_a_gradient_is_that_of_the_layer(layer, kernel, lowered_for):
    lowered_for(layer.kernels[kernel])

    arrays = drawn(layer)
    weights = normal(9, *jax.eval_shape(layer.function, *arrays).shape)

    def gradient(implementation):
        def loss(*arrays):
            y = layer.function(*arrays, implementation=implementation)
            return (weights * y.astype(jnp.float32)).sum()

        return jax.jit(jax.grad(loss, argnums=tuple(range(len(arrays)))))(*arrays)

    with jax.numpy_dtype_promotion("standard"):  # JAX's own gradient of half precision needs it
        found, expected = gradient(kernel), gradient("plain")
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert bool(jnp.isfinite(one).all())
        close(one, other, str(one.dtype))


@pytest.mark.parametrize(("layer", "kernel"), LITTLE)
def test_videos_side_by_side_are_each_their_own(layer, kernel, lowered_for):
    lowered_for(layer.kernels[kernel])
    x, *rest = drawn(layer)
    both = jnp.stack([x, 2 * x])
    by_kernel = functools.partial(layer.function, implementation=kernel)
    found = jax.vmap(lambda x: by_kernel(x, *rest))(both)
    for one, x in zip(found, both, strict=True):
        close(one, by_kernel(x, *rest), str(x.dtype))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}, {layer.where}")
def test_programs_have_the_kernel_of_their_platform(layer):
    traced = jax.jit(layer.function).trace(*layer.arrays)
    text = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in ("tpu", "cuda", "cpu")}
    on = set(layer.kernels.values())
    held = tpu.bytes_of(layer.arrays[-1]) <= tpu.WEIGHTS
    assert ("tpu_custom_call" in text["tpu"]) == ("tpu" in on and held)
    # The gated unit is part of the feed-forward.
    assert ("gpu.triton" in text["cuda"]) == ("cuda" in on or layer.name == "feed-forward")
    assert "custom_call" not in text["cpu"]


@pytest.mark.parametrize("layer", LAYERS[:5], ids=lambda layer: layer.name)
def test_a_kernel_counts_the_operations_of_the_layer(layer):
    """What it masks is no work."""
    plain, *kernels = (
        flops(functools.partial(layer.function, implementation=name), *layer.arrays)
        for name in ("plain", *layer.kernels)
    )
    assert all(kernel == plain for kernel in kernels) and kernels


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
    assert [name for name in names if not re.match("_?flash|flat_attention", name)] == []


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
@pytest.mark.parametrize(
    ("platform", "integers"),
    [
        pytest.param("tpu", False, marks=pytest.mark.slow),
        ("tpu", True),
        pytest.param("cuda", False, marks=pytest.mark.slow),
    ],
)
def test_a_transformer_is_the_same_on_every_platform(kind, platform, integers, lowered_for):
    dtype = jnp.dtype(jnp.bfloat16 if platform == "cuda" else jnp.float32)
    kw = {"groups": 8, "dtype": dtype, "rngs": nnx.Rngs(0)}
    frames = 16 if platform == "cuda" else 3
    arrays = [normal(0, 1, frames, 4, 8, 64).astype(dtype)]
    if kind == "spatial":
        module = SpatialTransformer(64, 2, 32, context=16, **kw)
        arrays.append(normal(1, 1, 5, 16).astype(dtype))
    else:
        module = TemporalTransformer(64, 2, 32, **kw)
    if integers:
        module = quantized(module)

    def on(platform):
        lowered_for(platform)
        traced = jax.jit(lambda *a: module(*a)).trace(*arrays)
        held = "pallas_call" in str(traced.jaxpr)
        return traced.lower().compile()(*arrays), held

    expected, held = on("other")
    assert not held
    found, held = on(platform)
    assert held != integers
    close(found, expected, str(dtype))


def test_what_no_kernel_can_compute_is_an_error_or_plain():
    (unit, _, frames, text, conv) = layers("", (1, 40, 4, 4, 64), 2, words=600, dtype="float32")
    x, weights = drawn(frames)
    assert "40 frames is longer than 32" in temporal_pallas_tpu.unsupported_reason(x, weights, 2)
    with pytest.raises(InputError, match="attention over frames: fused cannot be used: a clip of"):
        frames.function(x, weights, implementation="fused")
    assert frames.function(x, weights).shape == x.shape
    arrays = drawn(text)
    assert "600 tokens is longer" in text_pallas_tpu.unsupported_reason(
        arrays[0], 600, arrays[-1], 2
    )
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
        wide = layers("", (1, 2, 2, 2, 96), 2, dtype="float32")[2]
        wide.function(*drawn(wide), implementation="fused")


@pytest.mark.parametrize(
    ("backend", "kind", "able"),
    [
        ("tpu", "TPU v4", {"triton"}),
        ("tpu", "TPU v3", {"triton"}),
        ("tpu", "TPU v5 lite", {"fused", "triton"}),
        ("tpu", "TPU v6 lite", {"fused", "triton"}),
        ("tpu", "TPU7x", {"fused", "triton"}),
        ("gpu", "7.5", {"fused"}),
        ("gpu", "gfx942", {"fused"}),
        ("gpu", "9.0", {"fused", "triton"}),
    ],
)
def test_a_device_that_is_too_old_has_the_plain_layer(backend, kind, able, monkeypatch):
    device = SimpleNamespace(device_kind=kind, compute_capability=kind)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    x, weights = layers("", (1, 16, 8, 8, 128), 2)[2].arrays
    reasons = {
        "fused": temporal_pallas_tpu.unsupported_reason(x, weights, 2),
        "triton": temporal_triton.unsupported_reason(x, weights, 2),
    }
    assert {name for name, reason in reasons.items() if reason is None} == able


def test_a_named_kernel_elsewhere_is_an_error():
    layer = layers("", (1, 2, 4, 4, 64), 2, dtype="float32")[0]
    with pytest.raises(Exception, match="(?i)platform"):
        jax.block_until_ready(layer.function(*drawn(layer), implementation="fused"))
