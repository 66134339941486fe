"""The layers of the video transformers that have kernels, each against its plain form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas

from syncos_jax.errors import InputError
from syncos_jax.kernels.head_norm import fused as fused_heads
from syncos_jax.kernels.head_norm import head_norm, rms_norm
from syncos_jax.kernels.modulated_norm import fused as fused_norm
from syncos_jax.kernels.modulated_norm import modulated_norm
from syncos_jax.models.rotary import rotate, turn

TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}


@pytest.fixture
def interpreted(monkeypatch):
    """Pallas kernels run as plain JAX."""
    call = pallas.pallas_call
    monkeypatch.setattr(pallas, "pallas_call", functools.partial(call, interpret=True))


def normal(seed, *shape, dtype="float32"):
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def equal(found, expected, dtype):
    found, expected = (np.asarray(x, np.float64) for x in (found, expected))
    limit = TOLERANCE[dtype] * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


def angles(tokens, size):
    table = normal(3, tokens, size // 2)
    return turn((jnp.cos(table), jnp.sin(table)))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("first", [0, 70])
def test_the_modulated_norm_is_the_plain_one(dtype, first, interpreted):
    x = normal(0, 2, 301, 256, dtype=dtype) + 3
    scale, shift = (normal(seed, 2, 1 + (first > 0), 256) for seed in (1, 2))
    fused = fused_norm.norm(x, scale, shift, eps=1e-6, first=first)
    assert fused.dtype == x.dtype
    wide = modulated_norm(x.astype(jnp.float32), scale, shift, eps=1e-6, first=first)
    equal(fused, wide, dtype)
    if first:
        alone = modulated_norm(x[:, first:], scale[:, 1:], shift[:, 1:], eps=1e-6)
        equal(fused[:, first:], alone, dtype)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("heads", "size"), [(2, 128), (4, 64)])
def test_normed_and_turned_heads_are_the_plain_ones(dtype, turned, heads, size, interpreted):
    x = normal(0, 2, 301, heads * size, dtype=dtype)
    angle = angles(301, size) if turned else None
    cos, sin = angle or (None, None)
    for weights, function in (
        ((normal(1, heads * size),), rms_norm),
        ((normal(1, size), normal(2, size)), head_norm),
    ):
        given = (*weights, None)[:2]
        fused = fused_heads.norm(x, *given, cos, sin, heads=heads, eps=1e-6)
        assert fused.dtype == x.dtype
        wide = function(x.astype(jnp.float32), *weights, angle, heads=heads, eps=1e-6)
        equal(fused, wide, dtype)


def test_a_turn_is_the_rotation_of_pairs():
    x, table = normal(0, 1, 5, 2 * 64), normal(1, 5, 32)
    angle = (jnp.cos(table), jnp.sin(table))
    ones = jnp.ones(128)
    found = rms_norm(x, ones, turn(angle), heads=2, eps=1e-6)
    normed = rms_norm(x, ones, heads=2, eps=1e-6).reshape(1, 5, 2, 64)
    np.testing.assert_allclose(found, rotate(normed, angle).reshape(x.shape), rtol=0, atol=1e-6)


def test_gradients_are_those_of_the_plain_layers(monkeypatch, interpreted):
    """Where a kernel computes the layer, the plain one differentiates it."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *a, default, tpu: tpu(*a))
    x, scale, shift = normal(0, 1, 30, 128), normal(1, 1, 1, 128), normal(2, 1, 1, 128)
    angle = angles(30, 64)

    def loss(implementation):
        def of(x, scale, shift):
            y = modulated_norm(x, scale, shift, eps=1e-6, implementation=implementation)
            weights = scale[0, 0, :64], shift[0, 0, :64]
            z = head_norm(y, *weights, angle, heads=2, eps=1e-6, implementation=implementation)
            scaled = rms_norm(z, scale[0, 0], heads=2, eps=1e-6, implementation=implementation)
            return jnp.sin(scaled).sum()

        return jax.grad(of, argnums=(0, 1, 2))(x, scale, shift)

    for found, expected in zip(loss(None), loss("plain"), strict=True):
        equal(found, expected, "float32")


def test_a_named_kernel_that_cannot_compute_it_is_an_error():
    x, each = normal(0, 1, 6, 128), normal(1, 1, 6, 128)
    with pytest.raises(InputError, match="every token has a scale of its own"):
        modulated_norm(x, each, each, eps=1e-6, implementation="fused")
    with pytest.raises(InputError, match="heads of 32 features do not fill rows of 128"):
        rms_norm(x, each[0, 0], heads=4, eps=1e-6, implementation="fused")
