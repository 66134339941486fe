"""Every implementation of attention against the plain one, on one list of shapes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import (
    attention,
    choose,
    chunked,
    flash,
    flat,
    plain,
    unsupported_reason,
)
from syncos_jax.kernels.attention.shapes import SHAPES, Shape

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
SMALL = list(
    dict.fromkeys(
        dataclasses.replace(shape.small, name="", dtype=dtype)
        for shape in SHAPES
        for dtype in TOLERANCE
    )
)


def name(shape: Shape) -> str:
    return f"{shape.b}x{shape.T}x{shape.S}x{shape.N}x{shape.D}-{shape.dtype}"


def drawn(shape: Shape):
    keys = jax.random.split(jax.random.key(0), 3)
    return [
        jax.random.normal(key, array.shape, array.dtype)
        for key, array in zip(keys, shape.arrays, strict=True)
    ]


@pytest.fixture
def interpreted(monkeypatch):
    """Pallas kernels run as plain JAX."""
    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(call, interpret=True))


def plainly(q, k, v):
    """Softmax of the scores times the values, written out in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    scores = np.einsum("btnd,bsnd->bnts", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("bnts,bsnd->btnd", weights / weights.sum(axis=-1, keepdims=True), v)


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, id=name(shape), marks=[pytest.mark.slow] if number % 3 else [])
        for number, shape in enumerate(SMALL)
    ],
)
def test_every_implementation_is_attention(shape, interpreted):
    q, k, v = drawn(shape)
    scores = 4 * shape.N * shape.S * chunked.LEAST
    results = {
        "plain": attention(q, k, v, implementation="plain"),
        "chunked": chunked.attend(q, k, v, scores=scores),
        "chosen": attention(q, k, v),
    }
    if shape.T > 160:
        results["flash"] = flash.attend(q, k, v)
    if flat.unsupported_reason(q, shape.S) is None:
        results["flat"] = flat.attend(q, k, v)
    expected = plainly(q, k, v)
    for implementation, found in results.items():
        assert found.dtype == q.dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float64),
            expected,
            rtol=0,
            atol=TOLERANCE[shape.dtype],
            err_msg=implementation,
        )


@pytest.mark.parametrize("implementation", ["plain", "chunked", "flash", "flat"])
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
def test_gradients_are_those_of_the_reference(implementation, dtype, interpreted):
    arrays = drawn(Shape("", 1, 300, 205, 2, 64 if implementation == "flat" else 16, dtype))

    def loss(attend):
        return lambda *arrays: jnp.sin(attend(*arrays).astype(jnp.float32)).sum()

    attend = {
        "plain": plain.attend,
        "chunked": lambda q, k, v: chunked.attend(q, k, v, scores=0),
        "flash": flash.attend,
        "flat": flat.attend,
    }[implementation]
    with jax.numpy_dtype_promotion("standard"):  # JAX's own gradient of half precision needs it
        found = jax.jit(jax.grad(loss(attend), argnums=(0, 1, 2)))(*arrays)
    wide = [array.astype(jnp.float32) for array in arrays]
    expected = jax.jit(jax.grad(loss(plain.attend), argnums=(0, 1, 2)))(*wide)
    for one, other in zip(found, expected, strict=True):
        assert bool(jnp.isfinite(one).all())
        limit = TOLERANCE[dtype] * max(1.0, float(jnp.abs(other).max()))
        np.testing.assert_allclose(np.asarray(one, np.float32), other, rtol=0, atol=limit)


@pytest.mark.parametrize("head_size", flat.HEAD_SIZES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_flat_heads_over_several_ragged_blocks(head_size, dtype, interpreted, monkeypatch):
    monkeypatch.setattr(flat, "ROWS", 32)
    monkeypatch.setattr(flat, "KEYS", 256)
    q, k, v = drawn(Shape("", 2, 101, 517, 256 // head_size, head_size, dtype))
    found = np.asarray(flat._attend(q * 3, k, v), np.float64)
    np.testing.assert_allclose(found, plainly(q * 3, k, v), rtol=0, atol=TOLERANCE[dtype])


def test_blocks_cover_the_tokens_and_waste_little():
    assert flat.query_blocks(32760) == (1024, 2, 16)
    assert flat.query_blocks(17776) == (992, 2, 9)
    assert flat.key_blocks_of(17776) == (2048, 9)
    assert flat.query_blocks(77) == (80, 1, 1)
    assert flat.key_blocks_of(77) == (77, 1)


def test_parts_hold_as_much_as_they_may():
    assert chunked.parts((416, 2560, 5, 64), 2560, 2**28) == (10, 2560)
    assert chunked.parts((2, 17776, 30, 64), 17776, 2**28) == (1, 3775)
    assert chunked.parts((2, 10, 1, 8), 10, 2**28) == (2, 10)


def test_the_gradient_in_parts_holds_no_scores_either():
    q, k, v = Shape("", 1, 2048, 2048, 1, 8, "float32").arrays
    grad = jax.grad(lambda *a: chunked.attend(*a, scores=0).sum(), argnums=(0, 1, 2))
    text = jax.jit(grad).lower(q, k, v).compile().as_text()
    assert "f32[2048,2048]" not in text and "2048,2048]" not in text


def test_the_choice_goes_by_platform_shape_and_dtype():
    by_name = {shape.name: shape for shape in SHAPES}

    def chosen(shape, platform):
        return choose(shape.arrays[0], shape.S, platform)

    cells = by_name["VideoCrafter2: cells, level 0"]
    assert chosen(cells, "tpu") == "flash"  # five heads of 64 fill no rows of 128
    for full in ("VideoCrafter2: cells, level 1", "CogVideoX-2B", "Wan2.1-1.3B: text"):
        assert chosen(by_name[full], "tpu") == "flat"
    assert chosen(cells, "rocm") == chosen(cells, "other") == "chunked"
    assert chosen(by_name["VideoCrafter2: frames, level 0"], "tpu") == "plain"
    wide = by_name["VideoCrafter2's autoencoder, float32"]
    assert [chosen(wide, p) for p in ("cpu", "cuda", "tpu")] == ["chunked", "chunked", "flash"]
    assert {chosen(shape, "cpu") for shape in SHAPES} == {"chunked"}


def test_a_named_one_that_cannot_compute_it_is_an_error():
    q, k, v = drawn(Shape("", 1, 4, 4, 1, 12, "float32"))
    with pytest.raises(InputError, match="cudnn cannot be used: it computes in half precision"):
        attention(q, k, v, implementation="cudnn")
    with pytest.raises(InputError, match="known: plain, chunked, cudnn, flash, flat"):
        attention(q, k, v, implementation="fast")  # type: ignore[arg-type]
    wide = [jnp.zeros((1, 4, 1, 200))] * 3
    with pytest.raises(InputError, match="flash cannot be used: heads have 200 features"):
        attention(*wide, implementation="flash")


def test_a_named_one_of_another_platform_is_an_error():
    arrays = drawn(Shape("", 1, 128, 128, 1, 64, "float32"))
    with pytest.raises(Exception, match="(?i)platform"):
        jax.block_until_ready(attention(*arrays, implementation="flash"))


def test_the_program_for_a_tpu_has_the_kernel_and_no_scores():
    arrays = Shape("", 2, 1024, 1024, 2, 64).arrays
    for platform, has in (("tpu", True), ("cpu", False)):
        text = jax.jit(attention).trace(*arrays).lower(lowering_platforms=(platform,)).as_text()
        assert ("tpu_custom_call" in text) == has
        assert ("1024x1024" in text) != has


@pytest.mark.parametrize("sides", [(2, 2), (1, 4), (1, 1)], ids=str)
@pytest.mark.parametrize(("b", "N"), [(2, 4), (8, 1), (3, 3)])
def test_devices_that_the_compiler_divides_among_have_the_kernel_too(b, N, sides):
    mesh = AbstractMesh(sides, ("data", "segment"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec())
    arrays = [
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
        for array in Shape("", b, 1024, 1024, N, 64).arrays
    ]
    with jax.sharding.use_abstract_mesh(mesh):
        traced = jax.jit(attention).trace(*arrays)
        text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert "tpu_custom_call" in text


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="no GPU here")
@pytest.mark.parametrize("shape", [s for s in SMALL if s.dtype == "bfloat16"], ids=name)
def test_cudnn_is_attention(shape):
    q, k, v = drawn(shape)
    if unsupported_reason("cudnn", q, shape.S):
        pytest.skip("not for these heads")
    found = attention(q, k, v, implementation="cudnn")
    np.testing.assert_allclose(
        np.asarray(found, np.float64), plainly(q, k, v), rtol=0, atol=TOLERANCE["bfloat16"]
    )
